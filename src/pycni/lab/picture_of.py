"""A lab that runs, as the values that its picture and its ping matrix are made from."""

from __future__ import annotations

from pycni.lab.faults import Fault, faults_in, note, told
from pycni.lab.picture import Picture, PictureContainer, PictureHost, PictureNetwork, Plug, Segment, Station, Wire
from pycni.lab.ports import PortSpec
from pycni.lab.running import EtcdMember, RunningAttachment, RunningContainer, RunningHost, RunningLab
from pycni.lab.topology import NetworkSpec
from pycni.lab.topology import Segment as SegmentSpec


def picture_of(lab: RunningLab) -> Picture:
    """Everything that there is now, with what is broken."""
    faults, members = faults_in(lab.state), lab.etcd
    wanted = lab.lab
    machines = lab.machines
    stations = [
        Station(each.name, each.role, _wires(each, faults), _trouble(each, members))
        for each in machines.values()
        if each.role != "host"
    ]
    return Picture(
        lab.name,
        tuple(_segment(each) for each in wanted.segments),
        tuple(stations),
        tuple(_host(each, lab, faults) for each in machines.values() if each.role == "host"),
        tuple(_network(each) for each in wanted.networks),
        tuple(told(each) for each in faults if each.kind == "split"),
    )


def _segment(spec: SegmentSpec) -> Segment:
    return Segment(spec.name, tuple(filter(None, (spec.ipv4, spec.ipv6, f"mtu {spec.mtu}"))))


def _network(spec: NetworkSpec) -> PictureNetwork:
    kind = f"overlay, {spec.mode}" if spec.type == "overlay" else spec.type
    vni = f"vni {spec.vni}" if spec.vni else ""
    words = tuple(filter(None, (kind, spec.ipv4, spec.ipv6, vni)))
    isolated = spec.config.get("isolate", False) is True
    return PictureNetwork(spec.name, words, spans=spec.type == "overlay", isolated=isolated)


def _wires(machine: RunningHost, faults: tuple[Fault, ...]) -> tuple[Wire, ...]:
    wires = []
    for link in machine.links:
        mine = [each for each in faults if (each.host, each.ifname) == (link.host, link.ifname)]
        addresses = tuple(filter(None, (link.ipv4, link.ipv6)))
        notes = tuple(filter(None, map(note, mine)))
        wires.append(Wire(link.segment, link.ifname, addresses, notes, any(each.kind == "cut" for each in mine)))
    return tuple(wires)


def _trouble(machine: RunningHost, members: dict[str, EtcdMember]) -> str:
    if not machine.holder.alive():
        return "off"
    member = members.get(machine.name)
    if member is not None and (member.process is None or not member.process.alive()):
        return "etcd is down"
    return ""


def _host(machine: RunningHost, lab: RunningLab, faults: tuple[Fault, ...]) -> PictureHost:
    spec = lab.lab.machine(machine.name)
    if machine.agent is not None and machine.agent.alive():
        words, trouble = "agent runs", ""
    elif spec is not None and spec.agent:
        words, trouble = "", "agent is down"
    else:
        words, trouble = "no agent", ""
    containers = tuple(_container(each, lab) for each in machine.containers)
    return PictureHost(machine.name, _wires(machine, faults), containers, words, _trouble(machine, {}) or trouble)


def _container(container: RunningContainer, lab: RunningLab) -> PictureContainer:
    host = lab.lab.machine(container.host)
    spec = host.container(container.name) if host is not None else None
    plugs = []
    for attachment in container.attachments:
        asked = [each for each in spec.attachments if each.ifname == attachment.ifname] if spec else []
        ports = tuple(_port(port) for each in asked for port in each.ports)
        plugs.append(Plug(attachment.network, attachment.ifname, _addresses(attachment), ports))
    missing = [each for each in spec.attachments if each.ifname not in {plug.ifname for plug in plugs}] if spec else []
    plugs += [Plug(each.network, each.ifname) for each in missing]
    ended = container.process is not None and not container.process.alive()
    words = " ".join(spec.command) if spec else ""
    return PictureContainer(container.name, tuple(plugs), "ended" if ended else "", words)


def _addresses(attachment: RunningAttachment) -> tuple[str, ...]:
    return tuple(address.partition("/")[0] for address in attachment.addresses)


def _port(port: PortSpec) -> str:
    """ "8080→80/tcp" as the edges have it."""
    host_ip = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    before = f"{host_ip}:" if host_ip else ""
    return f"{before}{port.host_port}→{port.container_port}/{port.protocol}"
