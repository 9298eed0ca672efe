"""The table of peers: whatever the order of changes, it wants what a fresh one wants, at a cost that does not grow."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.change.forwarding import Entry, FdbEntry, NeighbourEntry, PortEntry, RouteEntry
from pycni.etcd.records import Block, Endpoint, Fence, Member, Record
from pycni.etcd.requests import KeyValue
from pycni.plugins.overlay.peers import Delta, PeerTable, difference, slot_of

ME, NET, LOCAL = "me", "blue", "192.168.0.99"
Key = tuple[str, ...]

NODES = st.sampled_from([ME, "b", "c", "d"])
MACS = st.sampled_from(["", *(f"02:42:0a:00:00:0{digit}" for digit in "1234"), "AA:00:00:00:00:01"])
MEMBERS = st.builds(
    lambda number, mtu: Member(name="host", vtep=f"192.168.0.{number}", mac=f"0a:00:00:00:00:0{number}", mtu=mtu),
    st.integers(1, 4),
    st.integers(1400, 1402),
)
ENDPOINTS = st.builds(lambda node, mac: Endpoint(node, "ctr", "eth0", ("10.0.0.1",), mac), NODES, MACS)
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::1", "fd00::2"])
BLOCKS = st.sampled_from(["10.0.0.0/30", "10.0.0.4/30", "fd00::/122"])
NAMES = st.sampled_from([NET, "other"])
PUTS: st.SearchStrategy[tuple[Key, Record]] = st.one_of(
    st.tuples(st.tuples(st.just("ep"), NAMES, ADDRESSES), ENDPOINTS),
    st.tuples(st.tuples(st.just("block"), NAMES, BLOCKS), st.builds(Block, NODES)),
    st.tuples(st.tuples(st.just("member"), NODES, NAMES), MEMBERS),
    st.tuples(st.tuples(st.just("fence"), NODES), st.just(Fence(by="x"))),
)
STEPS = st.lists(st.lists(st.tuples(PUTS, st.booleans()), min_size=1, max_size=3), max_size=40)
MODES = st.sampled_from(["l2", "routed"])


def kv(value: Record, revision: int, created: int = 0) -> KeyValue:
    return KeyValue("key", value.render(), created or revision, revision)


class Etcd:
    """What is there, each key with its revisions."""

    def __init__(self) -> None:
        self.revision = 1
        self.there: dict[Key, KeyValue] = {}

    def change(self, batch: list[tuple[tuple[Key, Record], bool]]) -> list[tuple[Key, KeyValue | None]]:
        """Put, or delete where that is said; what a mirror reports of it."""
        self.revision += 1
        for (key, value), is_put in batch:
            if is_put:
                old = self.there.get(key)
                self.there[key] = kv(value, self.revision, old.create_revision if old else 0)
            else:
                self.there.pop(key, None)
        return [(key, self.there.get(key)) for (key, _), _ in batch]


class Kernel:
    """One entry for each slot, an added one replaces; what is removed must be there."""

    def __init__(self) -> None:
        self.slots: dict[tuple[str, str], Entry] = {}

    def apply(self, delta: Delta) -> None:
        for entry in delta.add:
            assert self.slots.get(slot_of(entry)) != entry, "added twice"
            self.slots[slot_of(entry)] = entry
        for entry in delta.remove:
            assert self.slots.pop(slot_of(entry)) == entry

    def entries(self) -> frozenset[Entry]:
        return frozenset(self.slots.values())


@given(MODES, STEPS, st.randoms())
def test_order_does_not_matter(
    mode: str, steps: list[list[tuple[tuple[Key, Record], bool]]], random: Callable[..., None]
) -> None:
    """After any changes the table wants what a table fed with the final state in any order wants, and its deltas, each
    applied to what was there, have brought a kernel there; the tunnel addresses likewise."""
    etcd, table, kernel, vteps = Etcd(), PeerTable(ME, NET, mode, LOCAL), Kernel(), set[str]()
    for step in steps:
        delta = table.change(etcd.change(step))
        assert not delta.add & delta.remove
        kernel.apply(delta)
        assert delta.vteps_remove <= vteps
        assert not delta.vteps_add & vteps
        vteps = (vteps | delta.vteps_add) - delta.vteps_remove
        assert kernel.entries() == table.wanted()
        assert vteps == table.vteps()
        assert {what for what, _ in table.since()} == {*table.wanted(), *table.vteps()}
    final = list(etcd.there.items())
    random.shuffle(final)  # type: ignore[attr-defined]
    fresh = PeerTable(ME, NET, mode, LOCAL)
    for item in final:
        fresh.change([item])
    assert fresh.wanted() == table.wanted()
    assert fresh.vteps() == table.vteps()
    assert len({slot_of(entry) for entry in table.wanted()}) == len(table.wanted()), "the kernel can hold it"


@given(MODES, STEPS, STEPS)
def test_difference(
    mode: str, there: list[list[tuple[tuple[Key, Record], bool]]], now: list[list[tuple[tuple[Key, Record], bool]]]
) -> None:
    """Whatever a kernel holds, the difference makes it what is wanted, and never takes away what it has just added."""
    old, new = PeerTable(ME, NET, mode, LOCAL), PeerTable(ME, NET, mode, LOCAL)
    for table, steps in ((old, there), (new, now)):
        etcd = Etcd()
        for step in steps:
            table.change(etcd.change(step))
    kernel = Kernel()
    kernel.apply(Delta(add=old.wanted()))
    kernel.apply(difference(new.wanted(), kernel.entries()))
    assert kernel.entries() == new.wanted()


def test_difference_of_one_mac_behind_two_hosts() -> None:
    """A second tunnel of a wanted MAC goes; where the wanted one is still to come it goes with the next comparison,
    since until then nobody can say which of the two the kernel would replace."""
    wanted, first, second = (FdbEntry("02:42:0a:00:00:01", f"192.168.0.{number}") for number in (1, 2, 3))
    assert difference(frozenset({wanted}), frozenset({wanted, first})) == Delta(remove=frozenset({first}))
    assert difference(frozenset({wanted}), frozenset({first, second})) == Delta(add=frozenset({wanted}))


def joined(node: str, vtep: str, revision: int = 5) -> tuple[Key, KeyValue]:
    return ("member", node, NET), kv(Member(name=node, vtep=vtep, mac=f"0a:00:00:00:00:{vtep[-2:]}"), revision)


def endpoint(address: str, node: str, mac: str, revision: int = 6) -> tuple[Key, KeyValue]:
    return ("ep", NET, address), kv(Endpoint(node, "ctr", "eth0", (address,), mac), revision)


MAC = "02:42:0a:00:00:07"
BLOCK = "block", NET, "10.0.1.0/26"


def test_l2_entries() -> None:
    """An endpoint with two addresses needs two neighbours, and one entry of each kind for its MAC; none while its host
    does not take part, and none for this host's own."""
    table = PeerTable(ME, NET, "l2", LOCAL)
    both = [
        endpoint("10.0.0.7", "b", MAC),
        endpoint("fd00::7", "b", MAC),
        endpoint("10.0.0.8", ME, "02:42:0a:00:00:08"),
    ]
    assert not table.change(both)
    delta = table.change([joined("b", "192.168.0.11"), joined(ME, "192.168.0.10")])
    neighbours = {NeighbourEntry("10.0.0.7", MAC), NeighbourEntry("fd00::7", MAC)}
    assert delta.add == {FdbEntry(MAC, "192.168.0.11"), PortEntry(MAC), *neighbours}
    assert set(delta.fresh) == neighbours
    assert delta.vteps_add == {"192.168.0.11"}
    assert table.change([(("ep", NET, "10.0.0.7"), None)]).remove == {NeighbourEntry("10.0.0.7", MAC)}


