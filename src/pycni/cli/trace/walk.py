"""The way of a packet, step by step, over what this host's kernel has. Pure: facts in, steps out.

The steps come in the packet's order and assume that those before are in order: read them through `until_missing`.
"""

from __future__ import annotations

from collections.abc import Iterator

from pycni.cli.trace.facts import LOOPBACK, ContainerFacts, HostFacts, Packet, Path
from pycni.cli.trace.host_side import between, by_port, from_host, from_outside, rules_note, to_host, to_outside, way_in
from pycni.cli.trace.steps import AGAIN, Place, Step, forwarding, put_back
from pycni.cli.trace.tunnel import come_in, go_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.host.link_facts import Link

NUD_INCOMPLETE, NUD_FAILED = 0x01, 0x20  # linux/neighbour.h
_GONE = {
    "netns gone": "the container has ended: `pycni gc NETWORK` frees what it had",
    "other boot": "it is from before the last reboot: `pycni gc NETWORK`",
    "half-made": "its ADD was killed: `pycni del`, then `pycni add`",
    "half-removed": "its DEL was killed: `pycni del` or `pycni gc NETWORK` finishes it",
}


def walk(path: Path) -> Iterator[Step]:
    """Every step that is on this host."""
    if path.source is not None and path.within:
        yield from _stay(path.source, path.packet)
    elif path.source is not None:
        yield from _leave(path, path.source)
        yield from _onward(path, path.source)
    elif path.other_network and path.target is not None:
        yield _other_network(path, path.target.end.network)
    elif path.tunnel is not None and path.far is not None:
        yield from come_in(path.host, path.tunnel, path.far, path.recorded_vtep)
        if path.tunnel.mode == "routed" and path.target is not None:
            yield from forwarding(Place(path.host.name), path.host, path.packet)
            yield from way_in(Place(path.host.name), path.target)
    elif path.target is not None:
        yield from (from_host if path.with_host else from_outside)(path, path.target)
    if path.target is not None:
        yield from _arrive(path, path.target)


def _onward(path: Path, source: ContainerFacts) -> Iterator[Step]:
    """From the host's side of *source* to where *target*'s begins, or to where this host's part ends."""
    if path.target is not None and path.ports is not None and path.packet.host_address is not None:
        yield from by_port(path, source, path.ports, path.target)
    elif path.target is not None:
        yield from between(path, source, path.target)
    elif path.other_network:
        yield _other_network(path, source.end.network)
    elif path.tunnel is not None and path.far is not None:
        yield from go_out(path.host, source, path.tunnel, path.far, path.packet)
    elif path.with_host:
        yield from to_host(path, source)
    else:
        yield from to_outside(path, source)


def _other_network(path: Path, network: str) -> Step:
    return Place(path.host.name).missing(
        "network",
        f"the one is on {network}, the other on {path.other_network}: nothing leads from one to the other",
        "attach one of them to the other's network, or publish the port",
    )


# -- a container's own side --------------------------------------------------------------------------------------------


def _stay(one: ContainerFacts, packet: Packet) -> Iterator[Step]:
    """What is sent to the container by itself."""
    place = Place(one.end.container)
    if one.state in _GONE:
        yield place.missing("container", one.state, _GONE[one.state])
    if one.link is None or not one.link.up:
        yield place.missing("interface", f"{LOOPBACK} is down", f"in the container: ip link set {LOOPBACK} up")
    if one.next_hop_link != LOOPBACK:
        yield place.missing("address", f"{packet.target} is none of the container's", f"ip addr add, or {AGAIN}")
    yield place.ok("interface", f"{LOOPBACK} up: what is for {packet.target} does not leave the container")


def _interface(place: Place, one: ContainerFacts) -> Iterator[Step]:
    """Its link and address."""
    if one.state in _GONE:
        yield place.missing("container", one.state, _GONE[one.state])
    link, ifname = one.link, one.end.ifname
    if link is None:
        yield place.missing("interface", f"there is no {ifname}", AGAIN)
        return
    if not link.up:
        yield place.missing("interface", f"{ifname} is down", f"in the container: ip link set {ifname} up")
    yield place.ok("interface", f"{ifname} up, {link.mac.hex(':')}, MTU {link.mtu}")
    mine = next((each for each in one.addresses if each.ip == one.address), None)
    if mine is None:
        has = ", ".join(map(str, one.addresses)) or "none"
        action = f"put it back (ip addr add), or {AGAIN}"
        yield place.missing("address", f"{one.address} is not on {ifname}, which has {has}", action)
    yield place.ok("address", str(mine))


