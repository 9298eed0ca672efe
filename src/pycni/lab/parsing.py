"""The lab's file, read and doubted: everything that is wrong with it in one go, each with line and key."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import TypeVar

from pycni.cni.errors import Code
from pycni.lab.document import Fields, Node, Problems, load
from pycni.lab.errors import NOT_FOUND, USAGE, LabError
from pycni.lab.parsing_containers import Containers, check_ports
from pycni.lab.parsing_underlay import Prefixes, Underlay, read_network
from pycni.lab.state import NAME, NAME_WORDS
from pycni.lab.topology import DEFAULT_MTU, EtcdSpec, HostSpec, Lab, LinkSpec, NetworkSpec

T = TypeVar("T")

CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}\Z")  # CNI's container id, as a file name
STDIN = "/dev/stdin"
FORWARDING = (("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1"))


def read_lab(path: str) -> Lab:
    """The lab in the file *path*. LabError with every error and its line, and where it cannot be read."""
    text = read_text(path)
    stem = os.path.basename(path).split(".")[0].lower().replace("_", "-")
    directory = os.getcwd() if path == STDIN else os.path.dirname(os.path.abspath(path))
    return parse_lab(text, path, default_name=stem, directory=directory)


def read_text(path: str) -> str:
    """What the file *path* holds; LabError where it cannot be read."""
    try:
        if path == STDIN:  # by its name a socket, which ssh gives, cannot be opened
            return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        raise LabError(f"there is no file {path}", exit_code=NOT_FOUND, code=Code.IO) from None
    except OSError as failure:
        raise LabError(f"{path} cannot be read: {failure.strerror}", exit_code=USAGE, code=Code.IO) from None


def parse_lab(text: str, path: str, *, default_name: str = "", directory: str = "/") -> Lab:
    """As `read_lab`, from the file's text; *path* is what errors call it."""
    return lab_of(load(text, path), Problems(path), default_name=default_name, directory=directory)


def lab_of(node: Node, problems: Problems, *, default_name: str = "", directory: str = "/") -> Lab:
    """The lab in a node of any document (a scenario may hold one). LabError with every error."""
    lab = _Parser(Fields(node, problems), default_name, directory).lab()
    problems.check()
    return lab.replace(document={**node.plain, "name": lab.name})


