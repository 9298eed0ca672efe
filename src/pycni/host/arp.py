"""Tell the link which MAC an interface's addresses have now, so that nobody goes on using an old one."""

from __future__ import annotations

import _socket
from struct import pack, unpack

from pycni.host import netns, rtnl, unheard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycni.host.announcer import Announcer
    from pycni.host.link_facts import Address, Interface

AF_PACKET, SOCK_RAW = 17, 3
ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD
IPPROTO_ICMPV6 = 58
BROADCAST = b"\xff" * 6
ALL_NODES, ALL_NODES_MAC = bytes.fromhex("ff02" + "0" * 27 + "1"), b"\x33\x33\x00\x00\x00\x01"
_ARP_REQUEST = bytes.fromhex("0001080006040001")  # Ethernet, IPv4, lengths, "who has"
_ARP_REPLY = bytes.fromhex("0001080006040002")  # "is at"
_OVERRIDE = 0x20000000  # unsolicited (RFC 4861, section 4.4)

LATER_S = 0.02  # after which the plugins that follow in a list are done
_later: Announcer | None = None  # once put_off() was called


def put_off() -> None:
    """For a resident process: from now on a thread of its own announces what `announce_from` is told, LATER_S later.

    An announcement is a broadcast, which the bridge copies to each of its ports: 3 of 9 ms of an ADD next to 1000 of
    them, and it would keep the next plugin of the same list from the processor. Nobody waits for it.
    """
    global _later  # noqa: PLW0603 - a property of the process
    from pycni.host.announcer import Announcer

    _later = Announcer(LATER_S)


def announce_from(fd: int, index: int, addresses: Sequence[Address | Interface]) -> None:
    """`announce` the *addresses* of a link, now or later, in the network namespace *fd*."""
    unheard.put(addresses)
    if _later is None:
        netns.inside(fd, announce, index, addresses)
    else:
        _later.put(fd, announce, index, addresses)


def announce(index: int, addresses: Sequence[Address | Interface]) -> None:
    """Announce that *addresses* have the MAC that a link has now; call it inside the namespace (`netns.inside`).

    IPv4: a gratuitous ARP request each; IPv6: an unsolicited neighbour advertisement each, with the override flag, to
    all nodes. The kernel would do so if the link were given its MAC anew, while it holds RTNL, for which every other
    call waits. A link that is gone or down is passed over.
    """
    with rtnl.Netlink() as socket:
        link = socket.link(index)
    if link is None or not link.up:
        return
    sender = open_sender()
    try:
        for address in addresses:
            bare = str(address).partition("/")[0]
            sender.sendto(frame(bare, link.mac.hex(":"), request=True), (link.name, 0))
    finally:
        close_sender(sender)
    unheard.heard(addresses)


def open_sender() -> _socket.socket:
    """A packet socket in the namespace that the calling thread is in, for `frame`s; `close_sender` closes it."""
    return _socket.socket(AF_PACKET, SOCK_RAW | _socket.SOCK_CLOEXEC, 0)  # protocol 0: it receives nothing


def close_sender(sender: _socket.socket) -> None:
    """Its end waits for an RCU grace period (packet_release, af_packet.c), as that of a netfilter socket does: 10 to 35
    ms, and no reason to wait for it."""
    from pycni.host.netfilter_socket import close_unwaited  # loopback and chained plugins announce nothing

    close_unwaited(sender)


def frame(address: str, mac: str, *, request: bool = False) -> bytes:
    """An unasked ARP reply or neighbour advertisement that says *address* has *mac*, to everybody on the link. Pure.

    *request*: an ARP request, which says it as well; RFC 5227 (section 3) has announcements be requests, because some
    machines ignore replies that they did not ask for. Linux takes both, replies with less work.
    """
    source = bytes.fromhex(mac.replace(":", ""))
    if ":" not in address:
        packed = _socket.inet_pton(_socket.AF_INET, address)
        # Sender and target are the same: by that it is gratuitous, and counts at once against what was known before
        # (arp_is_garp, arp.c); any other reply does only when that is a second old (locktime).
        kind = _ARP_REQUEST if request else _ARP_REPLY
        return BROADCAST + source + pack("!H", ETH_P_ARP) + kind + source + packed + source + packed
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
