"""What a line of the kernel's list of tracked flows is taken to say."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.firewall.rules import PortMapping
from pycni.portmap.flow_lines import answers_from, any_from, any_udp_to, asked_port, spelled

# As Linux 6.18 prints them.
UDP4 = (
    "ipv4     2 udp      17 29 src=127.0.0.1 dst=10.1.0.1 sport=56006 dport=2439 [UNREPLIED] "
    "src=10.88.0.5 dst=127.0.0.1 sport=53 dport=56006 mark=0 zone=0 use=2"
)
TCP6 = (
    "ipv6     10 tcp      6 431999 ESTABLISHED src=fd00:0009:0000:0000:0000:0000:0000:0002 "
    "dst=fd00:0009:0000:0000:0000:0000:0000:0001 sport=40000 dport=8080 src=fd00:0001:0000:0000:0000:0000:0000:0002 "
    "dst=fd00:0009:0000:0000:0000:0000:0000:0002 sport=80 dport=40000 [ASSURED] mark=0 zone=0 use=2"
)
PING = (
    "ipv4     2 icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=7 "
    "src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=7 use=2"
)
PORTS = st.integers(1, 65535)


def mapping(address: str, low: int = 1, high: int = 65535, proto: str = "udp") -> PortMapping:
    return PortMapping(proto=proto, host_ip="", low=low, high=high, address=address, port=80)


def test_parts() -> None:
    """The one who answers, and the port that was asked for, of the three shapes that there are."""
    assert [(answers_from(line), asked_port(line)) for line in (UDP4, TCP6, PING)] == [
        ("10.88.0.5", 2439),
        (spelled("fd00:1::2"), 8080),
        ("10.0.0.2", 0),
    ]


@pytest.mark.parametrize(
    ("address", "lines", "expected"),
    [
        ("10.88.0.5", [PING, UDP4], True),
        ("fd00:1::2", [PING, TCP6], True),
        ("10.88.0.50", [UDP4], False),  # begins alike
        ("127.0.0.1", [UDP4], False),  # who asked
        ("10.1.0.1", [UDP4], False),  # who was asked
        ("10.88.0.5", [], False),
    ],
)
def test_who_answers(address: str, lines: list[str], *, expected: bool) -> None:
    """Only the answering side counts, and the whole of its address."""
    assert any_from(lines, [mapping(address)]) is expected


@given(low=PORTS, high=PORTS)
def test_udp_port_within_its_range(low: int, high: int) -> None:
    """Both ends belong to a range; of TCP nothing does."""
    assert any_udp_to([UDP4, PING], [mapping("10.0.0.9", low, high)]) == (low <= 2439 <= high)
    assert not any_udp_to([TCP6, PING], [mapping("10.0.0.9", 1, 65535)])


@given(address=st.ip_addresses())
def test_spelling_is_unambiguous(address: object) -> None:
    """An address is spelled one way only, and that is the address."""
    assert ip_address(spelled(str(address))) == address or "%" in str(address)
