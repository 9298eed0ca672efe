"""The peers of a network in this host's kernel, as etcd says now. Where an agent runs it does this all the time."""

from __future__ import annotations

import sys

from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value
from pycni.etcd import requests
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.schema import Keys
from pycni.host import tunnel_guard
from pycni.host.forwarding import change_entries, read_entries
from pycni.plugins.overlay import following
from pycni.plugins.overlay.conf import MULTICAST, ROUTED
from pycni.plugins.overlay.following import older_data
from pycni.plugins.overlay.peers import PeerTable, difference
from pycni.plugins.overlay.site import keep_joined, note, note_path, noted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.host.rtnl import Netlink
    from pycni.ipam.etcd_state import HostState
    from pycni.plugins.overlay.site import Joined


def know_peers(joined: Joined, host: Netlink, state: HostState) -> None:
    """The kernel knows the way to every peer when this returns, and takes tunnelled packets from nobody else.

    In mode routed without etcd it stays as it is: the network's containers have addresses and peers from before.
    """
    if joined.mode == MULTICAST:
        return  # it learns them
    follower = following.follower()
    if follower is not None:
        follower.follow(joined)
        return
    try:
        said = read_etcd(joined)
    except CniError as failure:
        if joined.mode != ROUTED or failure.code != Code.TRY_AGAIN:
            raise
        print(f"pycni: the peers of network {joined.network} stay as they are: {failure}", file=sys.stderr)
        if tunnel_guard.read_peers(joined.port, joined.vni) is None:
            tunnel_guard.guard(joined.port, joined.vni, frozenset())
        return
    with state.lock(f"peers {joined.network}"):
        # What was read last is programmed last. Else an older answer could say of the address of a new container here
        # that it is still on another host.
        if noted(joined.network) > said.revision:
            said = read_etcd(joined)
        before = noted(joined.network)
        if said.revision < before:
            how = f"it is at revision {said.revision} and was at {before}"
            raise older_data(joined.prefix, how, f"if the data are right, remove {note_path(joined.network)}")
        if not said.takes_part:
            # Without this an address of a block that is another host's by now would be given out. The next ADD finds
            # this fence to be none, joins anew, and learns what is lost.
            keep_joined(state, joined.replace(fence=-1))
            raise CniError(
                Code.TRY_AGAIN,
                f"this host ({joined.node}) takes no part in network {joined.network} any more",
                "it was declared dead meanwhile, and comes back with the next ADD",
            )
        _program(joined, said.table, host)
        note(joined.network, said.revision)


class Said(Value):
    """What etcd says of a network. table: of its other hosts; takes_part: whether this host is known to be one;
    revision: of the answer."""

    table: PeerTable
    takes_part: bool
    revision: int


def read_etcd(joined: Joined, until: int = 0) -> Said:
    """*until*: only what was written up to that revision; 0: all. CniError 11 where etcd does not answer."""
    conf = EtcdConf.parse_text(joined.connection)
    keys = Keys(conf.prefix)
    kinds = [keys.all_members, keys.fences]
    kinds.append(keys.blocks(joined.network) if joined.mode == ROUTED else keys.endpoints(joined.network))
    ranges = [requests.get_range(each, requests.end_of(each)) for each in kinds]
    with open_client(conf) as client:
        answer = client.txn(requests.txn([], ranges))
    found = [kv for part in answer.parts for kv in part.found]
    table = PeerTable(joined.node, joined.network, joined.mode, joined.local)
    table.change(keys.understood(kv for kv in found if not until or kv.mod_revision <= until))
    for problem in table.problems.values():
        print(f"pycni: {problem}", file=sys.stderr)
    revisions = {kv.key: kv.mod_revision for kv in found}
    member = revisions.get(keys.member(joined.node, joined.network), 0)
    takes_part = member > revisions.get(keys.fence(joined.node), 0)
    return Said(table=table, takes_part=takes_part, revision=answer.revision)


def _program(joined: Joined, table: PeerTable, host: Netlink) -> None:
    """First whom packets are taken from, then where they are sent to. CniError 999 names what the kernel refused."""
    vteps = table.vteps()
    known = tunnel_guard.read_peers(joined.port, joined.vni)
    if known != vteps and (
        known is None or not tunnel_guard.change_peers(joined.port, joined.vni, vteps - known, known - vteps)
    ):
        tunnel_guard.guard(joined.port, joined.vni, vteps)
    delta = difference(table.wanted(), read_entries(host, joined.vxlan))
    failed = change_entries(host, joined.vxlan, delta.add, delta.remove) if delta else ()
    if failed:
        raise CniError(
            Code.INTERNAL,
            f"not all peers of network {joined.network} could be programmed: {'; '.join(failed[:3])}",
            f"{len(failed)} entries on {joined.vxlan}",
        )
