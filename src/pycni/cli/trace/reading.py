"""Reads what a trace goes by from this host's kernel and from etcd."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address
from typing import TypeVar

from pycni.agent.view import Seen, see_ports
from pycni.cli.agent_client import NoAgent, ask
from pycni.cli.failure import Failure
from pycni.cli.trace.cluster import Cluster
from pycni.cli.trace.facts import (
    HOST,
    LOOPBACK,
    OUTSIDE,
    ContainerFacts,
    End,
    HostFacts,
    Packet,
    Path,
    PortFacts,
    Ports,
    TunnelFacts,
)
from pycni.cli.trace.published import leads_from
from pycni.cni.errors import CniError
from pycni.cni.names import Attachment, host_link_name
from pycni.firewall.rules import PortMapping
from pycni.host import lookups, sysctl
from pycni.host.firewall import missing_rules
from pycni.host.inet_messages import RTN_LOCAL
from pycni.host.netns import open_netns
from pycni.host.rtnl import Link, Netlink, RouteFacts, in_namespace
from pycni.host.tunnel_guard import read_peers
from pycni.host.vxlan import read_vxlan
from pycni.plugins.overlay.conf import ROUTED
from pycni.plugins.overlay.site import Joined
from pycni.portmap.holding import Binding
from pycni.store import Store
from pycni.store.host_ports import PART

T = TypeVar("T")
Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
AGENT_DEADLINE_S = 2.0
_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


class Reader:
    """One trace's reading. *clusters*: by network. Use it in a `with` of both *kernel* and *store*."""

    def __init__(self, kernel: Netlink, store: Store, packet: Packet, clusters: dict[str, Cluster]) -> None:
        self._kernel = kernel
        self._store = store
        self._packet = packet
        self._clusters = clusters

    def path(self, source: tuple[End, Seen | None], target: tuple[End, Seen | None]) -> Path:
        """Everything that is on this host of the way from *source* to *target*, one of which is here."""
        (start, mine), (goal, its) = source, target
        if mine is not None and (goal.place in (HOST, OUTSIDE) or self._packet.host_address is not None):
            start = self._way_out(start, mine.record.netns)
        packet, apart = self._packet, start.ifname != LOOPBACK
        path = Path(
            packet,
            self._host(mine, its),
            source=self._container(start, mine, packet.source, packet.sent_to) if mine is not None else None,
            target=self._container(goal, its, packet.target, packet.source) if its is not None and apart else None,
            ports=self._ports(its) if its is not None and packet.port else None,
            with_host=HOST in (start.place, goal.place),
            silent=self._clusters[start.network].silent if start.network in self._clusters else "",
        )
        if mine is not None and its is not None:
            return path
        near, far = (start, goal) if mine is not None else (goal, start)
        by_port = packet.host_address is not None
        if far.node and far.network != near.network and not by_port:
            return path.replace(other_network=far.network)
        cluster = self._clusters.get(far.network)
        if cluster is None or not far.node:
            return path
        addresses = (packet.target, packet.source) if mine is not None else (packet.source, packet.target)
        facts = cluster.far(far, *addresses)
        if by_port:
            return path.replace(far=facts)  # it comes from the world, as its own host sent it there
        tunnel = self._tunnel(cluster.joined, packet.target if mine is not None else packet.source, facts.vtep)
        path = path.replace(tunnel=tunnel.replace(agent=path.host.agent), far=facts)
        return path if its is None else self._recorded(path, cluster)

    def _recorded(self, path: Path, cluster: Cluster) -> Path:
        """By what other hosts send to the destination, which is here."""
        own = cluster.host(cluster.joined.node)
        endpoint = cluster.endpoint(path.packet.target) if cluster.joined.mode != ROUTED else None
        mac = endpoint.mac if endpoint is not None else ""
        return path.replace(recorded_vtep=own.vtep if own is not None else "", recorded_mac=mac)

    # -- containers ----------------------------------------------------------------------------------------------------

    def _container(self, end: End, seen: Seen, address: Address, other: Address) -> ContainerFacts:
        record, kernel = seen.record, self._kernel
        name, bridge_name = self._cable(end, seen)
        host_link = kernel.link(name) if name else None
        bridge = kernel.link(bridge_name) if bridge_name else None
        way = kernel.route_to(address)
        gateways = bridge if bridge_name else host_link
        facts = ContainerFacts(
            end,
            seen.state,
            address,
            host_link_name=name,
            host_link=host_link,
            bridge_name=bridge_name,
            bridge=bridge,
            gateways=kernel.addresses(gateways.index) if gateways is not None else (),
            way=way,
            way_link=self._name(way),
            rules=missing_rules(record.backend, record.network_rules, record.attachment_rules),
        )
        facts = _look_inside(facts, record.netns, other) if seen.state != "netns gone" else facts
        if bridge is None or facts.link is None:
            return facts
        return facts.replace(fdb_port=self._port_name(bridge, facts.link.mac))

    def _cable(self, end: End, seen: Seen) -> tuple[str, str]:
        """The host link of *end* and its bridge, as recorded; those of a second interface as the kernel has them."""
        record = seen.record
        if end.ifname == record.attachment.ifname:
            name = host_link_name(record.attachment)
            return name if name in record.host_links else next(iter(record.host_links), ""), record.bridge
        link = _inside(record.netns, lambda inside: inside.link(end.ifname))
        peer = self._kernel.link(link.peer_index) if link is not None and link.peer_index else None
        master = self._kernel.link(peer.master) if peer is not None and peer.master else None
        return peer.name if peer is not None else "", master.name if master is not None else ""

    def _way_out(self, end: End, netns: str) -> End:
        """*end*, or the interface of that container (as to a gatewayBridge) by which it reaches the world."""

        def look(inside: Netlink) -> tuple[Link | None, tuple[Interface, ...]]:
            hop = inside.route_to(self._packet.sent_to)
            link = inside.link(hop.oif) if hop is not None and hop.oif else None
            return link, inside.addresses(link.index) if link is not None else ()

        link, addresses = _inside(netns, look) or (None, ())
        mine = [each.ip for each in addresses if each.version == self._packet.source.version and not each.is_link_local]
        if link is None or not mine or link.name in (end.ifname, LOOPBACK):
            return end
        self._packet = self._packet.replace(source=mine[0])
        return end.replace(ifname=link.name, addresses=tuple(map(str, mine)))

    def _name(self, route: RouteFacts | None) -> str:
        link = self._kernel.link(route.oif) if route is not None and route.oif else None
        return link.name if link is not None else ""

    def _port_name(self, bridge: Link, mac: bytes) -> str:
        index = lookups.bridge_port(self._kernel, bridge.index, mac)
        link = self._kernel.link(index) if index else None
        return link.name if link is not None else ""

    # -- the host ------------------------------------------------------------------------------------------------------

    def _host(self, source: Seen | None, target: Seen | None) -> HostFacts:
        out = self._kernel.route_to(self._packet.target)
        rules = [one.record.network_rules for one in (source, target) if one is not None]
        masquerade = source.record.attachment_rules.masquerade if source is not None else ()
        return HostFacts(
            name=os.uname().nodename,
            forwards=sysctl.read(_FORWARDING[self._packet.target.version]) == "1",
            out=out,
            out_link=self._kernel.link(out.oif) if out is not None and out.oif else None,
            masquerades=str(self._packet.source) in masquerade,
            isolated=len(rules) == 2 and any(one.isolate for one in rules) and all(one.bridges for one in rules),
            agent=_agent_runs(),
        )

    def _ports(self, target: Seen) -> Ports:
        """What is published of the packet's port of *target*, a container of this host: what leads there from
        where the packet is sent to."""
        packet, owner = self._packet, target.record.attachment
        record = self._store.attachments.get(Attachment(owner.network, owner.container_id, owner.ifname, PART))
        if record is None:
            return Ports()
        mappings = [one for one in record.attachment_rules.ports if one.address == str(packet.target)]
        found = []
        for one in see_ports(self._store, owner.network, None):
            binding = one.binding
            at = packet.port - binding.target
            same = (one.attachment.container_id, one.attachment.ifname) == (owner.container_id, owner.ifname)
            if (
                same
                and binding.address == str(packet.target)
                and binding.proto == packet.proto
                and 0 <= at < binding.count
                and packet.host_port in (0, binding.port + at)
                and (packet.host_address is None or leads_from(binding, packet.host_address))
            ):
                anywhere = "0.0.0.0" if binding.family == 4 else "[::]"
                shown = f"{binding.host_ip or anywhere}:{binding.port + at}"
                sources = _sources(mappings, binding)
                found.append(PortFacts(shown, one.by_kernel, binding.proxied, sources))
        rules = record.attachment_rules
        return Ports(
            tuple(found),
            guarded=str(packet.target) in rules.direct_guard,
            masquerades=any(one.snat or one.masq_all for one in mappings),
            missing=missing_rules(record.backend, record.network_rules, rules),
            conditions=rules.conditions6 if packet.target.version == 6 else rules.conditions4,
        )

    # -- the tunnel ----------------------------------------------------------------------------------------------------

    def _tunnel(self, joined: Joined, address: Address, vtep: str) -> TunnelFacts:
        """The network's device and entries for *address*, a container's of the host at *vtep*."""
        kernel = self._kernel
        underlay = kernel.route_to(ip_address(vtep)) if vtep else None
        facts = TunnelFacts(
            joined.mode,
            joined.vni,
            joined.port,
            joined.local,
            joined.overhead,
            joined.vxlan,
            device=read_vxlan(kernel, joined.vxlan),
            guard=read_peers(joined.port, joined.vni),
            underlay=underlay,
            uplink=kernel.link(underlay.oif) if underlay is not None and underlay.oif else None,
        )
        if facts.device is None:
            return facts
        route = kernel.route_to(address) if joined.mode == ROUTED else None
        hop = (route.gw if route is not None else None) or address
        entry = lookups.neighbour(kernel, facts.device.index, hop)
        mac = entry.mac if entry is not None else b""
        bridge = kernel.link(joined.bridge) if joined.bridge else None
        end = lookups.tunnel_end(kernel, facts.device.index, mac) if mac else None
        return facts.replace(
            neighbour=entry,
            mac=mac.hex(":"),
            mac_port=self._port_name(bridge, mac) if mac and bridge is not None else "",
            vtep=str(end) if end is not None else "",
        )


