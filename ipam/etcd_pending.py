"""Give back what earlier calls could not, because etcd was away."""

from __future__ import annotations

import os
import sys
import time

from pycni.cni.errors import CniError
from pycni.etcd.claims import give_back
from pycni.etcd.client import Unavailable
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.records import OwnEndpoint
from pycni.etcd.schema import Keys
from pycni.ipam.etcd_state import HostState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pycni.etcd.client import Client
    from pycni.ipam.etcd_state import Pending
    from pycni.store import Store

LATE_S = 60.0  # a request without an answer may still arrive so long after it was given up


def finish(state: HostState, client: Client, keys: Keys, most: int) -> None:
    """Give back up to *most* pending ones, oldest first.

    `Unavailable` where etcd does not answer, or not to us; what etcd refuses stays, with a word on stderr.
    """
    node = state.node()
    for name, pending in state.pending()[:most]:
        try:
            if _finish(client, keys, node, pending):
                state.forget(name)
        except Unavailable:
            raise
        except CniError as failure:
            print(f"pycni: {pending.container_id} is still to be given back: {failure}", file=sys.stderr)


def finish_everywhere(store: Store, connections: Mapping[str, str]) -> tuple[str, ...]:
    """Do so for every cluster that this host has something to give back to; what hindered it. For the agent.

    *connections*: the `etcd` objects that are known to be in use, by prefix, for what was noted with one that may be
    outdated.
    """
    directory = os.path.dirname(store.path)
    failures = []
    for noted in HostState.pending_connections(directory):
        try:
            _finish_cluster(directory, noted, connections)
        except CniError as failure:
            failures.append(str(failure))
    return tuple(failures)


def _finish_cluster(directory: str, noted: str, connections: Mapping[str, str]) -> None:
    prefix = EtcdConf.parse_text(noted).prefix
    ways = [*dict.fromkeys((connections.get(prefix, noted), noted))]  # nobody says which one is newer
    for way in ways:
        try:
            with open_client(EtcdConf.parse_text(way)) as client:
                finish(HostState(directory, prefix), client, Keys(prefix), most=1 << 30)
            return
        except Unavailable:
            if way == ways[-1]:
                raise


def _finish(client: Client, keys: Keys, node: str, pending: Pending) -> bool:
    """Whether nothing is left of it."""
    key = keys.own_endpoint(node, pending.network, pending.container_id, pending.ifname)
    found = client.get(key)
    if found is None:
        # A taking without an answer may arrive yet.
        return not pending.id or time.time() - pending.at > LATE_S
    own = OwnEndpoint.parse(found.value, key)
    if own.id == pending.id if pending.id else own.created == pending.created:
        give_back(client, keys, pending.network, found)
    return True
