"""What is wrong with the records of a cluster. Pure: everything below a prefix in, sentences out.

Endpoints and blocks are written together with the `own` key of their host, which nobody but that host may write (where
etcd's roles are as docs/etcd-schema.md says). So one that its host does not own is a forgery, or a hand in the data.
"""

from __future__ import annotations

from ipaddress import ip_network

from pycni.cni.value import Value
from pycni.etcd.records import (
    Block,
    BlockLength,
    Endpoint,
    Fence,
    NetworkRecord,
    Node,
    OwnBlocks,
    OwnEndpoint,
    Record,
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
    "own-ep": OwnEndpoint,
    "own-block": OwnBlocks,
}


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
            elif isinstance(record, OwnBlocks):
                _ = record.networks
            entries.append(Entry(kind, tuple(parts), kv, record))
        except SchemaError as exc:
            problems.append(Problem(kv.key, exc.msg))
    return entries, problems


def audit(keys: Keys, found: Iterable[KeyValue]) -> list[Problem]:
    """All that is wrong, in the order of keys."""
    entries, problems = read_entries(keys, found)
    by_key = {entry.key.key: entry for entry in entries}
    for look in (_endpoints, _owned, _blocks, _networks, _dead):
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


def _dead(keys: Keys, by_key: dict[str, Entry]) -> Iterator[Problem]:
    for name, entry in by_key.items():
        if entry.kind in ("own-ep", "own-block"):
            fence = by_key.get(keys.fence(entry.parts[0]))
            if fence is not None and entry.key.mod_revision < fence.key.mod_revision:
                yield Problem(name, f"host {entry.parts[0]} was declared dead: this is still to be freed")
