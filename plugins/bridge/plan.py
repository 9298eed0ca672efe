"""What one ADD of the bridge plugin does to the host, decided from values alone."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

from pycni.change.ops import (
    CONTAINER,
    HOST,
    AddAddress,
    AddRoute,
    Announce,
    ApplyFirewall,
    AwaitDad,
    AwaitPort,
    CreateVeth,
    EnsureAddress,
    EnsureBridge,
    EnsureSysctl,
    EnsureVlanGateway,
    ForgetNeighbours,
    RemoveAddress,
    SetPort,
    SetPortVlans,
    SetSysctl,
    SetUp,
    announce_changes,
    no_ipv6,
)
from pycni.cni.errors import CniError, Code
from pycni.cni.names import alias, bridge_alias, host_link_name
from pycni.cni.result import IPConfig, Result, Route, first_address, first_gateways, gateway_of
from pycni.cni.value import Value
from pycni.firewall.rules import AttachmentRules, NetworkRules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.change.ops import Op
    from pycni.cni.addresses import Interface as AddressWithPrefix
    from pycni.cni.names import Attachment
    from pycni.plugins.bridge.conf import BridgeConf

DEFAULT_ROUTE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


class BridgeFacts(Value):
    """What an ADD needs to know of the host."""

    uplink_mtu: int  # bytes; 0: no default route
    gateway_addresses: tuple[AddressWithPrefix, ...] = ()  # on the interface that carries the gateways
    range_gateways: tuple[AddressWithPrefix, ...] = ()  # of the network's other ranges: containers may be using them
    replaceable: bool = False  # that interface is a bridge of ours with no attachment left: its address may change
    bridge_mac: bytes = b""  # for a bridge that has to be created


class Wanted(Value):
    """The network as this ADD wants it: gateways filled in, default routes decided."""

    result: Result  # with the MAC that the container gets
    gateways: tuple[AddressWithPrefix, ...]  # what the host's interface carries: one for each address of the container


def wanted(conf: BridgeConf, lease: Result) -> Wanted:
    """Fill in what the IPAM plugin left open (reference: calcGateways).

    A gateway that IPAM did not name is the first address of the subnet. With isDefaultGateway every family gets one
    default route, unless IPAM already gave one: also one without a gateway, which ours then completes (with the
    reference that pair of routes makes ADD fail).
    """
    ips: list[IPConfig] = []
    gateways: list[AddressWithPrefix] = []
    for ip in lease.ips:
        gateway = ip.gateway
        if gateway is None and conf.is_gateway:
            gateway = first_address(ip)
        if gateway is not None and gateway.version != ip.address.version:
            raise CniError(Code.INVALID_CONFIG, f"gateway {gateway} and address {ip.address} are not of one family")
        if gateway is not None and conf.is_gateway:
            gateways.append(ip_interface((gateway, ip.address.network.prefixlen)))
        ips.append(ip.replace(gateway=gateway, interface=2))
    first = first_gateways(ips)
    routes = list(lease.routes)
    if conf.is_default_gateway:
        defaults = {route.dst.version for route in routes if route.dst.prefixlen == 0}
        routes += [Route(dst=DEFAULT_ROUTE[f], gw=first[f]) for f in sorted(first) if f not in defaults]
    return Wanted(result=lease.replace(ips=tuple(ips), routes=tuple(routes)), gateways=tuple(dict.fromkeys(gateways)))


def plan_add(conf: BridgeConf, attachment: Attachment, want: Wanted, facts: BridgeFacts) -> tuple[Op, ...]:
    """Every operation of the ADD in order. CniError 7 where the bridge already has another address."""
    host = host_link_name(attachment)
    mtu = conf.mtu or facts.uplink_mtu
    addresses = tuple(ip.address for ip in want.result.ips)
    plain = tuple(address.ip for address in addresses)
    ops: list[Op] = [
        EnsureBridge(
            name=conf.bridge,
            mac=facts.bridge_mac,
            mtu=mtu,
            alias=bridge_alias(attachment.network),
            vlan_filtering=conf.vlan_filtering,
            promiscuous=conf.promiscuous,
        ),
        EnsureSysctl(f"net/ipv6/conf/{conf.bridge}/accept_ra", "0", optional=True),
    ]
    ops += plan_gateway(conf, attachment, want, facts, mtu)
    ops.append(
        CreateVeth(
            host=host,
            ifname=attachment.ifname,
            bridge=conf.bridge,
            mtu=mtu,
            mac=want.result.mac,
            alias=alias(attachment),
        )
    )
    ops.append(no_ipv6(host))
    if conf.vlan_filtering:
        ops.append(SetPortVlans(host, conf.vlan, conf.trunk, keep_default=conf.keep_default_vlan or not conf.vlan))
    if conf.hairpin or conf.port_isolation:
        ops.append(SetPort(host, conf.hairpin, conf.port_isolation))
    ops.append(SetUp(HOST, host))
    ops += plan_container(conf, attachment, want)
    if conf.dad and conf.container_up:
        # before the firewall: an address that turns out to be another container's has rules of that one's
        ops += [AwaitPort(host), AwaitDad(attachment.ifname)]
    if needs_firewall(conf):
        ops.append(ApplyFirewall(network_rules(conf, attachment, want), attachment_rules(conf, attachment, want)))
    if conf.container_up:
        if not conf.dad:
            ops.append(AwaitPort(host))  # last of all: the port comes up while the rest is done
        if any(address.version == 6 for address in plain):
            ops.append(announce_changes(attachment.ifname))
        if plain and want.result.former_macs:
            ops.append(ForgetNeighbours(conf.gateway_link, plain))
        if plain and want.result.is_known_otherwise(want.result.mac):
            # A broadcast is a packet to every port of the bridge, 10 ms next to 1000 containers: only where an address
            # may be remembered with another MAC (docs/decisions/0017).
            ops.append(Announce(attachment.ifname, plain))
    return tuple(ops)


def plan_gateway(
    conf: BridgeConf, attachment: Attachment, want: Wanted, facts: BridgeFacts, mtu: int
) -> tuple[Op, ...]:
    """The gateway addresses on the host and forwarding for their families."""
    if not want.gateways:
        return ()
    ops: list[Op] = []
    if conf.gateway_link != conf.bridge:
        ops.append(EnsureVlanGateway(conf.bridge, conf.gateway_link, conf.vlan, mtu, bridge_alias(attachment.network)))
    for old in unwanted(facts.gateway_addresses, want.gateways, facts.range_gateways):
        if not (conf.force_address or facts.replaceable):
            new = next(new for new in want.gateways if conflicts(old, new))
            raise CniError(
                Code.INVALID_CONFIG,
                f'"{conf.gateway_link}" already has an IP address different from {new}: {old}',
                f"set forceAddress, or give this network another bridge, or ip address del {old} dev"
                f" {conf.gateway_link}",
            )
        ops.append(RemoveAddress(conf.gateway_link, old))
    ops += [EnsureAddress(conf.gateway_link, new) for new in want.gateways if new not in facts.gateway_addresses]
    families = {new.version for new in want.gateways}
    if 4 in families:
        ops.append(EnsureSysctl("net/ipv4/ip_forward", "1"))
    if 6 in families:
        ops.append(EnsureSysctl("net/ipv6/conf/all/forwarding", "1"))
    return tuple(ops)


def unwanted(
    present: tuple[AddressWithPrefix, ...],
    gateways: tuple[AddressWithPrefix, ...],
    range_gateways: tuple[AddressWithPrefix, ...] = (),
) -> tuple[AddressWithPrefix, ...]:
    """Which of the addresses *present* cannot stay beside the *gateways*; those of the network's other ranges can."""
    others = [old for old in present if old not in gateways and old not in range_gateways]
    return tuple(old for old in others if any(conflicts(old, new) for new in gateways))


