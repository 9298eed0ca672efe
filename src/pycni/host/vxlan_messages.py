"""rtnetlink requests as bytes: VXLAN devices, their bridge ports, and the entries that lead to other hosts. Pure.

Constants are named as in linux/if_link.h, if_bridge.h, neighbour.h and rtnetlink.h. MACs and addresses are packed
bytes: a host that joins sends ten thousand of these messages, and the objects of `ipaddress` would double their price.
"""

from __future__ import annotations

from struct import Struct

from pycni.change.forwarding import PROTOCOL
from pycni.host import netlink
from pycni.host.inet_messages import (
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    NDA_DST,
    NDA_IFINDEX,
    NDA_LLADDR,
    NDMSG,
    NTF_MASTER,
    NTF_SELF,
    NUD_NOARP,
    NUD_PERMANENT,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_GETNEIGH,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTMSG,
    RTN_UNICAST,
)
from pycni.host.messages import (
    IFINFOMSG,
    IFLA_ADDRESS,
    IFLA_EXT_MASK,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MTU,
    IFLA_PROTINFO,
    RTEXT_FILTER_SKIP_STATS,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
)
from pycni.host.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    attribute,
    nested,
    u8,
    u32,
)

IFLA_VXLAN_ID, IFLA_VXLAN_GROUP, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL = 1, 2, 3, 4
IFLA_VXLAN_LEARNING, IFLA_VXLAN_PROXY, IFLA_VXLAN_PORT = 7, 11, 15
IFLA_VXLAN_GROUP6, IFLA_VXLAN_LOCAL6 = 16, 17
IFLA_BRPORT_LEARNING, IFLA_BRPORT_UNICAST_FLOOD, IFLA_BRPORT_MULTICAST_ROUTER = 8, 9, 25
MDB_RTR_TYPE_PERM = 2
NTF_STICKY = 0x40
RTNH_F_ONLINK = 4
# Of all routes to one prefix the kernel takes the one with the smallest number: whatever somebody else has put there
# (IPv4: 0, IPv6: 1024 by default) is used, and neither replaced nor taken away.
METRIC = 2048

_KIND = attribute(IFLA_INFO_KIND, b"vxlan")
_PORT = Struct(">H")


def new_vxlan(
    name: str,
    *,
    vni: int,
    port: int,
    local: bytes,
    link: int = 0,
    mac: bytes = b"",
    mtu: int = 0,
    learning: bool = False,
    proxy: bool = True,
    group: bytes = b"",
) -> bytes:
    """Create a VXLAN device, down. *local* and *group* are packed addresses of one family, *link* an ifindex.

    EEXIST: the name, or VNI and port of this family in this namespace, are taken. EINVAL: *mtu* is more than that of
    *link* less 50 (IPv6: 70), or a *group* without *link*. The family is fixed from here on.
    """
    data = [u32(IFLA_VXLAN_ID, vni), attribute(IFLA_VXLAN_PORT, _PORT.pack(port)), _local(local)]
    data += [u8(IFLA_VXLAN_LEARNING, learning), u8(IFLA_VXLAN_PROXY, proxy)]
    if link:
        data.append(u32(IFLA_VXLAN_LINK, link))
    if group:
        data.append(attribute(IFLA_VXLAN_GROUP if len(group) == 4 else IFLA_VXLAN_GROUP6, group))
    parts = [IFINFOMSG.pack(0, 0, 0, 0, 0), netlink.text(IFLA_IFNAME, name)]
    if mac:
        # A MAC given at creation is one that was set: udev's MACAddressPolicy leaves it alone.
        parts.append(attribute(IFLA_ADDRESS, mac))
    if mtu:
        parts.append(u32(IFLA_MTU, mtu))
    parts.append(nested(IFLA_LINKINFO, _KIND, nested(IFLA_INFO_DATA, *data)))
    return netlink.message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, *parts)


def change_vxlan(index: int, *, local: bytes = b"", link: int = 0, learning: bool | None = None) -> bytes:
    """Change what is given of a VXLAN device that may be up; its entries stay. EINVAL for the other family."""
    data = [_local(local)] if local else []
    if link:
        data.append(u32(IFLA_VXLAN_LINK, link))
    if learning is not None:
        data.append(u8(IFLA_VXLAN_LEARNING, learning))
    info = nested(IFLA_LINKINFO, _KIND, nested(IFLA_INFO_DATA, *data))
    return netlink.message(RTM_NEWLINK, NLM_F_ACK, IFINFOMSG.pack(0, 0, index, 0, 0), info)


