"""A lab as its file describes it, as values; `parsing` reads the file.

Addresses that the file leaves open are "" here; `addressing` chooses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pycni.cni.value import Value
from pycni.lab.ports import PortSpec

DEFAULT_MTU = 1500


class Segment(Value):
    """One layer-2 network of the underlay: a switch. "" for a family that it does not have."""

    name: str
    ipv4: str = ""  # prefix
    ipv6: str = ""
    mtu: int = DEFAULT_MTU  # bytes, IP header included


class LinkSpec(Value):
    """A host's cable to a segment; its interface is eth0 for the first, eth1 for the second, …"""

    segment: str
    ifname: str
    ipv4: str = ""  # address without length; "": chosen, if the segment has that family
    ipv6: str = ""
    mtu: int = DEFAULT_MTU


class AttachmentSpec(Value):
    """A container's interface on a pycni network."""

    network: str
    ifname: str
    ips: tuple[str, ...] = ()  # asked for; (): what IPAM gives
    mac: str = ""
    ports: tuple[PortSpec, ...] = ()


class ContainerSpec(Value):
    """A network namespace on a host, with a process if there is a *command*."""

    name: str
    host: str
    attachments: tuple[AttachmentSpec, ...] = ()
    command: tuple[str, ...] = ()
    rootfs: str = ""  # absolute directory; "": it sees the host's files
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> str:
        """How people name it: HOST/CONTAINER."""
        return f"{self.host}/{self.name}"


class HostSpec(Value):
    """A machine of the lab. *role*: "host" (containers, agent), "etcd" (one member) or "router"."""

    name: str
    role: str
    links: tuple[LinkSpec, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    containers: tuple[ContainerSpec, ...] = ()
    agent: bool = False
    agent_config: tuple[tuple[str, Any], ...] = ()  # keys of /etc/pycni/agent.toml

    def container(self, name: str) -> ContainerSpec | None:
        return next((each for each in self.containers if each.name == name), None)


Router = HostSpec


class EtcdSpec(Value):
    """The lab's etcd: *members* of it on hosts etcd1, etcd2, … of their own."""

    members: int = 1
    tls: bool = False
    prefix: str = "/pycni"  # of pycni's keys
    hosts: tuple[HostSpec, ...] = ()


class NetworkSpec(Value):
    """A pycni network, which every host of the lab is configured with."""

    name: str
    type: str = "bridge"
    mode: str = "l2"  # of an overlay
    ipv4: str = ""
    ipv6: str = ""
    vni: int = 0  # 0: allocated in etcd
    ports: bool = False  # pycni-portmap is chained
    config: Mapping[str, Any] = {}  # further keys of the plugin, as they are

    __hash__ = None  # type: ignore[assignment]  # config is a dict


class Lab(Value):
    """The whole file. *document* is the file as JSON has it: what is kept of a lab that runs."""

    name: str
    segments: tuple[Segment, ...]
    hosts: tuple[HostSpec, ...]
    routers: tuple[HostSpec, ...] = ()
    etcd: EtcdSpec | None = None
    networks: tuple[NetworkSpec, ...] = ()
    document: Mapping[str, Any] = {}
    directory: str = "/"  # of the file: where relative paths begin

    __hash__ = None  # type: ignore[assignment]

    @property
    def machines(self) -> tuple[HostSpec, ...]:
        """Routers, etcd's hosts and hosts, in the order in which they are started."""
        return (*self.routers, *(self.etcd.hosts if self.etcd else ()), *self.hosts)

    @property
    def containers(self) -> tuple[ContainerSpec, ...]:
        return tuple(container for host in self.hosts for container in host.containers)

    def segment(self, name: str) -> Segment:
        return next(each for each in self.segments if each.name == name)

    def machine(self, name: str) -> HostSpec | None:
        return next((each for each in self.machines if each.name == name), None)

    def network(self, name: str) -> NetworkSpec | None:
        return next((each for each in self.networks if each.name == name), None)
