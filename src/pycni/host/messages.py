"""rtnetlink requests as bytes: links and bridge ports here, addresses, routes and neighbours from inet_messages. Pure.

A builder answers with one or more whole netlink messages, to be given to `rtnl.Netlink.request` (or `.answers` for the
get… and list… ones). Constants are named as in linux/if_link.h, if_bridge.h and rtnetlink.h. A name, MAC or
address of a wrong size is refused by the kernel (ERANGE, EINVAL), not here.
"""

from __future__ import annotations

import struct

from pycni.host import netlink
from pycni.host.inet_messages import (
    AF_INET,
    AF_INET6,
    delete_address,
    delete_fdb,
    delete_neighbour,
    delete_route,
    get_route,
    list_addresses,
    list_neighbours,
    list_routes,
    new_address,
    new_fdb,
    new_neighbour,
    new_route,
)
from pycni.host.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    attribute,
    nested,
    text,
    u8,
    u16,
    u32,
)

__all__ = [
    "bridge_port",
    "bridge_vlan",
    "delete_address",
    "delete_fdb",
    "delete_link",
    "delete_neighbour",
    "delete_route",
    "get_link",
    "get_route",
    "list_addresses",
    "list_links",
    "list_neighbours",
    "list_ports",
    "list_routes",
    "new_address",
    "new_bridge",
    "new_fdb",
    "new_neighbour",
    "new_route",
    "new_veth",
    "new_veth_pair_here",
    "set_link",
]

AF_UNSPEC, AF_BRIDGE = 0, 7

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19

IFF_UP, IFF_PROMISC, IFF_ALLMULTI = 0x1, 0x100, 0x200

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_PROTINFO, IFLA_TXQLEN = 1, 3, 4, 5, 10, 12, 13
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD, IFLA_EXT_MASK = 18, 20, 26, 27, 28, 29
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES, IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID, IFLA_ALT_IFNAME = 31, 32, 37, 46, 53
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1
IFLA_BR_VLAN_FILTERING, IFLA_BR_MCAST_SNOOPING = 7, 23
IFLA_BRPORT_MODE, IFLA_BRPORT_LEARNING, IFLA_BRPORT_NEIGH_SUPPRESS, IFLA_BRPORT_ISOLATED = 4, 8, 32, 33
IFLA_BRIDGE_FLAGS, IFLA_BRIDGE_VLAN_INFO = 0, 2
IFLA_INET_CONF, IPV4_DEVCONF_ARP_NOTIFY = 1, 22  # linux/if_link.h, linux/ip.h
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_EUI64, IN6_ADDR_GEN_MODE_NONE = 8, 0, 1
BRIDGE_FLAGS_SELF = 2
BRIDGE_VLAN_INFO_PVID, BRIDGE_VLAN_INFO_UNTAGGED = 2, 4
BRIDGE_VLAN_INFO_RANGE_BEGIN, BRIDGE_VLAN_INFO_RANGE_END = 8, 16
RTEXT_FILTER_SKIP_STATS = 8
IFNAMSIZ = 16

IFINFOMSG = struct.Struct("=BxHiII")  # family, ARPHRD type, index, flags, which flags to change
_VLAN_INFO = struct.Struct("=HH")  # flags, vid


def new_veth(
    *,
    host: str,
    host_index: int = 0,
    peer: str,
    peer_index: int = 0,
    netns_fd: int,
    master: int = 0,
    mtu: int = 0,
    host_mac: bytes = b"",
    peer_mac: bytes = b"",
    alias: str = "",
    host_up: bool = True,
) -> bytes:
    """Create a veth pair, *peer* being born (down) inside *netns_fd*.

    EEXIST if one of the names or *host_index* is taken, EBUSY if *peer_index* is. ifindexes of 0 are chosen by the
    kernel, which honours *peer_index* only beside *host_index* (veth_newlink, veth.c): ValueError otherwise.
    The alias travels as a second message addressed by name, because none is taken at creation (rtnl_create_link,
    rtnetlink.c) and a process killed between two sends would leave a link that nobody recognises. So after EEXIST
    whatever has the name *host* has the alias, too: the name must be one that only its owner would use.
    """
    if peer_index and not host_index:
        raise ValueError("peer_index needs host_index")
    # The peer must not be born up: veth_open runs before the two ends know each other and answers ENOTCONN.
    born = _new_link(peer_index, peer, mtu, peer_mac) + u32(IFLA_NET_NS_FD, netns_fd)
    pair = _veth(_new_link(host_index, host, mtu, host_mac, up=host_up), born, master)
    return pair + set_link(host, alias=alias) if alias else pair


def new_veth_pair_here(
    name: str, port: str, *, master: int = 0, mtu: int = 0, mac: bytes = b"", alias: str = ""
) -> bytes:
    """Create a veth pair with both ends in the namespace of the socket and up, *port* being a port of *master*.

    The MAC and the alias are those of *name*. EEXIST if one of the names is taken: what is there is then up and has
    that alias, see `new_veth`.
    """
    pair = _veth(_new_link(0, port, mtu, up=True), _new_link(0, name, mtu, mac), master)
    return pair + set_link(name, up=True, alias=alias or None)