def _host_link(host: HostFacts, one: ContainerFacts, *, bridge_seen: bool = False) -> Iterator[Step]:
    """Its host link, and the bridge that this is a port of."""
    place, name, link = Place(host.name), one.host_link_name, one.host_link
    if not name:
        yield place.note("host link", "no record says which it is: another plugin made it")
        return
    if link is None:
        yield place.missing("host link", f"{name} is gone", AGAIN)
        return
    if not link.up:
        yield place.missing("host link", f"{name} is down", f"ip link set {name} up")
    if not one.bridge_name:
        yield place.ok("host link", f"{name} up, routed")
        return
    bridge = one.bridge
    if bridge is None:
        yield place.missing("bridge", f"{one.bridge_name} is gone", put_back(host))
        return
    if link.master != bridge.index:
        yield place.missing(
            "host link",
            f"{name} is no port of {bridge.name}",
            f"ip link set {name} master {bridge.name}",
        )
    if not link.forwarding:
        yield place.missing(
            "host link", f"{name} does not forward: {link.state_words}", "is the container's end up? `ip link show`"
        )
    yield place.ok("host link", f"{name} up, forwarding port of {bridge.name}")
    if not bridge.up:
        yield place.missing("bridge", f"{bridge.name} is down", f"ip link set {bridge.name} up")
    if not bridge_seen:
        yield place.ok("bridge", f"{bridge.name} up")


def _leave(path: Path, one: ContainerFacts) -> Iterator[Step]:
    inside, packet = Place(one.end.container), path.packet
    yield from _interface(inside, one)
    hop = one.next_hop
    if hop is None:
        action = f"in the container: ip route add default via its gateway, or {AGAIN}"
        yield inside.missing("route", f"the container has no route to {packet.sent_to}", action)
        return
    if one.next_hop_link != one.end.ifname:
        action = f"trace {one.end.container}/{one.next_hop_link} instead, or correct the container's routes"
        yield inside.missing("route", f"{packet.sent_to} goes by {one.next_hop_link}, not by {one.end.ifname}", action)
    at = hop.gw or packet.sent_to
    yield inside.ok("route", f"{packet.sent_to} by {hop.gw}" if hop.gw else f"{packet.sent_to} is on the link")
    yield from _known_hop(inside, path, one, str(at), is_gateway=hop.gw is not None)
    yield from _host_link(path.host, one)
    if one.rules and (path.target is not None or path.with_host):
        yield rules_note(path.host, one.rules)


def _known_hop(place: Place, path: Path, one: ContainerFacts, hop: str, *, is_gateway: bool) -> Iterator[Step]:
    """What the container knows of the next hop's MAC."""
    known, expected = one.neighbour, _expected_mac(path, one, is_gateway=is_gateway)
    if known is None or not known.mac:
        failed = known is not None and known.state & (NUD_INCOMPLETE | NUD_FAILED)
        found = f"{hop} did not answer so far" if failed else f"{hop} is not known yet: it will be asked for"
        yield place.note("neighbour", found) if failed else place.ok("neighbour", found)
    elif expected and known.mac.hex(":") != expected:
        yield place.missing(
            "neighbour",
            f"the container holds {known.mac.hex(':')} for {hop}, which is {expected}",
            f"in the container: ip neigh flush {hop}",
        )
    else:
        yield place.ok("neighbour", f"{hop} is {known.mac.hex(':')}")


def _expected_mac(path: Path, one: ContainerFacts, *, is_gateway: bool) -> str:
    """The MAC that the next hop has, "" where that cannot be said."""
    link: Link | None = None
    hop = one.next_hop.gw if is_gateway and one.next_hop is not None else path.packet.sent_to
    if any(each.ip == hop for each in one.gateways):
        link = one.bridge if one.bridge_name else one.host_link
    elif is_gateway or path.packet.host_address is not None:
        return ""
    elif path.target is not None and path.target.bridge_name == one.bridge_name:
        link = path.target.link
    elif path.far is not None and path.tunnel is not None and path.tunnel.mode == "l2":
        return path.far.mac
    return link.mac.hex(":") if link is not None else ""


def _arrive(path: Path, one: ContainerFacts) -> Iterator[Step]:
    here, inside, link = Place(path.host.name), Place(one.end.container), one.link
    if path.recorded_mac and link is not None and link.mac.hex(":") != path.recorded_mac:
        yield here.missing(
            "record in etcd",
            f"other hosts send to {path.recorded_mac}, the container has {link.mac.hex(':')}",
            AGAIN,
        )
    same = path.source is not None and path.source.bridge_name == one.bridge_name
    yield from _host_link(path.host, one, bridge_seen=same)
    if one.bridge_name and one.fdb_port and one.fdb_port != one.host_link_name:
        yield here.missing(
            "bridge entry",
            f"{one.bridge_name} sends frames for the container to {one.fdb_port}, not to {one.host_link_name}",
            "two interfaces with one MAC? `bridge fdb show br " + one.bridge_name + "`",
        )
    elif one.bridge_name and one.host_link_name:
        known = f"to {one.fdb_port}" if one.fdb_port else "not learnt yet: frames go to every port"
        yield here.ok("bridge entry", known)
    elif one.host_link_name and one.way_link != one.host_link_name:
        way = f"{one.address} leads to {one.way_link}" if one.way_link else f"no route to {one.address}"
        yield here.missing("route", f"{way}, not to {one.host_link_name}", AGAIN)
    yield from _interface(inside, one)
