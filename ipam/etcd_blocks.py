"""Per-host blocks: etcd says which host has which block, inside of its own a host allocates as without etcd.

So an ADD costs no round trip, and works while etcd is away, until the blocks are full. Each block is a subnet of its
own, with its first address as the gateway.
"""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value
from pycni.etcd.blocks import BlockTaker, claim_block, hand_back, read_held
from pycni.etcd.client import Silent
from pycni.etcd.records import Held
from pycni.etcd.space import Space
from pycni.ipam.conf import parse_ipam
from pycni.ipam.plugin import count_leased, held_by, lease_from
from pycni.ipam.ranges import RangeSet, make_range, make_set, without
from pycni.ipam.reclaim import release_dead

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycni.cni.addresses import Network
    from pycni.cni.conf import NetConf
    from pycni.cni.result import Result
    from pycni.etcd.client import Client
    from pycni.ipam.conf import IpamConf
    from pycni.ipam.etcd_site import Site

TURNS = 3  # an ADD may need a block of each family, and find the one it got filled by others


class Blocks(Value):
    """What one call works with. sets: of the config; lengths: prefix length by family."""

    site: Site
    sets: tuple[RangeSet, ...]

    def length(self, version: int) -> int:
        return dict(self.site.settings.blocks)[version]

    def shift(self, version: int) -> int:
        """Bits of an address inside of a block."""
        return (32 if version == 4 else 128) - self.length(version)

    def inside(self, blocks: Sequence[Network]) -> list[RangeSet | None]:
        """Of each range set what lies in *blocks*, each a range with a subnet of its own; None where nothing does."""
        return [_inside(ranges, blocks) for ranges in self.sets]

    def space(self, ranges: RangeSet) -> Space:
        """The numbers of the blocks that *ranges* touches."""
        shift = self.shift(ranges.version)
        numbers = sorted((each.first >> shift, each.last >> shift) for each in ranges.ranges)
        pieces: list[tuple[int, int]] = []
        for first, last in numbers:
            start = max(first, pieces[-1][1] + 1) if pieces else first
            if start <= last:
                pieces.append((start, last))
        return Space(ranges.version, tuple(pieces))


def add(site: Site, conf: NetConf) -> Result:
    """Lease an address of this host's blocks; where they are full take another block first."""
    call, store = site.call, site.store
    ipam = parse_ipam(conf, call.args)
    work = _work(site, ipam)
    for _ in range(TURNS):
        try:
            with store.transaction():  # a GC may be about to hand back the very block
                held = site.state.blocks(site.network)
                sets = work.inside(held.blocks)
                if None not in sets:
                    inner = ipam.replace(sets=tuple(sets), data_dir=site.settings.pool)
                    return lease_from(inner, call, conf, store, site.pool)
        except CniError as failure:
            if failure.code != Code.EXHAUSTED:
                raise
        _take_more(work, held)
    raise CniError(
        Code.TRY_AGAIN, f"others filled every block that this host took of network {site.network}", "try again"
    )


def delete(site: Site) -> None:
    """End the lease. The block stays this host's; GC hands empty ones back."""
    with site.store.transaction():
        pool = site.pool()
        if pool is not None:
            pool.release(held_by(pool, site.call))


def check(site: Site) -> None:
    """CniError (BROKEN) unless the attachment's addresses lie in blocks that etcd says are this host's."""
    call = site.call
    try:
        with site.client() as client:
            blocks = read_held(client, site.keys, site.node, site.network).blocks
    except Silent:
        blocks = site.state.blocks(site.network).blocks  # what was so when etcd answered last
    for each in site.held(call.container_id, call.ifname):
        if not any(each.address in block for block in blocks):
            raise site.broken(f"{each.address} lies in no block of this host")


def gc(site: Site, valid: set[tuple[str, str]] | None) -> None:
    """End leases as everywhere, then hand back the blocks that nobody has an address of."""
    with site.store.transaction():
        pool = site.pool()
        if pool is not None and valid is None:
            release_dead(pool, site.seen_from)
        elif pool is not None and valid is not None:
            pool.release([each for each in pool.leased() if (each.container_id, each.ifname) not in valid])
    with site.state.lock(_lock(site)), site.client() as client:
        held = read_held(client, site.keys, site.node, site.network)
        site.state.set_blocks(site.network, held)
        for block in held.blocks:
            with site.store.transaction():  # no ADD takes an address of it from now on
                if _in_use(site, block):
                    continue
                site.state.set_blocks(site.network, _without(held, block))
            taker = BlockTaker(site.node, site.state.fence(), site.network, block.version, block.prefixlen)
            held = hand_back(client, site.keys, taker, held, block)
            site.state.set_blocks(site.network, held)


