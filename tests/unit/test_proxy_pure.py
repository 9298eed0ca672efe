"""What the userland proxy decides without a socket."""

from __future__ import annotations

import ipaddress
from fcntl import F_GETPIPE_SZ, fcntl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.portmap.proxy.control import parse_mapping
from pycni.portmap.proxy.limits import FIXED, Limits, available, changed, pipes
from pycni.portmap.proxy.mapping import Counters, total
from pycni.portmap.proxy.pipes import LARGE, MOST_LARGE, MOST_PIPES, SMALL, Pipes
from pycni.portmap.proxy.proxy_protocol import SIGNATURE, header
from pycni.portmap.proxy.wheel import TICKS, Wheel

ports = st.integers(min_value=0, max_value=65535)
v4 = st.ip_addresses(v=4).map(str)
v6 = st.ip_addresses(v=6).map(str)

# -- PROXY protocol ----------------------------------------------------------------------------------------------------


def test_header_of_ipv4_is_that_of_the_specification() -> None:
    """Section 2.2: signature, version 2 and PROXY, TCP over IPv4, length 12, addresses, ports."""
    expected = "0d0a0d0a000d0a515549540a 21 11 000c 0a000001 c0000202 d431 0050"
    assert header(("10.0.0.1", 54321), ("192.0.2.2", 80)) == bytes.fromhex(expected)


def test_header_of_ipv6_is_that_of_the_specification() -> None:
    """TCP over IPv6, length 36; the scope of a link-local address has no place in it."""
    source, destination = "fe80" + "00" * 13 + "01", "20010db8" + "00" * 11 + "02"
    expected = f"0d0a0d0a000d0a515549540a 21 21 0024 {source} {destination} 0001 01bb"
    assert header(("fe80::1%eth0", 1), ("2001:db8::2", 443)) == bytes.fromhex(expected)


@given(st.tuples(v4, ports), st.tuples(v4, ports))
def test_client_of_ipv4_on_a_socket_of_ipv6_is_one_of_ipv4(client: tuple[str, int], asked: tuple[str, int]) -> None:
    """A socket for both families shows ::ffff:a.b.c.d."""
    mapped = [(f"::ffff:{address}", port) for address, port in (client, asked)]
    assert header(*mapped) == header(client, asked)


@given(st.tuples(v6, ports), st.tuples(v6, ports))
def test_header_can_be_read_back(client: tuple[str, int], asked: tuple[str, int]) -> None:
    """By what a server does: skip as many bytes as the header says, take addresses and ports from fixed places."""
    made = header(client, asked)
    assert made.startswith(SIGNATURE)
    assert len(made) == 16 + int.from_bytes(made[14:16], "big")
    if made[13] == 0x21:
        assert ipaddress.IPv6Address(made[16:32]) == ipaddress.IPv6Address(client[0])
        assert int.from_bytes(made[48:50], "big") == client[1]


# -- limits ------------------------------------------------------------------------------------------------------------


def test_limits_change_only_as_told() -> None:
    """The others stay; seconds may be fractions."""
    limits = changed(Limits(), {"flow_s": 0.5, "connections": 7})
    assert limits == Limits(flow_s=0.5, connections=7)
    assert changed(limits, {}) == limits


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"flow": 1}, "no limit is called 'flow': there are connections, owner_connections, flows"),
        ({"connections": 0}, "connections is 0, not a number in 1..1048576"),
        ({"connections": 1.5}, "connections is 1.5"),
        ({"connections": True}, "connections is True"),
        ({"connect_s": -1}, "connect_s is -1, not a number in 0.0..604800.0 seconds"),
        ({"flow_s": 0}, "flow_s is 0, not a number in 0.05..604800.0 seconds"),
        ({"idle_s": "9"}, "idle_s is '9'"),
        ({"idle_s": float("nan")}, "idle_s is nan"),
    ],
)
def test_wrong_limits_are_refused_in_words(wrong: dict[str, Any], words: str) -> None:
    """The name, the value, and what it may be."""
    with pytest.raises(ValueError, match=words):
        changed(Limits(), wrong)


@given(st.integers(min_value=0, max_value=1 << 20))
def test_descriptors_are_never_promised_twice(descriptors: int) -> None:
    """What connections may have, all pipes, and the process itself fit into the limit, if it is not absurdly small."""
    most = pipes(descriptors, MOST_PIPES)
    left = available(descriptors, most)
    assert left >= 0
    assert left + 2 * most + FIXED <= max(descriptors, FIXED + 2 * most)
    if descriptors >= 20_000:
        assert most == MOST_PIPES


