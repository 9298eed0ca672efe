"""Who publishes ports in bench/portmap.py: a chain of CNI plugins (pycni's, the reference's), or netavark.

All of them attach a container to a bridge with a gateway, masquerading, one IPv4 address and the ports it publishes.
A runtime that uses netavark chooses addresses itself, so here the address is given.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.sides import PATH, Outcome, Plugins, Side, network, with_result
from netns_fixtures import Host

NETAVARK = "/usr/lib/podman/netavark"
CONTAINER_PORT = 80
MEASURED_PORTS = 10_000  # those of the measured container begin here
EXISTING_PORTS = 40_000  # and those of the others here
ADDRESS = "10.88.0.2"


class Taken(NamedTuple):
    """Seconds of one attachment or detachment: the calls of a chain together, without what lies between them."""

    wall: float
    cpu: float


class Ports(NamedTuple):
    """What a container publishes: *size* single ports from *first* on, or one range of as many."""

    label: str
    size: int
    first: int = MEASURED_PORTS
    is_range: bool = False

    def cni(self) -> list[dict[str, Any]]:
        """The capability argument `portMappings`; the range is pycni's own key."""
        if self.is_range:
            last = self.first + self.size - 1
            return [{"hostPort": self.first, "hostPortEnd": last, "containerPort": self.first, "protocol": "tcp"}]
        return [
            {"hostPort": self.first + at, "containerPort": CONTAINER_PORT + at, "protocol": "tcp"}
            for at in range(self.size)
        ]

    def netavark(self) -> list[dict[str, Any]]:
        common = {"host_ip": "", "protocol": "tcp", "range": 1}
        return [
            {"host_port": self.first + at, "container_port": CONTAINER_PORT + at, **common} for at in range(self.size)
        ]


class Chain:
    """bridge and portmap, called one after the other as libcni does."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.bridge = network(masquerade=True)
        self.portmap = {"cniVersion": self.bridge["cniVersion"], "name": self.bridge["name"], "type": "portmap"}
        self._results: dict[str, str] = {}  # of the whole chain, by container

    def attach(self, container: str, ports: Ports) -> Taken:
        return _together(self.add(container, ports))

    def detach(self, container: str, ports: Ports) -> Taken:
        return _together(self.delete(container, ports))

    def add(self, container: str, ports: Ports) -> list[Outcome]:
        """ADD of bridge, then of portmap."""
        first = self._call("ADD", self.bridge, container)
        second = self._call("ADD", with_result(self._publishing(ports), first.stdout), container)
        self._results[container] = second.stdout
        return [first, second]

    def delete(self, container: str, ports: Ports) -> list[Outcome]:
        """DEL of portmap, then of bridge."""
        result = self._results.pop(container)
        confs = [with_result(conf, result) for conf in (self._publishing(ports), self.bridge)]
        return [self._call("DEL", conf, container) for conf in confs]

    def _call(self, command: str, conf: dict[str, Any], container: str) -> Outcome:
        return self.side.call(self.side.request(command, conf, container))

    def _publishing(self, ports: Ports) -> dict[str, Any]:
        return {**self.portmap, "capabilities": {"portMappings": True}, "runtimeConfig": {"portMappings": ports.cni()}}

    def populate(self, names: Sequence[str], first_port: int, workers: int) -> None:
        """Containers that stay, with one port each; the bridges of all, then the ports of all."""
        bursts = self.side.burst([self.side.request("ADD", self.bridge, name) for name in names], workers)
        publishing = [
            self.side.request("ADD", with_result(self._publishing(Ports("", 1, first_port + at)), call.stdout), name)
            for at, (name, call) in enumerate(zip(names, bursts.calls, strict=True))
        ]
        # The first alone: the reference's portmap fails where two make its chains at the same moment.
        first = self.side.burst(publishing[:1], 1)
        for call in [*bursts.calls, *first.calls, *self.side.burst(publishing[1:], workers).calls]:
            if call.rc:
                raise RuntimeError(f"{self.side.name}: {call.stdout}{call.stderr}")


class Netavark:
    """What podman 4 and later call: one program for bridge and ports, told by JSON on stdin."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def attach(self, container: str, ports: Ports) -> Taken:
        return self._call("setup", container, ports)

    def detach(self, container: str, ports: Ports) -> Taken:
        return self._call("teardown", container, ports)

    def _call(self, do: str, container: str, ports: Ports) -> Taken:
        told = {
            "container_id": container,
            "container_name": container,
            "port_mappings": ports.netavark(),
            "networks": {"bench": {"static_ips": [ADDRESS], "interface_name": "eth0"}},
            "network_info": {
                "bench": {
                    "name": "bench",
                    "id": "be" * 32,
                    "driver": "bridge",
                    "network_interface": "bench0",
                    "subnets": [{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}],
                    "ipv6_enabled": False,
                    "internal": False,
                    "dns_enabled": False,
                    "ipam_options": {"driver": "host-local"},
                    "options": {},
                }
            },
        }
        argv = [NETAVARK, "--config", "/run/netavark", do, f"/run/netns/{container}"]
        env = {"PATH": PATH, "CNI_COMMAND": do}
        return _together([self.side.call({"argv": argv, "env": env, "stdin": json.dumps(told)})])


Party = Chain | Netavark


def netavark_plugins(host: Host) -> Plugins:
    """netavark and a directory for its state; FileNotFoundError names the package."""
    if not os.access(NETAVARK, os.X_OK):
        raise FileNotFoundError(f"no {NETAVARK}: install netavark")
    host.run(["mkdir", "-p", "/run/netavark"])
    return Plugins(os.path.dirname(NETAVARK))


def _together(outcomes: Sequence[Outcome]) -> Taken:
    return Taken(sum(one.wall for one in outcomes), sum(one.cpu for one in outcomes))
