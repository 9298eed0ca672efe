"""Give back what earlier calls could not, because etcd was away."""

from __future__ import annotations

import os
import sys
import time

from pycni.cni import json_text
from pycni.cni.conf import Keys as ConfKeys
from pycni.cni.errors import CniError
from pycni.etcd.claims import give_back
from pycni.etcd.client import Silent
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.records import OwnEndpoint
from pycni.etcd.schema import Keys
from pycni.ipam.etcd_state import HostState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.etcd.client import Client
    from pycni.ipam.etcd_state import Pending
    from pycni.store import Store

LATE_S = 60.0  # a request without an answer may still arrive so long after it was given up


def finish(state: HostState, client: Client, keys: Keys, most: int) -> None:
    """Give back up to *most* pending ones, oldest first.

    CniError 11 where etcd does not answer; what etcd refuses stays, with a word on stderr.
    """
    node = state.node()
    for name, pending in state.pending()[:most]:
        try:
            if _finish(client, keys, node, pending):
                state.forget(name)
        except Silent:
            raise
        except CniError as failure:
            print(f"pycni: {pending.container_id} is still to be given back: {failure}", file=sys.stderr)


def finish_everywhere(store: Store) -> tuple[str, ...]:
    """Do so for every cluster that this host has something to give back to; what hindered it. For the agent."""
    directory = os.path.dirname(store.path)
    failures = []
    for connection in HostState.pending_connections(directory):
        try:
            conf = EtcdConf.parse(ConfKeys(json_text.loads(connection), "etcd"))
            with open_client(conf) as client:
                finish(HostState(directory, conf.prefix), client, Keys(conf.prefix), most=1 << 30)
        except CniError as failure:
            failures.append(str(failure))
    return tuple(failures)


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
