"""What runs, as values, and how the state has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pycni.cni.value import Value
from pycni.lab.process import Process
from pycni.lab.topology import HostSpec


class RunningLink(Value):
    """A host's cable: *ifname* in the host, *port* in the switch's namespace (`RunningLab.switch`).

    *bridge* is the segment's bridge there. Addresses are without length, "" for a family that the segment lacks.
    """

    host: str
    segment: str
    ifname: str
    port: str
    bridge: str
    ipv4: str
    ipv6: str
    mtu: int


class RunningAttachment(Value):
    """What ADD answered: *addresses* have their length."""

    network: str
    ifname: str
    addresses: tuple[str, ...]
    mac: str


class RunningContainer(Value):
    """*netns* is the path on its host (CNI_NETNS); *process* runs its command, None if it has none."""

    name: str
    host: str
    netns: str
    process: Process | None
    rootfs: str
    attachments: tuple[RunningAttachment, ...]

    @property
    def path(self) -> str:
        return f"{self.host}/{self.name}"


class RunningHost(Value):
    """A machine; *holder* is the init of its PID namespace, and every process there ends with it."""

    name: str
    role: str  # "host", "etcd" or "router"
    holder: Process
    boots: int  # how often it was started
    agent: Process | None  # None: not wanted, or never started
    links: tuple[RunningLink, ...]
    containers: tuple[RunningContainer, ...]

    def namespace(self, kind: str = "net") -> str:
        """Where this machine (the real one) finds its namespace: "net", "mnt", "uts" or "pid"."""
        return f"/proc/{self.holder.pid}/ns/{kind}"

    def file(self, path: str) -> str:
        """Where this machine finds the file that the host calls *path* (absolute). Links to / leave the host."""
        return f"/proc/{self.holder.pid}/root{path}"


class EtcdMember(Value):
    """A member of the lab's etcd, on the host of the same name."""

    name: str
    process: Process | None  # None: stopped by a command
    client_url: str
    peer_url: str

    @property
    def host(self) -> str:
        return self.name


def machine_of(name: str, raw: Mapping[str, Any]) -> RunningHost:
    """A machine from the state."""
    holder = Process.from_json(raw["holder"])
    assert holder is not None
    return RunningHost(
        name=name,
        role=raw["role"],
        holder=holder,
        boots=raw["boots"],
        agent=Process.from_json(raw.get("agent")),
        links=tuple(RunningLink(host=name, **link) for link in raw["links"]),
        containers=tuple(_container(name, key, each) for key, each in raw["containers"].items()),
    )


def member_of(name: str, raw: Mapping[str, Any]) -> EtcdMember:
    """A member of etcd from the state."""
    process = Process.from_json(raw.get("process"))
    return EtcdMember(name=name, process=process, client_url=raw["client_url"], peer_url=raw["peer_url"])


def machine_state(spec: HostSpec, holder: Process, links: Sequence[RunningLink]) -> dict[str, Any]:
    """What the state says of a machine that was just made."""
    kept = [{key: value for key, value in link.as_dict().items() if key != "host"} for link in links]
    return {
        "role": spec.role,
        "holder": holder.as_json(),
        "boots": 1,
        "agent": None,
        "links": kept,
        "routes": [],
        "containers": {},
    }


def _container(host: str, name: str, raw: Mapping[str, Any]) -> RunningContainer:
    attachments = tuple(
        RunningAttachment(
            network=each["network"], ifname=each["ifname"], addresses=tuple(each["addresses"]), mac=each["mac"]
        )
        for each in raw["attachments"]
    )
    return RunningContainer(
        name=name,
        host=host,
        netns=raw["netns"],
        process=Process.from_json(raw.get("process")),
        rootfs=raw.get("rootfs", ""),
        attachments=attachments,
    )
