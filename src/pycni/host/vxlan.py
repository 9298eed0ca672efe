"""The VXLAN devices of a host, as the kernel has them."""

from __future__ import annotations

import errno
from _socket import AF_INET, AF_INET6, inet_ntop

from pycni.cni.value import Value
from pycni.host import link_facts, messages, vxlan_messages
from pycni.host.netlink import attributes, pick, to_int, to_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.host.rtnl import Netlink

_OF_VXLAN = frozenset(
    (
        *(vxlan_messages.IFLA_VXLAN_ID, vxlan_messages.IFLA_VXLAN_LINK, vxlan_messages.IFLA_VXLAN_PORT),
        *(vxlan_messages.IFLA_VXLAN_LOCAL, vxlan_messages.IFLA_VXLAN_LOCAL6),
        *(vxlan_messages.IFLA_VXLAN_GROUP, vxlan_messages.IFLA_VXLAN_GROUP6),
        *(vxlan_messages.IFLA_VXLAN_LEARNING, vxlan_messages.IFLA_VXLAN_PROXY),
    )
)
_OF_PORT = (
    vxlan_messages.IFLA_BRPORT_LEARNING,
    vxlan_messages.IFLA_BRPORT_UNICAST_FLOOD,
    vxlan_messages.IFLA_BRPORT_MULTICAST_ROUTER,
)


class VxlanFacts(Value):
    """One VXLAN device; indexes of 0 and texts of "": none."""

    index: int
    name: str
    vni: int  # 0 for a device that takes any ("external")
    port: int  # UDP
    local: str = ""
    link: int = 0  # index of the underlay's link
    learning: bool = False
    proxy: bool = False
    group: str = ""  # where what has no entry goes: of multicast, or of one host
    mtu: int = 0  # bytes
    mac: bytes = b""
    up: bool = False
    alias: str = ""
    master: int = 0  # index of its bridge
    port_flags: tuple[int, ...] = ()  # as a bridge port: learns, floods unknown unicast, MDB_RTR_TYPE_…

    @property
    def version(self) -> int:
        """4 or 6, of the tunnel's addresses; 4 where it has none."""
        return 6 if ":" in self.local or ":" in self.group else 4


def read_vxlan(netlink: Netlink, name: str) -> VxlanFacts | None:
    """The VXLAN device of that name; None where there is no such link, or it is of another kind."""
    try:
        payloads = netlink.answers(messages.get_link(name))
    except OSError as failure:
        if failure.errno != errno.ENODEV:
            raise
        return None
    return read(payloads[0])


def read_vxlans(netlink: Netlink) -> tuple[VxlanFacts, ...]:
    """All VXLAN devices of the namespace; the kernel walks all links but tells of these only."""
    found = (read(payload) for payload in netlink.answers(vxlan_messages.list_vxlans()))
    return tuple(one for one in found if one is not None)


def read(payload: bytes) -> VxlanFacts | None:
    """The device in the payload of an RTM_NEWLINK message, None for one of another kind. Pure."""
    link = link_facts.read_link(payload)
    if link.kind != "vxlan":
        return None
    info = dict(attributes(dict(attributes(payload, messages.IFINFOMSG.size))[messages.IFLA_LINKINFO]))
    found = pick(_OF_VXLAN, info.get(messages.IFLA_INFO_DATA, b""))
    port: dict[int, bytes] = {}
    if to_text(info.get(link_facts.IFLA_INFO_SLAVE_KIND, b"")) == "bridge":
        port = dict(attributes(info.get(link_facts.IFLA_INFO_SLAVE_DATA, b"")))
    return VxlanFacts(
        index=link.index,
        name=link.name,
        vni=to_int(found.get(vxlan_messages.IFLA_VXLAN_ID, b"")),
        port=int.from_bytes(found.get(vxlan_messages.IFLA_VXLAN_PORT, b""), "big"),
        local=_address(found, vxlan_messages.IFLA_VXLAN_LOCAL, vxlan_messages.IFLA_VXLAN_LOCAL6),
        link=to_int(found.get(vxlan_messages.IFLA_VXLAN_LINK, b"")),
        learning=bool(to_int(found.get(vxlan_messages.IFLA_VXLAN_LEARNING, b""))),
        proxy=bool(to_int(found.get(vxlan_messages.IFLA_VXLAN_PROXY, b""))),
        group=_address(found, vxlan_messages.IFLA_VXLAN_GROUP, vxlan_messages.IFLA_VXLAN_GROUP6),
        mtu=link.mtu,
        mac=link.mac,
        up=link.up,
        alias=link.alias,
        master=link.master,
        port_flags=tuple(to_int(port.get(kind, b"")) for kind in _OF_PORT) if port else (),
    )


def _address(found: dict[int, bytes], kind4: int, kind6: int) -> str:
    if kind4 in found:
        return inet_ntop(AF_INET, found[kind4])
    return inet_ntop(AF_INET6, found[kind6]) if kind6 in found else ""
