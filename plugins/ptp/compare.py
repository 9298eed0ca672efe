"""What CHECK compares: the last result against what the kernel has. Pure."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

from pycni.change.differences import container_link, missing_addresses, missing_routes, own_ips
from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.addresses import Interface as AddressWithPrefix
    from pycni.cni.env import Call
    from pycni.cni.result import Result
    from pycni.host.link_facts import Link, RouteFacts


class CheckFacts(Value):
    """What the kernel has; None for a link that is missing."""

    container: Link | None
    addresses: tuple[AddressWithPrefix, ...]  # of the container's link
    routes: tuple[RouteFacts, ...]  # of the container, in all tables
    host: Link | None  # the host's end of the pair
    host_addresses: tuple[AddressWithPrefix, ...]  # of that link
    host_routes: tuple[RouteFacts, ...]  # of the host, through that link
    rules: tuple[str, ...]  # firewall elements that are missing


def differences(call: Call, previous: Result, facts: CheckFacts) -> tuple[str, ...]:
    """Everything that is not as ADD left it, in words; what a later plugin may change (MTU, more addresses) is no
    difference."""
    wrong = container_link(call, previous, facts.container)
    if facts.container is not None and not facts.container.up:
        wrong = (*wrong, f"{call.ifname} is down")
    return (
        *wrong,
        *_host(call, previous, facts),
        *missing_addresses(call, previous, facts.addresses),
        *missing_routes(previous, facts.routes),
        *facts.rules,
    )


def _host(call: Call, previous: Result, facts: CheckFacts) -> list[str]:
    link = facts.host
    if link is None:
        return [f"the host's end of {call.ifname} is missing"]
    wrong = [] if link.up else [f"host link {link.name} is down"]
    for ip in own_ips(call, previous):
        if ip.gateway is not None and ip_interface(ip.gateway) not in facts.host_addresses:
            wrong.append(f"gateway address {ip.gateway} is missing on {link.name}")
        if all(route.dst != ip_network(ip.address.ip) for route in facts.host_routes):
            wrong.append(f"the host has no route to {ip.address.ip} through {link.name}")
    return wrong