class _Parser:
    def __init__(self, top: Fields, default_name: str, directory: str) -> None:
        self.top = top
        self.problems = top.problems
        self.default_name = default_name
        self.directory = directory
        underlay = top.node.value.get("underlay") if isinstance(top.node.value, dict) else None
        alone = underlay is None or not isinstance(underlay.value, dict) or len(underlay.value) == 1
        self.prefixes = Prefixes()
        self.underlay = Underlay(self.prefixes, self.problems, alone=alone)
        self.networks: dict[str, NetworkSpec] = {}
        self.names: dict[str, str] = {}  # of machines, and what they are

    def lab(self) -> Lab:
        name = self.top.text("name", self.default_name)
        if not NAME.match(name):
            self.top.wrong("name", f"{name!r} cannot be a lab's name: {NAME_WORDS}")
        self._entries(self.top, "underlay", self.underlay.segment)
        if not self.top.has("underlay"):
            self.underlay.add_default()
        elif not self.underlay.segments:
            self.top.wrong("underlay", "needs a segment")
        etcd = self._etcd()
        networks = self._entries(self.top, "networks", lambda name, fields: read_network(self.prefixes, name, fields))
        self.networks = {each.name: each for each in networks}
        if etcd is None:
            for network in self.networks.values():
                if network.type == "overlay" and network.mode != "multicast":
                    self.top.wrong(
                        "networks",
                        f"{network.name} is an overlay of mode {network.mode}, which needs etcd: add `etcd: {{}}`",
                    )
        routers = self._entries(self.top, "routers", self._router)
        hosts = self._entries(self.top, "hosts", self._host)
        if not hosts:
            self.top.wrong("hosts", "a lab needs a host")
        if etcd is None:
            self._check_multicast(hosts)
        self.top.finish()
        return Lab(
            name=name,
            segments=tuple(self.underlay.segments.values()),
            hosts=tuple(hosts),
            routers=tuple(routers),
            etcd=etcd,
            networks=self._with_ports(hosts),
            directory=self.directory,
        )

    def _entries(self, fields: Fields, key: str, parse: Callable[[str, Fields], T]) -> list[T]:
        found = []
        for name, node in fields.numbered(key):
            if not NAME.match(name):
                self.problems.add(node, f"{name!r} cannot be a name: {NAME_WORDS}")
                continue
            entry = Fields(node, self.problems)
            found.append(parse(name, entry))
            entry.finish()
        return found

    # -- machines ------------------------------------------------------------------------------------------------------

    def _machine_name(self, name: str, kind: str, fields: Fields) -> None:
        first = self.names.setdefault(name, kind)
        if first != kind:
            self.problems.add(fields.node, f"{name!r} is already the name of {first}")

    def _router(self, name: str, fields: Fields) -> HostSpec:
        self._machine_name(name, "a router", fields)
        links = self.underlay.links(fields, name, least=2)
        return HostSpec(name=name, role="router", links=links, sysctls=(*FORWARDING, *self._sysctls(fields)))

    def _host(self, name: str, fields: Fields) -> HostSpec:
        self._machine_name(name, "a host", fields)
        parser = Containers(self.networks, self.problems, self.directory)
        containers = []
        for container, node in fields.numbered("containers"):
            if not CONTAINER_NAME.match(container):
                self.problems.add(node, f"{container!r} cannot be a container's name: letters, digits, _ . -")
                continue
            entry = Fields(node, self.problems)
            containers.append(parser.read(container, name, entry))
            entry.finish()
        check_ports(fields, containers)
        agent = fields.get("agent")
        keys = agent is not None and isinstance(agent.value, dict)
        return HostSpec(
            name=name,
            role="host",
            links=self.underlay.links(fields, name),
            sysctls=self._sysctls(fields),
            containers=tuple(containers),
            agent=keys or fields.flag("agent", True),
            agent_config=tuple(agent.plain.items()) if agent is not None and keys else (),
        )

    def _sysctls(self, fields: Fields) -> tuple[tuple[str, str], ...]:
        child = fields.child("sysctls")
        found = []
        for key, node in (child.node.value or {}).items() if child and isinstance(child.node.value, dict) else ():
            if not re.match(r"net[./][a-zA-Z0-9_./-]+\Z", key) or ".." in key:
                self.problems.add(node, "only sysctls of the network (net.…) belong to a host")
            elif isinstance(node.value, str | int) and not isinstance(node.value, bool) and "\n" not in str(node.value):
                found.append((key, str(node.value)))
            else:
                self.problems.add(node, "must be a number or a text")
        return tuple(found)

    def _etcd(self) -> EtcdSpec | None:
        fields = self.top.child("etcd")
        if fields is None:
            return None
        segments = self.underlay.segments
        members = fields.integer("members", 1, 5, 1)
        if members % 2 == 0:
            fields.wrong("members", f"{members} members bear no more failures than {members - 1}: 1, 3 or 5")
        prefix = fields.text("prefix", "/pycni")
        if not re.match(r"(/[a-zA-Z0-9_.-]+)+\Z", prefix):
            fields.wrong("prefix", f"{prefix!r} is no prefix such as /pycni/blue")
        segment = fields.text("segment", next(iter(segments), ""))
        if segment not in segments:
            fields.wrong("segment", f"there is no segment {segment!r}; there are {', '.join(segments) or 'none'}")
        hosts = []
        for number in range(1, members + 1):
            name = f"etcd{number}"
            self.names[name] = "a host of etcd"
            mtu = segments[segment].mtu if segment in segments else DEFAULT_MTU
            link = LinkSpec(segment=segment, ifname="eth0", mtu=mtu)
            hosts.append(HostSpec(name=name, role="etcd", links=(link,)))
        made = EtcdSpec(members=members, tls=fields.flag("tls", False), prefix=prefix, hosts=tuple(hosts))
        fields.finish()
        return made

    def _check_multicast(self, hosts: list[HostSpec]) -> None:
        """Without etcd each host allocates by itself, and two would give the same address."""
        for network in self.networks.values():
            if network.mode != "multicast" or network.type != "overlay":
                continue
            users = [
                container
                for host in hosts
                for container in host.containers
                if any(each.network == network.name and not each.ips for each in container.attachments)
            ]
            if len({container.host for container in users}) > 1:
                text = f"containers of several hosts share {network.name}, and nobody tells their addresses apart"
                self.top.wrong("networks", f"{text}: give each `ips` ({users[0].path} has none), or add `etcd: {{}}`")

    def _with_ports(self, hosts: list[HostSpec]) -> tuple[NetworkSpec, ...]:
        published = {
            attachment.network
            for host in hosts
            for container in host.containers
            for attachment in container.attachments
            if attachment.ports
        }
        return tuple(
            each.replace(ports=True) if each.name in published and not each.ports else each
            for each in self.networks.values()
        )
