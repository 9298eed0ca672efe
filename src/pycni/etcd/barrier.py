"""When what a dead host had may go to others: the rules alone, on what was read. Pure; `nodes` acts on them.

A host that takes part in a network is *fenced* there once its fence is younger than its `member` key: from then on no
other host wants its tunnel end or its endpoints. That takes effect when each of the others has followed, and says so in
its `sync` record. So the addresses are free behind a barrier: when every other host that is not fenced itself has
synced with the fence. A host that is cut off from etcd but still forwards (a *suspect*: it is a member, its leased
record is gone) would go on sending to the former owner; it stands in the way until it returns or is declared dead, too.
No clock decides, and nothing is assumed of a machine that was paused: when it wakes up, nobody listens to it.

Clocks only decide when a suspect is declared dead, for which `Memory` counts the time in which it was seen to be one.
"""

from __future__ import annotations

from pycni.cni.value import Value
from pycni.etcd.records import Member, Sync
from pycni.etcd.schema import SchemaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pycni.etcd.requests import KeyValue
    from pycni.etcd.schema import Keys

LONGEST_STEP_S = 30.0  # what one look adds at most: who was paused, or away from etcd, has not watched meanwhile
TURN_S = 10.0  # between the turns of the hosts that could act


class Seat(Value):
    """That *node* takes part in *network*. revision: of the key when it was written last. agent: whether an agent keeps
    the host's record."""

    node: str
    network: str
    revision: int
    agent: bool


class Hosts(Value):
    """What the rules look at, at one revision. fences: of each host the revision at which it was declared dead last.
    alive: who has a leased record. synced: of each host the revision that its kernel follows, None where not read."""

    revision: int
    fences: Mapping[str, int]
    seats: tuple[Seat, ...]
    alive: frozenset[str]
    synced: Mapping[str, int] | None = None


class Obstacle(Value):
    """A host that a barrier waits for. soon: it is there, and follows within moments. waivable: it has no agent, and
    only a person's word can stand in."""

    node: str
    why: str
    soon: bool = False
    waivable: bool = False


class Memory(Value):
    """What one watcher remembers between two looks. at: of the last one, monotonic seconds, 0.0 before the first.
    absent: of each suspect how long it was seen to be one, seconds; due: of each fenced member how long it was that."""

    at: float = 0.0
    absent: Mapping[str, float] = {}
    due: Mapping[str, float] = {}


class Decision(Value):
    """Whom to declare dead and whose belongings to try to free, both in order."""

    declare: tuple[str, ...] = ()
    free: tuple[str, ...] = ()


def hosts_of(keys: Keys, found: Iterable[KeyValue], revision: int, *, with_syncs: bool) -> Hosts:
    """What the `fence`, `member`, `node` and, if they were read, `sync` keys among *found* say at *revision*. A damaged
    record counts as the least that it could say."""
    fences: dict[str, int] = {}
    seats: list[Seat] = []
    alive: set[str] = set()
    synced: dict[str, int] = {}
    for (kind, *parts), kv in keys.understood(found):
        if kind == "fence":
            fences[parts[0]] = kv.mod_revision
        elif kind == "node":
            alive.add(parts[0])
        elif kind == "member":
            seats.append(Seat(parts[0], parts[1], kv.mod_revision, _has_agent(kv)))
        elif kind == "sync":
            synced[parts[0]] = _synced(kv)
    return Hosts(revision, fences, tuple(seats), frozenset(alive), synced if with_syncs else None)


def is_fenced(hosts: Hosts, seat: Seat) -> bool:
    return hosts.fences.get(seat.node, 0) > seat.revision


def dead_members(hosts: Hosts) -> tuple[str, ...]:
    """The hosts that are fenced wherever they take part."""
    return tuple(sorted({seat.node for seat in hosts.seats} - _taking_part(hosts)))


def suspects(hosts: Hosts) -> tuple[str, ...]:
    """Members with an agent that nothing is heard of."""
    kept = {seat.node for seat in hosts.seats if seat.agent and not is_fenced(hosts, seat)}
    return tuple(sorted(kept - hosts.alive))


def in_the_way(hosts: Hosts, dead: str) -> tuple[Obstacle, ...]:
    """Whom the barrier behind which *dead*'s belongings are free still waits for. Where `synced` was not read, only who
    is in the way whatever that says. The dead host itself is one while it is not fenced everywhere."""
    fence = hosts.fences.get(dead, 0)
    obstacles = []
    for node in sorted(_taking_part(hosts)):
        if node == dead:
            obstacles.append(Obstacle(node, "takes part: it was not declared dead, or returned"))
        elif hosts.synced is not None and hosts.synced.get(node, 0) >= fence:
            continue
        elif node in hosts.alive:
            if hosts.synced is not None:
                obstacles.append(Obstacle(node, "has not yet followed", soon=True))
        elif any(seat.agent for seat in hosts.seats if seat.node == node):
            obstacles.append(Obstacle(node, "is not heard of, and was not declared dead"))
        else:
            obstacles.append(Obstacle(node, "has no agent, so nobody knows whether it followed", waivable=True))
    return tuple(obstacles)


def decide(hosts: Hosts, memory: Memory, *, node: str, now: float, dead_after_s: float) -> tuple[Decision, Memory]:
    """What host *node* does about the others at *now* (monotonic seconds), and what it remembers.

    dead_after_s 0: nobody is declared dead. The hosts that are there have turns, in the order of their ids, so that not
    all of them do the same at once; who has no record there does nothing.
    """
    step = min(LONGEST_STEP_S, max(0.0, now - memory.at)) if memory.at else 0.0
    absent = {each: memory.absent[each] + step if each in memory.absent else 0.0 for each in suspects(hosts)}
    due = {each: memory.due[each] + step if each in memory.due else 0.0 for each in dead_members(hosts)}
    kept = Memory(now, absent, due)
    if not dead_after_s or node not in hosts.alive:
        return Decision(), kept
    wait_s = sorted(hosts.alive).index(node) * min(TURN_S, dead_after_s / 4)
    declare = tuple(each for each, since_s in absent.items() if since_s >= dead_after_s + wait_s and each != node)
    known = hosts.replace(synced=None)
    free = tuple(each for each, since_s in due.items() if since_s >= wait_s and not in_the_way(known, each))
    return Decision(declare, free), kept


def _taking_part(hosts: Hosts) -> set[str]:
    """The hosts that are members of any network and not fenced there."""
    return {seat.node for seat in hosts.seats if not is_fenced(hosts, seat)}


def _has_agent(kv: KeyValue) -> bool:
    try:
        return Member.parse(kv.value).agent
    except SchemaError:
        return False


def _synced(kv: KeyValue) -> int:
    try:
        return Sync.parse(kv.value).revision
    except SchemaError:
        return 0
