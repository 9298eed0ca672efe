"""What the rules do to packets: masquerading, isolation, MAC binding, FORWARD policies, with every backend."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from netns_fixtures import Host, Outside, can_ping, needs, netns_snapshot
from pycni.cni.errors import CniError, Code
from tests.kernel.firewall_lab import Lab

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

BACKENDS = ["nftables", "iptables"]
FAMILIES = [4, 6]


@pytest.fixture
def lab(make_host: Callable[..., Host], make_outside: Callable[..., Outside], closing: ExitStack) -> Lab:
    host = make_host(sysctls={"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"})
    return Lab(host, make_outside(host), closing.callback)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_outside_sees_the_host_in_place_of_the_container(lab: Lab, backend: str, family: int) -> None:
    """A container's connection leaves with the host's address; before its ADD, and after its DEL, it does not."""
    one = lab.box(lab.net("net1"))
    assert one.reaches(lab.outside, family, deadline_s=0.3) is None
    lab.add(one, backend=backend)
    answer = one.reaches(lab.outside, family)
    assert answer is not None
    assert answer.address == lab.outside.host_address(family)
    lab.delete(one, (), backend)
    assert one.reaches(lab.outside, family, deadline_s=0.3) is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bridge_nf", ["0", "1"])
def test_own_subnet_sees_the_container_itself(lab: Lab, backend: str, family: int, bridge_nf: str) -> None:
    """Containers of one bridge reach each other unmasqueraded, whether or not bridged packets pass the IP hooks."""
    needs("kernel:br_netfilter")
    lab.host.sysctl("net/bridge/bridge-nf-call-iptables", bridge_nf)
    lab.host.sysctl("net/bridge/bridge-nf-call-ip6tables", bridge_nf)
    net = lab.net("net1")
    one, two = lab.box(net), lab.box(net)
    lab.add(one, two, backend=backend)
    answer = one.reaches(two, family)
    assert answer is not None
    assert answer.address == one.address(family)


@pytest.mark.parametrize("backend", BACKENDS)
def test_own_subnet_behind_another_link_is_not_masqueraded(lab: Lab, backend: str) -> None:
    """As in the reference, it is the destination that counts: part of the subnet may be routed elsewhere."""
    one = lab.box(lab.net("net1"))
    lab.outside.ip("addr", "add", "10.1.0.200/32", "dev", "lo")
    lab.outside.ip("route", "add", "10.1.0.0/24", "via", lab.outside.host_address())
    lab.host.ip("route", "add", "10.1.0.200", "via", lab.outside.address())
    lab.host.sysctl("net/ipv4/conf/br0/proxy_arp", "1")
    lab.add(one, backend=backend)
    peer = one.ns.in_namespace(lambda: _greeting("10.1.0.200", lab.outside.port))
    assert one.v4 in peer


def _greeting(address: str, port: int) -> str:
    with socket.create_connection((address, port), timeout=3) as stream:
        return stream.recv(200).decode()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("family", "group"), [(4, "239.1.2.3"), (6, "ff3e::1:2")])
def test_multicast_is_not_masqueraded(lab: Lab, backend: str, family: int, group: str) -> None:
    """A multicast packet that the host routes from a container to the outside keeps the container's address."""
    one = lab.box(lab.net("net1"))
    lab.add(one, backend=backend)
    af = socket.AF_INET if family == 4 else socket.AF_INET6
    receiver = lab.outside.in_namespace(lambda: _join(af, group, "eth0"))
    router = lab.host.in_namespace(lambda: _route_multicast(af, one.address(family), group, "br0", "uplink"))

    def send() -> None:
        index = socket.if_nametoindex("eth0")
        with socket.socket(af, socket.SOCK_DGRAM) as out:
            out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
            if af == socket.AF_INET6:
                out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 8)
                out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            out.bind((one.address(family), 0))
            out.sendto(b"hello", (group, 5000))

    with receiver, router:
        one.ns.in_namespace(send)
        receiver.settimeout(3)
        assert receiver.recvfrom(100)[1][0] == one.address(family)