def test_what_went_and_came_again_is_another() -> None:
    """Each entry and tunnel address has the revision since which it is asked for without a break: of its endpoint, or
    of its host where that joined later. Writing the same endpoint again is no break."""
    table = PeerTable(ME, NET, "l2", LOCAL)
    table.change([joined("b", "192.168.0.11", 5), endpoint("10.0.0.7", "b", MAC, 7)])
    assert {since for what, since in table.since() if not isinstance(what, str)} == {7}
    assert ("192.168.0.11", 5) in table.since()
    table.change([(("ep", NET, "10.0.0.7"), kv(Endpoint("b", "ctr", "eth0", ("10.0.0.7",), MAC), 8, created=7))])
    assert {since for _, since in table.since()} == {5, 7}
    table.change([(("ep", NET, "10.0.0.7"), None)])
    table.change([endpoint("10.0.0.7", "b", MAC, 9)])
    assert {since for _, since in table.since()} == {5, 9}
    table.change([joined("b", "192.168.0.11", 12)])
    assert {since for _, since in table.since()} == {12}


def test_routed_entries() -> None:
    """Of a host one entry for its tunnel, and a route and neighbour for each of its blocks, however many containers."""
    table = PeerTable(ME, NET, "routed", LOCAL)
    block = kv(Block("b"), 6)
    delta = table.change(
        [
            joined("b", "192.168.0.11"),
            (("block", NET, "10.0.1.0/26"), block),
            (("block", NET, "4", "length"), kv(Block("b"), 6)),
            endpoint("10.0.1.7", "b", MAC),
        ]
    )
    tunnel = "0a:00:00:00:00:11"
    route = {RouteEntry("10.0.1.0/26", "10.0.1.0"), NeighbourEntry("10.0.1.0", tunnel)}
    assert delta.add == {FdbEntry(tunnel, "192.168.0.11"), *route}
    assert table.change([(("block", NET, "10.0.1.0/26"), None)]).remove == route


