"""That a host is there: its record under a lease, its tunnel addresses, which no other host may claim, and how far it
follows what etcd says."""

from __future__ import annotations

from pycni.cni.addresses import parse_address
from pycni.cni.errors import CniError, Code
from pycni.etcd import requests
from pycni.etcd.records import Node, Sync
from pycni.etcd.schema import SchemaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pycni.etcd.client import Client
    from pycni.etcd.requests import KeyValue
    from pycni.etcd.schema import Keys

ATTEMPTS = 3


class Double(CniError):
    """CniError 11: another machine, or agent, has this host's id or the address of its tunnels."""

    def __init__(self, msg: str, details: str) -> None:
        super().__init__(Code.TRY_AGAIN, msg, details)


def announce(
    client: Client,
    keys: Keys,
    node: str,
    record: Node,
    lease: int,
    *,
    is_former: Callable[[Node], bool],
    sync: Sync | None = None,
) -> None:
    """Put *record*, the claims on its addresses and *sync* under *lease*; what is in place already is left, so call it
    often. Of a sync its time alone is no difference.

    *is_former*: whether the writer of another record under this id is a process of this very machine that has ended.
    `Double` where another host has this id or one of the addresses: two machines with one identity, as after copying
    a disk, or this host's own former boot, until its lease runs out.
    """
    node_key = keys.node(node)
    vteps = [keys.vtep(parse_address(text)) for text in (record.vtep4, record.vtep6) if text]
    for _ in range(ATTEMPTS):
        looks = [requests.get(key) for key in (node_key, keys.sync(node), *vteps)]
        reads = client.txn(requests.txn([], looks)).parts
        mine, synced, *claimed = (part.found[0] if part.found else None for part in reads)
        _refuse_double(node, record, mine, is_former)
        for key, found in zip(vteps, claimed, strict=True):
            if found is not None and found.value != node.encode():
                raise Double(
                    f"host {found.value.decode(errors='replace')} has the address of this host's tunnels",
                    f"{' '.join(keys.parse(key))}: give one of them another, or stop it",
                )
        puts, guards = [], []
        if sync is not None and not _says(synced, sync, lease):
            puts.append(requests.put(keys.sync(node), sync.render(), lease))
        wanted = [record.render(), *([node.encode()] * len(vteps))]
        for key, found, value in zip([node_key, *vteps], [mine, *claimed], wanted, strict=True):
            guards.append(requests.unchanged(key, found.mod_revision if found else 0))
            if found is None or (found.value, found.lease) != (value, lease):
                puts.append(requests.put(key, value, lease))
        if not puts or client.txn(requests.txn(guards, puts)).succeeded:
            return
    raise CniError(Code.TRY_AGAIN, f"the record of host {node} changes while it is written", "is its id used twice?")


def report(client: Client, keys: Keys, node: str, sync: Sync, lease: int) -> None:
    """Put *sync* under *lease* at once: hosts that were declared dead are freed when all others have followed."""
    client.txn(requests.txn([], [requests.put(keys.sync(node), sync.render(), lease)]))


def _says(found: KeyValue | None, sync: Sync, lease: int) -> bool:
    try:
        there = Sync.parse(found.value, found.key) if found is not None and found.lease == lease else None
    except SchemaError:
        return False
    return there is not None and there.replace(at=sync.at) == sync


def _refuse_double(node: str, record: Node, found: KeyValue | None, is_former: Callable[[Node], bool]) -> None:
    """An error where the record that is there is not of this process or one before it."""
    if found is None:
        return
    try:
        other = Node.parse(found.value, found.key)
    except SchemaError:
        return  # damaged: ours to mend
    if (other.boot, other.pid, other.started) != (record.boot, record.pid, record.started) and not is_former(other):
        raise Double(
            f"host id {node} is in use by process {other.pid} of {other.name}: another machine or agent, or this one"
            " before it booted",
            "it is free when that lease runs out; on a copied disk remove the file `node` of pycni's state directory",
        )