def test_pipes_are_made_once_and_kept() -> None:
    """At most as many as told; one with something in it does not come back."""
    pool = Pipes(2)
    first, second = pool.take(), pool.take()
    assert first is not None
    assert second is not None
    assert pool.take() is None
    pool.give(first, empty=True)
    assert pool.take() == first
    pool.give(first, empty=False)
    third = pool.take()
    assert third is not None
    for pipe in (second, third):
        pool.give(pipe, empty=False)
    assert pool.made == 0


def test_first_pipes_are_large() -> None:
    """And where all of those are in hand, there are small ones; a large one that comes back is the next."""
    pool = Pipes(MOST_LARGE + 2)
    pipes = [pool.take() for _ in range(MOST_LARGE + 2)]
    sizes = [fcntl(pipe[0], F_GETPIPE_SZ) for pipe in pipes if pipe]
    assert sizes == [LARGE] * MOST_LARGE + [SMALL] * 2
    assert pool.take() is None
    for pipe in (pipes[1], pipes[-1]):
        assert pipe
        pool.give(pipe, empty=True)
    assert pool.take() == pipes[1]
    assert pool.take() == pipes[-1]
    assert pipes[0]
    pool.give(pipes[0], empty=False)
    again = pool.take()
    assert again
    assert again[2] == LARGE
    for pipe in (again, *pipes[1:]):
        assert pipe
        pool.give(pipe, empty=False)
    assert pool.made == 0


# -- the wheel ---------------------------------------------------------------------------------------------------------


class Flow:
    """Notes when it was closed."""

    def __init__(self, seen: float) -> None:
        self.seen = seen
        self.closed = False

    def close(self) -> None:
        assert not self.closed
        self.closed = True


steps = st.lists(
    st.tuples(st.floats(min_value=0.001, max_value=40), st.integers(min_value=0, max_value=2)), max_size=60
)


@given(st.floats(min_value=0.05, max_value=3600), steps)
def test_flow_ends_when_it_was_silent_for_long_enough(idle_s: float, steps: list[tuple[float, int]]) -> None:
    """Never before its idle time, at the latest two ticks after, whatever happens between: in units of a tick."""
    wheel = Wheel(idle_s, 0.0)
    now = 0.0
    flows: list[Flow] = []
    for pause, what in steps:
        # The engine turns the wheel once a tick, or late.
        now += pause * wheel.tick_s
        wheel.turn(now)
        for flow in flows:
            silent = now - flow.seen
            assert not (flow.closed and silent < idle_s * 0.999)
            assert flow.closed or silent <= idle_s + (2 + pause) * wheel.tick_s
        flows = [flow for flow in flows if not flow.closed]
        if what == 1:
            flows.append(Flow(now))
            wheel.add(flows[-1], now)
        elif what == 2 and flows:
            flows[0].seen = now
    wheel.turn(now + idle_s + 2 * wheel.tick_s + 1e-6)
    wheel.turn(now + 2 * idle_s + 4 * wheel.tick_s)
    assert all(flow.closed for flow in flows)
    assert wheel.waiting == 0


def test_flow_that_was_closed_by_others_is_forgotten() -> None:
    """It is not closed again."""
    wheel = Wheel(6.0, 0.0)
    flow = Flow(0.0)
    wheel.add(flow, 0.0)
    flow.closed = True
    assert wheel.flows() == []
    for turn in range(2 * TICKS):
        wheel.turn(turn * 0.1)
    assert wheel.waiting == 0


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0.0.0.0", "::1", "2001:db8::1"])
def test_any_family_may_be_the_target(address: str) -> None:
    """The container's family is not the host's."""
    request = {"owner": "o", "family": 6, "proto": "tcp", "port": 80, "to": [address, 8080]}
    mapping = parse_mapping(request)
    assert (mapping.to, mapping.host_ip, mapping.key) == ((address, 8080), "", (6, "tcp", "", 80))


def test_proxy_protocol_is_for_tcp() -> None:
    """A datagram has no beginning of a connection to put it at."""
    request = {"owner": "o", "family": 4, "port": 80, "to": ["10.0.0.1", 80], "proxy_protocol": True}
    assert parse_mapping({**request, "proto": "tcp"}).proxy_protocol
    assert not parse_mapping({**request, "proto": "udp"}).proxy_protocol


def test_counters_add_up() -> None:
    """Of several ports, and of those that are gone."""
    one, other = Counters(), Counters()
    one.open, other.open, other.bytes_in = 1, 2, 5
    assert total([one, other])["open"] == 3
    one.add(other)
    assert (one.open, one.bytes_in) == (3, 5)
