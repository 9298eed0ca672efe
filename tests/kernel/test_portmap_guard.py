"""directAccess false: whatever address a container has, others reach it by published ports only."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netns_fixtures import needs
from tests.kernel.bridge_lab import network
from tests.kernel.portmap_lab import PortLab, is_silent, port, seen

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth", "kernel:nft_nat")

SUBNETS = ("10.1.0.0/24", "10.9.0.0/24", "fd00:1::/64", "fd00:9::/64")


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_every_address_is_guarded(port_lab: Callable[..., PortLab], backend: str) -> None:
    """Two of each family, all with a route from outside: none answers there, the published port does."""
    if backend == "iptables":
        needs("tool:iptables", "tool:ip6tables")
    ports = port_lab(outside=True)
    assert ports.outside is not None
    ipam = {"type": "host-local", "ranges": [[{"subnet": one}] for one in SUBNETS]}
    server = ports.server("c1", network(ipMasqBackend=backend, ipam=ipam))
    addresses = [one["address"].split("/")[0] for one in server.result["ips"]]
    assert len(addresses) == len(SUBNETS)
    ways = [f"{subnet} via {ports.host_address(6 if ':' in subnet else 4)}" for subnet in SUBNETS]
    ports.outside.ip_batch(*(f"route replace {way}" for way in ways))
    assert all(seen(ports.outside, address, 7777) for address in addresses)
    ports.publish(server, port(8080), backend=backend, directAccess=False)
    assert [address for address in addresses if not is_silent(ports.outside, address, 7777)] == []
    assert all(seen(ports.outside, ports.host_address(family), 8080) for family in (4, 6))
    assert all(seen(ports.host, address, 7777) for address in addresses)
    assert ports.check(server, port(8080), backend=backend, directAccess=False).ok
    ports.withdraw(server)
    assert all(seen(ports.outside, address, 7777) for address in addresses)
