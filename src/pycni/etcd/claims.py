"""Take addresses that nobody else has, in one transaction: `ep` keys and the host's `own` key live and die together.

One transaction holds several candidates, each nested in the other branch of the one before: the first whose keys are
all absent is taken, and if none is, the answer tells what is free around other places. So an address costs one round
trip while the network is not crowded, and two when it is (docs/decisions/0008-etcd-without-waiting.md has the figures).

Sent twice it takes once: the outer guard is the absence of the `own` key, and the branch taken otherwise reads that key
back. Its id tells whether an earlier attempt, which gave no answer, was carried out after all.

The other guard is the host's fence (`nodes`): a host that was declared dead takes nothing until it has looked.
"""

from __future__ import annotations

import time

from pycni.cni.addresses import parse_address
from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value
from pycni.etcd import requests
from pycni.etcd.records import Block, Endpoint, OwnEndpoint
from pycni.etcd.schema import SchemaError, number_of
from pycni.etcd.space import address, draw_some, free_in, shuffled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pycni.cni.addresses import Address, Network
    from pycni.etcd.client import Client
    from pycni.etcd.requests import Answer, KeyValue, Request
    from pycni.etcd.schema import Keys
    from pycni.etcd.space import Space

    Candidate = tuple[Address, ...]

FIRST, NEXT = 8, 16  # candidates of the first round, where nothing is known, and of later ones, which look free
ROUNDS = 12
SHORTEST_S = 0.01  # for a request that begins when the time is over
CROWDED = 3  # rounds after which a large space is read as a whole,
READABLE = 1 << 20  # if it has no more addresses than this


class Taker(Value):
    """Who takes: the host with its fence's revision (0: never fenced), and the attachment. own: what is written, but
    for its ips; its id must be new for every taking."""

    node: str
    fence: int
    network: str
    container_id: str
    ifname: str
    own: OwnEndpoint


class Want(Value):
    """One address out of *space*; or *fixed* and no other."""

    space: Space
    fixed: Address | None = None


class Claimed(Value):
    """The taker has these, one for each want."""

    ips: tuple[Address, ...]


class AlreadyHeld(Value):
    """Nothing was taken: the attachment has addresses from an earlier taking. key: of its `own` key; own: its value."""

    key: KeyValue
    own: OwnEndpoint


class Fenced(Value):
    """Nothing was taken: the host was declared dead at *revision*, and must look what it still has (`nodes`)."""

    revision: int


def claim(
    client: Client,
    keys: Keys,
    taker: Taker,
    wants: Sequence[Want],
    *,
    mac_of: Callable[[Candidate], str] | None = None,
    timeout_s: float = 0.0,
) -> Claimed | AlreadyHeld | Fenced:
    """Take one address for each of *wants*, or nothing at all.

    The same attachment gets the same addresses again where they are free: what is tried first follows from its name.
    CniError 101 where a space is full, 102 where a fixed address is taken (it says by whom), 11 where etcd does not
    answer or others are always faster. *mac_of* gives the MAC to record.
    """
    end = time.monotonic() + (timeout_s or client.patience_s)
    seed = "\0".join((taker.network, taker.container_id, taker.ifname))
    candidates = _drawn(wants, seed)
    for turn in range(ROUNDS):
        seed = f"{taker.own.id}/{turn}"
        windows = [_windows(want, f"{seed}/{at}") for at, want in enumerate(wants)]
        request = _request(keys, taker, candidates, _looks(keys, taker, wants, windows), mac_of)
        outcome = _outcome(client.txn(request, max(SHORTEST_S, end - time.monotonic())), taker, candidates)
        if not isinstance(outcome, tuple):
            return outcome
        free = _free(keys, taker, wants, windows, outcome)
        for at, want in enumerate(wants):
            if not free[at] and (want.space.is_small or (turn >= CROWDED and want.space.size <= READABLE)):
                free[at] = _read_free(client, keys, taker, want.space)
        columns = [
            shuffled(f"{seed}/{at}", each, NEXT) if each else draw_some(f"{seed}/{at}", want.space, FIRST)
            for at, (each, want) in enumerate(zip(free, wants, strict=True))
        ]
        candidates = _paired(wants, columns)
    raise CniError(
        Code.TRY_AGAIN,
        f"no address of network {taker.network} in {ROUNDS} attempts: others took every one that was free",
        "the network is almost full, or many containers start at once: try again",
    )


def give_back(client: Client, keys: Keys, network: str, key: KeyValue, timeout_s: float = 0.0) -> bool:
    """End what the `own` key *key* holds, if it is still as it was read; whether this did it. Success in any case, but
    SchemaError, which does not name the key, for a record that cannot be read."""
    own = OwnEndpoint.parse(key.value)
    request = requests.txn([requests.unchanged(key.key, key.mod_revision)], freeing(keys, network, key, own.addresses))
    return client.txn(request, timeout_s).succeeded


def give_back_unread(client: Client, keys: Keys, network: str, key: KeyValue) -> bool:
    """The same whatever the record says: all addresses of *network* are read, for those that were taken with it."""
    found = client.read(keys.endpoints(network), keys_only=True).found
    ips = [parse_address(parts[2]) for parts, kv in keys.understood(found) if kv.create_revision == key.create_revision]
    request = requests.txn([requests.unchanged(key.key, key.mod_revision)], freeing(keys, network, key, ips))
    return client.txn(request).succeeded


def freeing(keys: Keys, network: str, key: KeyValue, ips: Sequence[Address]) -> list[Request]:
    """The operations that end the `own` key *key*, which holds *ips*. An `ep` key goes only if it was made together
    with it: a restored backup, or a hand in the data, may have given the address to somebody else."""
    operations = [requests.delete(key.key)]
    for each in ips:
        one = keys.endpoint(network, each)
        mine = [requests.created_at(one, key.create_revision)]
        operations.append(requests.nested(requests.txn(mine, [requests.delete(one)])))
    return operations


