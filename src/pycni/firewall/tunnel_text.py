"""The table that says from whom a host takes VXLAN packets, as text, and its elements. Pure.

It stands apart from the table of the containers' rules, whatever backend those have: it is about packets between hosts,
and is the fence behind which the addresses of a dead host become free.
"""

from __future__ import annotations

from pycni.firewall.nft_text import SetType, Table
from pycni.firewall.rules import Element

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# The VXLAN network identifier has no name in nft: 24 bits, 32 behind the 64 of the UDP header (RFC 7348, section 5).
_TYPEOF = {"inet_service": "udp dport", "vni": "@th,96,24", "ipv4_addr": "ip saddr", "ipv6_addr": "ip6 saddr"}


class PacketSet(SetType):
    """A set whose fields are parts of a packet."""

    def render(self) -> str:
        return f"    set {self.name} {{ typeof {' . '.join(_TYPEOF[field] for field in self.fields)}; }}\n"


_TUNNEL = f"{_TYPEOF['inet_service']} . {_TYPEOF['vni']}"

# Before connection tracking (priority raw is -300, conntrack -200), so that what strangers send costs no entry there;
# and before the rules of others at raw, which may exempt the port from tracking and accept it. A packet of a known host
# takes one look-up: "accept" ends this chain only.
TUNNELS = Table(
    family="inet",
    name="pycni_tunnels",
    sets=(
        PacketSet("guarded", ("inet_service", "vni")),
        PacketSet("vteps4", ("inet_service", "vni", "ipv4_addr")),
        PacketSet("vteps6", ("inet_service", "vni", "ipv6_addr")),
    ),
    chains={
        "prerouting": (
            "type filter hook prerouting priority raw - 10; policy accept;",
            f"meta nfproto ipv4 {_TUNNEL} . ip saddr @vteps4 accept",
            f"meta nfproto ipv6 {_TUNNEL} . ip6 saddr @vteps6 accept",
            f"{_TUNNEL} @guarded drop",
        ),
    },
)


def guarded_element(port: int, vni: int) -> Element:
    """What makes the packets of *vni* to UDP *port* pass only if they come from a known host."""
    return Element("guarded", (str(port), str(vni)))


def peer_elements(port: int, vni: int, peers: Iterable[str]) -> list[Element]:
    """What lets the packets of hosts with these tunnel addresses pass, IPv4 before IPv6."""
    found = sorted(("vteps6" if ":" in peer else "vteps4", peer) for peer in set(peers))
    return [Element(name, (str(port), str(vni), peer)) for name, peer in found]
