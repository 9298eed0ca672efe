"""Which tracked flows have to end when rules come or go: those of the mapping's own tuple, and no others."""

from __future__ import annotations

from ipaddress import ip_address

from pycni.host import tracked
from pycni.portmap import flow_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.firewall.rules import PortMapping
    from pycni.host.conntrack import Flow


def end_stale(mappings: Iterable[PortMapping]) -> None:
    """End the UDP flows to ports that are published from now on: until a client pauses for as long as the kernel
    remembers, its packets would go on without the new translation, or with a former one.

    Of TCP a new connection is a new flow, and the old ones are the host's own.
    """
    wanted = [one for one in mappings if one.proto == "udp"]
    listed = tracked.listed()
    if listed is not None and not flow_lines.any_udp_to(listed, wanted):
        return
    from pycni.host.conntrack import open_conntrack

    ports = {one.low if one.low == one.high else 0 for one in wanted}
    with open_conntrack() as kernel:
        for family in {6 if ":" in one.address else 4 for one in wanted}:
            found = kernel.to_port(family, "udp", *(ports if len(ports) == 1 else ()))
            kernel.delete(_to_host([flow for flow in found if _asked_for(flow, wanted)]))


def end_translated(mappings: Iterable[PortMapping]) -> None:
    """End the flows that *mappings* led to their container, of every protocol.

    Every question to the kernel is a walk through its whole table, every answer some work here.
    """
    wanted = tuple(mappings)
    listed = tracked.listed() if wanted else []
    if listed is not None and not flow_lines.any_from(listed, wanted):
        return
    from pycni.host.conntrack import open_conntrack

    addresses = {one.address for one in wanted}
    with open_conntrack() as kernel:
        if listed is not None:
            found = kernel.translated()
        else:
            found = [flow for address in addresses for flow in kernel.translated_to(address)]
        # A kernel that knows no such filter also tells of flows to the container's own address.
        ours = [flow for flow in found if flow.answers_from in addresses and flow.target not in addresses]
        kernel.delete(flow for flow in ours if _asked_for(flow, wanted))


def _asked_for(flow: Flow, mappings: Iterable[PortMapping]) -> bool:
    """Whether *flow* began as a packet to a host port of one of *mappings*."""
    return any(
        (one.proto, ":" in one.address) == (flow.proto, flow.family == 6)
        and one.low <= flow.target_port <= one.high
        and one.host_ip in ("", flow.target)
        for one in mappings
    )


def _to_host(flows: list[Flow]) -> list[Flow]:
    """Those whose client meant an address of this host: what is forwarded elsewhere is no business of ours."""
    if not flows:
        return []
    from pycni.host import inet_messages
    from pycni.host.rtnl import Netlink

    with Netlink() as host:
        routes = {target: host.route_to(ip_address(target)) for target in {flow.target for flow in flows}}
    return [flow for flow in flows if (way := routes[flow.target]) and way.kind == inet_messages.RTN_LOCAL]
