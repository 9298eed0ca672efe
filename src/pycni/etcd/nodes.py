"""Hosts in etcd: declared dead, freed, returned. (`presence` has the record that says a host is there.)

A lease that ran out says "has not talked to etcd", not "is dead": the host may forward packets all the time. So nothing
is freed by a lease. Somebody declares the host dead, which writes its fence; every transaction of the host is guarded
by the revision of that key, so from there on it takes nothing. What it wrote before that revision may then be freed,
after whatever waiting makes sure that it forwards nothing any more. A host that returns finds its transactions refused
as `claims.Fenced`, and marks anew what it still has: that is behind the fence, and stays.
"""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.etcd import requests
from pycni.etcd.claims import freeing
from pycni.etcd.records import Block, Fence, OwnBlocks, OwnEndpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.addresses import Network
    from pycni.etcd.client import Client
    from pycni.etcd.requests import KeyValue, Request
    from pycni.etcd.schema import Keys


def read_fence(client: Client, keys: Keys, node: str) -> int:
    """The revision at which *node* was declared dead last, 0 if it never was: what its transactions are guarded by."""
    found = client.get(keys.fence(node))
    return found.mod_revision if found else 0


def declare_dead(client: Client, keys: Keys, node: str, *, by: str, now: float) -> int:
    """Fence *node*; the revision of it. CniError 11 while its record is there: it talks to etcd."""
    fence = requests.put(keys.fence(node), Fence(by=by, at=now).render())
    answer = client.txn(requests.txn([requests.is_absent(keys.node(node))], [fence], [requests.get(keys.node(node))]))
    if not answer.succeeded:
        raise CniError(
            Code.TRY_AGAIN, f"host {node} is alive: its record in etcd is under a lease that it keeps", "stop it first"
        )
    return answer.revision


def belongings(client: Client, keys: Keys, node: str) -> tuple[tuple[KeyValue, ...], tuple[KeyValue, ...]]:
    """The `own` keys of *node* from before its last fence, and those since; without a fence all are since."""
    fence = read_fence(client, keys, node)
    found = client.read(keys.own(node)).found
    before = tuple(key for key in found if key.mod_revision < fence)
    return before, tuple(key for key in found if key not in before)


def free(client: Client, keys: Keys, node: str, *, now: float, quarantine_s: float) -> int:
    """Free what *node* wrote before its fence; how many addresses and blocks. Nothing where it was never fenced.

    CniError 11 while the fence is younger than *quarantine_s*: the time in which the host, should it only be cut off,
    must have stopped to forward, or everybody to listen to it. Clocks count here, those of who fenced and who frees.
    """
    written = client.get(keys.fence(node))
    if written is None:
        return 0
    at = Fence.parse(written.value, written.key).at
    if now - at < quarantine_s:
        raise CniError(
            Code.TRY_AGAIN,
            f"host {node} was declared dead {max(0, now - at):.0f} s ago: its addresses are freed after"
            f" {quarantine_s:.0f} s",
            "try again then",
        )
    freed = 0
    for key in belongings(client, keys, node)[0]:
        operations = _freeing(keys, key)
        guards = [requests.unchanged(key.key, key.mod_revision), requests.unchanged(written.key, written.mod_revision)]
        if client.txn(requests.txn(guards, operations)).succeeded:
            freed += len(operations) - 1
    return freed


def mark_anew(client: Client, keys: Keys, node: str, fence: int) -> tuple[KeyValue, ...]:
    """What *node*, whose last fence is *fence*, still has: each is written again, so that nobody frees it any more.

    Called by the host itself on its return. Everything else that it had may belong to others by now.
    """
    kept = []
    for key in client.read(keys.own(node)).found:
        guards = [requests.unchanged(key.key, key.mod_revision), requests.unchanged(keys.fence(node), fence)]
        answer = client.txn(requests.txn(guards, [requests.put(key.key, key.value)], [requests.get(key.key)]))
        found = answer.parts[0].found if not answer.succeeded else ()
        if answer.succeeded or (found and found[0].mod_revision > fence):  # the second: an attempt without an answer
            kept.append(key)
    return tuple(kept)


def _freeing(keys: Keys, key: KeyValue) -> list[Request]:
    kind, node, network, *_ = keys.parse(key.key)
    if kind == "own-ep":
        return freeing(keys, network, key, OwnEndpoint.parse(key.value, key.key))
    held = OwnBlocks.parse(key.value, key.key)
    return [requests.delete(key.key), *(freeing_block(keys, network, block, node) for block in held.networks)]


def freeing_block(keys: Keys, network: str, block: Network, node: str) -> Request:
    """The operation that ends a block, if it is *node*'s."""
    key = keys.block(network, block)
    mine = [requests.has_value(key, Block(node=node).render())]
    return requests.nested(requests.txn(mine, [requests.delete(key)]))
