"""What a trace goes by, as values: both ends, and what this host's kernel has on the way between them.

Links, routes and neighbours are those of `pycni.host.link_facts`. MACs and addresses are texts as people write them.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_network

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.host.link_facts import Link, Neighbour, RouteFacts
    from pycni.host.vxlan import VxlanFacts

HERE, ELSEWHERE, HOST, OUTSIDE = "here", "elsewhere", "host", "outside"
LOOPBACK = "lo"


class End(Value):
    """SRC or DST. place: a container of this host ("here"), one of another host of a network ("elsewhere"), an address
    of this host itself ("host"), or one that is nobody's who is known ("outside"). host: the name of the other host,
    node its id."""

    place: str
    network: str = ""
    container: str = ""
    ifname: str = ""
    addresses: tuple[str, ...] = ()  # without prefix lengths; where an address was given, that one
    node: str = ""
    host: str = ""

    @property
    def name(self) -> str:
        return f"{self.container}/{self.ifname}" if self.container else self.addresses[0]


class Packet(Value):
    """What is sent. port: of the destination, 0 for none. host_address, host_port: of this host, that it is sent to
    where a published port leads on from there to *target*."""

    source: IPv4Address | IPv6Address
    target: IPv4Address | IPv6Address
    proto: str = "icmp"
    port: int = 0
    host_address: IPv4Address | IPv6Address | None = None
    host_port: int = 0

    @property
    def sent_to(self) -> IPv4Address | IPv6Address:
        """The address that the sender gives it."""
        return self.host_address or self.target


class ContainerFacts(Value):
    """A container of this host, as the kernel has it. None, "" and () for what is missing.

    state: of its record (`pycni list`). next_hop, next_hop_link: how the container sends to the other end; neighbour:
    what it knows of that hop. fdb_port: the bridge's port for the container's MAC ("": not known, frames go to every
    port).
    way: how the host sends to the container's address; way_link: through which link. rules: what of its packet filter
    rules is missing.
    """

    end: End
    state: str
    address: IPv4Address | IPv6Address
    link: Link | None = None
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    next_hop: RouteFacts | None = None
    next_hop_link: str = ""
    neighbour: Neighbour | None = None
    host_link_name: str = ""
    host_link: Link | None = None
    bridge_name: str = ""  # "" for a network without a bridge
    bridge: Link | None = None
    gateways: tuple[IPv4Interface | IPv6Interface, ...] = ()  # addresses of the bridge or of the host link
    fdb_port: str = ""
    way: RouteFacts | None = None
    way_link: str = ""
    rules: tuple[str, ...] = ()


class TunnelFacts(Value):
    """The overlay network on this host. mode, vni, port, local, overhead (bytes): as it was joined.

    device: as the kernel has it. neighbour: of the other end's address (routed: of the hop of its block) on the
    VXLAN device. mac: what the frames are sent to; mac_port: the bridge's port for it; vtep: where the VXLAN device
    sends them. guard: the addresses that tunnel packets are taken from, None where nothing is guarded.
    underlay: the route to the other host's tunnel address; uplink: its link.
    """

    mode: str
    vni: int
    port: int
    local: str
    overhead: int
    device_name: str
    device: VxlanFacts | None = None
    neighbour: Neighbour | None = None
    mac: str = ""
    mac_port: str = ""
    vtep: str = ""
    guard: frozenset[str] | None = None
    underlay: RouteFacts | None = None
    uplink: Link | None = None
    agent: bool = False  # as in HostFacts


class FarFacts(Value):
    """The other host of the network as etcd has it. state: of `pycni.etcd.overview`, "" where etcd did not answer (then
    *silent* says why). mac: of the endpoint (routed: of its VXLAN device). block: routed: what holds the address."""

    node: str
    name: str = ""
    vtep: str = ""
    mac: str = ""
    mtu: int = 0
    state: str = ""
    missing: int = 0
    block: str = ""
    problems: tuple[str, ...] = ()
    silent: str = ""


class HostFacts(Value):
    """This host, where it routes. forwards: for the packet's family. out: its route to the destination, out_link its
    link. masquerades: whether the source's network does so; isolated: whether both ends' networks are kept apart.
    agent: whether one runs here: it restores what is missing."""

    name: str
    forwards: bool = True
    out: RouteFacts | None = None
    out_link: Link | None = None
    masquerades: bool = False
    isolated: bool = False
    agent: bool = False


class PortFacts(Value):
    """A host port that leads to the destination. shown: "0.0.0.0:8080"; by_kernel, proxied: who leads there;
    sources: prefixes of the clients that are let in, () for all."""

    shown: str
    by_kernel: bool
    proxied: bool
    sources: tuple[str, ...] = ()

    def lets_in(self, client: IPv4Address | IPv6Address) -> bool:
        return not self.sources or any(client in ip_network(one) for one in self.sources)


class Ports(Value):
    """What is published of the destination's port. guarded: others reach the container by published ports only.
    masquerades: also clients on the host's loopback and in the container's subnet get answers, as the gateway.
    missing: of the rules that publish. conditions: words of a rule that packets have to match besides."""

    published: tuple[PortFacts, ...] = ()
    guarded: bool = False
    masquerades: bool = True
    missing: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()

    def lets_in(self, client: IPv4Address | IPv6Address) -> bool:
        """Whether one of them serves *client*."""
        return any(each.lets_in(client) for each in self.published)


class Path(Value):
    """All facts of one trace. source, target: None where that end is no container of this host. tunnel, far: of the
    overlay network between the hosts. recorded_mac, recorded_vtep: by what others send to *target*, "" where nobody
    says. ports: what is published of the packet's port, None without one. other_network: of the end on another
    host, where it is not that of the one here. with_host: the other end is this host itself. silent: why the etcd of
    the source's network gave no answer, "" where it did or has none."""

    packet: Packet
    host: HostFacts
    source: ContainerFacts | None = None
    target: ContainerFacts | None = None
    tunnel: TunnelFacts | None = None
    far: FarFacts | None = None
    recorded_mac: str = ""
    recorded_vtep: str = ""
    ports: Ports | None = None
    other_network: str = ""
    with_host: bool = False
    silent: str = ""

    @property
    def within(self) -> bool:
        """Whether the packet stays in one container."""
        return self.source is not None and self.source.end.ifname == LOOPBACK
