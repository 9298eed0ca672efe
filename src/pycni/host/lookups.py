"""Where the kernel would send one frame: single entries of neighbour tables, bridges and VXLAN devices.

Each is one question with one answer, whatever the size of the table (Linux 5.0 and newer).
"""

from __future__ import annotations

import errno
from ipaddress import IPv4Address, IPv6Address

from pycni.host import inet_messages, link_facts, netlink
from pycni.host.inet_messages import NDA_DST, NDA_LLADDR, NDMSG
from pycni.host.netlink import attribute, attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.host.link_facts import Address, Neighbour
    from pycni.host.rtnl import Netlink

NDA_MASTER = 9
_ABSENT = (errno.ENOENT, errno.ENODEV)


def neighbour(socket: Netlink, index: int, address: Address) -> Neighbour | None:
    """The entry of *address* on the link *index*."""
    family = inet_messages.AF_INET if address.version == 4 else inet_messages.AF_INET6
    payload = _ask(socket, NDMSG.pack(family, index, 0, 0, 0) + attribute(NDA_DST, address.packed))
    return link_facts.read_neighbour(payload) if payload is not None else None


def bridge_port(socket: Netlink, bridge: int, mac: bytes) -> int:
    """Index of the port (or of the bridge itself) that the bridge sends frames for *mac* to; 0: it does not know."""
    header = NDMSG.pack(inet_messages.AF_BRIDGE, 0, 0, inet_messages.NTF_MASTER, 0)
    payload = _ask(socket, header + attribute(NDA_LLADDR, mac) + attribute(NDA_MASTER, netlink.U32.pack(bridge)))
    return int(NDMSG.unpack_from(payload)[1]) if payload is not None else 0


def tunnel_end(socket: Netlink, vxlan: int, mac: bytes) -> Address | None:
    """The tunnel address that a VXLAN device sends frames for *mac* to."""
    header = NDMSG.pack(inet_messages.AF_BRIDGE, vxlan, 0, inet_messages.NTF_SELF, 0)
    payload = _ask(socket, header + attribute(NDA_LLADDR, mac))
    packed = dict(attributes(payload, NDMSG.size)).get(NDA_DST, b"") if payload is not None else b""
    return (IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)) if packed else None


def _ask(socket: Netlink, question: bytes) -> bytes | None:
    try:
        return socket.answers(netlink.message(inet_messages.RTM_GETNEIGH, 0, question))[0]
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return None
