"""The tunnel's part of a packet's way, out of this host and into it. Pure: facts in, steps out (see `walk`)."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.cli.trace.facts import ContainerFacts, FarFacts, HostFacts, Packet, TunnelFacts
from pycni.cli.trace.steps import Place, Step, forwarding
from pycni.etcd.overview import BEHIND, DEAD, NO_AGENT, STARTING, SUSPECT


def repair(tunnel: TunnelFacts) -> str:
    """What puts back an object of the tunnel."""
    if tunnel.agent:
        return "`pycni reconcile`; should it not help, `pycni agent status` tells what hinders the agent"
    return "no agent runs on this host, which would put it back: `pycni agent`, or `pycni install --systemd`"


def go_out(
    host: HostFacts, source: ContainerFacts, tunnel: TunnelFacts, far: FarFacts, packet: Packet
) -> Iterator[Step]:
    """From the bridge to the uplink."""
    here = Place(host.name)
    if tunnel.mode == "routed":
        yield from forwarding(here, host, packet)
    yield from _device(here, tunnel, source)
    yield from _partner(here, far, packet)
    if tunnel.mode == "routed":
        yield from _route(here, host, tunnel, far, packet)
    yield from _entries(here, tunnel, far, packet)
    yield from _underlay(here, tunnel, far)
    yield from _sizes(here, source, tunnel, far)
    if tunnel.guard is not None and far.vtep not in tunnel.guard:
        yield here.missing(
            "way back", f"the tunnel guard takes nothing from {far.vtep}: answers are dropped", repair(tunnel)
        )
    yield here.ok("way back", f"packets of {far.vtep} are taken" if tunnel.guard is not None else "not guarded")
    yield from _state(Place(far.name or far.node), far)


def come_in(host: HostFacts, tunnel: TunnelFacts, far: FarFacts, recorded_vtep: str) -> Iterator[Step]:
    """From the uplink to the bridge, or to the host's routes."""
    here = Place(host.name)
    yield from _partner(here, far, None)
    if recorded_vtep and recorded_vtep != tunnel.local:
        yield here.missing(
            "record in etcd",
            f"other hosts send to {recorded_vtep}, this host's tunnels end at {tunnel.local}",
            repair(tunnel),
        )
    if tunnel.guard is None:
        yield here.note("tunnel guard", f"none for VNI {tunnel.vni}: packets are taken from anybody", repair(tunnel))
    elif far.vtep not in tunnel.guard:
        yield here.missing("tunnel guard", f"drops what comes from {far.vtep}", repair(tunnel))
    else:
        yield here.ok("tunnel guard", f"packets of {far.vtep} are taken")
    yield from _device(here, tunnel, None)


def _device(here: Place, tunnel: TunnelFacts, source: ContainerFacts | None) -> Iterator[Step]:
    name, device = tunnel.device_name, tunnel.device
    if device is None:
        yield here.missing("VXLAN device", f"{name} is gone", repair(tunnel))
        return
    wanted = (tunnel.vni, tunnel.port, tunnel.local)
    has = (device.vni, device.port, device.local)
    if has != wanted:
        told = "VNI {}, UDP {}, from {}"
        yield here.missing("VXLAN device", f"{name} is {told.format(*has)}, not {told.format(*wanted)}", repair(tunnel))
    if not device.up:
        yield here.missing("VXLAN device", f"{name} is down", f"ip link set {name} up")
    bridge = source.bridge if source is not None else None
    if tunnel.mode != "routed" and bridge is not None and device.master != bridge.index:
        yield here.missing(
            "VXLAN device", f"{name} is no port of {bridge.name}", f"ip link set {name} master {bridge.name}"
        )
    yield here.ok("VXLAN device", f"{name} up, VNI {tunnel.vni}, UDP {tunnel.port}, from {tunnel.local}")


def _partner(here: Place, far: FarFacts, packet: Packet | None) -> Iterator[Step]:
    """The other host as a member of the network."""
    if far.silent:
        yield here.note("record in etcd", f"unknown: {far.silent}", "what etcd says cannot be compared now")
        return
    name = far.name or far.node
    if far.state == DEAD:
        yield here.missing(
            "record in etcd",
            f"host {name} was declared dead: nothing is sent to it or taken from it",
            "if it lives, its agent rejoins by itself, and without one its next ADD does",
        )
    if not far.vtep:
        yield here.missing("record in etcd", f"host {name} is no member of the network", "attach a container there")
    where = f" with {packet.target}" if packet is not None else ""
    yield here.ok(
        "record in etcd", f"host {name}{where} is at {far.vtep}" + (f", block {far.block}" if far.block else "")
    )


def _route(here: Place, host: HostFacts, tunnel: TunnelFacts, far: FarFacts, packet: Packet) -> Iterator[Step]:
    block = far.block or f"the block of {packet.target}"
    if host.out is None or host.out_link is None:
        yield here.missing("route", f"there is none to {block}", repair(tunnel))
        return
    if host.out_link.name != tunnel.device_name:
        yield here.missing(
            "route", f"{packet.target} goes by {host.out_link.name}, not by {tunnel.device_name}", repair(tunnel)
        )
    yield here.ok("route", f"{packet.target} by {tunnel.device_name} via {host.out.gw}")


