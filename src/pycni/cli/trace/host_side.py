"""The part of a packet's way that the host's own routes and rules decide: between containers, to the world and from it.

Pure: facts in, steps out (see `walk`).
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from pycni.cli.trace.facts import ContainerFacts, HostFacts, Path, Ports
from pycni.cli.trace.steps import AGAIN, Place, Step, forwarding, put_back


def between(path: Path, source: ContainerFacts, target: ContainerFacts) -> Iterator[Step]:
    here = Place(path.host.name)
    if source.bridge_name and source.bridge_name == target.bridge_name and not _goes_by_gateway(source):
        apart = source.host_link is not None and target.host_link is not None
        if apart and source.host_link.isolated and target.host_link.isolated:  # type: ignore[union-attr]
            yield here.missing(
                "port isolation",
                f"both are isolated ports of {source.bridge_name}",
                "the network's portIsolation keeps its containers apart",
            )
        return
    yield from _routes(path, source)
    if path.host.isolated and source.bridge_name != target.bridge_name:
        yield here.missing(
            "isolation",
            f"{source.end.network} and {target.end.network} are kept apart",
            '"isolate": false in both networks lets them through; or use a published port',
        )
    if path.ports is not None and path.ports.guarded:
        yield _guarded(here, path)
    yield from way_in(here, target)


def way_in(here: Place, target: ContainerFacts) -> Iterator[Step]:
    """The host's own route to the container."""
    if target.way_link not in (target.bridge_name, target.host_link_name) or not target.way_link:
        way = f"leads to {target.way_link}" if target.way_link else "is not there"
        yield here.missing("route", f"the host's route to {target.address} {way}", AGAIN)
    yield here.ok("route", f"{target.address} by {target.way_link}")


def _goes_by_gateway(one: ContainerFacts) -> bool:
    return one.next_hop is not None and one.next_hop.gw is not None


def _routes(path: Path, source: ContainerFacts) -> Iterator[Step]:
    """The container's gateway is this host, which forwards."""
    yield from _gateway(path, source)
    yield from forwarding(Place(path.host.name), path.host, path.packet)


def _gateway(path: Path, source: ContainerFacts) -> Iterator[Step]:
    """The container's gateway, where it is not this host."""
    here, to = Place(path.host.name), path.packet.sent_to
    gateway = source.next_hop.gw if source.next_hop is not None else None
    if gateway is not None and source.gateways and all(each.ip != gateway for each in source.gateways):
        yield here.note("gateway", f"{gateway} is not this host: what it does with packets to {to} is not known here")


# -- from and to the host itself ---------------------------------------------------------------------------------------


def to_host(path: Path, source: ContainerFacts) -> Iterator[Step]:
    """Nothing is forwarded, and nobody is masqueraded."""
    yield from _gateway(path, source)
    yield Place(path.host.name).ok("address", f"{path.packet.target} is the host's own")


def from_host(path: Path, target: ContainerFacts) -> Iterator[Step]:
    """Nothing is forwarded, and no guard keeps the host out."""
    if path.ports is not None and path.packet.host_address is not None:
        yield from _published(path, path.ports, target)
        if path.packet.source.is_loopback and _by_kernel(path.ports):
            yield _hairpin(path, path.ports, target)
    yield from way_in(Place(path.host.name), target)
    if target.rules:
        yield rules_note(path.host, target.rules)


# -- by a port of the host ---------------------------------------------------------------------------------------------


def by_port(path: Path, source: ContainerFacts, ports: Ports, target: ContainerFacts) -> Iterator[Step]:
    """From a container of this host to a port that *target* has published, *source* itself perhaps. Networks that are
    kept apart reach each other so, and no guard is in the way."""
    here = Place(path.host.name)
    yield from _gateway(path, source)
    yield from _published(path, ports, target)
    if _by_kernel(ports):
        yield from forwarding(here, path.host, path.packet)
        if any(path.packet.source in each.network for each in target.addresses):
            yield _hairpin(path, ports, target)
    yield from way_in(here, target)


def _published(path: Path, ports: Ports, target: ContainerFacts) -> Iterator[Step]:
    here = Place(path.host.name)
    if ports.missing:
        yield here.missing("published port", f"missing: {'; '.join(ports.missing)}", put_back(path.host))
    for each in ports.published:
        if each.lets_in(path.packet.source):
            by = "+".join(name for name, does in (("kernel", each.by_kernel), ("proxy", each.proxied)) if does)
            yield here.ok("published port", f"{each.shown} leads to {target.address}:{path.packet.port} ({by})")
    if ports.published and not ports.lets_in(path.packet.source):
        yield _not_let_in(here, path, ports)
    if ports.conditions:
        words = " ".join(ports.conditions)
        yield here.note("conditions", f"only packets that match `{words}`: what they match is not known here")


