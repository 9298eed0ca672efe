"""rtnetlink requests as bytes: addresses, routes, neighbours, forwarding entries of bridges and VXLAN devices. Pure.

Constants are named as in linux/if_addr.h, rtnetlink.h and neighbour.h. The family is that of the addresses given.
"""

from __future__ import annotations

import struct

from pycni.host import netlink
from pycni.host.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    attribute,
    nested,
    u32,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

    Address = IPv4Address | IPv6Address
    Interface = IPv4Interface | IPv6Interface
    Network = IPv4Network | IPv6Network

AF_UNSPEC, AF_INET, AF_BRIDGE, AF_INET6 = 0, 2, 7, 10

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

RT_TABLE_UNSPEC, RT_TABLE_MAIN, RT_TABLE_LOCAL = 0, 254, 255
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST, RT_SCOPE_NOWHERE = 0, 253, 254, 255
RTN_UNSPEC, RTN_UNICAST, RTN_LOCAL, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT = 0, 1, 2, 6, 7, 8
RTPROT_UNSPEC, RTPROT_KERNEL, RTPROT_BOOT, RTPROT_STATIC = 0, 2, 3, 4
RTM_F_FIB_MATCH = 0x2000
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS = 1, 4, 5, 6, 7, 8
RTA_MULTIPATH, RTA_TABLE, RTA_VIA = 9, 15, 18
RTAX_MTU, RTAX_ADVMSS = 2, 8

IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200

NDA_DST, NDA_LLADDR, NDA_IFINDEX = 1, 2, 8
NUD_REACHABLE, NUD_NOARP, NUD_PERMANENT = 0x02, 0x40, 0x80
NTF_SELF, NTF_MASTER, NTF_PROXY, NTF_EXT_LEARNED = 0x02, 0x04, 0x08, 0x10

IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst and src prefix lengths, tos, table, protocol, scope, type, flags
NDMSG = struct.Struct("=BxxxiHBB")  # family, index, NUD_… state, NTF_… flags, RTN_… type


def new_address(
    index: int, interface: Interface, *, nodad: bool = False, replace: bool = False, prefix_route: bool = True
) -> bytes:
    """Put an address with its prefix on a link; EEXIST if it is there, unless *replace*.

    *nodad*: usable at once, without IPv6's duplicate address detection (1 to 2 s); IPv4 has none. Without
    *prefix_route* the kernel adds no route to the prefix.
    """
    how = NLM_F_REPLACE if replace else NLM_F_EXCL
    network = interface.network
    parts = [_ifaddrmsg(index, interface, flags=IFA_F_NODAD if nodad and interface.version == 6 else 0)]
    if interface.version == 4 and network.prefixlen < 31:  # RFC 3021: a /31 has no broadcast address
        parts.append(attribute(IFA_BROADCAST, network.broadcast_address.packed))
    if not prefix_route:  # beyond the 8 bits of the header's flags, which this attribute replaces
        parts.append(u32(IFA_FLAGS, IFA_F_NOPREFIXROUTE | (IFA_F_NODAD if nodad and interface.version == 6 else 0)))
    return netlink.message(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | how, *parts)


def delete_address(index: int, interface: Interface) -> bytes:
    """Take an address off a link; EADDRNOTAVAIL if it is not there.

    The first IPv4 address of a network takes the later ones of that network along, unless the link's sysctl
    promote_secondaries is 1 (__inet_del_ifa, devinet.c).
    """
    return netlink.message(RTM_DELADDR, NLM_F_ACK, _ifaddrmsg(index, interface))


def list_addresses(index: int, family: int = AF_UNSPEC) -> bytes:
    """Ask for the addresses of one link (0: of all); the kernel filters (NETLINK_GET_STRICT_CHK).

    The answers for one link are of one moment up to some 400 addresses, one datagram; beyond that the kernel does not
    mark them when they are not (NLM_F_DUMP_INTR is set in the list of all links only).
    """
    return netlink.message(RTM_GETADDR, NLM_F_DUMP, IFADDRMSG.pack(family, 0, 0, 0, index))


