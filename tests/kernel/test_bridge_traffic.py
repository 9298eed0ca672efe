"""What gets through on a bridge network: to the gateway, to neighbours, to the world and from network to network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from netns_fixtures import Container, EchoServer, Outside, assert_unchanged, can_ping, can_tcp, tcp_peer_seen
from tests.kernel.bridge_lab import Frames, Lab, address_of, frame, gateway_of, mac_bytes, network, words

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

FAMILIES = [(4,), (6,), (4, 6)]
BACKENDS: list[dict[str, Any]] = [{}, {"ipMasqBackend": "nftables"}, {"ipMasqBackend": "iptables"}]
SWITCHES = ["*/sysctl/*", "*type=anycast"]  # forwarding, and the anycast routes that a router of IPv6 has
SILENCE_S = 0.4  # how long an answer that must not come is waited for


@pytest.mark.parametrize("families", FAMILIES)
def test_gateway_neighbour_and_outside_are_reached(
    wide: Lab, outside: Outside, c1: Container, c2: Container, families: tuple[int, ...]
) -> None:
    """With isDefaultGateway and ipMasq everything is; the world sees the host's address; DEL leaves the bridge only."""
    conf = network(families=families)
    before = wide.traces(c1, c2)
    one, two = wide.add(conf, c1), wide.add(conf, c2)
    for family in families:
        assert can_ping(c1, gateway_of(one, family))
        assert can_ping(c1, address_of(two, family))
        assert outside.seen_from(c2, family).address == outside.host_address(family)
        assert outside.seen_from(c2, family, proto="udp").address == outside.host_address(family)
    for container in (c1, c2):
        assert wide.check(conf, container, one if container is c1 else two).ok
        wide.delete(conf, container)
    assert wide.gc(conf).ok
    # The forwarding switches stay on, for the next container: everything else is as it was.
    assert_unchanged(before, wide.traces(c1, c2), ignore=SWITCHES)
    assert wide.host.sysctl("net/ipv4/ip_forward") == ("1" if 4 in families else "0")
    assert wide.host.sysctl("net/ipv6/conf/all/forwarding") == ("1" if 6 in families else "0")


@pytest.mark.parametrize("family", [4, 6])
def test_without_masquerade_nobody_outside_answers(wide: Lab, outside: Outside, c1: Container, family: int) -> None:
    """The container's own address leaves the host, and outside knows no way back to it; with a route it does."""
    conf = network(ipMasq=False)
    result = wide.add(conf, c1)
    with pytest.raises(OSError, match=r".*"):
        outside.seen_from(c1, family, deadline_s=SILENCE_S)
    bits = 32 if family == 4 else 128
    outside.ip("route", "add", f"{address_of(result, family)}/{bits}", "via", outside.host_address(family))
    assert outside.seen_from(c1, family).address == address_of(result, family)
    wide.delete(conf, c1)


@pytest.mark.parametrize("backend", BACKENDS, ids=["chosen", "nftables", "iptables"])
def test_every_backend_masquerades_and_leaves_nothing(
    wide: Lab, outside: Outside, c1: Container, c2: Container, backend: dict[str, Any]
) -> None:
    """Both families by either backend; neighbours see each other's own address; after DEL no rule is left."""
    conf = network(**backend)
    wide.host.sysctl("net/ipv4/ip_forward", "1")
    wide.host.sysctl("net/ipv6/conf/all/forwarding", "1")
    before = wide.traces(c1, c2)
    wide.add(conf, c1)
    two = wide.add(conf, c2)
    server = EchoServer(c2)
    for family in (4, 6):
        assert outside.seen_from(c1, family).address == outside.host_address(family)
        seen = tcp_peer_seen(c1, address_of(two, family), server.port)
        assert seen.address != gateway_of(two, family)
    server.close()
    for container in (c1, c2):
        wide.delete(conf, container)
    assert wide.gc(conf).ok
    # Tables that iptables itself makes (nat, filter) stay, empty.
    assert_unchanged(before, wide.traces(c1, c2), ignore=["*/nft/ip*", "*/ip*tables-*"])
    assert "PYCNI" not in wide.ruleset()


