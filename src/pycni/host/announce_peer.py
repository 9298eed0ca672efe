"""Tell the containers of a bridge the MAC of a remote one, unasked.

A container that looked for an address before this host knew its MAC has no answer, and asks again after a second at the
earliest (retrans_time_ms): an announcement ends its waiting at once, and takes the place of what it knew before. It
makes no entry where there is none, so those who never asked are not bothered.
"""

from __future__ import annotations

import _socket
from struct import pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

AF_PACKET, SOCK_RAW = 17, 3
ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD
IPPROTO_ICMPV6 = 58
BROADCAST = b"\xff" * 6
ALL_NODES, ALL_NODES_MAC = bytes.fromhex("ff02" + "0" * 27 + "1"), b"\x33\x33\x00\x00\x00\x01"
_ARP_REPLY = bytes.fromhex("0001080006040002")  # Ethernet, IPv4, lengths, "is at"
_OVERRIDE = 0x20000000  # unsolicited (RFC 4861, section 4.4)


class PeerAnnouncer:
    """A packet socket in the namespace that the calling thread is in now, for a resident process: to close one waits
    for an RCU grace period (packet_release, af_packet.c), 10 to 35 ms."""

    def __init__(self) -> None:
        # Protocol 0: it receives nothing.
        self._socket = _socket.socket(AF_PACKET, SOCK_RAW | _socket.SOCK_CLOEXEC, 0)
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def kick(self, bridge: str, peers: Iterable[tuple[str, str]]) -> None:
        """Announce each (address, MAC) once to all containers of *bridge*; one more of each costs 5 µs and a container.

        OSError where there is no such link (ENODEV), it is down (ENETDOWN) or its queue is full (ENOBUFS, EAGAIN): what
        comes behind it is not announced, and need not be. The frames come from the remote container, so the bridge's
        own address is not told to anybody.
        """
        for address, mac in peers:
            self._socket.sendto(frame(address, mac), (bridge, 0))


_kept: PeerAnnouncer | None = None


def kick(bridge: str, peers: Iterable[tuple[str, str]]) -> None:
    """As PeerAnnouncer.kick, with one that stays open until the process ends, in the namespace of the first call."""
    global _kept  # noqa: PLW0603 - a property of the process
    if _kept is None:
        _kept = PeerAnnouncer()
    _kept.kick(bridge, peers)


def frame(address: str, mac: str) -> bytes:
    """An unasked ARP reply or neighbour advertisement that says *address* has *mac*, to everybody on the link. Pure."""
    source = bytes.fromhex(mac.replace(":", ""))
    if ":" not in address:
        packed = _socket.inet_pton(_socket.AF_INET, address)
        # Sender and target are the same: by that it is gratuitous, and counts at once against what was known before
        # (arp_is_garp, arp.c); any other reply does only when that is a second old (locktime).
        return BROADCAST + source + pack("!H", ETH_P_ARP) + _ARP_REPLY + source + packed + source + packed
    packed = _socket.inet_pton(_socket.AF_INET6, address)
    # Target, then the option "target link-layer address" (type 2, one unit of 8 bytes).
    rest = pack("!I", _OVERRIDE) + packed + b"\x02\x01" + source
    pseudo = packed + ALL_NODES + pack("!II", 4 + len(rest), IPPROTO_ICMPV6)
    icmp = pack("!BBH", 136, 0, _checksum(pseudo + pack("!BBH", 136, 0, 0) + rest)) + rest
    header = pack("!IHBB", 6 << 28, len(icmp), IPPROTO_ICMPV6, 255) + packed + ALL_NODES
    return ALL_NODES_MAC + source + pack("!H", ETH_P_IPV6) + header + icmp


def _checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
