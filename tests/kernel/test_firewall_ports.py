"""Published ports: who reaches them from where, as whom, and what must not be touched, with every backend."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from netns_fixtures import EchoServer, Host, Namespace, Outside, can_ping, needs, tcp_peer_seen
from pycni.cni.errors import CniError, Code
from tests.kernel.firewall_lab import Lab
from tests.kernel.firewall_ports_lab import (
    BACKENDS,
    FAMILIES,
    SERVED,
    closed,
    let_loopback_through,
    mapped,
    network_of,
    publish,
    rules_of,
    seen,
    withdraw,
)

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth", "kernel:br_netfilter")

LOOPBACK = {4: "127.0.0.1", 6: "::1"}


@pytest.fixture
def lab(make_host: Callable[..., Host], make_outside: Callable[..., Outside], closing: ExitStack) -> Lab:
    host = make_host(sysctls={"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"})
    return Lab(host, make_outside(host), closing.callback)


def gateway(lab: Lab, bridge: str, family: int) -> str:
    number = lab.nets[int(bridge[2:])].number
    return f"10.{number}.0.1" if family == 4 else f"fd00:{number}::1"


@pytest.mark.parametrize("backend", BACKENDS)
def test_everybody_reaches_a_published_port_and_is_seen_as_himself(lab: Lab, backend: str) -> None:
    """Remote, host and other networks keep their address; only loopback and the own subnet are seen as the gateway."""
    net = lab.net("net1")
    one, near, far = lab.box(net), lab.box(net), lab.box(lab.net("net2"))
    lab.add(one, near, far, backend=backend)
    mappings = [mapped(one, 8080, family=family, proto=proto) for family in FAMILIES for proto in ("tcp", "udp")]
    publish(lab, one, *mappings, backend=backend)
    for family, second in ((4, "10.1.0.2"), (6, "fd00:1::2")):
        lab.host.ip("addr", "add", second, "dev", "br0", *(["nodad"] if family == 6 else []))
        answer = seen(lab.host.ns, lab.outside.host_address(family), 8080, source=second)
        assert (answer and answer.address) == second
        lab.host.ip("addr", "del", second, "dev", "br0")
    for family in FAMILIES:
        uplink, own = lab.outside.host_address(family), gateway(lab, "br0", family)
        for proto in ("tcp", "udp"):
            for client, address, expected in (
                (lab.outside, uplink, lab.outside.address(family)),
                (lab.host.ns, uplink, uplink),
                (lab.host.ns, own, own),
                (lab.host.ns, LOOPBACK[family], own),
                (one.ns, uplink, own),
                (one.ns, own, own),
                (near.ns, uplink, own),
                (far.ns, uplink, far.address(family)),
            ):
                answer = seen(client, address, 8080, proto=proto)
                assert (answer and (answer.server, answer.address)) == ("c1", expected), (proto, client.name, address)
    assert lab.act(lambda f: f.missing(network_of(net), rules_of(one, *mappings)), backend) == ()
    withdraw(lab, one, *mappings, backend=backend)
    for family in FAMILIES:
        assert closed(lab.outside, lab.outside.host_address(family), 8080)
        assert closed(lab.host.ns, LOOPBACK[family], 8080)
    assert far.reaches(lab.outside) is not None


@pytest.mark.parametrize("backend", BACKENDS)
def test_br_netfilter_changes_nothing(lab: Lab, backend: str) -> None:
    """Where bridged packets pass the IP hooks, remote, 127.0.0.1, the container itself and its neighbour get in too."""
    net = lab.net("net1")
    one, near = lab.box(net), lab.box(net)
    lab.add(one, near, backend=backend)
    publish(lab, one, mapped(one, 8080), mapped(one, 8080, family=6), backend=backend)
    lab.host.sysctl("net/bridge/bridge-nf-call-iptables", "1")
    lab.host.sysctl("net/bridge/bridge-nf-call-ip6tables", "1")
    lab.host.ip("link", "set", one.host_link, "type", "bridge_slave", "hairpin", "on")
    assert seen(lab.host.ns, "127.0.0.1", 8080) is not None
    for family in FAMILIES:
        for client in (lab.outside, one.ns, near.ns):
            assert seen(client, lab.outside.host_address(family), 8080) is not None, (client.name, family)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_range_of_ten_thousand_ports(lab: Lab, backend: str) -> None:
    """Ports of the same numbers, first to last and none beyond, of both families; to other numbers, each its own."""
    one = lab.box(lab.net("net1"))
    lab.add(one, backend=backend)
    low, high = SERVED - 5000, SERVED + 5000
    ranges = [mapped(one, low, high, family=family) for family in FAMILIES]
    shifted = mapped(one, 20000, 20019, proto="udp").replace(port=SERVED - 10)
    publish(lab, one, *ranges, shifted, backend=backend)
    for port in (low, high, high + 1):
        lab.closing(EchoServer(one.ns, port).close)
    for family in FAMILIES:
        address = lab.outside.host_address(family)
        for port in (low, SERVED, high):
            answer = seen(lab.outside, address, port)
            assert (answer and answer.address) == lab.outside.address(family), port
        assert closed(lab.outside, address, high + 1)
    assert seen(lab.outside, lab.outside.host_address(), 20010, proto="udp") is not None
    assert closed(lab.outside, lab.outside.host_address(), 20009, proto="udp")
    assert lab.act(lambda f: f.missing(network_of(one.net), rules_of(one, *ranges, shifted)), backend) == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_address_of_the_host_before_all_of_them(lab: Lab, backend: str) -> None:
    """A mapping of one host address is asked first, whoever came first; single ports and ranges; DEL takes its own."""
    net = lab.net("net1")
    one, two = lab.box(net), lab.box(net)
    lab.add(one, two, backend=backend)
    for family in FAMILIES:
        uplink, own = lab.outside.host_address(family), gateway(lab, "br0", family)
        wide = mapped(one, 8080, family=family), mapped(one, SERVED - 7, SERVED + 7, family=family)
        narrow = tuple(mapping.replace(host_ip=uplink, address=two.address(family)) for mapping in wide)
        for order in ((one, wide), (two, narrow)), ((two, narrow), (one, wide)):
            for box, mappings in order:
                publish(lab, box, *mappings, backend=backend)
            for port in (8080, SERVED):
                answers = seen(lab.outside, uplink, port), seen(lab.host.ns, own, port)
                assert [answer and answer.server for answer in answers] == ["c2", "c1"]
            withdraw(lab, two, *narrow, backend=backend)
            for port in (8080, SERVED):
                answer = seen(lab.outside, uplink, port)
                assert (answer and answer.server) == "c1"
            withdraw(lab, one, *wide, backend=backend)
            assert closed(lab.outside, uplink, 8080)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_what_is_addressed_to_the_host_is_translated(lab: Lab, backend: str) -> None:
    """Containers and the host talk to the same port of other hosts as if nothing were published (CVE-2025-67499)."""
    net, second = lab.net("net1"), lab.net("net2")
    one, near, far = lab.box(net), lab.box(net), lab.box(second)
    lab.add(one, near, far, backend=backend)
    publish(
        lab,
        one,
        *(mapped(one, SERVED, family=family) for family in FAMILIES),
        mapped(one, SERVED, proto="udp"),
        backend=backend,
    )
    for family in FAMILIES:
        address = lab.outside.address(family)
        for client in (lab.host.ns, near.ns, far.ns):
            assert tcp_peer_seen(client, address, SERVED).server == "outside"
        assert tcp_peer_seen(near.ns, near.address(family), SERVED).server == "c2"
    answer = seen(far.ns, lab.outside.address(), SERVED, proto="udp")
    assert (answer and answer.server) == "outside"


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_published_on_loopback_is_for_the_host_alone(lab: Lab, backend: str) -> None:
    """A neighbour's packets to 127.0.0.1 get nowhere, even where every link has route_localnet: neither to the
    container nor, from containers, to what listens on the host's 127.0.0.1 (CVE-2020-8558)."""
    net = lab.net("net1")
    one, near = lab.box(net), lab.box(net)
    lab.add(one, near, backend=backend)
    private = EchoServer(lab.host.ns, 5555)
    lab.closing(private.close)
    mapping = mapped(one, 8080, host_ip="127.0.0.1")
    publish(lab, one, mapping, backend=backend)
    assert seen(lab.host.ns, "127.0.0.1", 8080) is not None
    assert closed(lab.outside, lab.outside.host_address(), 8080)
    lab.host.sysctl("net/ipv4/conf/uplink/route_localnet", "1")
    for client, gate in ((lab.outside, lab.outside.host_address()), (near.ns, "10.1.0.1")):
        _send_loopback_to(client, gate)
        assert closed(client, "127.0.0.1", 8080)
    assert closed(near.ns, "127.0.0.1", 5555)
    withdraw(lab, one, mapping, backend=backend)
    assert seen(near.ns, "127.0.0.1", 5555) is not None  # without the guard this test would see it


