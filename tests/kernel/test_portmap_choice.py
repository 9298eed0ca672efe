"""hostPort 0 where the host's own processes have the ports."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from netns_fixtures import Host, assert_unchanged
from tests.kernel.portmap_lab import PortLab, port, seen

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth", "kernel:nft_nat")

LEARNT = ["*/neighbour/*", "*dst=fe80*"]
FIRST = 40000  # of the range
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture
def ports(port_lab: Callable[..., PortLab]) -> PortLab:
    made = port_lab()
    made.host.run(["sh", "-c", f"echo {FIRST} {FIRST + 29} >/proc/sys/net/ipv4/ip_local_port_range"])
    return made


def take(host: Host, closing: ExitStack, family: int, proto: str, count: int, *, listen: bool = True) -> None:
    """The host has the first *count* ports of the range, on all addresses of *family* alone."""

    def bind(number: int) -> socket.socket:
        sock = socket.socket(FAMILIES[family], KINDS[proto])
        if family == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("", number))
        if proto == "tcp" and listen:
            sock.listen()
        return sock

    for number in range(FIRST, FIRST + count):
        closing.callback(host.in_namespace(partial(bind, number)).close)


def chosen(result: Any) -> list[int]:
    return [one["hostPort"] for one in result["pycni/portMappings"]]


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
def test_many_foreign_ports_in_a_row(ports: PortLab, closing: ExitStack, family: int, proto: str) -> None:
    """The first free one behind them; another protocol has its own."""
    take(ports.host, closing, family, proto, 25)
    server = ports.server("c1")
    assert chosen(ports.publish(server, port(0, proto=proto))) == [FIRST + 25]
    assert seen(ports.host, "127.0.0.1" if family == 4 else "::1", FIRST + 25, proto)


def test_ports_that_nobody_lists_are_tried(ports: PortLab, closing: ExitStack) -> None:
    """Bound without listening, or the other family's where the container has one only: that one does not count."""
    take(ports.host, closing, 4, "tcp", 3, listen=False)
    take(ports.host, closing, 6, "tcp", 25)
    server = ports.server("c1")
    assert chosen(ports.publish(server, port(0, hostIP="0.0.0.0"))) == [FIRST + 3]


def test_none_is_left(ports: PortLab, closing: ExitStack) -> None:
    """Code 101 with the range, and nothing is left of the attempt."""
    take(ports.host, closing, 6, "tcp", 30)
    server = ports.server("c1")
    before = ports.lab.traces(server.ns)
    error = ports.refused(server, port(0))
    assert error["code"] == 101 and f"no host port of {FIRST} to {FIRST + 29} is free" in error["msg"]
    assert_unchanged(before, ports.lab.traces(server.ns), ignore=LEARNT)
