"""The entries that lead to other hosts: on the real kernel, with real traffic; iproute2 is the second opinion."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from netns_fixtures import EchoServer, assert_unchanged, can_ping, can_tcp, netns_snapshot, wait_until
from pycni.change.forwarding import Entry, FdbEntry, NeighbourEntry, PortEntry, RouteEntry
from pycni.host.forwarding import change_entries, read_entries
from pycni.host.rtnl import Netlink
from tests.kernel.tunnel_lab import BRIDGE, VXLAN, Site, l2_entries, routed_entries

pytestmark = pytest.mark.needs("root", "tool:ip", "tool:bridge", "kernel:vxlan", "kernel:bridge", "kernel:veth")

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
MAC, OTHER_MAC = "02:42:0a:14:00:09", "02:42:0a:14:00:0a"
REMOTE = {4: ("192.0.2.9", "192.0.2.10"), 6: ("2001:db8:a::9", "2001:db8:a::10")}


@FAMILIES
def test_written_read_and_removed(sites: Callable[..., list[Site]], family: int) -> None:
    """What is written is what is read, and what iproute2 shows; again is fine; removed leaves nothing."""
    (site,) = sites(1, family=family)
    site.bridged()
    before = site.fdb()
    vtep = REMOTE[family][0]
    wanted: list[Entry] = [
        *l2_entries(MAC, vtep, "10.20.0.9", "fd20::9"),
        RouteEntry("10.21.0.0/26", "10.20.0.9"),
        RouteEntry("fd21::/64", "fd20::9"),
    ]
    assert site.change(wanted) == ()
    assert site.change(list(reversed(wanted))) == ()
    assert site.entries() == frozenset(wanted)
    assert set(site.fdb()) - set(before) == {f"{MAC} dst {vtep} self permanent", f"{MAC} sticky master {BRIDGE} static"}
    shown = {one["dst"]: one for one in site.host.ip_json("neigh", "show", "dev", VXLAN)}
    for address in ("10.20.0.9", "fd20::9"):
        assert (shown[address]["lladdr"], shown[address]["state"]) == (MAC, ["PERMANENT"])
    for version, prefix, via in (("-4", "10.21.0.0/26", "10.20.0.9"), ("-6", "fd21::/64", "fd20::9")):
        (route,) = site.host.ip_json(version, "route", "show", prefix, "proto", "112")
        assert (route["dst"], route["gateway"], route["dev"], "onlink" in route["flags"]) == (prefix, via, VXLAN, True)
    assert site.change([], wanted) == ()
    assert site.entries() == frozenset()
    assert site.fdb() == before
    assert site.change([], wanted) == ()


@FAMILIES
def test_changed_destination_is_replaced_and_never_joined(sites: Callable[..., list[Site]], family: int) -> None:
    """Whoever moved is at one place: the old destination goes in the same message in which the new one comes."""
    (site,) = sites(1, family=family)
    site.bridged()
    old: list[Entry] = [
        FdbEntry(MAC, REMOTE[family][0]),
        NeighbourEntry("10.20.0.9", MAC),
        RouteEntry("fd21::/64", "fd20::1"),
    ]
    new: list[Entry] = [
        FdbEntry(MAC, REMOTE[family][1]),
        NeighbourEntry("10.20.0.9", OTHER_MAC),
        RouteEntry("fd21::/64", "fd20::2"),
    ]
    site.change(old)
    assert site.change(new) == ()
    assert site.entries() == frozenset(new)
    assert site.change(old, new) == ()
    assert site.entries() == frozenset(old)


@pytest.fixture
def pair(sites: Callable[..., list[Site]]) -> tuple[Site, Site]:
    """Two hosts with bridged tunnels."""
    one, two = sites(2)
    one.bridged()
    two.bridged()
    return one, two


def test_failures_are_told_and_the_rest_is_done(pair: tuple[Site, Site]) -> None:
    """Of many entries those that the kernel refuses are named by reason, all others are there."""
    site, _ = pair
    good: list[Entry] = [NeighbourEntry(f"10.20.1.{number}", MAC) for number in range(1, 251)]
    bad: list[Entry] = [FdbEntry(MAC, "2001:db8::1"), FdbEntry(OTHER_MAC, "2001:db8::1")]
    nowhere = RouteEntry("10.21.0.0/26", "127.0.0.1")
    first, second = site.change([*good, *bad, nowhere])
    assert first.startswith(f"add {bad[0]} and 1 more: ")
    assert second.startswith(f"add {nowhere}: ")
    assert site.entries() == frozenset(good)
    site.host.ip("link", "set", VXLAN, "nomaster")
    (told,) = site.change([PortEntry(MAC)], [PortEntry(OTHER_MAC)])
    assert "add PortEntry" in told


def test_no_entry_is_overlooked_beside_others_that_go(pair: tuple[Site, Site]) -> None:
    """While entries of another port of the bridge come and go, each reading finds all that it is told to expect."""
    site, _ = pair
    here = [f"02:43:00:00:{number // 256:02x}:{number % 256:02x}" for number in range(1500)]
    wanted: list[Entry] = [PortEntry(mac) for mac in here]
    assert site.change(wanted) == ()
    site.host.ip_batch("link add other type veth peer name away", f"link set other master {BRIDGE} up")
    passing: list[Entry] = [PortEntry(f"02:44:00:00:00:{number:02x}") for number in range(200)]
    ended = threading.Event()

    def churn() -> None:
        with Netlink() as netlink:
            while not ended.is_set():
                assert change_entries(netlink, "other", passing) == ()
                assert change_entries(netlink, "other", [], passing) == ()

    with ThreadPoolExecutor(1) as pool:
        churning = pool.submit(site.host.in_namespace, churn)
        try:
            found = [read_entries(site.kernel.host, VXLAN, frozenset(wanted)) for _ in range(30)]
        finally:
            ended.set()
            churning.result()
    assert [len(each) for each in found] == [len(wanted)] * len(found)


def test_entries_of_others_are_left_alone(pair: tuple[Site, Site]) -> None:
    """A route of somebody else to the same prefix is used instead of ours, and neither replaced nor taken away."""
    site, _ = pair
    site.host.ip("route", "add", "10.21.0.0/26", "dev", "eth0")
    site.host.ip("-6", "route", "add", "fd21::/64", "dev", "eth0")
    site.host.ip("neigh", "add", "10.20.0.77", "lladdr", MAC, "dev", "eth0")
    ours: list[Entry] = [RouteEntry("10.21.0.0/26", "10.20.0.9"), RouteEntry("fd21::/64", "fd20::9")]
    assert site.change(ours) == ()
    assert site.entries() == frozenset(ours)
    assert site.change([], ours) == ()
    assert [one["dev"] for one in site.host.ip_json("route", "show", "10.21.0.0/26")] == ["eth0"]
    assert [one["dev"] for one in site.host.ip_json("-6", "route", "show", "fd21::/64")] == ["eth0"]
    assert len(site.host.ip_json("neigh", "show", "dev", "eth0", "nud", "permanent")) == 1


def test_routes_that_cover_the_blocks_are_in_nobodys_way(pair: tuple[Site, Site]) -> None:
    """The underlay may have a wider prefix: the blocks within it go through the tunnel, and nothing stays of them."""
    site, _ = pair
    site.host.ip("addr", "add", "10.1.2.3/8", "dev", "eth0")
    site.host.ip("addr", "add", "fd21::7/32", "dev", "eth0", "nodad")
    before = netns_snapshot(site.host)
    ours: list[Entry] = [RouteEntry("10.21.0.0/26", "10.21.0.0"), RouteEntry("fd21:0:0:2::/64", "fd21:0:0:2::")]
    assert site.change(ours) == ()
    assert site.entries() == frozenset(ours)
    for address in ("10.21.0.5", "fd21:0:0:2::5"):
        (way,) = site.host.ip_json("route", "get", address)
        assert way["dev"] == VXLAN
    assert site.change([], ours) == ()
    assert_unchanged(before, netns_snapshot(site.host))


def test_route_has_the_source_address_it_is_given(pair: tuple[Site, Site]) -> None:
    """`src` is what the host itself sends from."""
    site, _ = pair
    site.host.ip("addr", "add", "10.20.0.1/24", "dev", BRIDGE)
    entry = RouteEntry("10.21.0.0/26", "10.20.9.9", "10.20.0.1")
    assert site.change([entry]) == ()
    assert site.entries() == {entry}
    (way,) = site.host.ip_json("route", "get", "10.21.0.5")
    assert (way["dev"], way["prefsrc"]) == (VXLAN, "10.20.0.1")


@FAMILIES
def test_containers_on_one_subnet_reach_each_other(
    sites: Callable[..., list[Site]], closing: ExitStack, family: int
) -> None:
    """Over both underlays and in both families; not before the entries are there; and not after they went."""
    one, two = sites(2, family=family)
    for site in (one, two):
        site.bridged()
    macs = ["02:42:0a:14:00:02", "02:42:0a:14:00:03"]
    first = one.container("c1", "10.20.0.2/24", "fd20::2/64", mac=macs[0])
    second = two.container("c2", "10.20.0.3/24", "fd20::3/64", mac=macs[1])
    there = l2_entries(macs[1], two.local, "10.20.0.3", "fd20::3")
    back = l2_entries(macs[0], one.local, "10.20.0.2", "fd20::2")
    assert not can_ping(first, "10.20.0.3", deadline_s=0.2)
    assert one.change(there) == two.change(back) == ()
    echo = EchoServer(second)
    closing.callback(echo.close)
    for address in ("10.20.0.3", "fd20::3"):
        assert can_ping(first, address, deadline_s=5)
        assert can_ping(first, address, size=one.mtu - (28 if "." in address else 48))  # the largest, unfragmented
        assert can_tcp(first, address, echo.port)
    one.change([], there)
    assert not can_ping(first, "10.20.0.3", deadline_s=0.3)


@FAMILIES
def test_containers_in_blocks_reach_each_other_and_the_hosts(sites: Callable[..., list[Site]], family: int) -> None:
    """Blocks are routed through the tunnel in both families; the hosts themselves reach the containers as well."""
    one, two = sites(2, family=family)
    blocks = {one: ("10.21.0.0", "fd21:0:0:1::"), two: ("10.21.0.64", "fd21:0:0:2::")}
    one.routed("10.21.0.1/26", "fd21:0:0:1::1/64")
    two.routed("10.21.0.65/26", "fd21:0:0:2::1/64")
    for site in (one, two):
        for block in blocks[site]:
            site.host.ip(
                "addr",
                "add",
                f"{block}/{32 if '.' in block else 128}",
                "dev",
                VXLAN,
                *(("nodad",) if ":" in block else ()),
            )
    ends = {}
    for site, other in ((one, two), (two, one)):
        four, six = blocks[other]
        assert site.change(routed_entries(other, (f"{four}/26", four), (f"{six}/64", six))) == ()
        four, six = blocks[site]
        first = "10.21.0.1" if site is one else "10.21.0.65"
        mine = ("10.21.0.2" if site is one else "10.21.0.66", f"{six}2")
        ends[site] = site.container("c", f"{mine[0]}/26", f"{mine[1]}/64", gateways=(first, f"{six}1")), mine
    for address in ends[two][1]:
        assert can_ping(ends[one][0], address, deadline_s=5)
        assert can_ping(ends[one][0], address, size=one.mtu - (28 if "." in address else 48))
        assert can_ping(one.host, address, deadline_s=5)


def test_container_cannot_take_over_a_remote_mac(sites: Callable[..., list[Site]]) -> None:
    """The entry of the bridge stays where it is, whoever sends with that MAC."""
    one, two = sites(2)
    one.bridged()
    two.bridged()
    mac = "02:42:0a:14:00:03"
    one.change(l2_entries(mac, two.local, "10.20.0.3"))
    thief = one.container("thief", "10.20.0.66/24", mac=mac)
    one.container("honest", "10.20.0.2/24", mac="02:42:0a:14:00:02")
    assert not can_ping(thief, "10.20.0.2", deadline_s=0.3)  # the answer goes to the host that has the MAC
    assert PortEntry(mac) in one.entries()
    one.change([], [PortEntry(mac)])
    assert can_ping(thief, "10.20.0.2")


@pytest.mark.parametrize(("family", "group"), [(4, "239.1.1.1"), (6, "ff05::100")])
def test_multicast_group_needs_no_entries(sites: Callable[..., list[Site]], family: int, group: str) -> None:
    """Hosts that share nothing but a group: what is unknown goes to all, and where answers come from is learned."""
    one, two = sites(2, family=family)
    for site in (one, two):
        site.bridged(learning=True, proxy=False, group=group)
    first = one.container("c1", "10.20.0.2/24", "fd20::2/64")
    two.container("c2", "10.20.0.3/24", "fd20::3/64")
    for address in ("10.20.0.3", "fd20::3"):
        assert can_ping(first, address, deadline_s=5)
    assert any(f"dst {two.local} self" in line and "permanent" not in line for line in one.fdb())
    assert one.entries() == frozenset()


def test_snooping_bridge_lets_neighbour_solicitations_pass(sites: Callable[..., list[Site]]) -> None:
    """With a querier about, a bridge that snoops keeps multicast from ports where nobody joined: but not from the
    tunnel's."""
    one, two = sites(2)
    for site in (one, two):
        site.bridged()
    # The second says when the third begins.
    for asked in ("mcast_snooping 1", "mcast_query_response_interval 10", "mcast_querier 1"):
        one.host.ip("link", "set", BRIDGE, "type", "bridge", *asked.split())
    one.change(l2_entries("02:42:0a:14:00:03", two.local, "fd20::3"))
    two.change(l2_entries("02:42:0a:14:00:02", one.local, "fd20::2"))
    first = one.container("c1", "fd20::2/64", mac="02:42:0a:14:00:02")
    two.container("c2", "fd20::3/64", mac="02:42:0a:14:00:03")

    def reached() -> bool:
        first.ip("neigh", "flush", "all")
        return can_ping(first, "fd20::3", deadline_s=0.3)

    wait_until(reached)
    one.host.run(["bridge", "link", "set", "dev", VXLAN, "mcast_router", "1"])
    wait_until(lambda: not reached(), 15)
    one.do(one.vxlan(bridge=BRIDGE))
    wait_until(reached)
