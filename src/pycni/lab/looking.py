"""What `ps` and `inspect` say of a lab that runs."""

from __future__ import annotations

from typing import Any

from pycni.lab.process import Process
from pycni.lab.running import RunningContainer, RunningHost, RunningLab

Row = tuple[str, str, str, str, str]


def rows(lab: RunningLab) -> list[Row]:
    """(host, container, network, addresses, state), a row for each machine and for each interface of a container."""
    found: list[Row] = []
    for machine in lab.machines.values():
        addresses = " ".join(address for link in machine.links for address in (link.ipv4, link.ipv6) if address)
        segments = " ".join(link.segment for link in machine.links)
        found.append((machine.name, "", segments, addresses, machine_state(lab, machine)))
        for container in machine.containers:
            state = container_state(machine, container)
            if not container.attachments:
                found.append((machine.name, container.name, "", "", state))
            for attachment in container.attachments:
                shown = " ".join(attachment.addresses)
                found.append((machine.name, container.name, attachment.network, shown, state))
        found += [(machine.name, name, "", "", "not attached") for host, name in missing(lab) if host == machine.name]
    return found


def missing(lab: RunningLab) -> list[tuple[str, str]]:
    """Host and name of the file's containers that are not there: not attached yet, or their ADDs were refused."""
    there = {(each.host, each.name) for each in lab.containers}
    wanted = [(each.host, each.name) for each in lab.lab.containers if each.host in lab.machines]
    return [each for each in wanted if each not in there]


def machine_state(lab: RunningLab, machine: RunningHost) -> str:
    """One or two words: on or off, and what should run there."""
    if not machine.holder.alive():
        return "off"
    if machine.role == "etcd":
        return f"etcd {_runs(lab.etcd[machine.name].process)}"
    if machine.role == "router":
        return "router"
    return "no agent" if machine.agent is None else f"agent {_runs(machine.agent)}"


def container_state(machine: RunningHost, container: RunningContainer) -> str:
    if not machine.holder.alive():
        return "off"
    return "attached" if container.process is None else _runs(container.process)


def _runs(process: Process | None) -> str:
    return "runs" if process is not None and process.alive() else "ended"


def as_json(lab: RunningLab) -> dict[str, Any]:
    """Everything that is known, with namespaces as paths of this machine."""
    return {
        "name": lab.name,
        "id": lab.id,
        "phase": lab.phase,
        "created": lab.state["created"],
        "file": lab.state["file"],
        "directory": lab.directory,
        "switch": _process(lab.switch),
        "segments": [
            {**segment.as_dict(), "bridge": lab.state["segments"].get(segment.name)} for segment in lab.lab.segments
        ],
        "networks": list(lab.state["conflists"].values()),
        "etcd": [
            {"name": each.name, "clientURL": each.client_url, "process": _process(each.process)}
            for each in lab.etcd.values()
        ],
        "hosts": [_machine(lab, machine) for machine in lab.machines.values()],
    }


def _machine(lab: RunningLab, machine: RunningHost) -> dict[str, Any]:
    return {
        "name": machine.name,
        "role": machine.role,
        "state": machine_state(lab, machine),
        "holder": _process(machine.holder),
        "namespaces": {kind: machine.namespace(kind) for kind in ("net", "mnt", "uts", "pid")},
        "boots": machine.boots,
        "agent": _process(machine.agent),
        "links": [{key: value for key, value in link.as_dict().items() if key != "host"} for link in machine.links],
        "containers": [_container(machine, container) for container in machine.containers],
    }


def _container(machine: RunningHost, container: RunningContainer) -> dict[str, Any]:
    return {
        "name": container.name,
        "state": container_state(machine, container),
        "netns": container.netns,
        "namespace": machine.file(container.netns),
        "process": _process(container.process),
        "rootfs": container.rootfs,
        "attachments": [{**each.as_dict(), "addresses": list(each.addresses)} for each in container.attachments],
    }


def _process(process: Process | None) -> dict[str, Any] | None:
    return None if process is None else {"pid": process.pid, "alive": process.alive()}
