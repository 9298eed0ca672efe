"""Which address each machine has on each segment, and the routes between segments: pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from pycni.cni.value import Value
from pycni.lab.errors import USAGE, LabError
from pycni.lab.topology import HostSpec, Lab, LinkSpec, Segment

Kept = Mapping[tuple[str, str], tuple[str, str]]  # (machine, segment) -> (IPv4, IPv6), "" for none


class Route(Value):
    """*prefix* ("default", or an address with length) by way of a router."""

    prefix: str
    via: str


def addressed(lab: Lab, kept: Kept | None = None) -> Lab:
    """The lab with an address on every link for every family of its segment.

    The order of hosts, etcd, routers decides, from the first address on. *kept* has what machines of a lab
    that runs already have: it stays theirs unless the file now gives it to another. LabError for a prefix that is full.
    """
    taken = {
        (link.segment, address): machine.name
        for machine in lab.machines
        for link in machine.links
        for address in (link.ipv4, link.ipv6)
        if address
    }
    chosen: dict[tuple[str, str, int], str] = {}
    in_order = (*lab.hosts, *(lab.etcd.hosts if lab.etcd else ()), *lab.routers)
    for machine in in_order:
        for link in machine.links:
            before = (kept or {}).get((machine.name, link.segment), ("", ""))
            for family, old in zip((4, 6), before, strict=True):
                if old and _fits(lab.segment(link.segment), link, family, old):
                    holder = taken.setdefault((link.segment, old), machine.name)
                    if holder == machine.name:
                        chosen[machine.name, link.segment, family] = old
    for machine in in_order:
        for link in machine.links:
            for family in (4, 6):
                prefix = _prefix(lab.segment(link.segment), family)
                key = (machine.name, link.segment, family)
                if prefix and not _given(link, family) and key not in chosen:
                    chosen[key] = free = _free(prefix, link.segment, taken)
                    taken[link.segment, free] = machine.name

    def complete(machine: HostSpec) -> HostSpec:
        links = tuple(
            link.replace(
                ipv4=link.ipv4 or chosen.get((machine.name, link.segment, 4), ""),
                ipv6=link.ipv6 or chosen.get((machine.name, link.segment, 6), ""),
            )
            for link in machine.links
        )
        return machine.replace(links=links)

    etcd = lab.etcd and lab.etcd.replace(hosts=tuple(map(complete, lab.etcd.hosts)))
    return lab.replace(hosts=tuple(map(complete, lab.hosts)), routers=tuple(map(complete, lab.routers)), etcd=etcd)


def routes(lab: Lab, machine: HostSpec) -> tuple[Route, ...]:
    """The routes of *machine* in an addressed lab: a host's default route leads to the first router of its first link
    that has one; every other segment that needs another way has a route of its own.
    """
    ways = _ways(lab, machine)
    own = {link.segment for link in machine.links}
    first = _first_router(lab, machine)
    found = []
    for family in (4, 6):
        default = first.get(family, "")
        if default and machine.role != "router":
            found.append(Route(prefix="default", via=default))
        for segment in lab.segments:
            prefix, via = _prefix(segment, family), ways.get((segment.name, family), "")
            if prefix and via and segment.name not in own and (machine.role == "router" or via != default):
                found.append(Route(prefix=prefix, via=via))
    return tuple(found)


def _first_router(lab: Lab, machine: HostSpec) -> dict[int, str]:
    for link in machine.links:
        for router in lab.routers:
            for theirs in router.links:
                if theirs.segment == link.segment and router.name != machine.name:
                    return {4: theirs.ipv4, 6: theirs.ipv6}
    return {}


def _ways(lab: Lab, machine: HostSpec) -> dict[tuple[str, int], str]:
    """(segment, family) -> the neighbouring router's address on the shortest way there, first in the file if equal."""
    found: dict[tuple[str, int], str] = {}
    for family in (4, 6):
        reached: dict[str, str] = {
            link.segment: "" for link in machine.links if _prefix(lab.segment(link.segment), family)
        }
        queue = list(reached)
        for segment in queue:
            for router in lab.routers:
                mine = next((_given(link, family) for link in router.links if link.segment == segment), "")
                if not mine or router.name == machine.name:
                    continue
                for link in router.links:
                    if link.segment not in reached and _given(link, family):
                        reached[link.segment] = reached[segment] or mine
                        queue.append(link.segment)
        found.update({(segment, family): via for segment, via in reached.items() if via})
    return found


def _prefix(segment: Segment, family: int) -> str:
    return segment.ipv4 if family == 4 else segment.ipv6


def _given(link: LinkSpec, family: int) -> str:
    return link.ipv4 if family == 4 else link.ipv6


def _fits(segment: Segment, link: LinkSpec, family: int, address: str) -> bool:
    prefix = _prefix(segment, family)
    given = _given(link, family)
    return bool(prefix) and given in ("", address) and ipaddress.ip_address(address) in ipaddress.ip_network(prefix)


def _free(prefix: str, segment: str, taken: Mapping[tuple[str, str], str]) -> str:
    for address in ipaddress.ip_network(prefix).hosts():
        if (segment, str(address)) not in taken:
            return str(address)
    raise LabError(f"segment {segment}: {prefix} has no address left for all machines", exit_code=USAGE)
