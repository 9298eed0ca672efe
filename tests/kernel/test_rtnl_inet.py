"""Addresses, routes, neighbours and forwarding entries on the real kernel; iproute2 is the second opinion."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from netns_fixtures import Namespace, wait_until
from pycni.host import messages, rtnl
from pycni.host.inet_messages import RTN_BLACKHOLE, RTN_PROHIBIT, RTN_UNREACHABLE
from tests.kernel.place import Place, refused

pytestmark = pytest.mark.needs("root", "tool:ip", "kernel:veth", "kernel:bridge")

MAC, OTHER_MAC = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
FAMILIES = pytest.mark.parametrize(
    ("net", "gw", "far"),
    [("10.1.0.{}/24", "10.1.0.1", "10.9.0.0/16"), ("fd01::{}/64", "fd01::1", "fd09::/48")],
    ids=["ipv4", "ipv6"],
)


@pytest.fixture
def place(make_namespace: Callable[..., Namespace], closing: ExitStack) -> Callable[[], Place]:
    return lambda: Place(make_namespace(), closing)


@pytest.fixture
def here(place: Callable[[], Place]) -> Place:
    """The host's side."""
    return place()


@pytest.fixture
def there(place: Callable[[], Place]) -> Place:
    """The container's side."""
    return place()


@pytest.fixture
def pair(here: Place) -> Place:
    """`here` with a veth pair a–b, both up."""
    here.nl.request(messages.new_veth_pair_here("a", "b"))
    return here


@FAMILIES
def test_addresses(pair: Place, net: str, gw: str, far: str) -> None:
    """Added, seen, refused twice, replaced, removed, EADDRNOTAVAIL then: the same path for both families."""
    index, one, two = pair.link("a").index, ip_interface(net.format(2)), ip_interface(net.format(3))
    pair.nl.request(messages.new_address(index, one, nodad=True), messages.new_address(index, two, nodad=True))
    assert set(pair.ns.addresses("a")) == {str(one), str(two)}
    assert {one, two} <= set(pair.nl.addresses(index))
    assert set(pair.nl.addresses(pair.link("b").index)).isdisjoint({one, two})
    assert refused(pair, messages.new_address(index, one)).errno == errno.EEXIST
    pair.nl.request(messages.new_address(index, one, replace=True, nodad=True))
    pair.nl.request(messages.delete_address(index, two))
    assert pair.ns.addresses("a") == [str(one)]
    assert refused(pair, messages.delete_address(index, two)).errno == errno.EADDRNOTAVAIL
    assert pair.nl.addresses(4711) == ()


def test_first_ipv4_address_takes_the_others_of_its_network_along(pair: Place) -> None:
    """What delete_address warns of, and the sysctl that prevents it."""
    index, one, two = pair.link("a").index, ip_interface("10.1.0.2/24"), ip_interface("10.1.0.3/24")
    for promote, left in (("0", ()), ("1", (two,))):
        pair.ns.sysctl("net/ipv4/conf/a/promote_secondaries", promote)
        pair.nl.request(messages.new_address(index, one), messages.new_address(index, two))
        pair.nl.request(messages.delete_address(index, one))
        assert pair.nl.addresses(index, 2) == left


def test_broadcast_address_is_set(pair: Place) -> None:
    """As other tools do: programs that ask the interface for its broadcast address find one."""
    pair.nl.request(messages.new_address(pair.link("a").index, ip_interface("10.1.2.3/16")))
    ((shown,),) = [
        [a for a in link["addr_info"] if a["family"] == "inet"] for link in pair.ns.ip_json("addr", "show", "dev", "a")
    ]
    assert shown["broadcast"] == "10.1.255.255"