def new_bridge(
    name: str, *, mac: bytes = b"", mtu: int = 0, vlan_filtering: bool = False, alias: str = "", up: bool = True
) -> bytes:
    """Create a bridge; EEXIST if the name is taken, EOPNOTSUPP for VLAN filtering in a kernel without it.

    A *mac* is pinned: without one the bridge takes the lowest of its ports' (br_stp_recalculate_bridge_id). So is an
    *mtu*, because it follows in a second message: one given at creation would become the lowest of the ports' with the
    first port (BROPT_MTU_SET_BY_USER is set by br_change_mtu only). After EEXIST what has the name has MTU and alias.

    It does not snoop multicast. Without a querier, which a container network has none of, a bridge that snoops floods
    all the same (br_multicast_querier_exists), but each port that comes or goes has the timers of all ports set and
    fired (br_port_state_selection, br_multicast_enable_port): 15 % of an ADD next to 1000.
    """
    options = [u8(IFLA_BR_MCAST_SNOOPING, 0)]
    if vlan_filtering:
        options.append(u8(IFLA_BR_VLAN_FILTERING, 1))
    info = nested(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"bridge"), nested(IFLA_INFO_DATA, *options))
    bridge = _create(_new_link(0, name, mac=mac, up=up), info)
    return bridge + set_link(name, mtu=mtu, alias=alias or None) if alias or mtu else bridge


def set_link(
    link: int | str,
    *,
    up: bool | None = None,
    mtu: int = 0,
    mac: bytes = b"",
    master: int | None = None,
    promisc: bool | None = None,
    all_multicast: bool | None = None,
    tx_queue: int | None = None,
    alias: str | None = None,
    group: int | None = None,
    name: str | None = None,
    link_local: bool | None = None,
    arp_notify: bool | None = None,
) -> bytes:
    """Change what is given of a link named by index or name; *master* 0 takes it off its bridge, *alias* "" clears it.

    *link_local*: whether it makes itself an IPv6 address when it comes up (EAFNOSUPPORT where it has no IPv6);
    *arp_notify*: as the sysctl, without a way through /proc. A new *name* needs the link's index (ValueError): beside
    a name the kernel takes IFLA_IFNAME for the old one.
    """
    if name is not None and isinstance(link, str):
        raise ValueError("a link is renamed by its index")
    flags, mask = _flags(up, IFF_UP), IFF_UP if up is not None else 0
    for wanted, flag in ((promisc, IFF_PROMISC), (all_multicast, IFF_ALLMULTI)):
        flags, mask = flags | _flags(wanted, flag), mask | (flag if wanted is not None else 0)
    parts = [_link(link, flags=flags, mask=mask)]
    if name is not None:
        parts.append(text(IFLA_IFNAME, name))
    if mtu:
        parts.append(u32(IFLA_MTU, mtu))
    if mac:
        parts.append(attribute(IFLA_ADDRESS, mac))
    if master is not None:
        parts.append(u32(IFLA_MASTER, master))
    if tx_queue is not None:
        parts.append(u32(IFLA_TXQLEN, tx_queue))
    if alias is not None:
        parts.append(attribute(IFLA_IFALIAS, alias.encode("utf-8", "surrogateescape")))
    if group is not None:
        parts.append(u32(IFLA_GROUP, group))
    if link_local is not None:
        mode = IN6_ADDR_GEN_MODE_EUI64 if link_local else IN6_ADDR_GEN_MODE_NONE
        parts.append(nested(IFLA_AF_SPEC, nested(AF_INET6, u8(IFLA_INET6_ADDR_GEN_MODE, mode))))
    if arp_notify is not None:
        conf = nested(IFLA_INET_CONF, u32(IPV4_DEVCONF_ARP_NOTIFY, arp_notify))
        parts.append(nested(IFLA_AF_SPEC, nested(AF_INET, conf)))
    return netlink.message(RTM_SETLINK, NLM_F_ACK, *parts)


def delete_link(link: int | str) -> bytes:
    """Delete a link named by index or name; ENODEV if there is none. One end of a veth pair takes the other along."""
    return netlink.message(RTM_DELLINK, NLM_F_ACK, _link(link))


def delete_group(group: int) -> bytes:
    """Delete all links of a group (IFLA_GROUP) at once; ENODEV if it has none."""
    return netlink.message(RTM_DELLINK, NLM_F_ACK, IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0), u32(IFLA_GROUP, group))


def get_link(link: int | str, *, netnsid: int | None = None) -> bytes:
    """Ask for one link by index, name or alternative name, without its statistics; the answer is `link_facts.Link`.

    *netnsid*: of the namespace that it is in, as the socket's own namespace numbers it; EINVAL for -1, of one without.
    """
    elsewhere = b"" if netnsid is None else attribute(IFLA_TARGET_NETNSID, netlink.I32.pack(netnsid))
    return netlink.message(RTM_GETLINK, 0, _link(link), elsewhere, u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS))