def new_route(
    dst: Network,
    *,
    gw: Address | None = None,
    oif: int = 0,
    metric: int = 0,
    table: int | None = None,
    scope: int | None = None,
    mtu: int = 0,
    advmss: int = 0,
    protocol: int = RTPROT_STATIC,
    src: Address | None = None,
    kind: int = RTN_UNICAST,
    append: bool = False,
    prepend: bool = False,
    replace: bool = False,
) -> bytes:
    """Add a route: EEXIST if one of that destination and metric is there, unless *append*, *prepend* or *replace*.

    *append* adds a further next hop (IPv6: a sibling of one multipath route; IPv4: a second route of that metric).
    *prepend* is the same before those that are there: the new one is used (IPv4), EEXIST only for the very same route.
    *scope* None: link without a gateway, host for a local route, else universe; IPv6 has no scopes. *metric* 0 is 1024
    to IPv6, *table* None is main. A gateway of the other family goes as RTA_VIA, which IPv4 routes take and IPv6 routes
    refuse (EINVAL).
    """
    if scope is None:
        scope = RT_SCOPE_HOST if kind == RTN_LOCAL else RT_SCOPE_UNIVERSE
        if dst.version == 4 and kind == RTN_UNICAST and gw is None:
            scope = RT_SCOPE_LINK  # else a gateway inside dst is "invalid" (fib_check_nh, fib_semantics.c)
    how = NLM_F_REPLACE if replace else NLM_F_APPEND if append else 0 if prepend else NLM_F_EXCL
    numbers = ((RTA_OIF, oif), (RTA_PRIORITY, metric))
    parts = [_route(dst, gw, table, *numbers, scope=scope, protocol=protocol, kind=kind)]
    if src is not None:
        parts.append(attribute(RTA_PREFSRC, src.packed))
    metrics = b"".join(u32(name, value) for name, value in ((RTAX_MTU, mtu), (RTAX_ADVMSS, advmss)) if value)
    if metrics:
        parts.append(nested(RTA_METRICS, metrics))
    return netlink.message(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | how, *parts)


def delete_route(
    dst: Network,
    *,
    gw: Address | None = None,
    oif: int = 0,
    metric: int = 0,
    table: int | None = None,
    protocol: int = RTPROT_UNSPEC,
    kind: int = RTN_UNSPEC,
) -> bytes:
    """Delete the first route that fits what is given; ESRCH if none does."""
    numbers = ((RTA_OIF, oif), (RTA_PRIORITY, metric))
    body = _route(dst, gw, table, *numbers, scope=RT_SCOPE_NOWHERE, protocol=protocol, kind=kind)  # NOWHERE: any scope
    return netlink.message(RTM_DELROUTE, NLM_F_ACK, body)


def get_route(address: Address, *, entry: bool = False) -> bytes:
    """Ask which way a packet to *address* would go: a lookup, nothing is sent or listed.

    *entry*: ask for the entry of the table that says so (RTM_F_FIB_MATCH, Linux 4.13), with all its hops. For the way
    itself the kernel chooses a source address, of IPv6 among those of all links: 0.25 ms next to 1000 containers.
    """
    header = _rtmsg(_family(address), address.max_prefixlen, RT_TABLE_UNSPEC, flags=RTM_F_FIB_MATCH if entry else 0)
    return netlink.message(RTM_GETROUTE, 0, header, attribute(RTA_DST, address.packed))


def list_routes(*, oif: int = 0, table: int = RT_TABLE_MAIN, protocol: int = 0, family: int = AF_UNSPEC) -> bytes:
    """Ask for the routes of a table (0: of all), through *oif* only if given; the kernel filters."""
    header = _rtmsg(family, 0, table, protocol=protocol)
    return netlink.message(RTM_GETROUTE, NLM_F_DUMP, header, u32(RTA_OIF, oif) if oif else b"")


def new_neighbour(
    index: int,
    address: Address,
    mac: bytes = b"",
    *,
    permanent: bool = True,
    proxy: bool = False,
    ext_learned: bool = False,
) -> bytes:
    """Set the neighbour entry of *address* on a link, whatever was there.

    Not *permanent*: reachable for now, then confirmed by the kernel as any other. *proxy*: answer for *address*
    (no MAC). *ext_learned*: owned by a control plane, not aged out.
    """
    flags = (NTF_PROXY if proxy else 0) | (NTF_EXT_LEARNED if ext_learned else 0)
    header = NDMSG.pack(_family(address), index, NUD_PERMANENT if permanent else NUD_REACHABLE, flags, 0)
    parts = [header, attribute(NDA_DST, address.packed)]
    if mac:
        parts.append(attribute(NDA_LLADDR, mac))
    return netlink.message(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, *parts)


