"""Hosts in etcd: declared dead, freed, returned. (`presence` has the record that says a host is there.)

A lease that ran out says "has not talked to etcd", not "is dead": the host may forward packets all the time. So nothing
is freed by a lease. Somebody declares the host dead, which writes its fence; every transaction of the host is guarded
by the revision of that key, so from there on it takes nothing. What it wrote before that revision may then be freed
behind a barrier (`barrier` has the rules), where there is one: in networks whose hosts follow each other. Of all other
networks nobody knows who still listens to the host; there a person says how long to wait. A host that returns finds its
transactions refused as `claims.Fenced`, and marks anew what it still has: that is behind the fence, and stays.
"""

from __future__ import annotations

import time

from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value
from pycni.etcd import requests
from pycni.etcd.barrier import Hosts, Memory, decide, hosts_of, in_the_way
from pycni.etcd.claims import freeing, freeing_block
from pycni.etcd.records import Fence, OwnBlocks, OwnEndpoint
from pycni.etcd.schema import SchemaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from pycni.etcd.barrier import Obstacle, Seat
    from pycni.etcd.client import Client
    from pycni.etcd.requests import KeyValue, Request
    from pycni.etcd.schema import Keys

    class Copy(Protocol):
        """What a `mirror.Mirror` of `Keys.shared` offers."""

        revision: int

        @property
        def stale_since(self) -> float: ...

        def items(self, prefix: str = "") -> dict[str, KeyValue]: ...


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


def read_hosts(client: Client, keys: Keys) -> Hosts:
    """Who is there, who takes part, who is fenced and who has followed, at one revision."""
    prefixes = (keys.fences, keys.all_members, keys.nodes, keys.syncs)
    looks = [requests.get_range(each, requests.end_of(each)) for each in prefixes]
    answer = client.txn(requests.txn([], looks))
    found = [kv for part in answer.parts for kv in part.found]
    return hosts_of(keys, found, answer.revision, with_syncs=True)


class Freed(Value):
    """count: addresses and blocks. waits: whom the barrier waits for, so that nothing of a network that has one was
    freed. quarantine_s: how long what lies in other networks is to wait yet, 0.0 where it was freed; None: not by this
    call. left: what cannot be read and so stays, with the host's memberships there, in words."""

    count: int = 0
    waits: tuple[Obstacle, ...] = ()
    quarantine_s: float | None = 0.0
    left: tuple[str, ...] = ()


def free_behind_barrier(
    client: Client, keys: Keys, node: str, *, now: float, quarantine_s: float | None = None
) -> Freed:
    """Free what *node* wrote before its fence, and its memberships, as far as that can be. Nothing where it was never
    fenced.

    quarantine_s: somebody's word that the host, should it only be cut off, forwards nothing so long after its fence, or
    that nobody listens to it: counts for networks that have no members, and instead of hosts without an agent. None:
    nobody says so. Clocks count for it (*now*: seconds since the epoch), those of who fenced and who frees.
    """
    written = client.get(keys.fence(node))
    if written is None:
        return Freed()
    left_s = None
    if quarantine_s is not None:
        left_s = max(0.0, quarantine_s - (now - Fence.parse(written.value, written.key).at))
    hosts = read_hosts(client, keys)
    waits = tuple(each for each in in_the_way(hosts, node) if left_s != 0.0 or not each.waivable)
    overlays = {seat.network for seat in hosts.seats}
    overlays |= {name for (_, name), _ in keys.understood(client.read(keys.networks, keys_only=True).found)}
    fenced = requests.unchanged(written.key, written.mod_revision)
    freed = held = 0
    left: dict[str, str] = {}
    for (_, _, network, *_), key in keys.understood(belongings(client, keys, node)[0]):
        overlay = network in overlays
        if waits if overlay else left_s != 0.0:
            held += not overlay
            continue
        try:
            operations = _freeing(keys, key)
        except SchemaError as damage:
            left[f"{key.key}: {damage.msg}"] = network
            continue
        if client.txn(requests.txn([requests.unchanged(key.key, key.mod_revision), fenced], operations)).succeeded:
            freed += len(operations) - 1
    if not waits:
        over = [seat for seat in hosts.seats if seat.node == node and seat.network not in left.values()]
        _end_memberships(client, keys, over, fenced)
    return Freed(freed, waits, left_s if held else 0.0, tuple(left))