def test_backend_none_touches_no_packet_filter(wide: Lab, outside: Outside, c1: Container) -> None:
    """`"backend": "none"`: the container is connected, and not one rule is made, not even for ipMasq."""
    conf = network(backend="none")
    result = wide.add(conf, c1)
    assert can_ping(c1, gateway_of(result, 4))
    assert wide.ruleset() == ""
    assert wide.check(conf, c1, result).ok
    with pytest.raises(OSError, match=r".*"):
        outside.seen_from(c1, 4, deadline_s=SILENCE_S)
    wide.delete(conf, c1)


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_host_with_a_drop_policy_still_forwards(
    wide: Lab, outside: Outside, c1: Container, c2: Container, variant: str
) -> None:
    """FORWARD policy DROP (Docker, ufw), either iptables: containers get out, and DEL takes our rules away again."""
    for tool in ("iptables", "ip6tables"):
        wide.host.run([f"{tool}-{variant}", "-P", "FORWARD", "DROP"])
    conf = network()
    before = wide.traces(c1, c2)
    wide.add(conf, c1)
    wide.add(conf, c2)
    for family in (4, 6):
        assert outside.seen_from(c1, family).address == outside.host_address(family)
    for container in (c1, c2):
        wide.delete(conf, container)
    assert wide.gc(conf).ok
    assert_unchanged(before, wide.traces(c1, c2), ignore=SWITCHES)


def test_closed_nftables_firewall_is_named_and_the_add_undone(wide: Lab, c1: Container) -> None:
    """A foreign nftables chain that drops all forwarding cannot be opened by us: code 103 says which, nothing stays."""
    rules = "table inet filter { chain forward { type filter hook forward priority 0; policy drop; }\n}\n"
    wide.host.run(["nft", "-f", "-"], input=rules)
    before = wide.traces(c1)
    error = wide.refused(network(), c1)
    assert error["code"] == 103
    assert "chain forward of table inet filter" in words(error)
    assert_unchanged(before, wide.traces(c1))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("isolate", [True, False])
def test_two_networks_reach_each_other_only_if_told_so(  # noqa: PLR0917 - fixtures come by name
    wide: Lab, outside: Outside, c1: Container, c2: Container, family: int, isolate: bool
) -> None:
    """Both ways; `"isolate": false` on both opens them. The world, and the other's gateway, are reached in any case."""
    first, second = network("one", 1, isolate=isolate), network("two", 2, isolate=isolate)
    one, two = wide.add(first, c1), wide.add(second, c2)
    wait = 2.0 if not isolate else SILENCE_S
    assert can_ping(c1, address_of(two, family), deadline_s=wait) is not isolate
    assert can_ping(c2, address_of(one, family), deadline_s=wait) is not isolate
    for container in (c1, c2):
        assert outside.seen_from(container, family).address == outside.host_address(family)
    # One that is gone no longer isolates anybody, and the other goes on.
    wide.delete(first, c1)
    assert outside.seen_from(c2, family).address == outside.host_address(family)
    wide.delete(second, c2)
    assert wide.ruleset() == ""


def test_two_networks_on_one_bridge_work_independently(
    wide: Lab, outside: Outside, c1: Container, c2: Container
) -> None:
    """The bridge and its subnet are shared; the DEL of the one's last container leaves the other's at work."""
    first = network("one", 1)
    second = network("two", 1, ipam={"type": "static", "addresses": [{"address": "10.1.0.200/24"}]})
    wide.add(first, c1)
    two = wide.add(second, c2)
    assert can_ping(c1, "10.1.0.200")
    wide.delete(first, c1)
    assert outside.seen_from(c2).address == outside.host_address()
    assert wide.check(second, c2, two).ok
    # The bridge was made for "one"; "two" still lives on it.
    assert wide.gc(first).ok
    assert outside.seen_from(c2).address == outside.host_address()
    wide.delete(second, c2)


