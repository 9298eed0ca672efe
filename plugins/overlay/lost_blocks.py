"""A block of addresses that this host has no more, of a network in which others may have it now."""

from __future__ import annotations

import os
from ipaddress import ip_interface

from pycni.change.ops import HOST, RemoveAddress
from pycni.cni.addresses import parse_prefix
from pycni.host.apply import Kernel
from pycni.host.firewall import NoFirewall
from pycni.plugins.overlay import following
from pycni.plugins.overlay.conf import ROUTED
from pycni.plugins.overlay.site import find_joined, host_state, keep_joined, lock_of, read_joined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.cni.addresses import Interface, Network
    from pycni.ipam.etcd_state import HostState
    from pycni.plugins.overlay.site import Joined
    from pycni.store import Store


def give_up_blocks(store: Store, network: str) -> None:
    """Take the addresses of such blocks from bridge and VXLAN device of *network*, if it is one of mode routed.

    With them the kernel takes the block for its own: it refuses the route to the block's new host (the next hop would
    be an address of this one), and prefers its bridge. OSError or CniError 11; doing it again finishes it.
    """
    there = find_joined(os.path.dirname(store.path), network)
    if there is None or there.mode != ROUTED:
        return
    state = host_state(store, there.prefix)
    with state.lock(lock_of(network)):
        joined = read_joined(state, network)
        if joined is None or joined.left:
            return
        held = state.blocks(network).blocks
        kept = tuple(each for each in joined.addresses if _is_within(ip_interface(each), held))
        if kept != joined.addresses:
            joined = joined.replace(addresses=kept)
            keep_joined(state, joined)
    follower = following.follower()
    if follower is not None:
        follower.follow(joined)  # first: else it puts back what is removed
    _remove(joined, state)


def _remove(joined: Joined, state: HostState) -> None:
    subnets = tuple(map(parse_prefix, joined.subnets))
    kernel = Kernel(None, NoFirewall())
    try:
        for name in (joined.vxlan, joined.bridge):
            link = kernel.find(HOST, name)
            there = kernel.host.addresses(link.index) if link is not None else ()
            held = state.blocks(joined.network).blocks  # after what is there: a block is ours before its addresses come
            for address in there:
                if _is_within(address, subnets) and not _is_within(address, held):
                    kernel.do(RemoveAddress(name, address))
    finally:
        kernel.close()


def _is_within(address: Interface, networks: Iterable[Network]) -> bool:
    return any(address.ip in network for network in networks)