def _end_memberships(client: Client, keys: Keys, seats: Sequence[Seat], fenced: Request) -> None:
    for seat in seats:
        key = keys.member(seat.node, seat.network)
        client.txn(requests.txn([requests.unchanged(key, seat.revision), fenced], [requests.delete(key)]))


class Cared(Value):
    """What `care_for_the_dead` found and did. suspects: how long each has been seen to be one, seconds. declared: hosts
    that were declared dead now. freed: of each host how many addresses and blocks. waits: of each dead host whom it
    waits for. left: of each what cannot be read, and stays, in words. alive: who has a leased record. memory: for the
    next call."""

    memory: Memory = Memory()
    suspects: Mapping[str, float] = {}
    declared: tuple[str, ...] = ()
    freed: Mapping[str, int] = {}
    waits: Mapping[str, tuple[Obstacle, ...]] = {}
    left: Mapping[str, tuple[str, ...]] = {}
    alive: frozenset[str] = frozenset()


def care_for_the_dead(
    client: Client, keys: Keys, copy: Copy, before: Cared, *, node: str, name: str, now: float, dead_after_s: float
) -> Cared:
    """What host *node* (for people: *name*) does every few seconds about hosts that nothing is heard of: declare them
    dead, and free what they had, when `barrier.decide` says that it is its turn. before: what it returned last; now:
    monotonic seconds.

    While the mirror is stale nothing is done, no time counted, and what was found before stands. CniError 7 where etcd
    does not permit this host to do so, 11 as ever.
    """
    if copy.stale_since:
        return before.replace(memory=before.memory.replace(at=0.0), declared=(), freed={})
    found = [kv for prefix in (keys.fences, keys.all_members, keys.nodes) for kv in copy.items(prefix).values()]
    hosts = hosts_of(keys, found, copy.revision, with_syncs=False)
    decision, memory = decide(hosts, before.memory, node=node, now=now, dead_after_s=dead_after_s)
    declared = [each for each in decision.declare if _declare_absent(client, keys, each, hosts, by=name)]
    outcomes = {each: free_behind_barrier(client, keys, each, now=time.time()) for each in decision.free}
    return Cared(
        memory,
        memory.absent,
        tuple(declared),
        freed={node: each.count for node, each in outcomes.items() if each.count},
        waits={node: each.waits for node, each in outcomes.items() if each.waits},
        left={node: each.left for node, each in outcomes.items() if each.left},
        alive=hosts.alive,
    )


def _declare_absent(client: Client, keys: Keys, node: str, hosts: Hosts, *, by: str) -> bool:
    """Fence *node* if it is as *hosts* says: not there, not fenced since by somebody else, not returned."""
    fence = keys.fence(node)
    guards = [
        requests.is_absent(keys.node(node)),
        requests.unchanged(fence, hosts.fences.get(node, 0)),
        requests.none_since(keys.members(node), hosts.revision),
    ]
    put = requests.put(fence, Fence(by=by, at=time.time()).render())
    return client.txn(requests.txn(guards, [put])).succeeded


def mark_anew(client: Client, keys: Keys, node: str, fence: int) -> tuple[KeyValue, ...]:
    """What *node*, whose last fence is *fence*, still has: each is written again, so that nobody frees it any more.

    Called by the host itself on its return. Everything else that it had may belong to others by now: its interfaces
    with such an address are to be cut off before the host takes part again (`members.join`).
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
        return freeing(keys, network, key, OwnEndpoint.parse(key.value).addresses)
    held = OwnBlocks.parse(key.value)
    return [requests.delete(key.key), *(freeing_block(keys, network, block, node) for block in held.networks)]
