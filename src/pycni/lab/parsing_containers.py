"""The containers of a lab's file: interfaces, published ports, commands."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping

from pycni.lab.document import Fields, Node, Problems
from pycni.lab.ports import PortSpec, parse_port
from pycni.lab.topology import AttachmentSpec, ContainerSpec, NetworkSpec

IFNAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}\Z")  # IFNAMSIZ is 16 with the final NUL (linux/if.h)


class Containers:
    """Reads entries of containers; *directory* is where relative paths begin."""

    def __init__(self, networks: Mapping[str, NetworkSpec], problems: Problems, directory: str) -> None:
        self.networks = networks
        self.problems = problems
        self.directory = directory

    def read(self, name: str, host: str, fields: Fields) -> ContainerSpec:
        """The container of that entry."""
        command = fields.get("command")
        words: tuple[str, ...] = ()
        if command is not None:
            words = ("/bin/sh", "-c", command.value) if isinstance(command.value, str) else fields.texts("command")
            if isinstance(command.value, tuple) and not words:
                fields.wrong("command", "an empty command cannot be run; leave it out for a container without process")
        rootfs = fields.text("rootfs")
        if rootfs:
            rootfs = os.path.normpath(os.path.join(self.directory, rootfs))
        variables = fields.child("environment")
        return ContainerSpec(
            name=name,
            host=host,
            attachments=self._attachments(fields),
            command=words,
            rootfs=rootfs,
            environment=self._environment(variables) if variables else (),
        )

    def _environment(self, fields: Fields) -> tuple[tuple[str, str], ...]:
        found = []
        for key, node in (fields.node.value if isinstance(fields.node.value, dict) else {}).items():
            if isinstance(node.value, bool) or not isinstance(node.value, str | int | float):
                self.problems.add(node, "must be a text or a number")
            elif not key or "=" in key or "\0" in f"{key}{node.value}":
                self.problems.add(node, "cannot be an environment variable")
            else:
                found.append((key, str(node.value)))
        return tuple(found)

    def _attachments(self, fields: Fields) -> tuple[AttachmentSpec, ...]:
        nodes = fields.items("networks")
        if not fields.has("networks") and len(self.networks) == 1:
            nodes = (Node(next(iter(self.networks)), fields.node.line, fields.node.where),)
        elif not fields.has("networks") and self.networks:
            fields.wrong("networks", f"say which: {', '.join(self.networks)} (or [] for none)")
        found = [self._attachment(node, f"eth{at}") for at, node in enumerate(nodes)]
        names = [each.ifname for each in found]
        if len(set(names)) < len(names):
            fields.wrong("networks", f"two interfaces have the same name: {', '.join(names)}")
        ports = self._ports(fields)
        if ports and not found:
            fields.wrong("ports", "a container without network cannot publish ports")
        elif ports:
            found[0] = found[0].replace(ports=(*found[0].ports, *ports))
        return tuple(found)

    def _attachment(self, node: Node, ifname: str) -> AttachmentSpec:
        if isinstance(node.value, str):
            node = Node({"name": node}, node.line, node.where)
        fields = Fields(node, self.problems)
        name = fields.text("name")
        network = self.networks.get(name)
        if network is None:
            fields.wrong("name", f"there is no network {name!r}; there are {', '.join(self.networks) or 'none'}")
        chosen = fields.text("ifname", ifname)
        if not IFNAME.match(chosen) or chosen == "lo":
            fields.wrong("ifname", f"{chosen!r} cannot be an interface's name: at most 15 letters, digits, _ . -")
        mac = fields.text("mac").lower()
        if mac and not re.match(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}\Z", mac):
            fields.wrong("mac", f"{mac!r} is no MAC address such as 02:00:00:00:00:01")
        made = AttachmentSpec(
            network=name, ifname=chosen, ips=self._ips(fields, network), mac=mac, ports=self._ports(fields)
        )
        fields.finish()
        return made

    def _ips(self, fields: Fields, network: NetworkSpec | None) -> tuple[str, ...]:
        found = []
        for node in fields.items("ips"):
            try:
                address = ipaddress.ip_address(str(node.value))
            except ValueError:
                self.problems.add(node, f"{node.plain!r} is no address")
                continue
            prefix = "" if network is None else network.ipv4 if address.version == 4 else network.ipv6
            if network is not None and (not prefix or address not in ipaddress.ip_network(prefix)):
                self.problems.add(node, f"{address} is not in {prefix or 'any prefix'} of network {network.name}")
                continue
            found.append(str(address))
        return tuple(found)

    def _ports(self, fields: Fields) -> tuple[PortSpec, ...]:
        found = []
        for node in fields.items("ports"):
            try:
                found += parse_port(str(node.value))
            except ValueError as failure:
                self.problems.add(node, str(failure))
        return tuple(found)


def check_ports(fields: Fields, containers: Iterable[ContainerSpec]) -> None:
    """Two containers of one host cannot publish the same port; the plugin would refuse the second at ADD."""
    owners: dict[tuple[str, int, str], str] = {}
    for container in containers:
        for port in (port for each in container.attachments for port in each.ports):
            key = (port.host_ip, port.host_port, port.protocol)
            first = owners.setdefault(key, container.name)
            if first != container.name:
                text = f"{container.name} and {first} both publish {port.host_port}/{port.protocol}"
                fields.wrong("containers", text)
