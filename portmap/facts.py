"""What the host is like, as far as publishing a container's ports depends on it."""

from __future__ import annotations

import os

from pycni.cni.value import Value
from pycni.host import sysctl
from pycni.portmap import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.addresses import Interface as AddressWithPrefix
    from pycni.cni.result import Result
    from pycni.host.rtnl import Link, Netlink
    from pycni.portmap.conf import PortmapConf
    from pycni.portmap.plan import HostFacts, Service


class Wanted(Value):
    """What an ADD is to publish, before its host ports are chosen."""

    conf: PortmapConf
    everything: tuple[AddressWithPrefix, ...]  # all addresses of the container's interface
    addresses: dict[int, AddressWithPrefix]  # those to which ports lead
    facts: HostFacts
    services: tuple[Service, ...]


def read_wanted(host: Netlink, conf: PortmapConf, previous: Result, ifname: str, *, serves_proxy: bool) -> Wanted:
    """What is to be published, decided from what the host is like now. *serves_proxy*: see HostFacts."""
    everything = plan.container_addresses(previous, ifname)
    addresses = plan.published_addresses(everything)
    port = _host_link(host, previous)
    facts = plan.HostFacts(
        links=_links(host, addresses),
        serves_proxy=serves_proxy,
        ipv6=os.path.exists("/proc/sys/net/ipv6"),
        bridged4=sysctl.read("net/bridge/bridge-nf-call-iptables") == "1",
        bridged6=sysctl.read("net/bridge/bridge-nf-call-ip6tables") == "1",
        host_link=port.name if port is not None else "",
        is_port=port is not None and port.hairpin is not None,
    )
    services = plan.services(conf, addresses, facts) if conf.mappings else ()
    return Wanted(conf, everything, addresses, facts, services)


def _links(host: Netlink, addresses: dict[int, AddressWithPrefix]) -> dict[int, str]:
    """Family to the host link behind which the container's address is: not one that a gateway's answer leads to, as
    for an address that this host does not know."""
    found = {}
    for family, address in addresses.items():
        route = host.route_to(address.ip)
        link = host.link(route.oif) if route is not None and route.gw is None and route.oif else None
        if link is not None and link.name != "lo":
            found[family] = link.name
    return found


def _host_link(host: Netlink, previous: Result) -> Link | None:
    """The host's end of the container's veth pair, as the result names it."""
    for interface in previous.interfaces:
        link = host.link(interface.name) if not interface.sandbox else None
        if link is not None and link.kind == "veth" and link.peer_netnsid is not None:
            return link
    return None


def read_setting(host: Netlink, link: str, setting: str) -> str:
    """ "1" where *setting* of *link* is on, else "0"; of a link that is gone "0" too."""
    if setting == plan.ROUTE_LOCALNET:
        return sysctl.read(f"net/ipv4/conf/{link}/route_localnet") or "0"
    found = host.link(link)
    if found is None:
        return "0"
    if setting == plan.HAIRPIN:
        return "1" if found.hairpin else "0"
    from pycni.host.publishing import has_loopback_route

    return "1" if has_loopback_route(host, found.index) else "0"