def _entries(here: Place, tunnel: TunnelFacts, far: FarFacts, packet: Packet) -> Iterator[Step]:
    """The neighbour, bridge and tunnel entries for the other end."""
    name, entry = tunnel.device_name, tunnel.neighbour
    at = str(entry.address) if entry is not None else str(packet.target)
    if entry is None or not entry.mac:
        yield here.missing("neighbour entry", f"{name} has none for {at}", repair(tunnel))
        return
    mac = entry.mac.hex(":")
    if far.mac and mac != far.mac:
        yield here.missing("neighbour entry", f"{name} has {mac} for {at}, etcd says {far.mac}", repair(tunnel))
    yield here.ok("neighbour entry", f"{at} is {mac}")
    if tunnel.mode != "routed":
        yield _behind_device(here, tunnel, mac)
    if not tunnel.vtep:
        yield here.missing("tunnel entry", f"{name} does not know to which host {mac} is", repair(tunnel))
    if far.vtep and tunnel.vtep != far.vtep:
        yield here.missing("tunnel entry", f"{mac} leads to {tunnel.vtep}, its host is at {far.vtep}", repair(tunnel))
    yield here.ok("tunnel entry", f"{mac} is at {tunnel.vtep}")


def _behind_device(here: Place, tunnel: TunnelFacts, mac: str) -> Step:
    """The bridge's entry for *mac*."""
    name, device = tunnel.device_name, tunnel.device
    if tunnel.mac_port == name:
        return here.ok("bridge entry", f"{mac} is behind {name}")
    if tunnel.mac_port:
        return here.missing("bridge entry", f"{mac} leads to {tunnel.mac_port}, not to {name}", repair(tunnel))
    if device is not None and device.port_flags and not device.port_flags[1]:
        found = f"none for {mac}, and frames to unknown MACs do not go to {name}"
        return here.missing("bridge entry", found, repair(tunnel))
    return here.note("bridge entry", f"none for {mac}: frames go to every container, too", repair(tunnel))


def _underlay(here: Place, tunnel: TunnelFacts, far: FarFacts) -> Iterator[Step]:
    to = far.vtep or tunnel.vtep
    if tunnel.underlay is None or tunnel.uplink is None:
        yield here.missing(
            "uplink", f"the host has no route to {to}", "it is the hosts' own network that must lead there"
        )
        return
    link = tunnel.uplink
    if not link.up:
        yield here.missing("uplink", f"{link.name} is down", f"ip link set {link.name} up")
    via = f" via {tunnel.underlay.gw}" if tunnel.underlay.gw else ""
    yield here.ok("uplink", f"{to} by {link.name}{via}, MTU {link.mtu}")


def _sizes(here: Place, source: ContainerFacts, tunnel: TunnelFacts, far: FarFacts) -> Iterator[Step]:
    """Whether full packets fit: smaller ones pass where these are lost, so a ping says nothing about it."""
    device, link, uplink = tunnel.device, source.link, tunnel.uplink
    if device is None or link is None or uplink is None:
        return
    outer = device.mtu + tunnel.overhead
    if outer > uplink.mtu:
        yield here.missing(
            "MTU",
            f"{device.name} takes {device.mtu} bytes, with the tunnel's {tunnel.overhead} that is more than"
            f" the {uplink.mtu} of {uplink.name}",
            f"ip link set {device.name} mtu {uplink.mtu - tunnel.overhead}; {repair(tunnel)}",
        )
    if link.mtu > device.mtu:
        yield here.missing(
            "MTU",
            f"the container sends up to {link.mtu} bytes, {device.name} takes {device.mtu}",
            f"in the container: ip link set {link.name} mtu {device.mtu}; or attach it anew",
        )
    if far.mtu and outer > far.mtu:
        yield here.note(
            "MTU",
            f"packets of {outer} bytes may be too large for the {far.mtu} of the other host",
            'set "mtu" in the network',
        )
    yield here.ok("MTU", f"{link.mtu} in the container, {device.mtu} in the tunnel, {uplink.mtu} outside")


def _state(there: Place, far: FarFacts) -> Iterator[Step]:
    """What the other host says of itself."""
    if far.state == SUSPECT:
        yield there.note("agent", "no sign of life: it ended, or the host is cut off or gone", "look there")
    elif far.state == NO_AGENT:
        found = "none runs there: what was attached elsewhere since that host's last ADD is not known to it"
        yield there.note("agent", found, "start one there: `pycni agent`, or `pycni install --systemd`")
    elif far.state == STARTING:
        yield there.note("agent", "has not said yet what it knows")
    elif far.state == BEHIND:
        yield there.note("agent", f"had not heard of {far.missing} of the network's records when it spoke last")
    elif far.state:
        yield there.ok("agent", "knows what etcd says")
    if far.problems:
        yield there.note("agent", "; ".join(far.problems))
