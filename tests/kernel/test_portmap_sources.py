"""Long runs of ports for some clients, to other numbers in the container."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from netns_fixtures import assert_unchanged
from tests.kernel.portmap_lab import PortLab, is_silent, port, seen

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth", "kernel:nft_nat")

LEARNT = ["*/neighbour/*", "*dst=fe80*"]
COUNT = 16000
ENOUGH_S = 4.0  # ADD, CHECK and DEL take 0.2 s; as elements of an interval map they took 20
OUTSIDE = ["198.51.100.1", "2001:db8:ffff::1"]


def test_a_long_run_for_some_clients_takes_no_time(port_lab: Callable[..., PortLab]) -> None:
    """Both families, next to another container: served to whom `sources` names and nobody else, by the right port;
    nothing is left."""
    ports = port_lab(outside=True)
    assert ports.outside is not None
    server, other = ports.server("c1"), ports.server("c2")
    ports.publish(other, port(8080))
    before = ports.lab.traces(server.ns)
    ask = port(10000, 7000, hostPortEnd=10000 + COUNT, sources=OUTSIDE)
    began_s = time.monotonic()
    ports.publish(server, ask)
    assert ports.check(server, ask).ok
    for family in (4, 6):
        address = ports.host_address(family)
        assert (answer := seen(ports.outside, address, 10777)) and answer.server == "c1"
        assert is_silent(ports.outside, address, 10776) and is_silent(ports.host, address, 10777)
    ports.withdraw(server)
    assert time.monotonic() - began_s < ENOUGH_S
    assert_unchanged(before, ports.lab.traces(server.ns), ignore=LEARNT)
    assert seen(ports.outside, ports.host_address(4), 8080)


def test_its_missing_rules_are_named_and_come_back(port_lab: Callable[..., PortLab]) -> None:
    """After a flush by the next ADD of anybody; a second container is refused ports of it, also without a store."""
    ports = port_lab(outside=True)
    assert ports.outside is not None
    one, two, three = ports.server("c1"), ports.server("c2"), ports.server("c3")
    ask = port(10000, 7000, hostPortEnd=10999, sources=OUTSIDE)
    ports.publish(one, ask)
    ports.host.run(["nft", "flush", "ruleset"])
    assert "10000-10999" in ports.check(one, ask).json["msg"]
    ports.publish(two, port(8080))
    assert ports.check(one, ask).ok
    assert seen(ports.outside, ports.host_address(4), 10777)
    ports.host.run(["sh", "-c", "rm /var/lib/pycni/pycni.db*"])
    error = ports.refused(three, port(10500, 7000, hostPortEnd=11499, sources=OUTSIDE))
    assert error["code"] == 100 and "taken by net/c1/eth0/portmap" in error["msg"]