def delete_neighbour(index: int, address: Address, *, proxy: bool = False) -> bytes:
    """Forget the neighbour entry of *address*; ENOENT if there is none."""
    header = NDMSG.pack(_family(address), index, 0, NTF_PROXY if proxy else 0, 0)
    return netlink.message(RTM_DELNEIGH, NLM_F_ACK, header, attribute(NDA_DST, address.packed))


def list_neighbours(index: int, family: int = AF_UNSPEC) -> bytes:
    """Ask for the neighbour entries of one link, without the proxy ones; the kernel filters."""
    return netlink.message(RTM_GETNEIGH, NLM_F_DUMP, NDMSG.pack(family, 0, 0, 0, 0), u32(NDA_IFINDEX, index))


def new_fdb(index: int, mac: bytes, *, remote: Address | None = None, append: bool = False) -> bytes:
    """Set where a bridge or VXLAN device sends frames for *mac*, for ever.

    With *remote*: *index* is a VXLAN device and *remote* the tunnel's far end; *append* adds a further far end (for the
    all-zero MAC, which means every unknown one). Without: *index* is a bridge port, behind which *mac* is.
    """
    how = NLM_F_APPEND if append else NLM_F_REPLACE
    return netlink.message(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | how, _fdb(index, mac, remote))


def delete_fdb(index: int, mac: bytes, *, remote: Address | None = None) -> bytes:
    """Take back `new_fdb`; ENOENT if there is no such entry."""
    return netlink.message(RTM_DELNEIGH, NLM_F_ACK, _fdb(index, mac, remote))


def _ifaddrmsg(index: int, interface: Interface, *, flags: int = 0) -> bytes:
    header = IFADDRMSG.pack(_family(interface), interface.network.prefixlen, flags, 0, index)
    return header + attribute(IFA_LOCAL, interface.packed) + attribute(IFA_ADDRESS, interface.packed)


def _fdb(index: int, mac: bytes, remote: Address | None) -> bytes:
    # NTF_SELF: the device's own table (VXLAN); NTF_MASTER: that of the bridge the port belongs to (rtnl_fdb_add).
    # A static entry of a bridge is NUD_NOARP: NUD_PERMANENT would make the MAC one of the bridge's own.
    state, flags = (NUD_PERMANENT, NTF_SELF) if remote is not None else (NUD_NOARP, NTF_MASTER)
    header = NDMSG.pack(AF_BRIDGE, index, state, flags, 0) + attribute(NDA_LLADDR, mac)
    return header + attribute(NDA_DST, remote.packed) if remote is not None else header


def _route(dst: Network, gw: Address | None, table: int | None, *numbers: tuple[int, int], **header: int) -> bytes:
    """struct rtmsg and its attributes; *numbers* of 0 are left out."""
    table = RT_TABLE_MAIN if table is None else table
    family = _family(dst.network_address)
    parts = [_rtmsg(family, dst.prefixlen, table, **header)]
    if dst.prefixlen:
        parts.append(attribute(RTA_DST, dst.network_address.packed))
    if gw is not None and gw.version == dst.version:
        parts.append(attribute(RTA_GATEWAY, gw.packed))
    elif gw is not None:  # RTA_GATEWAY with 16 bytes would be read as the IPv4 address in its first 4
        parts.append(attribute(RTA_VIA, netlink.U16.pack(_family(gw)) + gw.packed))
    parts.extend(u32(name, value) for name, value in numbers if value)
    return b"".join(parts)


def _rtmsg(
    family: int, length: int, table: int, *, scope: int = 0, protocol: int = 0, kind: int = 0, flags: int = 0
) -> bytes:
    if table < 256:
        return RTMSG.pack(family, length, 0, 0, table, protocol, scope, kind, flags)
    return RTMSG.pack(family, length, 0, 0, RT_TABLE_UNSPEC, protocol, scope, kind, flags) + u32(RTA_TABLE, table)


def _family(address: Address) -> int:
    return AF_INET if address.version == 4 else AF_INET6