def conflicts(old: AddressWithPrefix, new: AddressWithPrefix) -> bool:
    """One IPv4 address a bridge, any number of IPv6 ones whose subnets do not overlap (reference: ensureAddr). Beside
    the link-local address that the kernel gives every bridge there is room for another: fe80::1 may be a gateway."""
    if old.version != new.version or (old.version == 6 and old.is_link_local):
        return False
    return old.version == 4 or old.ip in new.network or new.ip in old.network


def plan_container(conf: BridgeConf, attachment: Attachment, want: Wanted) -> tuple[Op, ...]:
    """The container's side. Addresses come before the link is up, routes after: they need it up."""
    link = attachment.ifname
    ops: list[Op] = []
    families = {ip.address.version for ip in want.result.ips}
    if 6 in families:
        # images switch IPv6 off by `all`; addresses would be refused (EACCES), and lost when the link goes down
        ops += [
            SetSysctl(CONTAINER, "net/ipv6/conf/lo/disable_ipv6", "0", optional=True),
            SetSysctl(CONTAINER, f"net/ipv6/conf/{link}/disable_ipv6", "0", optional=True),
            SetSysctl(CONTAINER, f"net/ipv6/conf/{link}/keep_addr_on_down", "1", optional=True),
            SetSysctl(CONTAINER, f"net/ipv6/conf/{link}/accept_dad", "1" if conf.dad else "0", optional=True),
        ]
    ops += [AddAddress(link, ip.address, dad=conf.dad) for ip in want.result.ips]
    if conf.container_up:
        ops.append(SetUp(CONTAINER, link, arp_notify=4 in families))
        first = first_gateways(want.result.ips)
        ops += [AddRoute(link, route.replace(gw=gateway_of(route, first))) for route in want.result.routes]
    return tuple(ops)


def needs_firewall(conf: BridgeConf) -> bool:
    """A layer 2 network without gateway is not routed by this host: nothing to masquerade or to isolate."""
    return conf.backend != "none" and (conf.is_gateway or conf.masquerade or conf.mac_spoof_check)


def network_rules(conf: BridgeConf, attachment: Attachment, want: Wanted) -> NetworkRules:
    subnets = dict.fromkeys(str(ip.address.network) for ip in want.result.ips)
    return NetworkRules(
        network=attachment.network,
        bridges=(conf.gateway_link,),
        isolate=conf.isolate,
        subnets=tuple(subnets) if conf.masquerade else (),
    )


def attachment_rules(conf: BridgeConf, attachment: Attachment, want: Wanted) -> AttachmentRules:
    return AttachmentRules(
        owner=attachment.owner,
        masquerade=tuple(str(ip.address.ip) for ip in want.result.ips) if conf.masquerade else (),
        macs=((host_link_name(attachment), want.result.mac.hex(":")),) if conf.mac_spoof_check else (),
    )
