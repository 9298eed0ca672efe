"""What one ADD of the overlay plugin does to the host, decided from values alone."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

from pycni.change.ops import (
    CONTAINER,
    HOST,
    AddAddress,
    AddRoute,
    Announce,
    ApplyFirewall,
    AwaitPort,
    CreateVeth,
    EnsureAddress,
    EnsureBridge,
    EnsureSysctl,
    ForgetNeighbours,
    SetPort,
    SetSysctl,
    SetUp,
    announce_changes,
    no_ipv6,
)
from pycni.change.tunnels import EnsureOffload, EnsureVxlan
from pycni.cni.errors import CniError, Code
from pycni.cni.macs import endpoint_mac, tunnel_mac
from pycni.cni.names import Attachment, alias, bridge_alias, host_link_name
from pycni.cni.result import IPConfig, Result, Route, first_gateways, gateway_of
from pycni.cni.value import Value
from pycni.firewall.rules import AttachmentRules, NetworkRules
from pycni.plugins.overlay.conf import L2, MULTICAST, ROUTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.change.ops import Op
    from pycni.cni.addresses import Interface as AddressWithPrefix
    from pycni.plugins.overlay.conf import OverlayConf
    from pycni.plugins.overlay.site import Joined

FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
DEFAULT_ROUTE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
#: Index in the result's interfaces of the container's end on the overlay, and on the gateway bridge.
CONTAINER_END, GATEWAY_END = 2, 6


def vxlan_name(vni: int) -> str:
    return f"vxlan{vni}"


def bridge_name(vni: int) -> str:
    return f"ovl{vni}"


class Wanted(Value):
    """The attachment as this ADD wants it. gateways: what the network's bridge carries. result: without interfaces.
    behind: of the addresses on the gateway bridge, what that bridge carries."""

    result: Result
    gateways: tuple[AddressWithPrefix, ...] = ()
    behind: tuple[AddressWithPrefix, ...] = ()

    def addresses(self, end: int) -> tuple[IPConfig, ...]:
        """Those of the container's link with that index in the result's interfaces."""
        return tuple(ip for ip in self.result.ips if ip.interface == end)


def wanted(conf: OverlayConf, joined: Joined, lease: Result, outside: Result) -> Wanted:
    """*lease*: of the network's IPAM plugin; *outside*: of the gateway bridge's pool, empty where there is none.

    A gateway that no bridge of this network carries is not in the result: the container could not reach it. In a routed
    network there is a route to the whole of it besides the default one, which may belong to another interface.
    """
    inner = [ip.replace(interface=CONTAINER_END, gateway=ip.gateway if conf.has_gateway else None) for ip in lease.ips]
    outer = [ip.replace(interface=GATEWAY_END) for ip in outside.ips]
    routes = list(lease.routes)
    if joined.mode == ROUTED:
        known = {route.dst for route in routes}
        via = first_gateways(inner)
        whole = [net for net in map(ip_network, joined.subnets) if net.version in via and net not in known]
        routes += [Route(dst=net, gw=via[net.version]) for net in whole]
    first = first_gateways(outer if conf.gateway is not None else inner)
    if conf.is_default_gateway or conf.gateway is not None:
        given = {route.dst.version for route in routes if route.dst.prefixlen == 0}
        routes += [Route(dst=DEFAULT_ROUTE[f], gw=first[f]) for f in sorted(first) if f not in given]
    return Wanted(
        result=lease.replace(ips=(*inner, *outer), routes=tuple(routes)),
        gateways=_carried(inner),
        behind=_carried(outer),
    )


def _carried(ips: list[IPConfig]) -> tuple[AddressWithPrefix, ...]:
    """The gateways with their prefixes. CniError 7 for one outside of its subnet: no host could carry it."""
    for ip in ips:
        if ip.gateway is not None and ip.gateway not in ip.address.network:
            raise CniError(
                Code.INVALID_CONFIG,
                f"gateway {ip.gateway} is outside of {ip.address.network}",
                "ipam: leave out the gateway of that range, or give one of its addresses",
            )
    found = [ip_interface((ip.gateway, ip.address.network.prefixlen)) for ip in ips if ip.gateway is not None]
    return tuple(dict.fromkeys(found))


# -- the network on this host ------------------------------------------------------------------------------------------


def device_ops(joined: Joined) -> tuple[Op, ...]:
    """The VXLAN device of a network, as every ADD wants it and as an agent makes it anew."""
    learns = joined.mode == MULTICAST
    device = EnsureVxlan(
        name=joined.vxlan,
        vni=joined.vni,
        port=joined.port,
        local=joined.local,
        uplink=joined.uplink,
        mac=tunnel_mac(joined.node, joined.vni),
        mtu=joined.mtu,
        bridge="" if joined.mode == ROUTED else joined.bridge,
        alias=bridge_alias(joined.network),
        learning=learns,
        proxy=joined.mode == L2,
        group=joined.group,
    )
    return (
        device,
        EnsureOffload(joined.vxlan, joined.offload, joined.uplink),
        EnsureSysctl(f"net/ipv6/conf/{joined.vxlan}/accept_ra", "0", optional=True),
        *(EnsureAddress(joined.vxlan, ip_interface(address)) for address in joined.addresses),
    )


def plan_network(joined: Joined, want: Wanted) -> tuple[Op, ...]:
    """Bridge, VXLAN device and gateway: what all containers of the network on this host share."""
    ops: list[Op] = [
        EnsureBridge(
            name=joined.bridge, mac=bridge_mac(joined, want), mtu=joined.mtu, alias=bridge_alias(joined.network)
        ),
        EnsureSysctl(f"net/ipv6/conf/{joined.bridge}/accept_ra", "0", optional=True),
        *device_ops(joined),
        *(EnsureAddress(joined.bridge, gateway) for gateway in want.gateways),
    ]
    return (*ops, *_forwarding(want.gateways))


def bridge_mac(joined: Joined, want: Wanted) -> bytes:
    """The gateway's, on every host the same; without one a MAC of this host's own, so that no container's is taken."""
    return endpoint_mac(gateway.ip for gateway in want.gateways) or tunnel_mac(f"{joined.node}/bridge", joined.vni)