def freeing_block(keys: Keys, network: str, block: Network, node: str) -> Request:
    """The operation that ends a block, if it is *node*'s."""
    key = keys.block(network, block)
    mine = [requests.has_value(key, Block(node=node).render())]
    return requests.nested(requests.txn(mine, [requests.delete(key)]))


def _request(
    keys: Keys,
    taker: Taker,
    candidates: Sequence[Candidate],
    looks: Sequence[Request],
    mac_of: Callable[[Candidate], str] | None,
) -> Request:
    own_key = keys.own_endpoint(taker.node, taker.network, taker.container_id, taker.ifname)
    otherwise = list(looks)
    for ips in reversed(candidates):
        texts = tuple(map(str, ips))
        endpoint = Endpoint(
            node=taker.node,
            container=taker.container_id,
            ifname=taker.ifname,
            ips=texts,
            mac=mac_of(ips) if mac_of else "",
            created=taker.own.created,
        ).render()
        ep_keys = [keys.endpoint(taker.network, ip) for ip in ips]
        then = [requests.put(key, endpoint) for key in ep_keys]
        then.append(requests.put(own_key, taker.own.replace(ips=texts).render()))
        otherwise = [requests.nested(requests.txn([requests.is_absent(key) for key in ep_keys], then, otherwise))]
    fence = keys.fence(taker.node)
    guards = [requests.is_absent(own_key), requests.unchanged(fence, taker.fence)]
    return requests.txn(guards, otherwise, [requests.get(own_key), requests.get(fence)])


def _outcome(
    answer: Answer, taker: Taker, candidates: Sequence[Candidate]
) -> Claimed | AlreadyHeld | Fenced | tuple[Answer, ...]:
    """What became of a request; the answers of its looks where no candidate was free."""
    if not answer.succeeded:
        held, fence = answer.parts[0].found, answer.parts[1].found
        if not held:
            return Fenced(fence[0].mod_revision if fence else 0)
        own = OwnEndpoint.parse(held[0].value, held[0].key)
        return Claimed(own.addresses) if own.id == taker.own.id else AlreadyHeld(held[0], own)
    parts = answer.parts
    for ips in candidates:
        if parts[0].succeeded:
            return Claimed(ips)
        parts = parts[0].parts
    return parts


def _drawn(wants: Sequence[Want], seed: str) -> list[Candidate]:
    return _paired(wants, [draw_some(f"{seed}/{at}", want.space, FIRST) for at, want in enumerate(wants)])


def _paired(wants: Sequence[Want], columns: Sequence[Sequence[int]]) -> list[Candidate]:
    """Rows of *columns*, as many as the shortest has; where all is fixed there is one to try."""
    lengths = [len(column) for want, column in zip(wants, columns, strict=True) if want.fixed is None]
    rows = []
    for at in range(min(lengths, default=1)):
        rows.append(
            tuple(
                want.fixed if want.fixed is not None else address(want.space.version, column[at])
                for want, column in zip(wants, columns, strict=True)
            )
        )
    return rows


def _windows(want: Want, seed: str) -> tuple[tuple[int, int], ...]:
    return ((int(want.fixed),) * 2,) if want.fixed is not None else want.space.windows(seed)


def _looks(
    keys: Keys, taker: Taker, wants: Sequence[Want], windows: Sequence[Sequence[tuple[int, int]]]
) -> list[Request]:
    """What to read where no candidate is free: which addresses of the windows are taken, and by whom a fixed one is."""
    looks = []
    for want, each in zip(wants, windows, strict=True):
        version = want.space.version
        for first, last in each:
            between = keys.endpoint_range(taker.network, version, first, last)
            looks.append(requests.get_range(*between, keys_only=want.fixed is None))
    return looks


def _free(
    keys: Keys,
    taker: Taker,
    wants: Sequence[Want],
    windows: Sequence[Sequence[tuple[int, int]]],
    answers: Sequence[Answer],
) -> list[list[int]]:
    """The free addresses of each want's windows; CniError 102 where a fixed one is taken."""
    left = list(answers)
    free = []
    for want, each in zip(wants, windows, strict=True):
        found = [kv for answer in left[: len(each)] for kv in answer.found]
        del left[: len(each)]
        if want.fixed is not None and found:
            raise _taken(want.fixed, taker, found[0])
        free.append(free_in(each, _numbers(found)))
    return free


def _numbers(found: Sequence[KeyValue]) -> set[int]:
    return {number_of(kv.key) for kv in found}


def _taken(fixed: Address, taker: Taker, key: KeyValue) -> CniError:
    try:
        owner = Endpoint.parse(key.value, key.key)
        by = f"container {owner.container}, interface {owner.ifname}, on host {owner.node}"
    except SchemaError as exc:
        by = exc.msg
    return CniError(Code.ADDRESS_TAKEN, f"{fixed} of network {taker.network} is taken", f"by {by}")


def _read_free(client: Client, keys: Keys, taker: Taker, space: Space) -> list[int]:
    """What is free in a space that holds nothing, or next to nothing, at all places looked at: all of it is read.

    CniError 101 if there is nothing.
    """
    prefix = keys.endpoints(taker.network, space.version)
    taken = _numbers(client.read(prefix, keys_only=True).found)
    free = free_in(space.pieces, taken)
    if not free:
        raise CniError(
            Code.EXHAUSTED,
            f"no address is free in network {taker.network}: all {space.size} are taken",
            "`pycni etcd dump` shows by whom; a larger subnet, or `pycni gc` on hosts that lost containers, helps",
        )
    return free
