"""Blocks of addresses, one host each: taken and handed back like single addresses (see `claims`), but rarely.

The host's `own/<node>/block/<network>` key lists its blocks and changes with every taking, in the same transaction; its
revision is the guard that lets a taking happen once, and its id tells a lost answer. All blocks of a network and family
have one length, which the first taking writes down: blocks of different lengths could overlap unseen.
"""

from __future__ import annotations

import os
import time

from pycni.cni.addresses import parse_prefix
from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value
from pycni.etcd import requests
from pycni.etcd.claims import Fenced, freeing_block
from pycni.etcd.records import Block, BlockLength, Held, OwnBlocks
from pycni.etcd.schema import number_of
from pycni.etcd.space import address, draw_some, free_in, shuffled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycni.cni.addresses import Network
    from pycni.etcd.client import Client
    from pycni.etcd.requests import Answer, KeyValue, Request
    from pycni.etcd.schema import Keys
    from pycni.etcd.space import Space

CANDIDATES = 16
ROUNDS = 12
SHORTEST_S = 0.01  # for a request that begins when the time is over


class BlockTaker(Value):
    """Who takes, and of what kind: a host, its fence's revision (0: never fenced), a network, a family and the prefix
    length of its blocks."""

    node: str
    fence: int
    network: str
    version: int
    length: int

    @property
    def shift(self) -> int:
        """Bits of an address inside of a block."""
        return (32 if self.version == 4 else 128) - self.length

    def block(self, number: int) -> Network:
        return parse_prefix(f"{address(self.version, number << self.shift)}/{self.length}")


def read_held(client: Client, keys: Keys, node: str, network: str) -> Held:
    """What etcd says that *node* has, be it from before its own state was lost."""
    return _held(client.get(keys.own_blocks(node, network)))


def claim_block(
    client: Client, keys: Keys, taker: BlockTaker, held: Held, space: Space, *, timeout_s: float = 0.0
) -> Held | Fenced:
    """Take one more block: all that the host has then. *space* holds block numbers (address >> `BlockTaker.shift`).

    CniError 101 where no block is free, 7 where the network's blocks have another length, 11 as ever.
    """
    end = time.monotonic() + (timeout_s or client.patience_s)
    seed = f"{taker.network}\0{taker.node}\0{len(held.blocks)}"
    candidates = draw_some(seed, space, CANDIDATES)
    id = os.urandom(8).hex()
    for turn in range(ROUNDS):
        windows = space.windows(f"{id}/{turn}")
        written = {taker.block(number): _own(id, (*held.blocks, taker.block(number))) for number in candidates}
        request = _request(keys, taker, held.revision, written, windows)
        answer = client.txn(request, max(SHORTEST_S, end - time.monotonic()))
        if not answer.succeeded:
            settled = _settle(client, keys, taker, answer, id)
            if settled is not None:
                return settled
            held = read_held(client, keys, taker.node, taker.network)
            continue
        found = _taken(answer, len(candidates))
        if isinstance(found, int):
            return Held((*held.blocks, taker.block(candidates[found])), answer.revision)
        free = free_in(windows, {number_of(kv.key) >> taker.shift for one in found for kv in one.found})
        if not free and space.is_small:
            raise _exhausted(taker, space)
        drawn = f"{id}/{turn}"
        candidates = shuffled(drawn, free, CANDIDATES) if free else draw_some(drawn, space, CANDIDATES)
    raise CniError(Code.TRY_AGAIN, f"no block of network {taker.network} in {ROUNDS} attempts", "try again")


def hand_back(client: Client, keys: Keys, taker: BlockTaker, held: Held, block: Network) -> Held:
    """Give *block* back; what the host has then. Where somebody changed it meanwhile, nothing happens."""
    left = tuple(each for each in held.blocks if each != block)
    own = keys.own_blocks(taker.node, taker.network)
    operations = [freeing_block(keys, taker.network, block, taker.node)]
    operations.append(requests.put(own, _own(os.urandom(8).hex(), left)) if left else requests.delete(own))
    guards = [requests.unchanged(own, held.revision), requests.unchanged(keys.fence(taker.node), taker.fence)]
    client.txn(requests.txn(guards, operations))
    return read_held(client, keys, taker.node, taker.network)


def _request(
    keys: Keys, taker: BlockTaker, revision: int, written: dict[Network, bytes], windows: Sequence[tuple[int, int]]
) -> Request:
    """*written*: for each candidate what the host's own key says when it is taken."""
    own, fence = keys.own_blocks(taker.node, taker.network), keys.fence(taker.node)
    otherwise = []
    for first, last in windows:
        between = keys.block_range(taker.network, taker.version, first << taker.shift, last << taker.shift)
        otherwise.append(requests.get_range(*between, keys_only=True))
    for block, value in reversed(written.items()):
        key = keys.block(taker.network, block)
        then = [requests.put(key, Block(node=taker.node).render()), requests.put(own, value)]
        otherwise = [requests.nested(requests.txn([requests.is_absent(key)], then, otherwise))]
    lengths = keys.block_length(taker.network, taker.version)
    guards = [
        requests.unchanged(own, revision),
        requests.unchanged(fence, taker.fence),
        requests.has_value(lengths, BlockLength(length=taker.length).render()),
    ]
    return requests.txn(guards, otherwise, [requests.get(own), requests.get(fence), requests.get(lengths)])


def _settle(client: Client, keys: Keys, taker: BlockTaker, answer: Answer, id: str) -> Held | Fenced | None:
    """A taking whose guards did not hold: it was done by an earlier attempt, or the host is fenced; None: try again."""
    own, fence, lengths = (part.found for part in answer.parts)
    if own and OwnBlocks.parse(own[0].value, own[0].key).id == id:
        return _held(own[0])
    revision = fence[0].mod_revision if fence else 0
    if revision != taker.fence:
        return Fenced(revision)
    key = keys.block_length(taker.network, taker.version)
    if not lengths:
        wanted = requests.put(key, BlockLength(length=taker.length).render())
        client.txn(requests.txn([requests.is_absent(key)], [wanted]))
    elif (there := BlockLength.parse(lengths[0].value, key).length) != taker.length:
        raise CniError(
            Code.INVALID_CONFIG,
            f"IPv{taker.version} blocks of network {taker.network} have the prefix length {there}, not {taker.length}",
            "all hosts need the same; to change it take the network down everywhere first",
        )
    return None


def _taken(answer: Answer, count: int) -> int | tuple[Answer, ...]:
    parts = answer.parts
    for at in range(count):
        if parts[0].succeeded:
            return at
        parts = parts[0].parts
    return parts


def _own(id: str, blocks: Sequence[Network]) -> bytes:
    return OwnBlocks(id=id, blocks=tuple(map(str, blocks))).render()


def _held(key: KeyValue | None) -> Held:
    return Held() if key is None else Held(OwnBlocks.parse(key.value, key.key).networks, key.mod_revision)


def _exhausted(taker: BlockTaker, space: Space) -> CniError:
    return CniError(
        Code.EXHAUSTED,
        f"no block is free in network {taker.network}: all {space.size} of prefix length {taker.length} are taken",
        "`pycni etcd dump` shows by whom; `pycni gc` on a host hands its empty ones back",
    )