def test_nodad_address_is_usable_at_once(pair: Place) -> None:
    """With nodad nothing is tentative; without it the wait ends when detection does."""
    index = pair.link("a").index
    wait_until(lambda: pair.link("a").operstate == 6)
    pair.nl.request(messages.new_address(index, ip_interface("fd01::1/64"), nodad=True))
    assert pair.nl.wait_dad(index, 0) is None
    pair.nl.request(messages.new_address(index, ip_interface("fd01::2/64")))
    with pytest.raises(TimeoutError, match="duplicate address"):
        pair.nl.wait_dad(index, 0)
    assert pair.nl.wait_dad(index, 10) is None


def test_duplicate_address_is_found(pair: Place, there: Place) -> None:
    """An address that the other end has is told, in the time detection takes."""
    pair.nl.request(messages.new_veth(host="c", peer="d", netns_fd=there.fd))
    there.nl.request(messages.set_link("d", up=True))
    address = ip_interface("fd01::1/64")
    there.nl.request(messages.new_address(there.link("d").index, address, nodad=True))
    pair.nl.wait_port_forwarding(pair.link("c").index, 0)
    wait_until(lambda: pair.link("c").operstate == 6)
    pair.nl.request(messages.new_address(pair.link("c").index, address))
    assert pair.nl.wait_dad(pair.link("c").index, 10) == address


@FAMILIES
def test_routes(pair: Place, net: str, gw: str, far: str) -> None:
    """A route with all its fields, through a gateway: as set, as read, refused twice, deleted, ESRCH then."""
    index, dst, gateway, own = pair.link("a").index, ip_network(far), ip_address(gw), ip_interface(net.format(2))
    pair.nl.request(messages.new_address(index, own, nodad=True))
    route = messages.new_route(
        dst, gw=gateway, oif=index, metric=77, table=1000, mtu=1300, advmss=1200, protocol=99, src=own.ip
    )
    pair.nl.request(route)
    found = pair.nl.routes(table=1000)
    assert found == (
        rtnl.RouteFacts(
            dst=dst, gw=gateway, oif=index, metric=77, table=1000, mtu=1300, advmss=1200, protocol=99, src=own.ip
        ),
    )  # fmt: skip
    family = f"-{dst.version}"
    (shown,) = pair.ns.ip_json(family, "route", "show", "table", "1000")
    assert (shown["dst"], shown["gateway"], shown["metric"], shown["prefsrc"]) == (far, gw, 77, str(own.ip))
    assert refused(pair, route).errno == errno.EEXIST
    pair.nl.request(messages.delete_route(dst, table=1000))
    assert pair.nl.routes(table=1000) == ()
    assert refused(pair, messages.delete_route(dst, table=1000)).errno == errno.ESRCH


@FAMILIES
def test_default_route_and_lookup(pair: Place, net: str, gw: str, far: str) -> None:
    """None without a way; with a default route every address goes there."""
    target = ip_network(far)[7]
    assert pair.nl.route_to(target) is None
    index = pair.link("a").index
    pair.nl.request(messages.new_address(index, ip_interface(net.format(2)), nodad=True))
    everywhere = ip_network("0.0.0.0/0" if target.version == 4 else "::/0")
    pair.nl.request(messages.new_route(everywhere, gw=ip_address(gw)))
    found = pair.nl.route_to(target)
    assert found is not None
    assert (found.oif, found.gw) == (index, ip_address(gw))
    assert [route.gw for route in pair.nl.routes(oif=index) if route.dst == everywhere] == [ip_address(gw)]
    assert everywhere not in [route.dst for route in pair.nl.routes(oif=pair.link("b").index)]


@FAMILIES
def test_appended_and_replaced_routes(pair: Place, net: str, gw: str, far: str) -> None:
    """Append keeps both next hops, replace one; every next hop is a fact of its own."""
    index, dst = pair.link("a").index, ip_network(far)
    one, two, three = (ip_interface(net.format(n)).ip for n in (11, 12, 13))
    pair.nl.request(
        messages.new_address(index, ip_interface(net.format(2)), nodad=True),
        messages.new_route(dst, gw=one, oif=index, metric=5),
        messages.new_route(dst, gw=two, oif=index, metric=5, append=True),
    )
    assert [route.gw for route in pair.nl.routes(oif=index) if route.dst == dst] == [one, two]
    pair.nl.request(messages.new_route(dst, gw=three, oif=index, metric=5, replace=True))
    assert three in [route.gw for route in pair.nl.routes(oif=index) if route.dst == dst]


