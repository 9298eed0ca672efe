"""This host was declared dead, and is not: what it keeps, what it has lost, and what is cut off before it takes part
again. Only the packets of containers whose addresses may be others' by now are of harm to anybody."""

from __future__ import annotations

import errno

from pycni.etcd.nodes import mark_anew
from pycni.etcd.records import Held, OwnBlocks
from pycni.host import messages, rtnl
from pycni.ipam.etcd_conf import pool_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pycni.etcd.client import Client
    from pycni.etcd.requests import KeyValue
    from pycni.etcd.schema import Keys
    from pycni.ipam.etcd_state import HostState
    from pycni.store import Lease, Store


def return_home(
    client: Client, keys: Keys, state: HostState, store: Store, *, fence: int, networks: Iterable[str] = ()
) -> tuple[str, ...] | None:
    """Keep what is still this host's, in every network, and forget the rest, which is returned in words; None where
    another call has done so meanwhile.

    fence: the revision at which it was declared dead. networks: further ones than those of which it has addresses.
    Once this has returned, the host may take part again.
    """
    # One call at a time: whoever is home takes addresses again, of which one that read before would find no key.
    with state.lock("return"):
        if state.fence() >= fence:
            return None
        lost = _forget_lost(client, keys, state, store, fence, networks)
        _cut(store, [each for each in lost if each.released is None])
        state.set_fence(fence)
    return tuple(f"{each.address} of {each.container_id}" for each in lost)


def _forget_lost(  # noqa: PLR0917 - as return_home
    client: Client, keys: Keys, state: HostState, store: Store, fence: int, networks: Iterable[str]
) -> list[Lease]:
    """Mark anew what is still this host's; the leases that ended because it is not."""
    node = state.node()
    kept = {kv.key: kv for kv in mark_anew(client, keys, node, fence)}
    lost: list[Lease] = []
    with store.transaction():
        mine = [each for each in store.leases.all() if each.data_dir == pool_of(keys.prefix)]
        names = {each.network for each in mine} | set(networks)
        blocks = {name: _kept_blocks(kept, keys.own_blocks(node, name)) for name in names}
        for network, held in blocks.items():
            if state.blocks(network).blocks:
                state.set_blocks(network, held)
        for lease in mine:
            key = keys.own_endpoint(node, lease.network, lease.container_id, lease.ifname)
            pool = store.leases.pool(lease.data_dir, lease.network)
            inside = any(lease.address in block for block in blocks[lease.network].blocks)
            if key not in kept and not inside and pool is not None:
                pool.release([lease])
                lost.append(lease)
    return lost


def _kept_blocks(kept: Mapping[str, KeyValue], key: str) -> Held:
    found = kept.get(key)
    return Held() if found is None else Held(OwnBlocks.parse(found.value, found.key).networks, found.mod_revision)


def _cut(store: Store, lost: list[Lease]) -> None:
    """Take down the host's end of the interfaces that have lost an address. The container is to be attached anew, which
    CHECK says; until then it reaches nobody, and nobody it."""
    owners = {(each.network, each.container_id, each.ifname) for each in lost}
    if not owners:
        return
    with rtnl.Netlink() as host:
        for record in store.attachments.all():
            its = record.attachment
            if (its.network, its.container_id, its.ifname) not in owners:
                continue
            for name in record.host_links:
                try:
                    host.request(messages.set_link(name, up=False))
                except OSError as failure:
                    if failure.errno != errno.ENODEV:
                        raise