def test_moved_endpoint() -> None:
    """An endpoint that comes up on another host is one replacement; on this host, nothing may lead away from it."""
    table = PeerTable(ME, NET, "l2", LOCAL)
    table.change([joined("b", "192.168.0.11"), joined("c", "192.168.0.12"), endpoint("10.0.0.7", "b", MAC)])
    assert table.change([endpoint("10.0.0.7", "c", MAC)]) == Delta(add=frozenset({FdbEntry(MAC, "192.168.0.12")}))
    assert table.change([endpoint("10.0.0.7", ME, MAC)]).remove == {
        FdbEntry(MAC, "192.168.0.12"),
        PortEntry(MAC),
        NeighbourEntry("10.0.0.7", MAC),
    }


def test_one_mac_twice() -> None:
    """Of two containers with one MAC the later one has it, also where that is on this host."""
    table = PeerTable(ME, NET, "l2", LOCAL)
    table.change([joined("b", "192.168.0.11"), joined("c", "192.168.0.12"), endpoint("10.0.0.7", "b", MAC, 7)])
    delta = table.change([endpoint("10.0.0.8", "c", MAC, 8)])
    assert delta.add == {FdbEntry(MAC, "192.168.0.12"), NeighbourEntry("10.0.0.8", MAC)}
    gone = table.change([endpoint("10.0.0.9", ME, MAC, 9)])
    assert gone.remove == {FdbEntry(MAC, "192.168.0.12"), PortEntry(MAC)}
    assert table.change([(("ep", NET, "10.0.0.9"), None)]).add == gone.remove


def test_fenced_host() -> None:
    """A host that was declared dead since it joined is sent nothing and heard no more, until it joins again."""
    table = PeerTable(ME, NET, "l2", LOCAL)
    start = table.change([joined("b", "192.168.0.11", 5), endpoint("10.0.0.7", "b", MAC)])
    fenced = table.change([(("fence", "b"), kv(Fence(by="x"), 9))])
    assert (fenced.remove, fenced.vteps_remove) == (start.add, start.vteps_add)
    back = table.change([joined("b", "192.168.0.11", 10)])
    assert (back.add, back.vteps_add) == (start.add, start.vteps_add)


def test_readdressed_host() -> None:
    """A host's new tunnel address is a replacement of its entries; nothing is gone in between."""
    table = PeerTable(ME, NET, "l2", LOCAL)
    table.change([joined("b", "192.168.0.11"), endpoint("10.0.0.7", "b", MAC)])
    assert table.change([joined("b", "192.168.0.21", 7)]) == Delta(
        add=frozenset({FdbEntry(MAC, "192.168.0.21")}),
        vteps_add=frozenset({"192.168.0.21"}),
        vteps_remove=frozenset({"192.168.0.11"}),
    )


