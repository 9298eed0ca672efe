"""What a host hears of its tunnels, and what its containers hear of remote ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from netns_fixtures import Container, can_ping, wait_until
from pycni.change.forwarding import Entry, FdbEntry, NeighbourEntry, PortEntry, RouteEntry
from pycni.host import netlink
from pycni.host.announce_peer import PeerAnnouncer
from pycni.host.inet_messages import RTM_DELROUTE, RTM_NEWNEIGH, RTM_NEWROUTE
from pycni.host.link_events import Change, LinkEvents
from tests.kernel.tunnel_lab import BRIDGE, VXLAN, Site, l2_entries

pytestmark = pytest.mark.needs("root", "tool:ip", "tool:bridge", "kernel:vxlan", "kernel:bridge", "kernel:veth")

MAC = "02:42:0a:14:00:09"
ROUTE, ROUTE6 = RouteEntry("10.21.0.0/26", "10.20.0.9"), RouteEntry("fd21::/64", "fd20::9")
ENTRIES: list[Entry] = [*l2_entries(MAC, "192.0.2.9", "10.20.0.9", "fd20::9"), ROUTE, ROUTE6]


class Ears:
    """The events of one host from now on."""

    def __init__(self, site: Site, closing: ExitStack) -> None:
        self.events = site.host.in_namespace(LinkEvents)
        closing.callback(self.events.close)

    def heard(self) -> list[Change]:
        """What was told since the last time; of links and addresses the kernel tells some things a moment later."""
        found = self.events.read()
        assert found is not None
        return found

    def until(self, wanted: Callable[[Change], bool]) -> None:
        """Listen until that is told."""
        wait_until(lambda: any(map(wanted, self.heard())))

    def entries(self, *, gone: bool) -> set[Entry]:
        return {one.entry for one in self.heard() if one.entry is not None and one.gone == gone}

    def kinds(self) -> set[int]:
        """The types (RTM_…) of all messages that the kernel has put into the socket since the last time."""
        found: set[int] = set()
        while True:
            try:
                data = os.read(self.events.fileno(), 65536)
            except BlockingIOError:
                return found
            found.update(netlink.HEADER.unpack_from(data, offset)[1] for offset, _ in netlink.split(data))


@pytest.fixture
def site(sites: Callable[..., list[Site]]) -> Site:
    """A host with a bridged tunnel."""
    (one,) = sites(1)
    one.bridged()
    return one


def test_entries_that_come_and_go_are_told(site: Site, closing: ExitStack) -> None:
    """Each as the entry it is, on the tunnel's device, whoever did it; learned ones and routes of others are not."""
    ears = Ears(site, closing)
    site.change(ENTRIES)
    came = [one for one in ears.heard() if one.entry is not None]
    assert {one.entry for one in came} == set(ENTRIES)
    assert {(one.index, one.gone, one.link, one.address) for one in came} == {(site.have().index, False, None, "")}
    site.host.run(["bridge", "fdb", "del", MAC, "dev", VXLAN, "self"])
    site.host.run(["bridge", "fdb", "del", MAC, "dev", VXLAN, "master"])
    site.host.ip("neigh", "del", "10.20.0.9", "dev", VXLAN)
    site.host.ip("neigh", "del", "fd20::9", "dev", VXLAN)
    site.host.ip("route", "del", "10.21.0.0/26", "proto", "112")
    site.host.ip("-6", "route", "del", "fd21::/64", "proto", "112")
    lost = {FdbEntry(MAC, "192.0.2.9"), PortEntry(MAC), NeighbourEntry("10.20.0.9", ""), NeighbourEntry("fd20::9", "")}
    assert ears.entries(gone=True) == {*lost, ROUTE, ROUTE6}
    site.host.run(["bridge", "fdb", "replace", MAC, "dev", VXLAN, "dst", "192.0.2.66", "self"])
    assert ears.entries(gone=False) == {FdbEntry(MAC, "192.0.2.66")}
    ears.kinds()
    site.host.ip("neigh", "add", "192.0.2.50", "lladdr", MAC, "dev", "eth0", "nud", "reachable")
    site.host.ip("neigh", "change", "192.0.2.50", "lladdr", MAC, "dev", "eth0", "nud", "stale")
    site.host.ip("route", "add", "10.99.0.0/24", "dev", "eth0")
    site.host.ip("route", "del", "10.99.0.0/24", "dev", "eth0")
    assert ears.kinds().isdisjoint({RTM_NEWNEIGH, RTM_NEWROUTE, RTM_DELROUTE})  # nobody is woken by them