def gateway_bridge_mac(want: Wanted) -> bytes:
    return endpoint_mac(gateway.ip for gateway in want.behind)


def tunnel_addresses(joined: Joined, lease: Result) -> tuple[str, ...]:
    """What the VXLAN device of a routed network needs besides `joined.addresses`: the network address of the host's
    blocks. The host sends from it, and the other hosts know the way back to it."""
    if joined.mode != ROUTED:
        return joined.addresses
    mine = [ip.address.network.network_address for ip in lease.ips]
    return tuple(dict.fromkeys((*joined.addresses, *(f"{each}/{each.max_prefixlen}" for each in mine))))


def _forwarding(gateways: tuple[AddressWithPrefix, ...]) -> list[Op]:
    return [EnsureSysctl(FORWARDING[version], "1") for version in sorted({gateway.version for gateway in gateways})]


# -- the attachment ----------------------------------------------------------------------------------------------------


def host_links(conf: OverlayConf, attachment: Attachment) -> tuple[str, ...]:
    """The host ends of the attachment's veth pairs."""
    names = [host_link_name(attachment)]
    if conf.gateway is not None:
        names.append(host_link_name(attachment.replace(ifname=conf.gateway.ifname)))
    return tuple(names)


def container_mac(conf: OverlayConf, want: Wanted) -> bytes:
    """As asked for, else what follows from the addresses; b"" without addresses: the kernel's choice."""
    return conf.mac or endpoint_mac(ip.address.ip for ip in want.addresses(CONTAINER_END))


def plan_attachment(
    conf: OverlayConf, attachment: Attachment, joined: Joined, want: Wanted, *, uplink_mtu: int
) -> tuple[Op, ...]:
    """The container's links, addresses and routes. *uplink_mtu*: bytes, of the way out of this host."""
    host, *more = host_links(conf, attachment)
    addresses = tuple(ip.address.ip for ip in want.addresses(CONTAINER_END))
    made = CreateVeth(
        host=host,
        ifname=attachment.ifname,
        bridge=joined.bridge,
        mtu=joined.mtu,
        mac=container_mac(conf, want),
        alias=alias(attachment),
    )
    ops: list[Op] = [made, no_ipv6(host), SetUp(HOST, host)]
    ops += _container_end(attachment.ifname, want.addresses(CONTAINER_END))
    for second in more:
        ops += _gateway_link(conf, attachment, second, want, uplink_mtu)
    links = {ip.address.network: ip.interface for ip in want.result.ips}
    names = {CONTAINER_END: attachment.ifname, GATEWAY_END: conf.gateway.ifname if conf.gateway else ""}
    first = first_gateways((*want.addresses(GATEWAY_END), *want.addresses(CONTAINER_END)))  # the way out before all
    for route in want.result.routes:
        gw = gateway_of(route, first)
        end = next((end for subnet, end in links.items() if gw is not None and gw in subnet), CONTAINER_END)
        ops.append(AddRoute(names[end or CONTAINER_END], route.replace(gw=gw)))
    if needs_firewall(conf):
        ops.append(ApplyFirewall(network_rules(conf, joined, want), attachment_rules(conf, attachment, want)))
    ops += [AwaitPort(each) for each in (host, *more)]
    if any(address.version == 6 for address in addresses):
        ops.append(announce_changes(attachment.ifname))
    if addresses and want.result.former_macs:
        ops += [ForgetNeighbours(joined.bridge, addresses), Announce(attachment.ifname, addresses)]
    return tuple(ops)


