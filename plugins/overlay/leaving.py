"""Leave a network: what the last container on this host takes with it."""

from __future__ import annotations

import os
import sys

from pycni.cni.errors import CniError
from pycni.plugins.overlay import following
from pycni.plugins.overlay.site import (
    WITHOUT_ETCD,
    all_joined,
    find_joined,
    forget_joined,
    forget_note,
    host_state,
    keep_joined,
    lock_of,
    read_joined,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pycni.plugins.overlay.site import Joined
    from pycni.store import Store


def leave_if_last(
    store: Store, network: str, connections: Mapping[str, str], *, ask_etcd: bool | None = None
) -> tuple[str, ...]:
    """Where no attachment of *network* is left on this host: its device, bridge, guard and member key go.

    What could not be done, in words; doing it again finishes it. *connections*: the `etcd` objects in use, by prefix,
    where they are known; the one that this host joined with may be outdated. *ask_etcd*: False where it was just
    silent: the member key goes later; None: find out. An ADD writes its record before it takes the lock by which it
    joins: so it is seen here, or comes later and makes everything anew.
    """
    there = find_joined(os.path.dirname(store.path), network)
    if there is None:
        return ()
    state = host_state(store, there.prefix or WITHOUT_ETCD)
    with state.lock(lock_of(network)):
        joined = read_joined(state, network)
        if joined is None or store.attachments.has_network(network):
            return ()
        known = connections.get(joined.prefix, joined.connection)
        failures = () if joined.left else take_away(joined)
        if failures:
            return failures
        if ask_etcd is None:
            # What is pending says that etcd was silent a moment ago, and this call has waited for it once.
            ask_etcd = not state.pending()
        if joined.connection and not joined.left:
            keep_joined(state, joined.replace(left=True, connection=known))  # whatever etcd says to what follows
        ways = dict.fromkeys((known, joined.connection))  # nobody says which one is newer
        if not joined.connection or (ask_etcd and any(_tell_etcd(joined, way) for way in ways)):
            forget_joined(state, network)
        return ()


def finish_everywhere(store: Store, connections: Mapping[str, str]) -> None:
    """Leave every network that has no attachment here any more: a DEL was killed before it did, or etcd was silent and
    the member key is still there. For the agent, and for GC. *connections* as in `leave_if_last`."""
    directory = os.path.dirname(store.path)
    for joined in (*all_joined(directory), *all_joined(directory, left=True)):
        # Whatever is pending: a taking without an answer stays so for a minute after etcd is back.
        for failure in leave_if_last(store, joined.network, connections, ask_etcd=True if joined.left else None):
            print(f"pycni: network {joined.network}: {failure}", file=sys.stderr)


def take_away(joined: Joined) -> tuple[str, ...]:
    """Device, bridge and guard of *joined*, which nobody follows from now on; what could not be done, in words."""
    from pycni.change.ops import HOST, DeleteBridge
    from pycni.change.tunnels import DeleteVxlan
    from pycni.cni.macs import tunnel_mac
    from pycni.cni.names import bridge_alias
    from pycni.host import tunnel_guard
    from pycni.host.apply import Kernel
    from pycni.host.firewall import NoFirewall

    follower = following.follower()
    if follower is not None and joined.connection:
        follower.leave(joined.network, joined.prefix)
    failures = []
    kernel = Kernel(None, NoFirewall())
    try:
        for op in (DeleteVxlan(joined.vxlan), DeleteBridge(joined.bridge)):
            try:
                link = kernel.find(HOST, op.name)
                # One of others is there where an ADD was refused for it; our device is known by its MAC as well.
                mine = bridge_alias(joined.network), tunnel_mac(joined.node, joined.vni)
                if link is not None and (link.alias == mine[0] or link.mac == mine[1]):
                    kernel.do(op)
            except (OSError, CniError) as failure:
                failures.append(str(failure))
    finally:
        kernel.close()
    forget_note(joined.network)
    if joined.connection:
        try:
            tunnel_guard.unguard(joined.port, joined.vni)
        except (OSError, CniError) as failure:
            failures.append(f"the tunnel's packet filter: {failure}")
    return tuple(failures)


def _tell_etcd(joined: Joined, connection: str) -> bool:
    """Delete this host's member key; False where etcd does not answer, or not to us."""
    from pycni.etcd import members
    from pycni.etcd.client import Unavailable
    from pycni.etcd.conf import EtcdConf
    from pycni.etcd.connect import open_client
    from pycni.etcd.schema import Keys

    conf = EtcdConf.parse_text(connection)
    try:
        with open_client(conf) as client:
            members.leave(client, Keys(conf.prefix), joined.node, joined.network)
    except Unavailable as failure:
        print(f"pycni: this host still is a member of {joined.network} in etcd: {failure}", file=sys.stderr)
        return False
    return True
