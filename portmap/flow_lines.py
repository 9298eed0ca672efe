"""What a line of /proc/net/nf_conntrack says: the client's question first, then the answer, each with its addresses and
ports (ct_seq_show, nf_conntrack_standalone.c)."""

from __future__ import annotations

from ipaddress import ip_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.firewall.rules import PortMapping


def answers_from(line: str) -> str:
    """Who answers, as the kernel spells it; see `spelled`."""
    return line.rpartition(" src=")[2].partition(" ")[0]


def asked_port(line: str) -> int:
    """The port that the client asked for; 0 of a protocol without."""
    return int(line.partition(" dport=")[2].partition(" ")[0] or 0)


def spelled(address: str) -> str:
    """As the kernel spells *address*: IPv6 with all its zeros (%pI6)."""
    return ip_address(address).exploded


def any_from(lines: Iterable[str], mappings: Iterable[PortMapping]) -> bool:
    """Whether the container of one of *mappings* answers in one of the flows."""
    containers = {spelled(one.address) for one in mappings}
    return any(answers_from(line) in containers for line in lines)


def any_udp_to(lines: Iterable[str], mappings: Iterable[PortMapping]) -> bool:
    """Whether one of the flows is of UDP and asks for a port of *mappings*."""
    spans = [(one.low, one.high) for one in mappings]
    ports = [asked_port(line) for line in lines if " udp " in line]
    return any(low <= port <= high for port in ports for low, high in spans)
