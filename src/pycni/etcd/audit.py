"""What is wrong with the records of a cluster. Pure: everything below a prefix in, sentences out.

Endpoints and blocks are written together with the `own` key of their host, which nobody but that host may write (where
etcd's roles are as docs/etcd-schema.md says). So one that its host does not own is a forgery, or a hand in the data.
"""

from __future__ import annotations

from ipaddress import ip_network

from pycni.cni.addresses import parse_address
from pycni.cni.value import Value
from pycni.etcd.records import (
    Block,
    BlockLength,
    Endpoint,
    Fence,
    Member,
    NetworkRecord,
    Node,
    OwnBlocks,
    OwnEndpoint,
    Record,
    Sync,
    Vni,
)
from pycni.etcd.schema import SchemaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycni.etcd.requests import KeyValue
    from pycni.etcd.schema import Keys

_RECORDS: dict[str, type[Record]] = {
    "net": NetworkRecord,
    "vni": Vni,
    "fence": Fence,
    "ep": Endpoint,
    "block": Block,
    "node": Node,
    "member": Member,
    "sync": Sync,
    "own-ep": OwnEndpoint,
    "own-block": OwnBlocks,
}


_LEASED = ("node", "vtep", "sync")
_FOLLOWED = ("l2", "routed")  # modes in which hosts follow each other


class Entry(Value):
    """A key that was understood. record: None for a `vtep`, whose value is a host's id."""

    kind: str
    parts: tuple[str, ...]
    key: KeyValue
    record: Record | None


class Problem(Value):
    """key: where; what: a sentence without it."""

    key: str
    what: str


def read_entries(keys: Keys, found: Iterable[KeyValue]) -> tuple[list[Entry], list[Problem]]:
    """What *found* says, and what of it says nothing."""
    entries, problems = [], []
    for kv in found:
        try:
            kind, *parts = keys.parse(kv.key)
            cls = BlockLength if parts[-1] == "length" else _RECORDS.get(kind)
            record = cls.parse(kv.value) if cls else None
            if isinstance(record, OwnEndpoint):
                _ = record.addresses  # refuses what is no address
            elif isinstance(record, OwnBlocks | NetworkRecord):
                _ = record.networks
            elif isinstance(record, Member):
                parse_address(record.vtep)
            entries.append(Entry(kind, tuple(parts), kv, record))
        except SchemaError as exc:
            name = kv.key.removeprefix(keys.networks)
            way_out = (
                f"; `pycni networks remove {name}` takes it away once no host takes part" if name != kv.key else ""
            )
            problems.append(Problem(kv.key, f"{exc.msg}{way_out}"))
        except ValueError as exc:
            problems.append(Problem(kv.key, str(exc)))
    return entries, problems


def audit(keys: Keys, found: Iterable[KeyValue]) -> list[Problem]:
    """All that is wrong, in the order of keys."""
    entries, problems = read_entries(keys, found)
    by_key = {entry.key.key: entry for entry in entries}
    for look in (_endpoints, _owned, _blocks, _networks, _members, _leases, _dead):
        problems += look(keys, by_key)
    return sorted(problems, key=lambda problem: problem.key)


def _endpoints(keys: Keys, by_key: dict[str, Entry]) -> Iterator[Problem]:
    for name, entry in by_key.items():
        record = entry.record
        if not isinstance(record, Endpoint):
            continue
        network, address = entry.parts
        own = by_key.get(keys.own_endpoint(record.node, network, record.container, record.ifname))
        if address not in record.ips:
            yield Problem(name, f"is {address}, but its record speaks of {', '.join(record.ips)}")
        if own is None or own.key.create_revision != entry.key.create_revision:
            owner = f"{record.container}/{record.ifname} on host {record.node}"
            yield Problem(name, f"{address} is said to be {owner}'s, but that host owns no such thing")