def test_port_isolation_separates_containers_but_not_from_the_gateway(
    lab: Lab, boxes: Callable[[int], list[Container]]
) -> None:
    """Two isolated ports do not reach each other; the gateway and a port without the flag reach both."""
    isolated, plain = network(portIsolation=True), network()
    one, two, three = boxes(3)
    lab.add(isolated, one)
    second = lab.add(isolated, two)
    third = lab.add(plain, three)
    assert not can_ping(one, address_of(second, 4), deadline_s=SILENCE_S)
    assert can_ping(one, gateway_of(second, 4))
    assert can_ping(one, address_of(third, 4))
    flags = {port: lab.link(port)["linkinfo"]["info_slave_data"]["isolated"] for port in lab.ports()}
    assert sorted(flags.values()) == [False, True, True]
    for conf, container in ((isolated, one), (isolated, two), (plain, three)):
        lab.delete(conf, container)


def test_hairpin_returns_frames_to_their_port(lab: Lab, c1: Container, c2: Container) -> None:
    """With hairpinMode a container hears its own broadcast, which is how it reaches itself by a published port."""
    for conf, container, hears in ((network(hairpinMode=True), c1, True), (network(), c2, False)):
        result = lab.add(conf, container)
        host_link = result["interfaces"][1]["name"]
        assert lab.link(host_link)["linkinfo"]["info_slave_data"]["hairpin"] is hears
        frames = Frames(container, "eth0")
        mac = result["interfaces"][2]["mac"]
        answer = mac_bytes(mac) + mac_bytes(lab.link("cni1")["address"]) + b"\x08\x00"  # IPv4 from the bridge
        frames.send(frame(mac, b"echo?"))
        # The answer to a later ping ends the wait.
        assert can_ping(container, gateway_of(result, 4))
        seen = frames.until(partial(_begins, answer))
        assert any(b"echo?" in one for one in seen) is hears
        frames.close()
        lab.delete(conf, container)


def _begins(head: bytes, one: bytes) -> bool:
    return one.startswith(head)


def test_mac_spoofing_is_dropped(lab: Lab, c1: Container, c2: Container) -> None:
    """With macspoofchk a frame from another MAC dies at the port; the container's own pass; DEL takes the rule."""
    conf = network(macspoofchk=True)
    result = lab.add(conf, c1)
    lab.add(network(), c2)
    wire, heard = Frames(c1, "eth0"), Frames(c2, "eth0")
    wire.send(frame("02:00:00:00:00:66", b"spoofed"))
    wire.send(frame(result["interfaces"][2]["mac"], b"honest"))
    seen = heard.until(lambda one: b"honest" in one)
    assert not any(b"spoofed" in one for one in seen)
    assert lab.check(conf, c1, result).ok
    wire.close()
    heard.close()
    lab.delete(conf, c1)
    assert "macs" not in lab.ruleset() or "elements" not in lab.ruleset().partition("set macs")[2].partition("}")[0]
    lab.delete(network(), c2)
    assert lab.ruleset() == ""


def test_without_the_check_any_source_mac_passes(lab: Lab, c1: Container, c2: Container) -> None:
    """The counterpart: the sender above is no straw man."""
    lab.add(network(), c1)
    lab.add(network(), c2)
    wire, heard = Frames(c1, "eth0"), Frames(c2, "eth0")
    wire.send(frame("02:00:00:00:00:66", b"spoofed"))
    heard.until(lambda one: b"spoofed" in one)
    wire.close()
    heard.close()


def test_container_that_masquerades_serves_its_neighbours(lab: Lab, c1: Container, c2: Container) -> None:
    """A TCP connection between two containers of one network is seen with the client's own address."""
    one, two = lab.add(network(), c1), lab.add(network(), c2)
    server = EchoServer(c2)
    for family in (4, 6):
        assert can_tcp(c1, address_of(two, family), server.port)
        assert tcp_peer_seen(c1, address_of(two, family), server.port).address == address_of(one, family)
    server.close()
