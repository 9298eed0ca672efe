"""What the kernel answers about links, addresses, routes and neighbours, as values. Pure: bytes in, values out."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from pycni.cni.value import Value
from pycni.host import inet_messages, messages
from pycni.host.netlink import I32, U16, U32, attributes, pick, to_int, to_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    Address = IPv4Address | IPv6Address
    Interface = IPv4Interface | IPv6Interface
    Network = IPv4Network | IPv6Network

IFLA_OPERSTATE, IFLA_PROMISCUITY = 16, 30
IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 4, 5
IFLA_BRPORT_STATE = 1
BR_STATE_FORWARDING = 3
IF_OPER_UP = 6
IFA_FLAGS = 8
IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x08, 0x40
OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
PORT_STATES = ("disabled", "listening", "learning", "forwarding", "blocking")
_RTNEXTHOP = 8  # u16 length, u8 flags, u8 weight, s32 index


class Link(Value):
    """One network device, as RTM_GETLINK shows it to the namespace that asked."""

    index: int
    name: str
    kind: str = ""  # "bridge", "veth", "vxlan", …; "" for lo and hardware
    flags: int = 0  # IFF_…
    mtu: int = 0  # bytes
    mac: bytes = b""  # its text form is mac.hex(":")
    master: int = 0  # index of the bridge it is a port of; 0: none
    peer_index: int = 0  # IFLA_LINK: index of the other end of a veth, in that end's namespace; 0: none
    peer_netnsid: int | None = None  # id of the peer's namespace; None: it is in this one; -1: it has no id here
    alias: str = ""
    promiscuity: int = 0  # how many want it promiscuous
    operstate: int = 0  # IF_OPER_…
    group: int = 0
    port_state: int | None = None  # BR_STATE_…; None, as the next two: not a bridge port
    hairpin: bool | None = None
    isolated: bool | None = None
    vlan_filtering: bool | None = None  # None: not a bridge
    tx_queue: int = 0  # packets

    @property
    def up(self) -> bool:
        """Whether it is administratively up."""
        return bool(self.flags & messages.IFF_UP)

    @property
    def promiscuous(self) -> bool:
        """Whether it was set so from outside: a bridge makes its ports promiscuous without that flag."""
        return bool(self.flags & messages.IFF_PROMISC)

    @property
    def all_multicast(self) -> bool:
        """Whether it was set from outside to take every multicast frame."""
        return bool(self.flags & messages.IFF_ALLMULTI)

    @property
    def forwarding(self) -> bool:
        """Whether a frame that reaches this bridge port now is passed on: it is operationally up and forwards."""
        return self.operstate == IF_OPER_UP and self.port_state == BR_STATE_FORWARDING

    @property
    def state_words(self) -> str:
        """Its operational state and that of its port, for messages."""
        port = "no bridge port" if self.port_state is None else f"port {PORT_STATES[self.port_state]}"
        return f"{OPERSTATES[self.operstate]}, {port}"


class AddressFacts(Value):
    """One address of a link."""

    index: int  # of the link
    interface: Interface
    flags: int = 0  # IFA_F_…

    @property
    def tentative(self) -> bool:
        """Whether duplicate address detection still runs: not usable yet."""
        return bool(self.flags & IFA_F_TENTATIVE)

    @property
    def duplicate(self) -> bool:
        """Whether somebody else on the link has it: never usable."""
        return bool(self.flags & IFA_F_DADFAILED)


class RouteFacts(Value):
    """One next hop of one route; a multipath route is as many of these as it has next hops."""

    dst: Network
    gw: Address | None = None
    oif: int = 0
    metric: int = 0
    table: int = inet_messages.RT_TABLE_MAIN
    scope: int = 0
    mtu: int = 0  # bytes; 0: that of the link
    advmss: int = 0
    protocol: int = 0
    src: Address | None = None
    kind: int = inet_messages.RTN_UNICAST


class Neighbour(Value):
    """One entry of the neighbour (ARP, NDP) table."""

    index: int
    address: Address
    mac: bytes = b""
    state: int = 0  # NUD_…
    flags: int = 0  # NTF_…


_OF_LINK = frozenset(
    (
        *(messages.IFLA_IFNAME, messages.IFLA_MTU, messages.IFLA_ADDRESS, messages.IFLA_MASTER, messages.IFLA_LINKINFO),
        *(messages.IFLA_IFALIAS, messages.IFLA_GROUP, messages.IFLA_TXQLEN),
        *(messages.IFLA_LINK, IFLA_OPERSTATE, IFLA_PROMISCUITY, messages.IFLA_LINK_NETNSID),
    )
)
_OF_PORT = frozenset((IFLA_BRPORT_STATE, messages.IFLA_BRPORT_MODE, messages.IFLA_BRPORT_ISOLATED))
_OF_BRIDGE = frozenset((messages.IFLA_BR_VLAN_FILTERING,))


def read_link(payload: bytes) -> Link:
    """The link in the payload of an RTM_NEWLINK message."""
    _, _, index, flags, _ = messages.IFINFOMSG.unpack_from(payload)
    found = pick(_OF_LINK, payload, messages.IFINFOMSG.size)
    info = dict(attributes(found.get(messages.IFLA_LINKINFO, b"")))
    kind = to_text(info.get(messages.IFLA_INFO_KIND, b""))
    port: dict[int, bytes] = {}
    if to_text(info.get(IFLA_INFO_SLAVE_KIND, b"")) == "bridge":
        port = pick(_OF_PORT, info.get(IFLA_INFO_SLAVE_DATA, b""))
    netnsid = found.get(messages.IFLA_LINK_NETNSID)
    bridge = pick(_OF_BRIDGE, info.get(messages.IFLA_INFO_DATA, b"")) if kind == "bridge" else {}
    return Link(
        index=index,
        name=to_text(found.get(messages.IFLA_IFNAME, b"")),
        kind=kind,
        flags=flags,
        mtu=to_int(found.get(messages.IFLA_MTU, b"")),
        mac=found.get(messages.IFLA_ADDRESS, b""),
        master=to_int(found.get(messages.IFLA_MASTER, b"")),
        peer_index=to_int(found.get(messages.IFLA_LINK, b"")),
        peer_netnsid=I32.unpack(netnsid)[0] if netnsid is not None else None,
        alias=to_text(found.get(messages.IFLA_IFALIAS, b"")),
        promiscuity=to_int(found.get(IFLA_PROMISCUITY, b"")),
        operstate=to_int(found.get(IFLA_OPERSTATE, b"")),
        group=to_int(found.get(messages.IFLA_GROUP, b"")),
        port_state=to_int(port.get(IFLA_BRPORT_STATE, b"")) if port else None,
        hairpin=bool(to_int(port.get(messages.IFLA_BRPORT_MODE, b""))) if port else None,
        isolated=bool(to_int(port.get(messages.IFLA_BRPORT_ISOLATED, b""))) if port else None,
        vlan_filtering=bool(to_int(bridge.get(messages.IFLA_BR_VLAN_FILTERING, b""))) if kind == "bridge" else None,
        tx_queue=to_int(found.get(messages.IFLA_TXQLEN, b"")),
    )


def read_address(payload: bytes) -> AddressFacts:
    """The address in the payload of an RTM_NEWADDR message."""
    _, prefix, flags, _, index = inet_messages.IFADDRMSG.unpack_from(payload)
    found = dict(attributes(payload, inet_messages.IFADDRMSG.size))
    # IFA_ADDRESS is the far end on a point-to-point link; IPv6 sends IFA_LOCAL only there.
    packed = found.get(inet_messages.IFA_LOCAL) or found[inet_messages.IFA_ADDRESS]
    interface: Interface = IPv4Interface((packed, prefix)) if len(packed) == 4 else IPv6Interface((packed, prefix))
    return AddressFacts(index=index, interface=interface, flags=to_int(found.get(IFA_FLAGS, b"")) or flags)


def read_route(payload: bytes) -> tuple[RouteFacts, ...]:
    """The next hops in the payload of an RTM_NEWROUTE message."""
    family, prefix, _, _, table, protocol, scope, kind, _ = inet_messages.RTMSG.unpack_from(payload)
    found = dict(attributes(payload, inet_messages.RTMSG.size))
    metrics = dict(attributes(found.get(inet_messages.RTA_METRICS, b"")))
    packed = found.get(inet_messages.RTA_DST) or bytes(
        4 if family == inet_messages.AF_INET else 16
    )  # none: the default route
    dst: Network = IPv4Network((packed, prefix)) if family == inet_messages.AF_INET else IPv6Network((packed, prefix))
    src = found.get(inet_messages.RTA_PREFSRC)
    route = RouteFacts(
        dst=dst,
        gw=_gateway(found),
        oif=to_int(found.get(inet_messages.RTA_OIF, b"")),
        metric=to_int(found.get(inet_messages.RTA_PRIORITY, b"")),
        table=to_int(found.get(inet_messages.RTA_TABLE, b"")) or table,
        scope=scope,
        mtu=to_int(metrics.get(inet_messages.RTAX_MTU, b"")),
        advmss=to_int(metrics.get(inet_messages.RTAX_ADVMSS, b"")),
        protocol=protocol,
        src=_address(src) if src else None,
        kind=kind,
    )
    hops = tuple(_next_hops(found.get(inet_messages.RTA_MULTIPATH, b"")))
    return tuple(route.replace(gw=gw, oif=oif) for oif, gw in hops) or (route,)


def read_neighbour(payload: bytes) -> Neighbour:
    """The entry in the payload of an RTM_NEWNEIGH message of an IP family."""
    _, index, state, flags, _ = inet_messages.NDMSG.unpack_from(payload)
    found = dict(attributes(payload, inet_messages.NDMSG.size))
    mac = found.get(inet_messages.NDA_LLADDR, b"")
    return Neighbour(index=index, address=_address(found[inet_messages.NDA_DST]), mac=mac, state=state, flags=flags)


def _next_hops(data: bytes) -> list[tuple[int, Address | None]]:
    hops = []
    while len(data) >= _RTNEXTHOP:  # struct rtnexthop, followed by its attributes
        size, index = U16.unpack_from(data)[0], U32.unpack_from(data, 4)[0]
        if not _RTNEXTHOP <= size <= len(data):
            break
        hops.append((index, _gateway(dict(attributes(data[:size], _RTNEXTHOP)))))
        data = data[(size + 3) & ~3 :]
    return hops


def _gateway(found: dict[int, bytes]) -> Address | None:
    packed = found.get(inet_messages.RTA_GATEWAY) or found.get(inet_messages.RTA_VIA, b"")[2:]
    return _address(packed) if packed else None


def _address(packed: bytes) -> Address:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
