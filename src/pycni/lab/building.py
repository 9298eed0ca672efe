"""Carrying out the steps of a plan: machines, etcd, networks, agents, containers; what is made is noted at once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

from pycni.lab import clearing, cluster, daemons, hosts, removal
from pycni.lab.addressing import Route, routes
from pycni.lab.conflist import CONF_DIR, conflist, conflist_path, group_of
from pycni.lab.installing import Installation
from pycni.lab.machines import machine_state
from pycni.lab.plan import PHASES, Step
from pycni.lab.populating import Containers
from pycni.lab.progress import Progress
from pycni.lab.running import RunningLab
from pycni.lab.topology import HostSpec, Lab

NODE_TTL_S = 3  # a lab's hosts are rebooted in no time, and one whose old lease lives on has to wait for its end


class Builder:
    """One lab, and what it is to become: *want* is addressed."""

    def __init__(self, lab: RunningLab, want: Lab, progress: Progress) -> None:
        self.lab = lab
        self.want = want
        self.progress = progress
        self.containers = Containers(lab, want, progress)
        self._members: dict[str, float] = {}  # that were started and are not known to be healthy: when

    def carry_out(self, steps: Sequence[Step]) -> None:
        """All steps, phase by phase. LabError, OSError or KeyboardInterrupt leave what was done so far, noted."""
        self.progress.expect([step.kind for step in steps if step.verb != "remove"])
        hosts.prepare(self.lab)
        if self.lab.switch is None:
            self._start_switch()
        ways = {
            ("remove", "container"): self.containers.remove,
            ("stop", "agent"): self.stop_agents,
            ("remove", "host"): self.remove_machines,
            ("remove", "segment"): self.remove_segments,
            ("add", "segment"): self.add_segments,
            ("add", "host"): self.add_machines,
            ("change", "routes"): self.change_routes,
            ("start", "etcd"): self.start_members,
            ("remove", "network"): self.remove_networks,
            ("add", "network"): self.add_networks,
            ("start", "agent"): self.start_agents,
            ("add", "container"): self.containers.add,
        }
        assert ways.keys() == set(PHASES)
        installation = Installation(self.lab)
        try:
            for phase in PHASES:
                names = [step.name for step in steps if (step.verb, step.kind) == phase]
                if phase == ("add", "container"):
                    self._wait_for_members()
                    installation.finish()
                if names:
                    began = time.monotonic()
                    ways[phase](names)
                    if phase[0] == "add":
                        self.progress.spend(phase[1], len(names), time.monotonic() - began)
                if phase == ("add", "host"):
                    installation.begin()
        finally:
            installation.end()
        self.progress.end()

    # -- underlay ------------------------------------------------------------------------------------------------------

    def _start_switch(self) -> None:
        starting = hosts.start_switch(self.lab)
        with self.lab.changing() as state:
            state["switch"] = starting.process.as_json()
        starting.ready()

    def add_segments(self, names: Iterable[str]) -> None:
        wanted = [self.want.segment(name) for name in names]
        began = time.monotonic()
        there = hosts.bridges(self.lab)  # of a change that failed behind this step
        with self.lab.changing() as state:
            known, numbers = state["segments"], len(state["segments"])
            made = [
                (each, known.get(each.name) or hosts.bridge_name(each.name, numbers + at))
                for at, each in enumerate(wanted)
            ]
            known |= {each.name: bridge for each, bridge in made}
        hosts.add_bridges(self.lab, [(each, bridge) for each, bridge in made if bridge not in there])
        for each, _ in made:
            shown = " ".join(prefix for prefix in (each.ipv4, each.ipv6) if prefix)
            self.progress.done("segment", each.name, time.monotonic() - began, shown)

    def remove_segments(self, names: Iterable[str]) -> None:
        with self.lab.changing() as state:
            gone = [state["segments"].pop(name) for name in names if name in state["segments"]]
        hosts.remove_bridges(self.lab, gone)

    def change_routes(self, names: Iterable[str]) -> None:
        for name in names:
            new = routes(self.want, self._spec(name))
            with self.progress.doing("routes", name), self.lab.changing() as state:
                old = [Route(prefix=prefix, via=via) for prefix, via in state["machines"][name]["routes"]]
                hosts.change_routes(self.lab, name, old, new)
                state["machines"][name]["routes"] = [[each.prefix, each.via] for each in new]

    # -- machines ------------------------------------------------------------------------------------------------------

    def add_machines(self, names: Sequence[str]) -> None:
        """Make machines, or start those that are off: their files are kept, their containers are not."""
        began = time.monotonic()
        specs = [self._spec(name) for name in names]
        for name in names:
            if name in self.lab.machines:  # what is left of it would keep its cables
                removal.end_machine(self.lab, name)
                hosts.remove_ports(self.lab, [link.port for link in self.lab.machine(name).links])
        hosts.write_names(self.lab, self.want.machines)
        if self.want.etcd:
            cluster.provide_certificates(self.lab, self.want.etcd)
        starting = [(spec, hosts.start_machine(self.lab, spec)) for spec in specs]
        with self.lab.changing() as state:
            number = 1 + max((each["number"] for each in state["machines"].values()), default=0)
            for at, (spec, started) in enumerate(starting):
                before = state["machines"].get(spec.name, {})
                mine = before.get("number", number + at)
                made = machine_state(spec, started.process, hosts.planned_links(spec, state["segments"], mine))
                made |= {"boots": before.get("boots", 0) + 1, "number": mine}
                made["routes"] = [[each.prefix, each.via] for each in routes(self.want, spec)]
                state["machines"][spec.name] = made
        for _, started in starting:
            started.ready()
        machines = self.lab.machines
        hosts.add_cables(self.lab, [(machines[name].holder, machines[name].links) for name in names])
        lengths = {each.name: (_length(each.ipv4), _length(each.ipv6)) for each in self.want.segments}
        for spec in specs:
            hosts.set_of_links(self.lab, spec)
            hosts.configure(self.lab, spec.name, machines[spec.name].links, routes(self.want, spec), lengths)
            cluster.place_certificates(self.lab, spec.name)
            addresses = (address for link in spec.links for address in (link.ipv4, link.ipv6) if address)
            self.progress.done("host", spec.name, (time.monotonic() - began) / len(specs), " ".join(addresses))
        self._write_conflists(specs, [each.name for each in self.want.networks])

    def remove_machines(self, names: Iterable[str]) -> None:
        for name in names:
            with self.progress.doing("remove", name):
                removal.end_machine(self.lab, name)
                kept = self.want.machine(name) is not None
                with self.lab.changing() as state:
                    ports = [link["port"] for link in state["machines"][name]["links"]]
                    if not kept:
                        del state["machines"][name]
                hosts.remove_ports(self.lab, ports)
                if not kept:
                    hosts.remove_machine_files(self.lab, name)

    def start_members(self, names: Sequence[str]) -> None:
        """They elect a leader while agents start; `_wait_for_members` says when that is done."""
        for name in names:
            daemons.start_member(self.lab, name, wait=False)
            self._members[name] = time.monotonic()

    def _wait_for_members(self) -> None:
        alone = len([each for each in self.lab.etcd.values() if each.process is not None and each.process.alive()])
        if 2 * alone <= len(self.lab.etcd):
            return  # a host of a minority was booted: it becomes healthy when the others are there
        for name, began in self._members.items():
            cluster.wait_healthy(self.lab, name)
            self.progress.done("etcd", name, time.monotonic() - began, self.lab.etcd[name].client_url)
        self._members = {}

    # -- networks and agents -------------------------------------------------------------------------------------------

    def add_networks(self, names: Sequence[str]) -> None:
        began = time.monotonic()
        with self.lab.changing() as state:
            before = [state["conflists"][name] for name in names if name in state["conflists"]]
            for name in names:
                state["conflists"][name] = self._conflist(name)
        self._write_conflists(self.want.hosts, names)
        clearing.remove_bridges(self.lab, before)
        for name in names:
            kinds = [plugin["type"] for plugin in self.lab.state["conflists"][name]["plugins"]]
            self.progress.done("network", name, (time.monotonic() - began) / len(names), " ".join(kinds))

    def remove_networks(self, names: Sequence[str]) -> None:
        known = self.lab.state["conflists"]
        before = [known[name] for name in names if name in known]
        clearing.forget_records(self.lab, before)
        with self.lab.changing() as state:
            for name in names:
                state["conflists"].pop(name, None)
        for host in self.want.hosts:
            for name in names:
                path = self._conflist_file(host.name, name)
                if os.path.exists(path):
                    os.unlink(path)
        clearing.remove_bridges(self.lab, before)

    def _write_conflists(self, machines: Iterable[HostSpec], names: Iterable[str]) -> None:
        for name in names:
            text = json.dumps(self._conflist(name), indent=2) + "\n"
            for machine in machines:
                if machine.role == "host":
                    path = self._conflist_file(machine.name, name)
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "w", encoding="utf-8") as file:
                        file.write(text)

    def _conflist(self, name: str) -> dict[str, Any]:
        network = self.want.network(name)
        assert network is not None
        return conflist(network, self.lab.etcd_connection, group_of(self.want))

    def _conflist_file(self, machine: str, network: str) -> str:
        inside = conflist_path(network).removeprefix("/etc/cni/")
        assert CONF_DIR.startswith("/etc/cni/")
        return os.path.join(hosts.machine_directory(self.lab, machine), "etc-cni", inside)

    def stop_agents(self, names: Iterable[str]) -> None:
        for name in names:
            daemons.stop_agent(self.lab, name)
            with self.lab.changing() as state:
                state["machines"][name]["agent"] = None

    def start_agents(self, names: Sequence[str]) -> None:
        began = time.monotonic()
        started = {}
        with self.lab.changing() as state:
            for name in names:
                own = {"node_ttl_s": NODE_TTL_S} if self.want.etcd else {}
                daemons.configure_agent(self.lab, name, {**own, **dict(self._spec(name).agent_config)})
                started[name] = agent = daemons.spawn_agent(self.lab, name)
                state["machines"][name]["agent"] = agent.as_json()
        for name, agent in started.items():
            daemons.wait_agent(self.lab, name, agent)
            self.progress.done("agent", name, (time.monotonic() - began) / len(names))

    def _spec(self, name: str) -> HostSpec:
        spec = self.want.machine(name)
        assert spec is not None, name
        return spec


def _length(prefix: str) -> int:
    return int(prefix.rpartition("/")[2]) if prefix else 0
