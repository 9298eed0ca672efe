"""What the kernel answers, or tells unasked, about the entries that lead to other hosts, as values. Pure."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop

from pycni.change.forwarding import PROTOCOL, FdbEntry, NeighbourEntry, PortEntry, RouteEntry
from pycni.host.inet_messages import (
    AF_BRIDGE,
    NDA_DST,
    NDA_LLADDR,
    NDMSG,
    NTF_PROXY,
    NTF_SELF,
    NUD_NOARP,
    NUD_PERMANENT,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PREFSRC,
    RTMSG,
)
from pycni.host.netlink import pick, to_int

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.change.forwarding import Entry
    from pycni.host.netlink import Buffer

NDA_MASTER = 9  # index of the bridge that an entry is of; the flag NTF_MASTER is in requests only
_OF_NEIGHBOUR = frozenset((NDA_DST, NDA_LLADDR, NDA_MASTER))
_OF_ROUTE = frozenset((RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PREFSRC))


def read_neighbour(payload: Buffer) -> tuple[int, Entry | None]:
    """Index of the link, and the entry that an RTM_NEWNEIGH or RTM_DELNEIGH message is about.

    None for what is none of ours by its kind: learned, of a bridge's own MACs, a multicast destination (which a device
    with a group has by itself).
    """
    family, index, state, flags, _ = NDMSG.unpack_from(payload)
    found = pick(_OF_NEIGHBOUR, payload, NDMSG.size)
    mac, address = found.get(NDA_LLADDR, b""), found.get(NDA_DST, b"")
    if len(mac) != 6:
        return index, None
    if family != AF_BRIDGE:
        if not address or not state & NUD_PERMANENT or flags & NTF_PROXY:
            return index, None
        return index, NeighbourEntry(address_text(address), mac.hex(":"))
    if flags & NTF_SELF:
        if not address or not state & NUD_PERMANENT or _is_multicast(address):
            return index, None
        return index, FdbEntry(mac.hex(":"), address_text(address))
    return index, PortEntry(mac.hex(":")) if NDA_MASTER in found and state & NUD_NOARP else None


def neighbour_address(payload: Buffer) -> str:
    """The IPv4 or IPv6 address in such a message, "" in one about a forwarding entry."""
    address = pick(_OF_NEIGHBOUR, payload, NDMSG.size).get(NDA_DST)
    return address_text(address) if address is not None and payload[0] != AF_BRIDGE else ""


def read_route(payload: Buffer) -> tuple[int, Entry | None]:
    """Index of the link, and the entry that an RTM_NEWROUTE or RTM_DELROUTE message is about; None for somebody else's
    and for what has no gateway, or several."""
    _, length, _, _, _, protocol, _, _, _ = RTMSG.unpack_from(payload)
    found = pick(_OF_ROUTE, payload, RTMSG.size)
    index = to_int(found.get(RTA_OIF, b""))
    via = found.get(RTA_GATEWAY)
    if protocol != PROTOCOL or via is None:
        return index, None
    address = found.get(RTA_DST) or bytes(len(via))
    src = found.get(RTA_PREFSRC)
    return index, RouteEntry(
        f"{address_text(address)}/{length}", address_text(via), address_text(src) if src is not None else ""
    )


def address_text(packed: bytes) -> str:
    """As `ipaddress` prints it, at a tenth of its price."""
    if len(packed) == 4:
        return inet_ntop(AF_INET, packed)
    text = inet_ntop(AF_INET6, packed)
    if "." in text:  # ::1.2.3.4, which versions of Python print differently
        from ipaddress import IPv6Address

        return str(IPv6Address(packed))
    return text


def _is_multicast(packed: bytes) -> bool:
    return packed[0] == 0xFF if len(packed) == 16 else packed[0] & 0xF0 == 0xE0