def _sources(mappings: Iterable[PortMapping], binding: Binding) -> tuple[str, ...]:
    """Who is let in at the port of *binding*, by the one mapping that it is of."""
    for one in mappings:
        same = (one.proto, one.host_ip, one.address) == (binding.proto, binding.host_ip, binding.address)
        if same and one.low <= binding.port <= one.high:
            return one.sources
    return ()


def _look_inside(facts: ContainerFacts, netns: str, other: Address) -> ContainerFacts:
    """*facts* with what the container's own namespace says."""

    def look(inside: Netlink) -> ContainerFacts:
        link = inside.link(facts.end.ifname)
        hop = inside.route_to(other)
        out = inside.link(hop.oif) if hop is not None and hop.oif else None
        return facts.replace(
            link=link,
            addresses=inside.addresses(link.index) if link is not None else (),
            next_hop=hop,
            next_hop_link=out.name if out is not None else "",
            neighbour=lookups.neighbour(inside, hop.oif, hop.gw or other) if hop is not None and hop.oif else None,
        )

    return _inside(netns, look) or facts.replace(state="netns gone")


def _inside(netns: str, question: Callable[[Netlink], T]) -> T | None:
    """What the namespace's kernel answers; None where it is gone."""
    try:
        fd = open_netns(netns)
    except CniError:
        return None
    try:
        with in_namespace(fd) as inside:
            return question(inside)
    finally:
        os.close(fd)


def is_own(kernel: Netlink, address: Address) -> bool:
    """Whether *address* is one of the host itself."""
    route = kernel.route_to(address)
    return route is not None and route.kind == RTN_LOCAL


def _agent_runs() -> bool:
    try:
        ask("status", timeout_s=AGENT_DEADLINE_S)
    except (NoAgent, PermissionError):
        return False
    except Failure:
        return True  # it is there, and busy
    return True
