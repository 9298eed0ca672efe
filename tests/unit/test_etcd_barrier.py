"""The rules by which a dead host's addresses become free: nobody who counts listens to it any more when they do."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pycni.etcd.barrier import (
    LONGEST_STEP_S,
    Decision,
    Hosts,
    Memory,
    Obstacle,
    Seat,
    dead_members,
    decide,
    hosts_of,
    in_the_way,
    is_fenced,
    suspects,
)
from pycni.etcd.records import Fence, Member, Node, Record, Sync
from pycni.etcd.requests import KeyValue
from pycni.etcd.schema import Keys

KEYS = Keys("/pycni/lab")
NAMES = ("a", "b", "c")
WHAT = st.sampled_from(["join", "follow", "follow", "cut_off", "declare_dead", "heal", "come_back", "free", "free"])
BEHIND = st.sampled_from([0, 1, 2, 3, 6, 9])  # revisions that an agent lags behind etcd


def key_value(key: str, record: Record, revision: int) -> KeyValue:
    return KeyValue(key, record.render(), revision, revision)


def hosts(*seats: Seat, fences: dict[str, int] | None = None, alive: str = "", synced: dict[str, int] | None) -> Hosts:
    return Hosts(100, fences or {}, seats, frozenset(alive), synced)


def test_hosts_of() -> None:
    """What was read says who takes part, who is there and who has followed; what is damaged says the least it could."""
    member = Member(name="h", vtep="192.0.2.1", agent=True)
    found = [
        key_value(KEYS.fence("a"), Fence(by="x"), 8),
        key_value(KEYS.member("a", "n"), member, 5),
        key_value(KEYS.member("b", "n"), member.replace(agent=False), 9),
        KeyValue(KEYS.member("c", "n"), b"junk", 6, 6),
        key_value(KEYS.node("b"), Node(name="h", boot="x", pid=1, started=1), 7),
        key_value(KEYS.sync("b"), Sync(revision=8), 10),
        KeyValue(KEYS.sync("c"), b"junk", 6, 6),
        KeyValue(KEYS.endpoints("n"), b"", 6, 6),
    ]
    read = hosts_of(KEYS, found, 11, with_syncs=True)
    seats = (Seat("a", "n", 5, True), Seat("b", "n", 9, False), Seat("c", "n", 6, False))
    assert read == Hosts(11, {"a": 8}, seats, frozenset("b"), {"b": 8, "c": 0})
    assert hosts_of(KEYS, found, 11, with_syncs=False).synced is None


def test_who_stands_in_the_way() -> None:
    """A host that is there, until it has followed; a suspect; a host without an agent, which can be waived; the dead
    one itself while it takes part anywhere. Not: who is fenced, and who is no member."""
    dead = [Seat("a", "n", 5, True), Seat("a", "m", 6, True)]
    fences = {"a": 10, "d": 9}

    def waits(*seats: Seat, alive: str = "", synced: dict[str, int] | None) -> list[Obstacle]:
        return list(in_the_way(hosts(*dead, *seats, fences=fences, alive=alive, synced=synced), "a"))

    assert waits(synced={}) == []
    other = Seat("b", "n", 7, True)
    (slow,) = waits(other, alive="b", synced={"b": 9})
    assert (slow.node, slow.soon, slow.waivable) == ("b", True, False)
    assert waits(other, alive="b", synced={"b": 10}) == []
    assert waits(other, alive="b", synced=None) == [], "what was not read is no obstacle yet"
    (cut_off,) = waits(other, synced=None)
    assert (cut_off.soon, cut_off.waivable) == (False, False)
    (bare,) = waits(other.replace(agent=False), synced={})
    assert (bare.soon, bare.waivable) == (False, True)
    assert waits(Seat("d", "n", 8, True), synced={}) == [], "it was declared dead itself"
    assert [each.node for each in waits(Seat("d", "n", 8, True), Seat("d", "m", 12, True), synced={})] == ["d"]
    assert [each.node for each in waits(Seat("a", "o", 11, True), synced={})] == ["a"]


def test_who_is_suspect_and_who_is_dead() -> None:
    """Suspect is who has an agent and no record; who has none is not, since its silence says nothing."""
    read = hosts(
        Seat("a", "n", 5, True),
        Seat("b", "n", 5, False),
        Seat("c", "n", 5, True),
        Seat("d", "n", 5, True),
        Seat("d", "m", 9, True),
        fences={"c": 7, "d": 8},
        synced=None,
    )
    assert suspects(read) == ("a", "d")
    assert dead_members(read) == ("c",)
    assert suspects(read.replace(alive=frozenset("ad"))) == ()


@given(st.lists(st.tuples(st.integers(0, 200), st.booleans()), max_size=20), st.integers(1, 100))
def test_only_time_that_was_watched_counts(looks: list[tuple[int, bool]], dead_after_s: int) -> None:
    """A host is declared dead when it was seen to be absent long enough, one look after the other: a long pause between
    two looks counts as a short one, and one look at which it was there begins anew."""
    now, watched, memory = 1000.0, -1.0, Memory()
    for pause_s, is_there in looks:
        now += pause_s
        read = hosts(Seat("a", "n", 5, True), alive="ab" if is_there else "b", synced=None)
        decision, memory = decide(read, memory, node="b", now=now, dead_after_s=dead_after_s)
        watched = -1.0 if is_there else watched + min(pause_s, LONGEST_STEP_S) if watched >= 0 else 0.0
        turn_s = 0.0  # b is the first of those that are there
        assert (decision.declare == ("a",)) is (watched >= dead_after_s + turn_s)


def test_turns() -> None:
    """All that are there could act; they do one after the other, so the second only where the first does not. Without a
    record of its own, or with `dead_after_s` 0, a host does nothing; nor does it declare itself dead."""
    read = hosts(Seat("a", "n", 5, True), Seat("d", "n", 5, True), fences={"d": 7}, alive="bc", synced=None)
    acted: dict[str, float] = {}
    for node in "abc":
        memory = Memory()
        for at in range(60):
            decision, memory = decide(read, memory, node=node, now=100.0 + at, dead_after_s=20.0)
            if "a" in decision.declare:
                acted.setdefault(node, at)
    assert acted == {"b": 20, "c": 25}
    memory = Memory(at=100.0, absent={"a": 1e6}, due={"d": 1e6})
    assert decide(read, memory, node="b", now=100.0, dead_after_s=0)[0] == Decision()
    alone = read.replace(alive=frozenset())
    assert decide(alone, memory, node="b", now=100.0, dead_after_s=20.0)[0] == Decision()
    assert decide(read, memory, node="b", now=100.0, dead_after_s=20.0)[0] == Decision(("a",), ()), (
        "a is in the way of d"
    )
    free = read.replace(seats=read.seats[1:])
    assert decide(free, memory, node="b", now=100.0, dead_after_s=20.0)[0] == Decision((), ("d",))


class Barrier(RuleBasedStateMachine):
    """Hosts with one network, followed by the rules of docs/etcd-schema.md in any order, cut off and paused at will.

    The claim is the invariant: what was freed behind the barrier is of a host to which no kernel of a host that counts
    sends, nor takes anything from, until it takes part again itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.revision = 1
        self.seats: dict[str, int] = {}
        self.agents: dict[str, bool] = {}
        self.fences: dict[str, int] = {}
        self.alive: set[str] = set()
        self.synced: dict[str, int] = {}
        self.kernels: dict[str, int] = {}  # the revision that each kernel follows; who never followed has nothing
        self.history: dict[int, Hosts] = {}
        self.freed: dict[str, int] = {}  # hosts whose addresses are others' now: since which revision
        self.changed()

    @initialize(there=st.sampled_from([1, 2, 2, 3]))
    def begin(self, there: int) -> None:
        """Some take part already and have followed each other."""
        for node in NAMES[:there]:
            self.seats[node] = self.write()
            self.agents[node] = True
            self.alive.add(node)
        self.changed()
        for node in NAMES[:there]:
            self.kernels[node] = self.revision

    def changed(self) -> None:
        self.history[self.revision] = self.read()

    def write(self) -> int:
        self.revision += 1
        return self.revision

    def read(self) -> Hosts:
        seats = tuple(Seat(node, "n", at, self.agents[node]) for node, at in self.seats.items())
        return Hosts(self.revision, dict(self.fences), seats, frozenset(self.alive), dict(self.synced))

    def counts(self, node: str, read: Hosts) -> bool:
        return any(seat.node == node and not is_fenced(read, seat) for seat in read.seats)

    @rule(what=WHAT, at=st.integers(0, 2), behind=BEHIND, more=st.booleans())
    def act(self, what: str, at: int, behind: int, more: bool) -> None:
        """One rule for all: hypothesis would leave some of several out of every run."""
        read = self.read()
        able = {
            "join": set(NAMES) - set(self.agents),
            "follow": self.alive,
            "cut_off": self.alive,
            "declare_dead": {node for node in self.seats if self.counts(node, read)} - self.alive,
            "heal": {node for node, kept in self.agents.items() if kept} - self.alive,
            "come_back": {node for node in self.alive & set(self.kernels) if not self.counts(node, read)},
            "free": {node for node in dead_members(read) if not in_the_way(read, node)},
        }[what]
        if able:
            node = sorted(able)[at % len(able)]
            getattr(self, what)(node, behind, more)
            self.changed()

    def join(self, node: str, _: int, with_agent: bool) -> None:
        """At the first attachment: its kernel has nothing of that network yet, and follows what is read afterwards."""
        self.seats[node] = self.write()
        self.agents[node] = with_agent
        if with_agent:
            self.alive.add(node)
        else:
            self.kernels[node] = self.revision

    def follow(self, node: str, behind: int, report: bool) -> None:
        """An agent that hears of etcd programs its kernel, maybe up to an older revision than the last one, but never
        one from before it joined; then it may say so."""
        self.kernels[node] = max(self.revision - behind, self.kernels.get(node, self.seats.get(node, 0)))
        if report:
            self.synced[node] = self.kernels[node]
            self.write()

    def cut_off(self, node: str, behind: int, declare: bool) -> None:
        """Its lease ends; it forwards as before. Somebody may declare it dead."""
        self.alive.discard(node)
        self.synced.pop(node, None)
        self.write()
        self.changed()
        if declare and self.counts(node, self.read()):
            self.declare_dead(node, behind, declare)

    def declare_dead(self, node: str, _: int, __: bool) -> None:
        self.fences[node] = self.write()

    def heal(self, node: str, _: int, __: bool) -> None:
        """It hears of etcd again."""
        self.alive.add(node)
        self.write()

    def come_back(self, node: str, behind: int, _: bool) -> None:
        """A host that was declared dead follows first, and takes part again then."""
        self.kernels[node] = max(self.revision - behind, self.kernels[node])
        if all(fence <= self.kernels[node] for fence in self.fences.values()):  # else members.join refuses
            self.seats[node] = self.write()
            self.freed.pop(node, None)

    def free(self, node: str, _: int, __: bool) -> None:
        self.freed[node] = self.write()
        del self.seats[node]

    @invariant()
    def nobody_listens_to_what_was_freed(self) -> None:
        now = self.read()
        for dead in self.freed:
            for node, at in self.kernels.items():
                if node != dead and self.counts(node, now):
                    before = max(each for each in self.history if each <= at)
                    assert not self.counts(dead, self.history[before]), f"{node} listens to {dead}"


TestBarrier = Barrier.TestCase
TestBarrier.settings = settings(max_examples=400, stateful_step_count=30, deadline=None)