def _route_multicast(af: socket.AddressFamily, source: str, group: str, come_in: str, go_out: str) -> socket.socket:
    """A multicast router with one static route, for as long as the socket lives (linux/mroute.h, linux/mroute6.h)."""
    init, add_interface, add_route = 200, 202, 204
    indexes = [socket.if_nametoindex(name) for name in (come_in, go_out)]
    packed = [socket.inet_pton(af, address) for address in (source, group)]
    if af == socket.AF_INET:
        router = socket.socket(af, socket.SOCK_RAW, socket.IPPROTO_IGMP)
        level = socket.IPPROTO_IP
        interfaces = [struct.pack("HBBIi4x", number, 8, 1, 0, index) for number, index in enumerate(indexes)]
        route = b"".join(packed) + struct.pack("H32s2x12xi", 0, b"\0\1", 0)
    else:
        router = socket.socket(af, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        level = socket.IPPROTO_IPV6
        interfaces = [struct.pack("HBBH2xI", number, 0, 1, index, 0) for number, index in enumerate(indexes)]
        sockaddrs = [struct.pack("HHI16sI", af, 0, 0, one, 0) for one in packed]
        route = b"".join(sockaddrs) + struct.pack("H2x32s", 0, b"\2")
    router.setsockopt(level, init, 1)
    for interface in interfaces:
        router.setsockopt(level, add_interface, interface)
    router.setsockopt(level, add_route, route)
    return router


def _join(af: socket.AddressFamily, group: str, ifname: str) -> socket.socket:
    index = socket.if_nametoindex(ifname)
    made = socket.socket(af, socket.SOCK_DGRAM)
    made.bind(("", 5000))
    packed = socket.inet_pton(af, group)
    if af == socket.AF_INET:
        made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, packed + bytes(4) + index.to_bytes(4, "little"))
        with open("/proc/sys/net/ipv4/conf/eth0/rp_filter", "w") as rp_filter:
            rp_filter.write("0")
        with open("/proc/sys/net/ipv4/conf/all/rp_filter", "w") as rp_filter:
            rp_filter.write("0")
    else:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed + index.to_bytes(4, "little"))
    return made


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("first", "second", "reached"),
    [(True, True, False), (True, False, False), (False, True, False), (False, False, True)],
)
def test_networks_reach_each_other_only_if_neither_is_isolated(
    lab: Lab, backend: str, first: bool, second: bool, reached: bool
) -> None:
    """Both directions and families, one answer; both still reach the outside and the host."""
    one, two = lab.box(lab.net("net1", isolate=first)), lab.box(lab.net("net2", isolate=second))
    lab.add(one, two, backend=backend)
    for family in FAMILIES:
        assert (one.reaches(two, family, deadline_s=0.4) is not None) is reached
        assert (two.reaches(one, family, deadline_s=0.4) is not None) is reached
        assert one.reaches(lab.outside, family) is not None
        assert can_ping(two.ns, "10.2.0.1" if family == 4 else "fd00:2::1")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_translated_connection_passes_between_isolated_networks(lab: Lab, backend: str) -> None:
    """What a port mapping (of whatever plugin) sent to another network's container is let through, with its answers."""
    one, two = lab.box(lab.net("net1")), lab.box(lab.net("net2"))
    lab.add(one, two, backend=backend)
    rules = f"type nat hook prerouting priority dstnat; tcp dport 8080 dnat to {two.v4}:7777;"
    lab.host.run(["nft", f"table ip other {{ chain mapping {{ {rules} }}; }}"])
    greeting = one.ns.in_namespace(lambda: _greeting(lab.outside.host_address(), 8080))
    assert greeting.startswith(f"c2 {lab.host.addresses('br1')[0].removesuffix('/24')} ")
    assert one.reaches(two, deadline_s=0.3) is None


def test_two_networks_on_one_bridge_are_one_segment(lab: Lab) -> None:
    """Isolation is between bridges: networks that share one reach each other."""
    net = lab.net("net1")
    one, two = lab.box(net), lab.box(net)
    lab.add(one)
    lab.add_rules(net.rules.replace(network="net2"), two.rules)
    assert one.reaches(two) is not None


def test_nested_subnets_keep_each_its_own_idea_of_local(lab: Lab) -> None:
    """A /16 beside a /24 of the same range: both are added, and each container is masqueraded by its own prefix."""
    net = lab.net("net1")
    one, two = lab.box(net), lab.box(net)
    lab.add(one)
    wide = net.rules.replace(subnets=("10.1.0.0/16", "fd00:1::/48"))
    lab.add_rules(wide, two.rules)
    lab.host.ip("route", "add", "10.1.9.9", "via", lab.outside.address())
    lab.outside.ip("addr", "add", "10.1.9.9/32", "dev", "lo")
    lab.outside.ip("route", "add", "10.1.0.0/24", "via", lab.outside.host_address())
    assert lab.outside.host_address() in one.ns.in_namespace(lambda: _greeting("10.1.9.9", lab.outside.port))
    assert two.v4 in two.ns.in_namespace(lambda: _greeting("10.1.9.9", lab.outside.port))
    for box in (one, two):
        answer = box.reaches(lab.outside)
        assert answer is not None
        assert answer.address == lab.outside.host_address()
    assert lab.act(lambda firewall: firewall.missing(wide, two.rules)) == ()
    lab.act(lambda firewall: firewall.apply_delete(two.rules, wide, [net.rules]))
    assert lab.act(lambda firewall: firewall.owners()) == {one.rules.owner}
    assert lab.act(lambda firewall: firewall.missing(net.rules, one.rules)) == ()


def test_a_guarded_port_sends_only_from_its_own_mac(lab: Lab) -> None:
    """With macspoofchk, frames with any other source address are dropped, for IPv4 and IPv6 alike; DEL lifts it."""
    net = lab.net("net1")
    one, two = lab.box(net), lab.box(net)
    lab.add(one, macs=True)
    lab.add(two)
    assert can_ping(one.ns, two.v4)
    one.ns.ip("link", "set", "eth0", "address", "02:00:00:00:00:99")
    one.ns.ip("neigh", "flush", "all")
    two.ns.ip("neigh", "flush", "all")
    assert not can_ping(one.ns, two.v4, deadline_s=0.4)
    assert not can_ping(one.ns, two.v6, deadline_s=0.4)
    guarded = one.rules.replace(macs=((one.host_link, one.mac),))
    lab.act(lambda firewall: firewall.apply_delete(guarded))
    assert can_ping(one.ns, two.v4)


