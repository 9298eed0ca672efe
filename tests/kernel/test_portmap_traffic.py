"""Who reaches a published port, by which address, and whom the server then sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netns_fixtures import EchoServer, tcp_peer_seen
from tests.kernel.portmap_lab import PROBES, Town, is_silent, port, seen

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth", "kernel:nft_nat")

TCP, UDP = 8080, 8081
GATEWAY = {4: "10.1.0.1", 6: "fd00:1::1"}
PROTOCOLS = {"tcp": TCP, "udp": UDP}


@pytest.fixture(scope="module", params=[False, True], ids=["routed", "bridged"])
def town(plugins: Path, request: pytest.FixtureRequest) -> Iterator[Town]:
    """Ports on every address; "bridged": br_netfilter shows bridged frames to the rules, as on most real hosts."""
    with ExitStack() as stack:
        made = Town.built(plugins, stack, bridged=request.param)
        made.ports.publish(made.server, port(TCP), port(UDP, proto="udp"))
        yield made


@pytest.mark.parametrize("proto", PROTOCOLS)
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", ["outside", "host", "itself", "neighbour", "stranger"])
def test_everybody_reaches_it_by_the_hosts_address(town: Town, name: str, family: int, proto: str) -> None:
    """Remote, the host, the container itself, one on its bridge, one on another: the address of the client is kept
    but for those who would be answered directly."""
    answer = seen(town.client(name), town.outside.host_address(family), PROTOCOLS[proto], proto)
    assert answer is not None
    assert answer.server == "c1"
    hidden = name in ("itself", "neighbour")
    assert answer.address == (GATEWAY[family] if hidden else town.own_address(name, family))


@pytest.mark.parametrize("proto", PROTOCOLS)
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1"])
def test_host_reaches_it_by_loopback(town: Town, address: str, proto: str) -> None:
    """By any address of 127.0.0.0/8, and by ::1 but where br_netfilter looks at IPv6: there the agent's proxy does."""
    answer = seen(town.host, address, PROTOCOLS[proto], proto) if address != "::1" or not town.bridged else None
    if answer is not None:
        assert answer.address == GATEWAY[6 if ":" in address else 4]
    else:
        assert town.bridged
        with pytest.raises(ConnectionRefusedError):  # at once: a client of "localhost" goes on to 127.0.0.1
            PROBES[proto](town.host, address, PROTOCOLS[proto])


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", ["host", "itself", "neighbour", "stranger"])
def test_every_address_of_the_host_serves(town: Town, name: str, family: int) -> None:
    """Also the gateway of its own network and that of another."""
    for address in (GATEWAY[family], {4: "10.2.0.1", 6: "fd00:2::1"}[family]):
        assert seen(town.client(name), address, TCP), address


@pytest.mark.parametrize("family", [4, 6])
def test_unpublished_ports_of_the_host_are_the_hosts(town: Town, family: int) -> None:
    """The container's own port number is not one of the host's, and the other protocol's neither."""
    address = town.outside.host_address(family)
    assert is_silent(town.outside, address, 7777)
    assert is_silent(town.outside, address, TCP, "udp")
    assert is_silent(town.outside, address, UDP, "tcp")


@pytest.mark.parametrize("family", [4, 6])
def test_traffic_to_others_is_not_hijacked(town: Town, family: int) -> None:
    """A container that asks for the published port number somewhere else gets there (CVE-2025-67499)."""
    other = EchoServer(town.outside, TCP, name="other")
    try:
        for client in (town.stranger.ns, town.server.ns, town.host):
            assert tcp_peer_seen(client, town.outside.address(family), TCP).server == "other"
    finally:
        other.close()


def test_many_connections_at_once_keep_their_own(town: Town) -> None:
    """Two clients with one source port each: no connection gets into another's."""
    host_address = town.outside.host_address(4)
    answers = [tcp_peer_seen(town.outside, host_address, TCP, payload=b"%d" % number * 100) for number in range(20)]
    assert len({answer.port for answer in answers}) == 20