@pytest.mark.parametrize("backend", BACKENDS)
def test_nobody_else_speaks_as_the_hosts_loopback(lab: Lab, backend: str) -> None:
    """Where route_localnet is on, a container's packets with a source in 127.0.0.0/8 do not reach the host's services,
    which may trust such a client."""
    net = lab.net("net1")
    one, near = lab.box(net), lab.box(net)
    lab.add(one, near, backend=backend)
    mapping = mapped(one, 8080)
    publish(lab, one, mapping, backend=backend)
    near.ns.sysctl("net/ipv4/conf/eth0/route_localnet", "1")

    def speak() -> None:
        for source in ("127.0.0.5", near.v4):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                out.bind((source, 0))
                out.sendto(b"hello", ("10.1.0.1", 5555))

    with lab.host.ns.in_namespace(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as service:
        service.bind(("", 5555))
        service.settimeout(2)
        near.ns.in_namespace(speak)
        assert service.recvfrom(100)[1][0] == near.v4
        withdraw(lab, one, mapping, backend=backend)
        near.ns.in_namespace(speak)
        assert service.recvfrom(100)[1][0] == "127.0.0.5"  # without the guard this test would see it


def _send_loopback_to(client: Namespace, gate: str) -> None:
    """Make a host that sends what it addresses to 127.0.0.1 to its neighbour *gate*."""
    client.sysctl("net/ipv4/conf/eth0/route_localnet", "1")
    client.sysctl("net/ipv4/conf/eth0/accept_local", "1")
    client.ip("route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
    client.ip("route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local")
    client.ip("route", "add", "127.0.0.1", "via", gate, "dev", "eth0")


@pytest.mark.parametrize("backend", BACKENDS)
def test_source_prefixes_let_nobody_else_in(lab: Lab, backend: str) -> None:
    """Who may come in is told by the client's own address, for single ports and ranges, of both families."""
    net, second = lab.net("net1"), lab.net("net2")
    one, far = lab.box(net), lab.box(second)
    lab.add(one, far, backend=backend)
    for family in FAMILIES:
        network = lab.outside.address(family) + ("/32" if family == 4 else "/128")
        other = second.rules.subnets[family == 6]
        publish(
            lab,
            one,
            mapped(one, 8080, family=family).replace(sources=(network, network)),
            mapped(one, SERVED - 7, SERVED + 7, family=family).replace(sources=(other,)),
            backend=backend,
        )
        uplink = lab.outside.host_address(family)
        assert seen(lab.outside, uplink, 8080) is not None
        assert closed(far.ns, uplink, 8080)
        assert closed(lab.host.ns, uplink, 8080)
        assert seen(far.ns, uplink, SERVED) is not None
        assert closed(lab.outside, uplink, SERVED)


def test_nested_subnets_are_hairpins_each_of_its_own(lab: Lab) -> None:
    """A /16 beside a /24 of the same range: the clients of each container's own subnet get their answers."""
    net = lab.net("net1")
    one, two = lab.box(net), lab.box(net)
    lab.add(one)
    wide = net.rules.replace(subnets=("10.1.0.0/16", "fd00:1::/48"))
    lab.add_rules(wide, two.rules)
    publish(lab, one, mapped(one, 8080), mapped(one, 8080, family=6))
    distant = {4: "10.1.5.5", 6: "fd00:1:0:5::5"}
    lab.host.ip_batch("route add 10.1.0.0/16 dev br0", "route add fd00:1::/48 dev br0")
    two.ns.ip_batch("addr add 10.1.5.5/16 dev eth0", "addr add fd00:1:0:5::5/48 dev eth0 nodad")
    mappings = [mapped(two, 9090, family=family).replace(address=distant[family]) for family in FAMILIES]
    network = network_of(net).replace(subnets=wide.subnets)
    lab.add_rules(network, rules_of(two, *mappings))
    assert lab.act(lambda f: f.missing(network, rules_of(two, *mappings))) == ()
    for family in FAMILIES:
        uplink, own = lab.outside.host_address(family), gateway(lab, "br0", family)
        for client, port in ((one, 8080), (two, 8080), (one, 9090)):
            assert seen(client.ns, uplink, port) is not None, (client.ns.name, port)
        answer = seen(two.ns, uplink, 9090, source=distant[family])
        assert (answer and answer.address) == own
    lab.act(lambda f: f.apply_delete(rules_of(two, *mappings)))
    lab.act(lambda f: f.apply_delete(two.rules))
    assert lab.act(lambda f: f.owners()) == {one.rules.owner, f"{one.rules.owner}/portmap"}


CONDITIONS: dict[str, dict[int, tuple[str, ...]]] = {
    "nftables": {4: ("ip", "saddr", "198.51.100.1"), 6: ("ip6", "saddr", "{", "2001:db8:ffff::1", "}")},
    "iptables": {4: ("-s", "198.51.100.1"), 6: ("-s", "2001:db8:ffff::1")},
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_conditions_are_those_of_one_attachment(lab: Lab, backend: str) -> None:
    """Words of the user's stand before this attachment's translation, and before no other's."""
    net, second = lab.net("net1"), lab.net("net2")
    one, two, far = lab.box(net), lab.box(net), lab.box(second)
    lab.add(one, two, far, backend=backend)
    let_loopback_through(lab, net)
    ports = [mapped(one, 8080, family=family) for family in FAMILIES]
    ports += [mapped(one, 20000, 20009).replace(port=SERVED - 3)]
    words = CONDITIONS[backend]
    conditional = rules_of(one, *ports).replace(conditions4=words[4], conditions6=words[6])
    lab.add_rules(network_of(net), conditional, backend)
    publish(lab, two, *(mapped(two, 9090, family=family) for family in FAMILIES), backend=backend)
    assert lab.act(lambda f: f.missing(network_of(net), conditional), backend) == ()
    for family in FAMILIES:
        uplink = lab.outside.host_address(family)
        assert seen(lab.outside, uplink, 8080) is not None
        assert closed(far.ns, uplink, 8080)
        assert seen(far.ns, uplink, 9090) is not None
    assert seen(lab.outside, lab.outside.host_address(), 20003) is not None
    assert closed(far.ns, lab.outside.host_address(), 20003)
    lab.act(lambda f: f.apply_delete(conditional, network_of(net), [net.rules, network_of(net)]), backend)
    assert closed(lab.outside, lab.outside.host_address(), 8080)
    assert seen(far.ns, lab.outside.host_address(), 9090) is not None


@pytest.mark.parametrize("backend", BACKENDS)
def test_masquerading_is_an_answer_of_the_mapping(lab: Lab, backend: str) -> None:
    """`snat: false`: neither loopback nor the own subnet is masqueraded; masqAll: everybody is."""
    one = lab.box(lab.net("net1"))
    lab.add(one, backend=backend)
    plain = [mapped(one, 8080, family=family).replace(snat=False) for family in FAMILIES]
    publish(lab, one, *plain, backend=backend)
    for family in FAMILIES:
        uplink = lab.outside.host_address(family)
        answer = seen(lab.outside, uplink, 8080)
        assert (answer and answer.address) == lab.outside.address(family)
        assert closed(lab.host.ns, LOOPBACK[family], 8080)
    withdraw(lab, one, *plain, backend=backend)
    every = [mapping.replace(masq_all=True) for mapping in plain]
    publish(lab, one, *every, backend=backend)
    for family in FAMILIES:
        answer = seen(lab.outside, lab.outside.host_address(family), 8080)
        assert (answer and answer.address) == gateway(lab, "br0", family)


def test_a_mark_chain_of_the_users_masquerades(lab: Lab) -> None:
    """externalSetMarkChain: who is masqueraded is told to that chain, as KUBE-MARK-MASQ; markMasqBit moves our own."""
    one = lab.box(lab.net("net1"))
    lab.add(one, backend="iptables")
    let_loopback_through(lab, one.net)
    rules = rules_of(one, mapped(one, 8080))
    uplink = lab.outside.host_address()
    for made in ("-N SET-IT", "-A SET-IT -j MARK --or-mark 0x4", "-I POSTROUTING -m mark --mark 0x4/0x4 -j MASQUERADE"):
        lab.host.run(["iptables", "-t", "nat", *made.split()])
    for marked in (rules.replace(external_set_mark_chain="SET-IT"), rules.replace(mark_masq_bit=31)):
        lab.add_rules(network_of(one.net), marked, "iptables")
        for client, expected in (
            (one.ns, "10.1.0.1"),
            (lab.host.ns, uplink),
            (lab.outside, lab.outside.address()),
        ):
            answer = seen(client, uplink, 8080)
            assert (answer and answer.address) == expected
        shown = lab.host.run(["iptables-save", "-t", "nat"]).stdout
        assert ("-j SET-IT" in shown, "0x80000000" in shown) == (marked.mark_masq_bit == 13, marked.mark_masq_bit == 31)
        lab.act(lambda f, marked=marked: f.apply_delete(marked), "iptables")  # type: ignore[misc]
        assert closed(lab.outside, uplink, 8080)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_guarded_container_is_reached_by_its_published_ports_alone(lab: Lab, backend: str) -> None:
    """From outside and from another network its address is closed; its own traffic, its neighbours and trusted links
    are not."""
    net, second = lab.net("net1", isolate=False), lab.net("net2", isolate=False)
    one, near, far = lab.box(net), lab.box(net), lab.box(second)
    lab.add(one, near, far, backend=backend)
    for family in FAMILIES:
        lab.outside.ip("route", "add", net.rules.subnets[family == 6], "via", lab.outside.host_address(family))
    let_loopback_through(lab, net)
    rules = rules_of(one, *(mapped(one, 8080, family=family) for family in FAMILIES))
    rules = rules.replace(direct_guard=(one.v4, one.v6))
    network = network_of(net)
    lab.add_rules(network, rules, backend)
    for family in FAMILIES:
        address = one.address(family)
        assert closed(lab.outside, address, SERVED)
        assert not can_ping(lab.outside, address, deadline_s=0.2)
        assert closed(far.ns, address, SERVED)
        assert seen(lab.outside, lab.outside.host_address(family), 8080) is not None
        assert one.reaches(lab.outside, family) is not None
        for bridged in ("1", "0"):
            lab.host.sysctl(f"net/bridge/bridge-nf-call-ip{'' if family == 4 else '6'}tables", bridged)
            assert near.reaches(one, family) is not None
        assert seen(lab.outside, near.address(family), SERVED) is not None
    lab.act(lambda f: f.apply_delete(rules), backend)
    lab.add_rules(network.replace(trusted=("uplink",)), rules, backend)
    for family in FAMILIES:
        assert seen(lab.outside, one.address(family), SERVED) is not None
        assert closed(far.ns, one.address(family), SERVED)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_a_forward_policy_of_drop_lets_published_ports_through(lab: Lab, backend: str, variant: str) -> None:
    """A link that is no bridge of pycni, behind iptables with policy DROP: the published port alone is open."""
    needs(f"tool:iptables-{variant}")
    for tool in (f"iptables-{variant}", f"ip6tables-{variant}"):
        lab.host.run([tool, "-P", "FORWARD", "DROP"])
    one = lab.box(lab.net("net1"))
    ports = [mapped(one, 8080, family=family) for family in FAMILIES]
    publish(lab, one, *ports, backend=backend)
    for family in FAMILIES:
        assert seen(lab.outside, lab.outside.host_address(family), 8080) is not None
        assert closed(lab.outside, one.address(family), SERVED)
    withdraw(lab, one, *ports, backend=backend)
    lab.act(lambda f: f.remove_all(), backend)
    shown = lab.host.run([f"iptables-{variant}-save"]).stdout
    assert "PYCNI" not in shown


@pytest.mark.parametrize(
    ("rules", "passes"),
    [
        ('iifname "br0" accept; ct state established,related accept', False),
        ('iifname "br0" accept; oifname "uplink" accept; ct state established accept', False),
        ('iifname "br0" accept; oifname "br0" accept', True),
        ('iifname "br0" accept; oifname "br0" ct state established,related accept; ct status dnat accept', True),
        ("accept", True),
    ],
)
def test_a_dropping_nftables_chain_is_named_if_no_published_port_can_pass(lab: Lab, rules: str, passes: bool) -> None:
    """A plain forward chain with policy drop that lets containers out but nobody in: an error with its remedy."""
    chain = f"chain forward {{ type filter hook forward priority 0; policy drop; {rules}\n}}"
    lab.host.run(["nft", "-f", "-"], input=f"table inet filter {{ {chain}\n}}")
    one = lab.box(lab.net("net1"))
    lab.add(one)
    publish(lab, one, mapped(one, 8080, host_ip="127.0.0.1"))  # nothing is forwarded for that
    withdraw(lab, one, mapped(one, 8080, host_ip="127.0.0.1"))
    if not passes:
        with pytest.raises(CniError, match="no rule that accepts towards br0: published ports of net1") as failure:
            publish(lab, one, mapped(one, 8080))
        assert failure.value.code == Code.FIREWALL
        lab.host.run(["sh", "-c", failure.value.details])
        lab.host.run(["nft", "add", "rule", "inet", "filter", "forward", "ct", "state", "established", "accept"])
    publish(lab, one, mapped(one, 8080))
    assert seen(lab.outside, lab.outside.host_address(), 8080) is not None


ADMIN = """\
# only one neighbour may come in
meta l4proto tcp ct original proto-dst 8080 ct direction original ip saddr != { 198.51.100.1,
    203.0.113.0/24 } drop
meta l4proto tcp ct original proto-dst 9090 ct state new drop
"""


def test_the_administrators_rules_are_asked_first(lab: Lab) -> None:
    """Rules of /etc/pycni/admin.nft see the host's port; they hold after a flush, follow the file, and do not go unread
    when they are wrong."""
    net, second = lab.net("net1"), lab.net("net2")
    one, far = lab.box(net), lab.box(second)
    _write_admin(lab, ADMIN)
    lab.add(one, far)
    uplink = lab.outside.host_address()
    for _ in range(2):
        publish(lab, one, mapped(one, 8080), mapped(one, 9090))
        assert lab.act(lambda f: f.missing(network_of(net), rules_of(one, mapped(one, 8080)))) == ()
        assert seen(lab.outside, uplink, 8080) is not None
        assert closed(far.ns, uplink, 8080)
        assert closed(lab.outside, uplink, 9090)
        lab.host.run(["nft", "flush", "ruleset"])
    _write_admin(lab, "")
    publish(lab, one, mapped(one, 8080), mapped(one, 9090))
    assert seen(lab.outside, uplink, 9090) is not None
    _write_admin(lab, "ip saddr 192.0.2.1 dorp\n")
    assert lab.act(lambda f: f.missing(net.rules, one.rules))[0] == "table inet pycni of this version"
    with pytest.raises(CniError, match=r"the administrator's rules .* cannot be used: .*dorp|syntax error") as failure:
        lab.add(far)
    assert failure.value.code == Code.FIREWALL
    assert seen(lab.outside, uplink, 9090) is not None
    withdraw(lab, one, mapped(one, 8080), mapped(one, 9090))
    assert closed(lab.outside, uplink, 8080)
    _write_admin(lab, ADMIN)
    publish(lab, one, mapped(one, 8080), mapped(one, 9090))
    assert closed(lab.outside, uplink, 9090)


def _write_admin(lab: Lab, text: str) -> None:
    lab.host.file("/etc/pycni").mkdir(exist_ok=True)
    lab.host.file("/etc/pycni/admin.nft").write_text(text)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sctp_is_translated(lab: Lab, backend: str) -> None:
    """An SCTP INIT to the published port arrives at the container's, of a kernel that may lack SCTP sockets."""
    one = lab.box(lab.net("net1"))
    lab.add(one, backend=backend)
    publish(lab, one, mapped(one, 3868, proto="sctp"), backend=backend)
    raw = one.ns.in_namespace(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 132))
    with raw:
        lab.outside.in_namespace(lambda: _send_init(lab.outside.host_address(), 3868))
        raw.settimeout(2)
        received = raw.recv(1000)
    assert struct.unpack_from(">H", received, 22)[0] == SERVED
    assert socket.inet_ntoa(received[12:16]) == lab.outside.address()


def _send_init(address: str, port: int) -> None:
    """RFC 9260, 3.3.2: an INIT chunk with a checksum that connection tracking accepts."""
    chunk = struct.pack(">BBHIIHHI", 1, 0, 20, 1, 65536, 1, 1, 1)
    packet = struct.pack(">HHII", 5000, port, 0, 0) + chunk
    crc = 0xFFFFFFFF
    for byte in packet:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    packet = packet[:8] + struct.pack("<I", crc ^ 0xFFFFFFFF) + packet[12:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 132) as out:
        out.sendto(packet, (address, 0))
