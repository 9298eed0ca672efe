"""Published on some addresses, for some clients, as ranges: what is reached, and what is not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netns_fixtures import Namespace, needs
from tests.kernel.bridge_lab import Frames, network
from tests.kernel.portmap_lab import SHORT_S, PortLab, Town, is_silent, port, route_loopback, seen

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth", "kernel:nft_nat")

UPLINK = {4: "198.51.100.2", 6: "2001:db8:ffff::2"}
GATEWAY = {4: "10.1.0.1", 6: "fd00:1::1"}
OUTSIDE = {4: "198.51.100.1", 6: "2001:db8:ffff::1"}


@pytest.fixture(scope="module")
def town(plugins: Path) -> Iterator[Town]:
    with ExitStack() as stack:
        made = Town.built(plugins, stack, bridged=False)
        made.ports.publish(
            made.server,
            port(9001, hostIP="127.0.0.1"),
            port(9002, hostIP="[::1]"),
            port(9003, hostIP=UPLINK[4]),
            port(9003, hostIP=UPLINK[6]),
            port(9005, hostIP="0.0.0.0"),
            port(9006, hostIP="::"),
            port(9007, hostIP="127.0.0.1"),
            port(9007),
            port(9007, hostIP="::"),
            port(7700, 7700, hostPortEnd=7799),
            port(9100, 7770, hostPortEnd=9109),
            port(7700, 7700, "udp", hostPortEnd=7799),
            port(9100, 7770, "udp", hostPortEnd=9109, hostIP=UPLINK[4]),
            port(9400, hostIP="127.0.0.5"),
            port(9200, sources=[f"{OUTSIDE[4]}/32", f"{OUTSIDE[6]}/128"]),
            port(9201, sources=["203.0.113.0/24"]),
            port(9202, 7777, "udp", hostIP=UPLINK[4], sources=[f"{OUTSIDE[4]}/32"]),
        )
        others = port(9003, hostIP=GATEWAY[4]), port(9003, hostIP=GATEWAY[6]), port(9400, hostIP="127.0.0.6")
        made.ports.publish(made.neighbour, *others)
        yield made


def test_loopback_address_serves_this_host_only(town: Town) -> None:
    """Published on 127.0.0.1, on ::1: by that address, by the host; not by others, nor the other family."""
    assert seen(town.host, "127.0.0.1", 9001) and seen(town.host, "::1", 9002)
    for address, number in (("127.0.0.2", 9001), ("::1", 9001), ("127.0.0.1", 9002), (UPLINK[4], 9001)):
        assert is_silent(town.host, address, number), (address, number)
    assert is_silent(town.outside, UPLINK[4], 9001)
    assert is_silent(town.outside, UPLINK[6], 9002)


@pytest.mark.parametrize("family", [4, 6])
def test_one_address_of_the_host(town: Town, family: int) -> None:
    """Two containers share a port number, each on an address of its own; on 127.0.0.1 nobody has it."""
    assert (answer := seen(town.outside, UPLINK[family], 9003)) and answer.server == "c1"
    assert (answer := seen(town.host, UPLINK[family], 9003)) and answer.server == "c1"
    assert (answer := seen(town.stranger.ns, GATEWAY[family], 9003)) and answer.server == "c2"
    assert is_silent(town.host, "127.0.0.1" if family == 4 else "::1", 9003)
    for address, name in (("127.0.0.5", "c1"), ("127.0.0.6", "c2")):
        assert (answer := seen(town.host, address, 9400)) and answer.server == name


@pytest.mark.parametrize(("number", "family"), [(9005, 4), (9006, 6)])
def test_wildcard_of_one_family(town: Town, number: int, family: int) -> None:
    """0.0.0.0 is every IPv4 address and no IPv6 one; :: the other way round."""
    assert seen(town.outside, UPLINK[family], number)
    assert seen(town.host, "127.0.0.1" if family == 4 else "::1", number)
    assert is_silent(town.outside, UPLINK[10 - family], number)


@pytest.mark.parametrize("family", [4, 6])
def test_a_port_that_is_named_twice_is_one(town: Town, family: int) -> None:
    """On all addresses, on one of them and on those of one family, with the same port of the container."""
    assert seen(town.outside, UPLINK[family], 9007)
    assert seen(town.host, "127.0.0.1" if family == 4 else "::1", 9007)


@pytest.mark.parametrize("family", [4, 6])
def test_ranges(town: Town, family: int) -> None:
    """Same numbers in the container, and shifted ones: every port leads to its own."""
    assert seen(town.outside, UPLINK[family], 7777) and seen(town.outside, UPLINK[family], 7777, "udp")
    assert seen(town.outside, UPLINK[family], 9107)
    assert (seen(town.outside, UPLINK[family], 9107, "udp") is not None) == (family == 4)
    assert seen(town.host, UPLINK[family], 9107)
    for number in (7776, 7778, 9106, 9108, 9110, 7800):
        assert is_silent(town.outside, UPLINK[family], number), number


@pytest.mark.parametrize("family", [4, 6])
def test_sources_let_in_whom_they_name(town: Town, family: int) -> None:
    """Nobody else gets an answer, the host itself included."""
    assert seen(town.outside, UPLINK[family], 9200)
    assert is_silent(town.stranger.ns, UPLINK[family], 9200)
    assert is_silent(town.host, UPLINK[family], 9200)
    assert is_silent(town.outside, UPLINK[family], 9201)
    if family == 4:
        assert seen(town.outside, UPLINK[4], 9202, "udp")
        assert is_silent(town.neighbour.ns, UPLINK[4], 9202, "udp")


OTHER = {4: "203.0.113.0/24", 6: "2001:db8:9::/48"}
REFERENCES = [  # words of a condition, for which protocols, whether those outside meet it
    ("iptables", "-m tcp --sport 1024:65535", ["tcp"], True),
    ("iptables", "-m tcp --sport 1:1023", ["tcp"], False),
    ("iptables", "-m multiport --sports 1024:65535", ["tcp", "udp"], True),
    ("iptables", "-m multiport --sports 1:1023", ["tcp", "udp"], False),
    ("nftables", "{ip} saddr {{ {other}, {outside} }}", ["tcp", "udp"], True),
    ("nftables", "{ip} saddr != {{ {other}, {outside} }}", ["tcp", "udp"], False),
]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("backend", "words", "protocols", "met"), REFERENCES)
def test_conditions_of_the_reference(
    port_lab: Callable[..., PortLab], family: int, backend: str, words: str, protocols: list[str], *, met: bool
) -> None:
    """What matches ports, and sets of addresses: words that the reference takes are taken, and mean the same."""
    if backend == "iptables":
        needs("tool:iptables", "tool:ip6tables")
    ports = port_lab(outside=True)
    assert ports.outside is not None
    server = ports.server("c1", network(ipMasqBackend=backend))
    ip = "ip" if family == 4 else "ip6"
    asked = words.format(ip=ip, other=OTHER[family], outside=OUTSIDE[family]).split()
    wanted = [port(8080, proto=proto) for proto in protocols]
    keys = {f"conditionsV{family}": asked, "backend": backend}
    ports.publish(server, *wanted, **keys)
    assert ports.check(server, *wanted, **keys).ok
    for proto in protocols:
        assert is_silent(ports.outside, UPLINK[family], 8080, proto) != met, proto
        assert seen(ports.outside, UPLINK[10 - family], 8080, proto), proto
    ports.withdraw(server)
    assert "8080" not in ports.lab.ruleset()


@pytest.mark.parametrize("name", ["neighbour", "stranger", "outside"])
def test_forged_loopback_targets_are_dropped(town: Town, name: str) -> None:
    """Neither a port published on 127.0.0.1 nor a service of the host that listens there answers packets for 127.0.0.1
    that come over the wire (CVE-2020-8558, moby 45610). Without the guard both answer."""
    client = town.client(name)
    route_loopback(client, {"outside": UPLINK[4], "neighbour": "10.1.0.1", "stranger": "10.2.0.1"}[name])
    with town.host.in_namespace(lambda: socket.create_server(("127.0.0.1", 9300))):
        for number in (9001, 9300):
            assert not is_answered_by_loopback(client, number)
        if name == "neighbour":
            town.host.run(["nft", "flush chain inet pycni early"])
            assert is_answered_by_loopback(client, 9300)
            rule = "ip daddr 127.0.0.0/8 iifname @loopback drop"
            town.host.run(["nft", f"add rule inet pycni early {rule}"])


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize("bridged", [False, True])
def test_answers_from_loopback_are_not_forged(port_lab: Callable[..., PortLab], bridged: bool, backend: str) -> None:
    """What a container sends as the answer in a flow between two addresses of the host's 127.0.0.0/8, as a resolver on
    127.0.0.53 gives them, does not arrive. Without the guard it does."""
    if backend == "iptables":
        needs("tool:iptables", "tool:ip6tables")
    ports = port_lab(bridged=bridged)
    server = ports.server("c1", network(ipMasqBackend=backend))
    ports.publish(server, port(8080), backend=backend)
    route_loopback(server.ns, "10.1.0.1")
    server.ns.ip_batch("addr add 127.0.0.53/32 dev eth0")
    asking, resolver = (datagrams(ports.host, address) for address in (("127.0.0.1", 5000), ("127.0.0.53", 5300)))
    forger = datagrams(server.ns, ("127.0.0.53", 5300))
    with asking, resolver, forger:
        asking.sendto(b"question", resolver.getsockname())
        assert resolver.recv(100) == b"question"
        forger.sendto(b"forged", asking.getsockname())
        with pytest.raises(TimeoutError):
            asking.recv(100)
        ports.withdraw(server)
        ports.host.run(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/cni1/route_localnet"])
        forger.sendto(b"forged", asking.getsockname())
        assert asking.recv(100) == b"forged"


def datagrams(namespace: Namespace, address: tuple[str, int]) -> socket.socket:
    """A UDP socket on that address of *namespace*, whose recv() fails after a while."""
    made = namespace.in_namespace(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.bind(address)
    made.settimeout(SHORT_S)
    return made


def is_answered_by_loopback(client: Namespace, number: int) -> bool:
    """Whether a frame with the source 127.0.0.1 comes back; the client's own kernel would not take it."""
    frames = Frames(client, "eth0")
    assert is_silent(client, "127.0.0.1", number)
    try:
        frames.until(lambda frame: frame[12:14] == b"\x08\x00" and frame[26:30] == b"\x7f\0\0\1", 0.05)
    except AssertionError:
        return False
    finally:
        frames.close()
    return True
