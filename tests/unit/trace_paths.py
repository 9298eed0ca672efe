"""Ways that are in order, as facts, and what takes something away from one."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from pycni.cli.trace.facts import (
    HERE,
    ContainerFacts,
    End,
    FarFacts,
    HostFacts,
    Packet,
    Path,
    PortFacts,
    Ports,
    TunnelFacts,
)
from pycni.host.link_facts import BR_STATE_FORWARDING, IF_OPER_UP, Link, Neighbour, RouteFacts
from pycni.host.messages import IFF_UP
from pycni.host.vxlan import VxlanFacts

MAC1, MAC2, VTEP_MAC = "02:42:0a:01:00:05", "02:42:0a:01:00:09", "0a:00:00:00:00:01"
ONE, TWO, FAR_BLOCK = ip_address("10.1.0.5"), ip_address("10.1.0.9"), ip_address("10.1.4.9")
NUD_PERMANENT, NUD_FAILED = 0x80, 0x20
Change = Callable[[Path], Path]


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def link(index: int, name: str, *, mac: str = "", mtu: int = 1450, **more: Any) -> Link:
    return Link(index, name, flags=IFF_UP, mtu=mtu, mac=raw(mac), operstate=IF_OPER_UP, **more)


def route(to: str, *, gw: str = "", oif: int = 2) -> RouteFacts:
    return RouteFacts(ip_network(to), gw=ip_address(gw) if gw else None, oif=oif)


BRIDGE = link(10, "ovl7", mac="02:42:0a:01:00:01")


def container(
    name: str, address: Any, mac: str, index: int, *, to: str, gw: str = "", known: str = ""
) -> ContainerFacts:
    port = link(index, f"veth{name}", master=BRIDGE.index, port_state=BR_STATE_FORWARDING, isolated=False)
    hop = ip_address(gw or to)
    return ContainerFacts(
        End(HERE, "net", name, "eth0", (str(address),)),
        "ready",
        address,
        link=link(2, "eth0", mac=mac),
        addresses=(ip_interface(f"{address}/24"),),
        next_hop=route(to, gw=gw),
        next_hop_link="eth0",
        neighbour=Neighbour(2, hop, raw(known), NUD_PERMANENT) if known else None,
        host_link_name=port.name,
        host_link=port,
        bridge_name="ovl7",
        bridge=BRIDGE,
        gateways=(ip_interface("10.1.0.1/24"),),
        fdb_port=port.name,
        way=route(str(address), oif=10),
        way_link="ovl7",
    )


def sender(to: Any) -> ContainerFacts:
    """c1, which reaches *to* by its gateway."""
    return container("c1", ONE, MAC1, 11, to=str(to), gw="10.1.0.1", known="02:42:0a:01:00:01")


def tunnel(mode: str, hop: Any, mac: str) -> TunnelFacts:
    master = 0 if mode == "routed" else BRIDGE.index
    device = VxlanFacts(20, "vxlan7", 7, 4789, "192.0.2.1", mtu=1450, up=True, master=master, port_flags=(0, 1, 0))
    return TunnelFacts(
        *(mode, 7, 4789, "192.0.2.1", 50, "vxlan7"),
        device=device,
        neighbour=Neighbour(20, hop, raw(mac), NUD_PERMANENT),
        mac=mac,
        mac_port="vxlan7",
        vtep="192.0.2.2",
        guard=frozenset(["192.0.2.2"]),
        underlay=route("192.0.2.2", oif=5),
        uplink=link(5, "eth0", mtu=1500),
    )


def far(mac: str, **more: Any) -> FarFacts:
    return FarFacts("n2", "h2", "192.0.2.2", mac, 1500, "in sync", **more)


HOST = HostFacts("h1", out=route(str(TWO), oif=20), out_link=link(20, "vxlan7"))
FIRST = container("c1", ONE, MAC1, 11, to=str(TWO), known=MAC2)
SECOND = container("c2", TWO, MAC2, 12, to=str(ONE), known=MAC1)
OUT = Path(Packet(ONE, TWO), HOST, source=FIRST, tunnel=tunnel("l2", TWO, MAC2), far=far(MAC2))
IN = Path(
    Packet(TWO, ONE),
    HOST,
    target=FIRST,
    tunnel=tunnel("l2", TWO, MAC2),
    far=far(MAC2),
    recorded_mac=MAC1,
    recorded_vtep="192.0.2.1",
)
ROUTED = Path(
    Packet(ONE, FAR_BLOCK),
    HOST.replace(out=route(str(FAR_BLOCK), gw="10.1.4.0", oif=20)),
    source=container("c1", ONE, MAC1, 11, to=str(FAR_BLOCK), gw="10.1.0.1", known="02:42:0a:01:00:01"),
    tunnel=tunnel("routed", ip_address("10.1.4.0"), VTEP_MAC),
    far=far(VTEP_MAC, block="10.1.4.0/26"),
)
ROUTED_IN = IN.replace(
    packet=Packet(FAR_BLOCK, ONE),
    tunnel=tunnel("routed", ip_address("10.1.4.0"), VTEP_MAC),
    far=far(VTEP_MAC, block="10.1.4.0/26"),
    recorded_mac="",
)
BESIDE = Path(Packet(ONE, TWO), HOST, source=FIRST, target=SECOND)
OTHER_BRIDGE = SECOND.replace(
    end=SECOND.end.replace(network="other"),
    bridge_name="cni9",
    bridge=link(30, "cni9"),
    host_link=SECOND.host_link.replace(master=30) if SECOND.host_link else None,
    way_link="cni9",
)
ACROSS = Path(
    Packet(ONE, TWO),
    HOST,
    source=sender(TWO),
    target=OTHER_BRIDGE,
)
WORLD = ip_address("198.51.100.1")
OUTWARDS = Path(
    Packet(ONE, WORLD),
    HostFacts("h1", out=route(str(WORLD), gw="192.0.2.254", oif=5), out_link=link(5, "eth0"), masquerades=True),
    source=sender(WORLD),
)
SERVED = Ports((PortFacts("0.0.0.0:8080", by_kernel=True, proxied=False),), guarded=True)
SOME = Ports((PortFacts("0.0.0.0:8080", by_kernel=True, proxied=False, sources=("198.51.100.0/24",)),), guarded=True)
PUBLISHED = Path(Packet(WORLD, ONE, "tcp", 80), HOST, target=FIRST, ports=SERVED)
OWN = ip_address("192.0.2.1")
NO_ROUTER = HOST.replace(forwards=False)
TO_HOST = Path(
    Packet(ONE, OWN),
    NO_ROUTER,
    source=sender(OWN),
    with_host=True,
)
GATEWAY = ip_address("10.1.0.1")
TO_GATEWAY = TO_HOST.replace(
    packet=Packet(ONE, GATEWAY),
    source=container("c1", ONE, MAC1, 11, to=str(GATEWAY), known="02:42:0a:01:00:01"),
)
FROM_HOST = Path(Packet(OWN, ONE, "tcp", 81), NO_ROUTER, target=FIRST, ports=Ports(guarded=True), with_host=True)
PROXIED = Ports((PortFacts("[::]:8080", by_kernel=False, proxied=True),))
ITS_PORT = Path(
    Packet(ONE, TWO, "tcp", 80, host_address=OWN, host_port=8080),
    HOST,
    source=sender(OWN),
    target=SECOND,
    ports=SERVED,
)
OWN_PORT = ITS_PORT.replace(packet=ITS_PORT.packet.replace(target=ONE), target=FIRST)
BY_GATEWAY = ITS_PORT.replace(
    packet=ITS_PORT.packet.replace(host_address=GATEWAY),
    source=container("c1", ONE, MAC1, 11, to=str(GATEWAY), known="02:42:0a:01:00:01"),
)
BY_PROXY = ITS_PORT.replace(host=NO_ROUTER, ports=PROXIED)
HOST_PORT = Path(
    Packet(ip_address("127.0.0.1"), ONE, "tcp", 80, host_address=ip_address("127.0.0.1"), host_port=8080),
    NO_ROUTER,
    target=FIRST,
    ports=SERVED,
    with_host=True,
)
ITSELF = Path(
    Packet(ONE, ONE),
    HOST,
    source=FIRST.replace(
        end=FIRST.end.replace(ifname="lo"), link=link(1, "lo", mtu=65536), next_hop_link="lo", neighbour=None
    ),
)
WHOLE = {
    **{"out": OUT, "in": IN, "routed": ROUTED, "routed in": ROUTED_IN, "beside": BESIDE, "across": ACROSS},
    **{"outwards": OUTWARDS, "published": PUBLISHED, "to some": PUBLISHED.replace(ports=SOME)},
    **{"its port": ITS_PORT, "own port": OWN_PORT, "by gateway": BY_GATEWAY, "by proxy": BY_PROXY},
    **{"host port": HOST_PORT, "itself": ITSELF},
    **{"to host": TO_HOST, "to gateway": TO_GATEWAY, "from host": FROM_HOST},
}


def on_source(**changes: Any) -> Change:
    return lambda path: path.replace(source=path.source.replace(**changes) if path.source else None)


def on_target(**changes: Any) -> Change:
    return lambda path: path.replace(target=path.target.replace(**changes) if path.target else None)


def on_tunnel(**changes: Any) -> Change:
    return lambda path: path.replace(tunnel=path.tunnel.replace(**changes) if path.tunnel else None)


def on_device(**changes: Any) -> Change:
    return lambda path: (
        path.replace(tunnel=path.tunnel.replace(device=path.tunnel.device.replace(**changes)))
        if path.tunnel and path.tunnel.device
        else path
    )


def on_far(**changes: Any) -> Change:
    return lambda path: path.replace(far=path.far.replace(**changes) if path.far else None)


def on_ports(**changes: Any) -> Change:
    return lambda path: path.replace(ports=path.ports.replace(**changes) if path.ports else None)


def on_host(**changes: Any) -> Change:
    return lambda path: path.replace(host=path.host.replace(**changes))