def test_links_and_addresses_are_told(site: Site, closing: ExitStack) -> None:
    """What the underlay's link is and has; that the tunnel went down, or away."""
    ears = Ears(site, closing)
    index = site.have().index
    uplink = site.kernel.host.link("eth0")
    assert uplink is not None
    site.host.ip("link", "set", "eth0", "mtu", "1400")
    ears.until(lambda one: one.link is not None and (one.index, one.link.mtu) == (uplink.index, 1400))
    for address in ("192.0.2.77", "2001:db8:a::77"):
        came, went = (Change(uplink.index, gone, address=address) for gone in (False, True))
        long = f"{address}/64" if ":" in address else f"{address}/24"
        site.host.ip("addr", "add", long, "dev", "eth0", *(("nodad",) if ":" in address else ()))
        ears.until(came.__eq__)
        site.host.ip("addr", "del", long, "dev", "eth0")
        ears.until(went.__eq__)
    site.host.ip("link", "set", VXLAN, "down")
    ears.until(lambda one: one.link is not None and (one.link.name, one.link.up) == (VXLAN, False))
    site.host.ip("link", "del", VXLAN)
    ears.until(lambda one: one.gone and one.link is not None and (one.index, one.link.name) == (index, VXLAN))


def test_device_that_was_down_has_lost_neighbours_and_routes(site: Site) -> None:
    """So its coming up again is no end of it: they have to be written anew."""
    site.change(ENTRIES)
    site.host.ip("link", "set", VXLAN, "down")
    site.do(site.vxlan(bridge=BRIDGE))
    assert site.entries() == {FdbEntry(MAC, "192.0.2.9"), PortEntry(MAC)}
    site.change(ENTRIES)
    assert site.entries() == set(ENTRIES)


def test_too_many_to_be_told_is_told(site: Site, closing: ExitStack) -> None:
    """What did not fit into the socket is lost: the answer is then None, once, and what comes later is heard again."""
    ears = Ears(site, closing)
    many: list[Entry] = [
        NeighbourEntry(f"10.{20 + number // 250 // 250}.{number // 250 % 250}.{number % 250 + 1}", MAC)
        for number in range(12000)
    ]
    site.change(many)
    answers = []
    while (found := ears.events.read()) != []:  # None, and lists of what is still there
        answers.append(found)
    assert answers.count(None) == 1
    site.change([ROUTE])
    assert ears.entries(gone=False) == {ROUTE}


def _known(container: Container) -> dict[str, str]:
    """Address → MAC, as the container has them."""
    return {each["dst"]: each.get("lladdr", "") for each in container.ip_json("neigh", "show", "dev", "eth0")}


@pytest.mark.parametrize(("family", "address"), [(4, "10.20.0.3"), (6, "fd20::3")])
def test_announcement_ends_the_waiting_of_a_container(
    sites: Callable[..., list[Site]], closing: ExitStack, family: int, address: str
) -> None:
    """A container that asked too early would ask again much later (here: in a minute); the announcement is enough.
    Another one replaces what it knows; it reaches no container's table that had not asked."""
    one, two = sites(2)
    for site in (one, two):
        site.bridged()
    macs = ["02:42:0a:14:00:02", "02:42:0a:14:00:03"]
    first = one.container("c1", "10.20.0.2/24", "fd20::2/64", mac=macs[0])
    other = one.container("c9", "10.20.0.9/24", "fd20::9/64", mac=MAC)
    two.container("c2", "10.20.0.3/24", "fd20::3/64", mac=macs[1])
    two.change(l2_entries(macs[0], one.local, "10.20.0.2", "fd20::2"))
    first.sysctl(f"net/ipv{family}/neigh/eth0/retrans_time_ms", "60000")
    assert not can_ping(first, address, deadline_s=0.2)
    one.change(l2_entries(macs[1], two.local, "10.20.0.3", "fd20::3"))
    assert not can_ping(first, address, deadline_s=0.5)
    announcer = one.host.in_namespace(PeerAnnouncer)
    closing.callback(announcer.close)
    began = time.monotonic()
    announcer.kick(BRIDGE, [(address, macs[1])])
    assert can_ping(first, address)
    print(f"reply {1000 * (time.monotonic() - began):.1f} ms after the announcement")
    assert _known(first)[address] == macs[1]
    announcer.kick(BRIDGE, [(address, MAC)])
    wait_until(lambda: _known(first)[address] == MAC, 0.5)  # within locktime, when an ordinary reply would not count
    assert address not in _known(other)
    with pytest.raises(OSError, match="No such device"):
        announcer.kick("nothing", [(address, macs[1])])