def status(site: Site, ipam: IpamConf) -> None:
    """CniError where an ADD would fail: no address is free in this host's blocks and no other block can be taken."""
    work = _work(site, ipam)
    inside = work.inside(site.state.blocks(site.network).blocks)
    lacking = [
        work.space(ranges)
        for ranges, inner in zip(work.sets, inside, strict=True)
        if inner is None or _is_full(site, inner)
    ]
    if not lacking:
        return
    counts = site.count((_keys_of(work, space.version, *piece) for piece in space.pieces) for space in lacking)
    for space, count in zip(lacking, counts, strict=True):
        if count >= space.size:
            raise CniError(Code.EXHAUSTED, f"no block is free in network {site.network}: {space.size} are taken")


def _keys_of(work: Blocks, version: int, first: int, last: int) -> tuple[str, str]:
    """As schema.Keys.block_range, for the blocks of the numbers first..last."""
    shift = work.shift(version)
    return work.site.keys.block_range(work.site.network, version, first << shift, last << shift)


def _work(site: Site, ipam: IpamConf) -> Blocks:
    work = Blocks(site, ipam.sets)
    for ranges in ipam.sets:
        for each in ranges.ranges:
            if each.subnet.prefixlen > work.length(each.version):
                raise CniError(
                    Code.INVALID_CONFIG,
                    f"ipam.etcd.blocks: {each.subnet} has no room for a block of prefix length"
                    f" {work.length(each.version)}",
                )
    return work


def _inside(ranges: RangeSet, blocks: Sequence[Network]) -> RangeSet | None:
    mine = [each for each in blocks if each.version == ranges.version]
    within = [each for each in mine if any(each.subnet_of(one.subnet) for one in ranges.ranges)]  # type: ignore[arg-type]
    if not within:
        return None
    whole = make_set([make_range(each) for each in within])
    allowed = [(first, last) for _, first, last in ranges.pieces]
    pieces = []
    for at, first, last in whole.pieces:
        outside = without((first, last), sorted(allowed))
        pieces += [(at, *piece) for piece in without((first, last), outside)]
    return RangeSet(whole.ranges, tuple(pieces))


def _take_more(work: Blocks, seen: Held) -> None:
    """Take a block for each range set that has no free address in those *seen*, unless another call did meanwhile."""
    site = work.site
    with site.state.lock(_lock(site)):
        held = site.state.blocks(site.network)
        if held.blocks != seen.blocks:
            return
        with site.client() as client:
            site.finish_pending(client)
            held = read_held(client, site.keys, site.node, site.network)
            if held.blocks == seen.blocks:
                for ranges, inner in zip(work.sets, work.inside(held.blocks), strict=True):
                    if inner is None or _is_full(site, inner):
                        held = _claim(work, client, held, ranges)
            site.state.set_blocks(site.network, held)


def _claim(work: Blocks, client: Client, held: Held, ranges: RangeSet) -> Held:
    site = work.site
    for _ in range(TURNS):
        length = work.length(ranges.version)
        taker = BlockTaker(site.node, site.state.fence(), site.network, ranges.version, length)
        outcome = claim_block(client, site.keys, taker, held, work.space(ranges))
        if isinstance(outcome, Held):
            return outcome
        site.return_home(client, outcome)
        held = read_held(client, site.keys, site.node, site.network)
    raise CniError(Code.TRY_AGAIN, "etcd changes faster than it is read", "try again")


def _is_full(site: Site, ranges: RangeSet) -> bool:
    pool = site.pool()
    return ranges.size == 0 or (pool is not None and count_leased(ranges, pool) >= ranges.size)


def _in_use(site: Site, block: Network) -> bool:
    pool = site.pool()
    ends = int(block.network_address), int(block.broadcast_address)
    return pool is not None and pool.count(block.version, *ends) > 0


def _without(held: Held, block: Network) -> Held:
    return Held(tuple(each for each in held.blocks if each != block), held.revision)


def _lock(site: Site) -> str:
    return f"blocks {site.network}"