def _not_let_in(here: Place, path: Path, ports: Ports) -> Step:
    """By `sources`. A container of another host may come with that host's address, which is not known here; and to the
    container's own address there may be a way past the port."""
    shown = "; ".join(f"{each.shown} lets in {', '.join(each.sources)}" for each in ports.published)
    found = f"{shown}: not {path.packet.source}"
    if path.far is not None or (path.packet.host_address is None and not ports.guarded):
        return here.note("sources", found)
    return here.missing("sources", found, 'name the client in the "sources" of the mapping')


def _by_kernel(ports: Ports) -> bool:
    return any(each.by_kernel for each in ports.published)


def _hairpin(path: Path, ports: Ports, target: ContainerFacts) -> Step:
    """The container would answer the client directly, or not at all: it must see the gateway instead."""
    here, sender = Place(path.host.name), path.packet.source
    if ports.masquerades:
        return here.ok("masquerade", f"{target.end.container} sees the gateway in place of {sender}")
    found = f"none: {target.end.container} would not answer {sender} by way of the host"
    return here.missing("masquerade", found, '"snat" is false: leave it out, or use the container\'s own address')


# -- from and to the world ---------------------------------------------------------------------------------------------


def to_outside(path: Path, source: ContainerFacts) -> Iterator[Step]:
    here, host, target = Place(path.host.name), path.host, path.packet.target
    if not _goes_by_gateway(source):
        if path.silent:
            yield here.note("record in etcd", f"unknown: {path.silent}", "who has that address cannot be said now")
        yield here.note("destination", _unknown_neighbour(target))
        return
    yield from _routes(path, source)
    if host.out is None:
        yield here.missing(
            "route", f"the host has no route to {target}", "ip route add …: it is the host's own way out"
        )
        return
    if host.out_link is not None and host.out_link.name != "lo" and not host.out_link.up:
        down = host.out_link.name
        yield here.missing("uplink", f"{down} is down", f"ip link set {down} up")
    by = host.out_link.name if host.out_link is not None else "?"
    yield here.ok("route", f"{target} by {by}" + (f" via {host.out.gw}" if host.out.gw else ""))
    if source.rules:
        yield here.missing("packet filter", f"missing: {'; '.join(source.rules)}", put_back(host))
    if host.masquerades:
        yield here.ok("masquerade", f"as {host.out.src}" if host.out.src else "with the host's address")
    elif by != "lo":
        yield here.note(
            "masquerade",
            f"none: it leaves with {source.address}, and answers need a route back to that",
            'set "ipMasq": true unless others have that route',
        )


def from_outside(path: Path, target: ContainerFacts) -> Iterator[Step]:
    here, ports = Place(path.host.name), path.ports
    if path.packet.host_address is None and any(path.packet.source in each.network for each in target.addresses):
        found = f"{_unknown_neighbour(path.packet.source)}: it comes by another port of the bridge"
        yield here.note("sender", found)
        return
    if ports is None or path.packet.host_address is None or _by_kernel(ports):
        yield from forwarding(here, path.host, path.packet)
    if ports is not None:
        yield from _published(path, ports, target)
    if ports is None or not (ports.lets_in(path.packet.source) or path.packet.host_address):
        yield _unpublished(path, target)
    if target.rules:
        yield rules_note(path.host, target.rules)


def _unknown_neighbour(address: IPv4Address | IPv6Address) -> str:
    return f"{address} is on the container's own subnet, and no container that is known"


def _unpublished(path: Path, target: ContainerFacts) -> Step:
    """By the container's own address."""
    here, ports = Place(path.host.name), path.ports
    if ports is not None and ports.guarded:
        return _guarded(here, path)
    shown = f"port {path.packet.port} is not published: " if ports is not None else ""
    return here.note("direct access", f"{shown}the sender needs a route to {target.address} by way of this host")


def _guarded(here: Place, path: Path) -> Step:
    return here.missing(
        "guard of direct access",
        f"{path.packet.target} is reached by published ports only, and {path.packet.proto} {path.packet.port} is none",
        'publish the port, or set "directAccess": true, or name the interface in "trustedInterfaces"',
    )


def rules_note(host: HostFacts, rules: tuple[str, ...]) -> Step:
    return Place(host.name).note("packet filter", f"missing: {'; '.join(rules)}", put_back(host))