def _owned(keys: Keys, by_key: dict[str, Entry]) -> Iterator[Problem]:
    for name, entry in by_key.items():
        record = entry.record
        if isinstance(record, OwnEndpoint):
            for address in record.addresses:
                there = by_key.get(keys.endpoint(entry.parts[1], address))
                if there is None or there.key.create_revision != entry.key.create_revision:
                    yield Problem(name, f"{address} is no longer its own")
        elif isinstance(record, OwnBlocks):
            for block in record.networks:
                there = by_key.get(keys.block(entry.parts[1], block))
                if there is None or there.record != Block(node=entry.parts[0]):
                    yield Problem(name, f"block {block} is no longer its own")


def _blocks(keys: Keys, by_key: dict[str, Entry]) -> Iterator[Problem]:
    before = None
    for name, entry in sorted(by_key.items()):
        record = entry.record
        if not isinstance(record, Block):
            continue
        network, text = entry.parts
        own = by_key.get(keys.own_blocks(record.node, network))
        if own is None or not isinstance(own.record, OwnBlocks) or text not in own.record.blocks:
            yield Problem(name, f"block {text} is said to be host {record.node}'s, which does not own it")
        block = ip_network(text)
        # In the order of keys an overlapping one comes right behind.
        if before and before[0] == network and before[1].version == block.version and before[1].overlaps(block):
            yield Problem(name, f"block {text} overlaps with {before[1]}")
        before = network, block


def _networks(keys: Keys, by_key: dict[str, Entry]) -> Iterator[Problem]:
    for name, entry in by_key.items():
        record = entry.record
        if isinstance(record, NetworkRecord):
            there = by_key.get(keys.vni(record.vni))
            if there is None or there.record != Vni(network=entry.parts[0]):
                yield Problem(name, f"VNI {record.vni} is not recorded as its own")
        elif isinstance(record, Vni) and keys.network(record.network) not in by_key:
            yield Problem(name, f"is of network {record.network}, which is not there")


def _members(keys: Keys, by_key: dict[str, Entry]) -> Iterator[Problem]:
    claimed: dict[tuple[str, str], str] = {}
    for name, entry in by_key.items():
        record = entry.record
        if isinstance(record, Member) and not _is_fenced(keys, by_key, entry):
            node, network = entry.parts
            if keys.network(network) not in by_key:
                yield Problem(name, f"is of network {network}, which is not there")
            other = claimed.setdefault((network, str(parse_address(record.vtep))), node)
            if other != node:
                yield Problem(name, f"has {record.vtep}, the tunnel address of host {other} in the same network")
        elif isinstance(record, Endpoint):
            made = by_key.get(keys.network(entry.parts[0]))
            mode = made.record.mode if made is not None and isinstance(made.record, NetworkRecord) else ""
            if mode in _FOLLOWED and keys.member(record.node, entry.parts[0]) not in by_key:
                yield Problem(name, f"host {record.node} takes no part in {entry.parts[0]}: others do not reach it")
            if mode == "l2" and not record.mac:
                yield Problem(name, "has no MAC: other hosts cannot reach it")


def _leases(keys: Keys, by_key: dict[str, Entry]) -> Iterator[Problem]:
    for name, entry in by_key.items():
        if entry.kind in _LEASED and not entry.key.lease:
            yield Problem(name, "is under no lease: it would stay when its host is gone")
        elif entry.kind not in _LEASED and entry.key.lease:
            yield Problem(name, "is under a lease: it would go when its host is only cut off")


def _is_fenced(keys: Keys, by_key: dict[str, Entry], entry: Entry) -> bool:
    fence = by_key.get(keys.fence(entry.parts[0]))
    return fence is not None and entry.key.mod_revision < fence.key.mod_revision


def _dead(keys: Keys, by_key: dict[str, Entry]) -> Iterator[Problem]:
    for name, entry in by_key.items():
        if entry.kind in ("own-ep", "own-block", "member") and _is_fenced(keys, by_key, entry):
            yield Problem(name, f"host {entry.parts[0]} was declared dead: this is still to be freed")