def list_links() -> bytes:
    """Ask for all links, without their statistics."""
    return netlink.message(
        RTM_GETLINK, NLM_F_DUMP, IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0), u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    )


def list_ports(bridge: int) -> bytes:
    """Ask for the links whose master is *bridge*, without their statistics; the kernel filters."""
    header = IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0)
    parts = u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS) + u32(IFLA_MASTER, bridge)
    return netlink.message(RTM_GETLINK, NLM_F_DUMP, header, parts)


def bridge_port(
    index: int,
    *,
    hairpin: bool | None = None,
    isolated: bool | None = None,
    learning: bool | None = None,
    neigh_suppress: bool | None = None,
) -> bytes:
    """Set what is given of a bridge port; EOPNOTSUPP if the link is not one (br_setlink, br_netlink.c)."""
    wanted = (
        (IFLA_BRPORT_MODE, hairpin),
        (IFLA_BRPORT_LEARNING, learning),
        (IFLA_BRPORT_NEIGH_SUPPRESS, neigh_suppress),
        (IFLA_BRPORT_ISOLATED, isolated),
    )
    options = nested(IFLA_PROTINFO, *(u8(kind, value) for kind, value in wanted if value is not None))
    return netlink.message(RTM_SETLINK, NLM_F_ACK, IFINFOMSG.pack(AF_BRIDGE, 0, index, 0, 0), options)


def bridge_vlan(
    index: int,
    vid: int,
    *,
    vid_end: int = 0,
    pvid: bool = False,
    untagged: bool = False,
    delete: bool = False,
    self_: bool = False,
) -> bytes:
    """Put VLAN *vid* (or *vid*…*vid_end*) on a bridge port, or take it off; *self_*: on the bridge device itself.

    A range cannot be *pvid* (EINVAL); EOPNOTSUPP in a kernel without VLAN filtering.
    """
    flags = _flags(pvid, BRIDGE_VLAN_INFO_PVID) | _flags(untagged, BRIDGE_VLAN_INFO_UNTAGGED)
    parts = [u16(IFLA_BRIDGE_FLAGS, BRIDGE_FLAGS_SELF)] if self_ else []
    if vid_end > vid:  # a range is two entries, its first and its last VLAN
        parts.append(_vlan_info(flags | BRIDGE_VLAN_INFO_RANGE_BEGIN, vid))
        parts.append(_vlan_info(flags | BRIDGE_VLAN_INFO_RANGE_END, vid_end))
    else:
        parts.append(_vlan_info(flags, vid))
    kind = RTM_DELLINK if delete else RTM_SETLINK
    return netlink.message(kind, NLM_F_ACK, IFINFOMSG.pack(AF_BRIDGE, 0, index, 0, 0), nested(IFLA_AF_SPEC, *parts))


def _link(link: int | str, *, flags: int = 0, mask: int = 0) -> bytes:
    if isinstance(link, int):
        return IFINFOMSG.pack(AF_UNSPEC, 0, link, flags, mask)
    # IFLA_IFNAME also finds alternative names, but holds 15 bytes only; an alternative name may have 127.
    kind = IFLA_IFNAME if len(link) < IFNAMSIZ else IFLA_ALT_IFNAME
    return IFINFOMSG.pack(AF_UNSPEC, 0, 0, flags, mask) + text(kind, link)


def _new_link(index: int, name: str, mtu: int = 0, mac: bytes = b"", *, up: bool = False) -> bytes:
    parts = [IFINFOMSG.pack(AF_UNSPEC, 0, index, _flags(up, IFF_UP), _flags(up, IFF_UP)), text(IFLA_IFNAME, name)]
    if mtu:
        parts.append(u32(IFLA_MTU, mtu))
    if mac:
        parts.append(attribute(IFLA_ADDRESS, mac))
    return b"".join(parts)


def _veth(link: bytes, peer: bytes, master: int) -> bytes:
    """Each end with one queue to send and one to receive. Unasked the kernel makes one for each processor and takes all
    but one out of use, for which it waits twice with RTNL held (veth_init_queues, veth.c): docs/decisions/0015."""
    queues = u32(IFLA_NUM_TX_QUEUES, 1) + u32(IFLA_NUM_RX_QUEUES, 1)
    data = nested(IFLA_INFO_DATA, nested(VETH_INFO_PEER, peer + queues))
    info = nested(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"veth"), data)
    return _create(link, queues, info, u32(IFLA_MASTER, master) if master else b"")


def _create(*parts: bytes) -> bytes:
    return netlink.message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, *parts)


def _vlan_info(flags: int, vid: int) -> bytes:
    return attribute(IFLA_BRIDGE_VLAN_INFO, _VLAN_INFO.pack(flags, vid))


def _flags(wanted: bool | None, flag: int) -> int:
    return flag if wanted else 0