def test_the_iptables_backend_says_that_it_cannot_bind_macs(lab: Lab) -> None:
    """macspoofchk with iptables is refused with code 103, and nothing has been changed."""
    one = lab.box(lab.net("net1"))
    before = netns_snapshot(lab.host.ns)
    with pytest.raises(CniError, match="nftables") as failure:
        lab.add(one, backend="iptables", macs=True)
    assert failure.value.code == Code.FIREWALL
    assert netns_snapshot(lab.host.ns) == before


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bridge_nf", ["0", "1"])
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_a_forward_policy_of_drop_does_not_cut_containers_off(
    lab: Lab, backend: str, bridge_nf: str, variant: str
) -> None:
    """Outside and the neighbour on the bridge are reached; others' forwarding stays dropped; DEL leaves their rules."""
    needs("kernel:br_netfilter", f"tool:iptables-{variant}")
    _drop_forward(lab.host, variant)
    lab.host.sysctl("net/bridge/bridge-nf-call-iptables", bridge_nf)
    lab.host.sysctl("net/bridge/bridge-nf-call-ip6tables", bridge_nf)
    before = _rules(lab.host, variant)
    net, foreign = lab.net("net1"), lab.net("foreign")
    one, two, other = lab.box(net), lab.box(net), lab.box(foreign)
    lab.add(one, two, backend=backend)
    for family in FAMILIES:
        assert one.reaches(lab.outside, family) is not None
        assert one.reaches(two, family) is not None
        assert other.reaches(lab.outside, family, deadline_s=0.3) is None
    lab.outside.ip("route", "add", "10.1.0.0/24", "via", lab.outside.host_address())
    assert not can_ping(lab.outside, one.v4, deadline_s=0.3)
    lab.delete(one, [net.rules], backend)
    assert two.reaches(lab.outside) is not None
    lab.delete(two, (), backend)
    assert lab.act(lambda firewall: firewall.owners(), backend) == set()
    lab.act(lambda firewall: firewall.remove_all(), backend)
    assert _rules(lab.host, variant) == before


def _rules(host: Host, variant: str) -> list[str]:
    return [host.run([f"{tool}-{variant}", "-S"]).stdout for tool in ("iptables", "ip6tables")]


def _drop_forward(host: Host, variant: str) -> None:
    for tool in (f"iptables-{variant}", f"ip6tables-{variant}"):
        host.run([tool, "-P", "FORWARD", "DROP"])


def test_flushed_accept_rules_come_back_with_the_next_add(lab: Lab) -> None:
    """ufw reloads, `iptables -F`: the next ADD sees by the chain's use count that its rules are gone."""
    _drop_forward(lab.host, "nft")
    net = lab.net("net1")
    one, two = lab.box(net), lab.box(net)
    lab.add(one)
    lab.host.run(["iptables", "-F"])
    assert one.reaches(lab.outside, deadline_s=0.3) is None
    lab.add(two)
    assert one.reaches(lab.outside) is not None
    lab.host.run(["iptables", "-F", "FORWARD"])
    lab.add(two)
    assert one.reaches(lab.outside) is not None
    jumps = [line for line in lab.host.run(["iptables", "-S", "FORWARD"]).stdout.splitlines() if "PYCNI" in line]
    assert len(jumps) == 1


@pytest.mark.parametrize(
    ("rules", "passes"),
    [
        ("", False),
        ("ct state established,related accept", False),
        ('iifname "eth7" accept', False),
        ('iifname "br0" accept; ct state established,related accept', True),
        ("ip saddr 10.0.0.0/8 accept; ct state established accept", True),
        ("iifname vmap { br0 : accept }", True),
    ],
)
def test_an_nftables_chain_that_drops_is_named_unless_it_may_let_us_through(lab: Lab, rules: str, passes: bool) -> None:
    """A plain nftables forward chain with policy drop: an error with table, chain and remedy, or no objection."""
    chain = f"chain forward {{ type filter hook forward priority 0; policy drop; {rules}\n}}"
    lab.host.run(["nft", "-f", "-"], input=f"table inet filter {{ {chain}\n}}")
    one = lab.box(lab.net("net1"))
    if passes:
        lab.add(one)
        return
    with pytest.raises(CniError, match="chain forward of table inet filter has policy drop") as failure:
        lab.add(one)
    assert failure.value.code == Code.FIREWALL
    assert "nft add rule inet filter forward iifname br0 accept" in failure.value.details
    for command in failure.value.details.split("; "):
        lab.host.run(["sh", "-c", command.strip()])
    lab.add(one)
    assert one.reaches(lab.outside) is not None