@FAMILIES
@pytest.mark.parametrize("kind", [RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT])
def test_refusing_route_is_no_way(pair: Place, net: str, gw: str, far: str, kind: int) -> None:
    """A destination that a route refuses has no way out, in either family."""
    pair.nl.request(messages.new_route(ip_network(far), kind=kind))
    assert pair.nl.route_to(ip_network(far)[1]) is None


def test_link_scope_without_gateway(pair: Place) -> None:
    """A gateway inside a route without gateway is accepted: that route has link scope."""
    pair.nl.request(
        messages.new_route(ip_network("10.5.0.1/32"), oif=pair.link("a").index),
        messages.new_route(ip_network("0.0.0.0/0"), gw=ip_address("10.5.0.1")),
    )
    (shown,) = pair.ns.ip_json("route", "show", "10.5.0.1")
    assert shown["scope"] == "link"


def test_ipv4_route_over_an_ipv6_gateway(pair: Place) -> None:
    """RTA_VIA: not the first four bytes of the address."""
    index = pair.link("a").index
    pair.nl.request(messages.new_address(index, ip_interface("fd01::2/64"), nodad=True))
    pair.nl.request(messages.new_route(ip_network("10.5.0.0/16"), gw=ip_address("fd01::1"), oif=index))
    (shown,) = pair.ns.ip_json("route", "show", "10.5.0.0/16")
    assert shown["via"] == {"family": "inet6", "host": "fd01::1"}
    assert [route.gw for route in pair.nl.routes(family=2)] == [ip_address("fd01::1")]
    wrong = refused(pair, messages.new_route(ip_network("fd05::/64"), gw=ip_address("10.1.0.1"), oif=index))
    assert wrong.errno == errno.EINVAL


def test_uplink_mtu(pair: Place) -> None:
    """None without a default route, else the link's, else the route's if that is less; the smaller family wins."""
    assert rtnl.uplink_mtu(pair.nl) is None
    index = pair.link("a").index
    pair.nl.request(
        messages.set_link(index, mtu=1450),
        messages.new_address(index, ip_interface("10.1.0.2/24")),
        messages.new_address(index, ip_interface("fd01::2/64"), nodad=True),
        messages.new_route(ip_network("0.0.0.0/0"), gw=ip_address("10.1.0.1")),
    )
    assert rtnl.uplink_mtu(pair.nl) == 1450
    pair.nl.request(messages.new_route(ip_network("::/0"), gw=ip_address("fd01::1"), mtu=1380))
    assert rtnl.uplink_mtu(pair.nl) == 1380


@pytest.mark.parametrize(
    ("net", "near", "hops"),
    [
        ("0.0.0.0/0", ("10.1.0.2/24", "10.2.0.2/24"), ("10.1.0.1", "10.2.0.1")),
        ("::/0", ("fd01::2/64", "fd02::2/64"), ("fd01::1", "fd02::1")),
    ],
)
def test_uplink_mtu_of_several_hops(pair: Place, net: str, near: tuple[str, str], hops: tuple[str, str]) -> None:
    """A default route by two links: the smaller MTU, whichever of them a lookup would choose; none where it refuses."""
    for name, mtu, address in (("a", 1450, near[0]), ("b", 1420, near[1])):
        index = pair.link(name).index
        pair.nl.request(
            messages.set_link(index, mtu=mtu), messages.new_address(index, ip_interface(address), nodad=True)
        )
    version = "-6" if ":" in net else "-4"
    ways = [word for name, hop in zip("ab", hops, strict=True) for word in ("nexthop", "via", hop, "dev", name)]
    pair.ns.ip(version, "route", "add", "default", *ways)
    assert rtnl.uplink_mtu(pair.nl) == 1420
    pair.ns.ip(version, "route", "del", "default")
    pair.ns.ip(version, "route", "add", "unreachable", "default")
    assert rtnl.uplink_mtu(pair.nl) is None


