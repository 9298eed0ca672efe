"""What one ADD of the ptp plugin does to the host, decided from values alone."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

from pycni.change.ops import (
    CONTAINER,
    HOST,
    AddAddress,
    AddRoute,
    ApplyFirewall,
    AwaitUp,
    CreateVeth,
    EnsureSysctl,
    SetSysctl,
    SetUp,
)
from pycni.cni.errors import CniError, Code
from pycni.cni.names import alias, host_link_name
from pycni.cni.result import IPConfig, Result, Route, first_address, first_gateways, gateway_of
from pycni.firewall.rules import AttachmentRules, NetworkRules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.change.ops import Op
    from pycni.cni.addresses import Address, Network
    from pycni.cni.names import Attachment
    from pycni.plugins.ptp.conf import PtpConf

LINK_LOCAL = ip_interface("fe80::1/64")  # of the host's end: no link has anybody else than its one container


def wanted(lease: Result) -> Result:
    """The IPAM plugin's result with every gateway filled in: where it named none, the subnet's first address.

    CniError 7 where there is no address, or one cannot have a gateway.
    """
    if not lease.ips:
        raise CniError(Code.INVALID_CONFIG, "IPAM plugin returned missing IP config", "ptp routes to addresses")
    return lease.replace(ips=tuple(_with_gateway(ip) for ip in lease.ips))


def _with_gateway(ip: IPConfig) -> IPConfig:
    gateway = ip.gateway if ip.gateway is not None else first_address(ip)
    if gateway.version != ip.address.version:
        raise CniError(Code.INVALID_CONFIG, f"gateway {gateway} and address {ip.address} are not of one family")
    if gateway == ip.address.ip:
        raise CniError(
            Code.INVALID_CONFIG,
            f"{gateway} is the container's own address: it cannot be its gateway",
            "give ipam another gateway: it stands on the host's end of the pair",
        )
    return ip.replace(gateway=gateway, interface=1)


def plan_add(conf: PtpConf, attachment: Attachment, result: Result, uplink_mtu: int) -> tuple[Op, ...]:
    """Every operation of the ADD in order."""
    host = host_link_name(attachment)
    families = {ip.address.version for ip in result.ips}
    ops: list[Op] = [
        CreateVeth(
            host=host,
            ifname=attachment.ifname,
            bridge="",
            mtu=conf.mtu or uplink_mtu,
            mac=b"",
            alias=alias(attachment),
        ),
        # a container with NET_RAW could otherwise send router advertisements to the host (CVE-2020-13401)
        EnsureSysctl(f"net/ipv6/conf/{host}/accept_ra", "0", optional=True),
        *plan_container(attachment.ifname, result),
        *plan_host(host, result),
    ]
    if 4 in families:
        ops.append(EnsureSysctl("net/ipv4/ip_forward", "1"))
    if 6 in families:
        ops.append(EnsureSysctl("net/ipv6/conf/all/forwarding", "1"))
    if needs_firewall(conf):
        ops.append(ApplyFirewall(network_rules(conf, attachment, result), attachment_rules(conf, attachment, result)))
    ops.append(AwaitUp(host))  # last of all: the link comes up while the rest is done
    return tuple(ops)


def plan_container(link: str, result: Result) -> tuple[Op, ...]:
    """The container's side: the gateway is on the link, everything else behind it, also the container's own subnet."""
    ops: list[Op] = []
    if any(ip.address.version == 6 for ip in result.ips):
        # images switch IPv6 off by `all`; addresses would be refused (EACCES), and lost when the link goes down
        ops += [
            SetSysctl(CONTAINER, "net/ipv6/conf/lo/disable_ipv6", "0", optional=True),
            SetSysctl(CONTAINER, f"net/ipv6/conf/{link}/disable_ipv6", "0", optional=True),
            SetSysctl(CONTAINER, f"net/ipv6/conf/{link}/keep_addr_on_down", "1", optional=True),
            SetSysctl(CONTAINER, f"net/ipv6/conf/{link}/accept_dad", "0", optional=True),
        ]
    ops += [AddAddress(link, ip.address, on_link=False) for ip in result.ips]
    ops.append(SetUp(CONTAINER, link))
    done: set[Network] = set()  # two addresses may share a subnet and its gateway; the first one's is sent from
    for ip in result.ips:
        assert ip.gateway is not None
        gateway, subnet = _alone(ip.gateway), ip.address.network
        for route in (Route(dst=gateway), Route(dst=subnet, gw=ip.gateway)):
            # a subnet of one address is the container itself
            if route.dst not in done and route.dst != _alone(ip.address.ip):
                ops.append(AddRoute(link, route, src=ip.address.ip))
            done.add(route.dst)
    first = first_gateways(result.ips)
    ops += [AddRoute(link, route.replace(gw=gateway_of(route, first))) for route in result.routes]
    return tuple(ops)


def plan_host(link: str, result: Result) -> tuple[Op, ...]:
    """The host's side: the gateways as addresses of its end, and a route to each of the container's addresses."""
    addresses = dict.fromkeys(ip_interface(ip.gateway) for ip in result.ips if ip.gateway is not None)
    ipv6 = [address for address in addresses if address.version == 6]
    if ipv6 and not any(address.is_link_local for address in ipv6):
        # The host asks for the container's MAC from a link-local address when it forwards (ndisc_solicit, ndisc.c),
        # and that of the kernel's choice is not usable before a duplicate address detection of two seconds.
        addresses[LINK_LOCAL] = None
    ops: list[Op] = [SetUp(HOST, link)]
    ops += [AddAddress(link, address, where=HOST) for address in addresses]
    ops += [AddRoute(link, Route(dst=_alone(ip.address.ip)), where=HOST) for ip in result.ips]
    return tuple(ops)


def _alone(address: Address) -> Network:
    """The network that is *address* alone."""
    return ip_network(address)


def needs_firewall(conf: PtpConf) -> bool:
    return conf.backend != "none"


def network_rules(conf: PtpConf, attachment: Attachment, result: Result) -> NetworkRules:
    """The host's end counts as a bridge with one container: isolated networks stay so, a FORWARD policy is answered."""
    subnets = dict.fromkeys(str(ip.address.network) for ip in result.ips)
    return NetworkRules(
        network=attachment.network,
        bridges=(host_link_name(attachment),),
        isolate=False,
        subnets=tuple(subnets) if conf.masquerade else (),
    )


def attachment_rules(conf: PtpConf, attachment: Attachment, result: Result) -> AttachmentRules:
    return AttachmentRules(
        owner=attachment.owner,
        masquerade=tuple(str(ip.address.ip) for ip in result.ips) if conf.masquerade else (),
    )