def _container_end(link: str, ips: tuple[IPConfig, ...]) -> list[Op]:
    """Addresses come before the link is up, routes after: they need it up."""
    ops: list[Op] = []
    families = {ip.address.version for ip in ips}
    if 6 in families:
        # images switch IPv6 off by `all`; addresses would be refused (EACCES), and lost when the link goes down
        ops += [
            SetSysctl(CONTAINER, "net/ipv6/conf/lo/disable_ipv6", "0", optional=True),
            SetSysctl(CONTAINER, f"net/ipv6/conf/{link}/disable_ipv6", "0", optional=True),
            SetSysctl(CONTAINER, f"net/ipv6/conf/{link}/keep_addr_on_down", "1", optional=True),
            SetSysctl(CONTAINER, f"net/ipv6/conf/{link}/accept_dad", "0", optional=True),
        ]
    ops += [AddAddress(link, ip.address) for ip in ips]
    return [*ops, SetUp(CONTAINER, link, arp_notify=4 in families)]


def _gateway_link(
    conf: OverlayConf, attachment: Attachment, host: str, want: Wanted, uplink_mtu: int
) -> tuple[Op, ...]:
    """The second interface, on the gateway bridge, whose ports do not reach each other."""
    assert conf.gateway is not None
    bridge, ifname = conf.gateway.bridge, conf.gateway.ifname
    ips = want.addresses(GATEWAY_END)
    return (
        EnsureBridge(
            name=bridge, mac=gateway_bridge_mac(want), mtu=uplink_mtu, alias=bridge_alias(conf.gateway.network)
        ),
        EnsureSysctl(f"net/ipv6/conf/{bridge}/accept_ra", "0", optional=True),
        *(EnsureAddress(bridge, gateway) for gateway in want.behind),
        *_forwarding(want.behind),
        CreateVeth(
            host=host,
            ifname=ifname,
            bridge=bridge,
            mtu=uplink_mtu,
            mac=endpoint_mac(ip.address.ip for ip in ips),
            alias=alias(attachment),
        ),
        no_ipv6(host),
        SetPort(host, hairpin=None, isolated=True),
        SetUp(HOST, host),
        *_container_end(ifname, ips),
    )


# -- the packet filter -------------------------------------------------------------------------------------------------


def needs_firewall(conf: OverlayConf) -> bool:
    """A layer 2 network without gateway is not routed by this host: nothing to masquerade or to isolate."""
    return conf.backend != "none" and (conf.has_gateway or conf.gateway is not None or conf.masquerade)


def network_rules(conf: OverlayConf, joined: Joined, want: Wanted) -> NetworkRules:
    links = (joined.bridge, joined.vxlan) if joined.mode == ROUTED else (joined.bridge,)
    if conf.gateway is not None:
        subnets = dict.fromkeys(str(ip.address.network) for ip in want.addresses(GATEWAY_END))
        return NetworkRules(
            network=joined.network,
            bridges=(conf.gateway.bridge, *(links if joined.mode == ROUTED else ())),
            subnets=tuple(subnets),
            apart=True,
            outward=(conf.gateway.bridge,),
            together=True,
            passing=() if joined.mode == ROUTED else links,
            trusted=links[1:],
        )
    own = dict.fromkeys(str(ip.address.network) for ip in want.addresses(CONTAINER_END))
    return NetworkRules(
        network=joined.network,
        bridges=links,
        isolate=conf.isolate,
        # Of a routed network a container's own subnet is this host's block, but all blocks keep their addresses.
        subnets=(joined.subnets or tuple(own)) if conf.masquerade else (),
        trusted=links[1:],
        together=len(links) > 1,
    )


def attachment_rules(conf: OverlayConf, attachment: Attachment, want: Wanted) -> AttachmentRules:
    end = CONTAINER_END if conf.gateway is None else GATEWAY_END
    masquerades = conf.masquerade or conf.gateway is not None
    return AttachmentRules(
        owner=attachment.owner,
        masquerade=tuple(str(ip.address.ip) for ip in want.addresses(end)) if masquerades else (),
    )