@pytest.mark.parametrize("mode", ["l2", "routed"])
def test_unusable_record_changes_nothing(mode: str) -> None:
    """What the kernel would refuse for ever, a tunnel address or MAC that is none, is not even tried."""
    table = PeerTable(ME, NET, mode, LOCAL)
    other = "member", "c", NET
    table.change([joined("b", "192.168.0.11"), endpoint("10.0.0.7", "b", MAC), (BLOCK, kv(Block("b"), 6))])
    before = table.wanted()
    assert not table.change([(other, kv(Member(name="c", vtep="192.168.0", mac=MAC), 8))])
    assert not table.change([endpoint("10.0.0.7", "b", "01:00:5e:00:00:01", 8)])
    if mode == "routed":
        assert not table.change([(other, kv(Member(name="c", vtep="192.168.0.12", mac="none"), 8))])
    assert table.wanted() == before
    assert ("/".join(other) in table.problems) and (len(table.problems) == (2 if mode == "l2" else 1))


@pytest.mark.parametrize("mode", ["l2", "routed"])
@pytest.mark.parametrize(("local", "other"), [("192.168.0.11", "fd00::99"), ("fd00::11", "192.168.0.99")])
def test_tunnel_of_the_other_family(mode: str, local: str, other: str) -> None:
    """A device has tunnels of one family; a host that ends them at an address of the other one is told of, no more."""
    table = PeerTable(ME, NET, mode, local)
    assert not table.change([joined("b", other), endpoint("10.0.0.7", "b", MAC), (BLOCK, kv(Block("b"), 6))]).vteps_add
    assert "its tunnels end at" in table.problems[f"member/b/{NET}"]
    assert all(not isinstance(entry, FdbEntry) for entry in table.wanted())
    mended = local[:-1] + "2"
    assert table.change([joined("b", mended, 8)]).vteps_add == {mended}
    assert not table.problems


def test_damaged_record_changes_nothing() -> None:
    """What cannot be read leaves things as they are, and is told until it can."""
    table = PeerTable(ME, NET, "l2", LOCAL)
    table.change([joined("b", "192.168.0.11"), endpoint("10.0.0.7", "b", MAC)])
    before = table.wanted()
    assert not table.change([(("ep", NET, "10.0.0.7"), KeyValue("key", b"{}", 6, 8))])
    assert table.wanted() == before
    assert list(table.problems) == [f"ep/{NET}/10.0.0.7"]
    table.change([endpoint("10.0.0.7", "b", MAC)])
    assert not table.problems


@pytest.mark.parametrize("mode", ["l2", "routed"])
def test_cost_of_one_change(mode: str) -> None:
    """One endpoint, block, member or fence costs as many calls beside 5000 endpoints of others as beside 20."""
    assert _calls(mode, 20) == _calls(mode, 5000)


def _calls(mode: str, number: int) -> int:
    table = PeerTable(ME, NET, mode, LOCAL)
    for at in range(number):
        node = f"n{at % 10}"
        table.change(
            [
                (
                    ("ep", NET, f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}"),
                    kv(Endpoint(node, "c", "e", (), f"02:00:00:{at:06x}"), at + 1),
                ),
                (("block", NET, f"10.{at >> 8}.{at & 255}.0/24"), kv(Block(node), at + 1)),
            ]
        )
    table.change([joined(f"n{at}", f"192.168.0.{at + 20}") for at in range(10)])
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    more = [
        joined("new", "192.168.0.99"),
        endpoint("10.200.0.7", "new", MAC),
        (("block", NET, "10.200.0.0/24"), kv(Block("new"), 99)),
        (("fence", "new"), kv(Fence(by="x"), 100)),
    ]
    gc.disable()  # who waits for its rounds, as hypothesis does, would be counted
    sys.setprofile(counted)
    try:
        for one in more:
            table.change([one])
    finally:
        sys.setprofile(None)
        gc.enable()
    return count