def list_vxlans() -> bytes:
    """Ask for the VXLAN devices; a kernel that has never heard of the kind answers with all links."""
    parts = u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS) + nested(IFLA_LINKINFO, _KIND)
    return netlink.message(RTM_GETLINK, NLM_F_DUMP, IFINFOMSG.pack(0, 0, 0, 0, 0), parts)


def tunnel_port(index: int, *, learning: bool) -> bytes:
    """Set up the bridge port that a VXLAN device is.

    Not *learning* (entries are written): what the bridge does not know is not behind the tunnel, so it is not sent
    there. Broadcasts are, since the device answers ARP; and so is all multicast, as to a router: a bridge that heard a
    querier would otherwise hold back the ND questions, whose groups nobody on this host has joined.
    """
    flags = [u8(IFLA_BRPORT_LEARNING, learning), u8(IFLA_BRPORT_UNICAST_FLOOD, learning)]
    flags.append(u8(IFLA_BRPORT_MULTICAST_ROUTER, MDB_RTR_TYPE_PERM))
    return netlink.message(
        RTM_SETLINK, NLM_F_ACK, IFINFOMSG.pack(AF_BRIDGE, 0, index, 0, 0), nested(IFLA_PROTINFO, *flags)
    )


# ---- entries ---------------------------------------------------------------------------------------------------------
# The messages of one kind differ in nothing but MACs and addresses, so each is one struct: a third of the time that
# messages put together from attributes take.

_NEIGH = Struct("=IHHII" + "BxxxiHBB" + "HH6s2x")  # header, struct ndmsg, NDA_LLADDR
_DST4, _DST6 = Struct("=HH4s"), Struct("=HH16s")
_SET = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE | NLM_F_REQUEST
_GONE = NLM_F_ACK | NLM_F_REQUEST
# type, flags, state, NTF_… flags
_NEW_REMOTE = (RTM_NEWNEIGH, _SET, NUD_PERMANENT, NTF_SELF)
_DELETE_REMOTE = (RTM_DELNEIGH, _GONE, NUD_PERMANENT, NTF_SELF)
_NEW_PORT_ENTRY = (RTM_NEWNEIGH, _SET, NUD_NOARP, NTF_MASTER | NTF_STICKY)
_DELETE_PORT_ENTRY = (RTM_DELNEIGH, _GONE, NUD_NOARP, NTF_MASTER)
_NEW_NEIGHBOUR = (RTM_NEWNEIGH, _SET, NUD_PERMANENT, 0)


def new_remote(index: int, mac: bytes, vtep: bytes) -> bytes:
    """Frames to *mac* that leave by VXLAN device *index* go to *vtep*; another destination is replaced, never joined.

    (vxlan_fdb_update_existing appends only for the all-zero MAC and for multicast.) EAFNOSUPPORT: not of its family.
    """
    return _entry(_NEW_REMOTE, AF_BRIDGE, index, mac, vtep)


def delete_remote(index: int, mac: bytes, vtep: bytes) -> bytes:
    """Take back `new_remote`; ENOENT where *mac* leads elsewhere, or nowhere."""
    return _entry(_DELETE_REMOTE, AF_BRIDGE, index, mac, vtep)


def new_port_entry(index: int, mac: bytes) -> bytes:
    """*mac* is behind bridge port *index*, whatever others send: sticky, else a container that sends with somebody
    else's MAC would get what is sent to it from this host (br_fdb_update moves an entry that is merely static)."""
    return _entry(_NEW_PORT_ENTRY, AF_BRIDGE, index, mac, b"")


def delete_port_entry(index: int, mac: bytes) -> bytes:
    """Take back `new_port_entry`; ENOENT where *mac* is not behind that port."""
    return _entry(_DELETE_PORT_ENTRY, AF_BRIDGE, index, mac, b"")