@FAMILIES
def test_neighbours(pair: Place, net: str, gw: str, far: str) -> None:
    """Set, seen, set anew, deleted, ENOENT then; only those of the link are listed."""
    index, address = pair.link("a").index, ip_address(gw)
    pair.nl.request(messages.new_neighbour(index, address, MAC))
    fixed = [(n.address, n.mac) for n in pair.nl.neighbours(index) if n.state == 0x80]
    assert fixed == [(address, MAC)]
    assert address not in [n.address for n in pair.nl.neighbours(pair.link("b").index)]
    pair.nl.request(messages.new_neighbour(index, address, OTHER_MAC, permanent=False))
    (shown,) = pair.ns.ip_json("neigh", "show", "to", gw, "dev", "a")
    assert (shown["lladdr"], shown["state"]) == (OTHER_MAC.hex(":"), ["REACHABLE"])
    pair.nl.request(messages.delete_neighbour(index, address))
    live = [n.address for n in pair.nl.neighbours(index) if n.mac]
    assert address not in live


@FAMILIES
def test_proxy_neighbours(pair: Place, net: str, gw: str, far: str) -> None:
    """A proxy entry is one for `ip neigh show proxy`, and gone after its deletion."""
    index, address = pair.link("a").index, ip_address(gw)
    pair.nl.request(messages.new_neighbour(index, address, proxy=True))
    assert [entry["dst"] for entry in pair.ns.ip_json("neigh", "show", "proxy")] == [gw]
    pair.nl.request(messages.delete_neighbour(index, address, proxy=True))
    assert pair.ns.ip_json("neigh", "show", "proxy") == []


def test_static_entry_of_a_bridge(pair: Place) -> None:
    """A MAC behind a port, for ever; not one of the bridge's own."""
    pair.nl.request(messages.new_bridge("br0"))
    index = pair.link("a").index
    pair.nl.request(messages.set_link(index, master=pair.link("br0").index), messages.new_fdb(index, MAC))
    shown = pair.ns.run(["bridge", "fdb", "show", "dev", "a"]).stdout
    assert f"{MAC.hex(':')} master br0 static" in shown
    pair.nl.request(messages.delete_fdb(index, MAC))
    assert MAC.hex(":") not in pair.ns.run(["bridge", "fdb", "show", "dev", "a"]).stdout


@pytest.mark.needs("kernel:vxlan")
@pytest.mark.parametrize("remote", ["10.0.0.1", "fd00::1"])
def test_far_end_of_a_vxlan(here: Place, remote: str) -> None:
    """A MAC at the far end of a tunnel; the zero MAC may have several."""
    local = "10.0.0.9" if ":" not in remote else "fd00::9"
    here.ns.ip("link", "add", "vx0", "type", "vxlan", "id", "7", "dstport", "4789", "local", local, "nolearning")
    index, far = here.link("vx0").index, ip_address(remote)
    here.nl.request(
        messages.new_fdb(index, MAC, remote=far),
        messages.new_fdb(index, bytes(6), remote=far, append=True),
        messages.new_fdb(index, bytes(6), remote=far + 1, append=True),
    )
    shown = here.ns.run(["bridge", "fdb", "show", "dev", "vx0"]).stdout
    assert f"{MAC.hex(':')} dst {remote} self permanent" in shown
    assert shown.count("00:00:00:00:00:00 dst") == 2
    here.nl.request(messages.delete_fdb(index, MAC, remote=far))
    assert MAC.hex(":") not in here.ns.run(["bridge", "fdb", "show", "dev", "vx0"]).stdout