def new_static_neighbour(index: int, address: bytes, mac: bytes) -> bytes:
    """*address* has *mac* on link *index*, for ever, whatever it had before."""
    return _entry(_NEW_NEIGHBOUR, AF_INET if len(address) == 4 else AF_INET6, index, mac, address)


def delete_static_neighbour(index: int, address: bytes) -> bytes:
    """Forget the entry of *address*; ENOENT where there is none."""
    header = NDMSG.pack(AF_INET if len(address) == 4 else AF_INET6, index, 0, 0, 0)
    return netlink.message(RTM_DELNEIGH, NLM_F_ACK, header, attribute(NDA_DST, address))


def new_onlink_route(index: int, prefix: tuple[bytes, int], via: bytes, src: bytes = b"") -> bytes:
    """Packets to *prefix* (address, length) go by *via*, which is behind link *index* though no subnet of it says so.

    Ours of another gateway is replaced; those of others have other metrics. The next hop is resolved as any: a
    neighbour entry must be there.
    """
    return netlink.message(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, _route(index, prefix, via, src))


def delete_onlink_route(index: int, prefix: tuple[bytes, int], via: bytes) -> bytes:
    """Take back `new_onlink_route`; ESRCH where there is none."""
    return netlink.message(RTM_DELROUTE, NLM_F_ACK, _route(index, prefix, via, b""))


def new_next_hop(index: int, via: bytes) -> bytes:
    """The IPv6 address *via* itself is behind link *index*.

    IPv4 takes "onlink" at its word; IPv6 looks where the gateway would be found, and refuses one that any other route
    covers (EINVAL, ip6_route_check_nh_onlink in route.c).
    """
    return netlink.message(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, _next_hop(index, via))


def delete_next_hop(index: int, via: bytes) -> bytes:
    """Take back `new_next_hop`; ESRCH where there is none."""
    return netlink.message(RTM_DELROUTE, NLM_F_ACK, _next_hop(index, via))


def list_fdb(index: int) -> bytes:
    """Ask for the entries of a VXLAN device and, where it is a bridge port, those of its bridge that lead there."""
    return netlink.message(RTM_GETNEIGH, NLM_F_DUMP, NDMSG.pack(AF_BRIDGE, index, 0, 0, 0))


def list_device_neighbours(index: int, family: int) -> bytes:
    """Ask for the neighbour entries of one family on link *index*; the kernel filters."""
    return netlink.message(RTM_GETNEIGH, NLM_F_DUMP, NDMSG.pack(family, 0, 0, 0, 0), u32(NDA_IFINDEX, index))


def _local(address: bytes) -> bytes:
    return attribute(IFLA_VXLAN_LOCAL if len(address) == 4 else IFLA_VXLAN_LOCAL6, address)


def _entry(how: tuple[int, int, int, int], family: int, index: int, mac: bytes, address: bytes) -> bytes:
    kind, flags, state, ntf = how
    size = len(address)
    length = _NEIGH.size + (4 + size if size else 0)
    head = _NEIGH.pack(length, kind, flags, 0, 0, family, index, state, ntf, 0, 10, NDA_LLADDR, mac)
    if not size:
        return head
    return head + (_DST4.pack(8, NDA_DST, address) if size == 4 else _DST6.pack(20, NDA_DST, address))


def _next_hop(index: int, via: bytes) -> bytes:
    header = RTMSG.pack(AF_INET6, 128, 0, 0, RT_TABLE_MAIN, PROTOCOL, 0, RTN_UNICAST, 0)
    return header + attribute(RTA_DST, via) + u32(RTA_OIF, index) + u32(RTA_PRIORITY, METRIC)


def _route(index: int, prefix: tuple[bytes, int], via: bytes, src: bytes) -> bytes:
    address, length = prefix
    family = AF_INET if len(address) == 4 else AF_INET6
    header = RTMSG.pack(family, length, 0, 0, RT_TABLE_MAIN, PROTOCOL, 0, RTN_UNICAST, RTNH_F_ONLINK)
    parts = [header, attribute(RTA_DST, address), attribute(RTA_GATEWAY, via)]
    parts += [u32(RTA_OIF, index), u32(RTA_PRIORITY, METRIC)]
    if src:
        parts.append(attribute(RTA_PREFSRC, src))
    return b"".join(parts)
