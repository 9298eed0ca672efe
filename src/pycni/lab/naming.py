"""The names and values of a scenario's file, each checked where it stands: is there such a host, link, container?"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Callable, Iterable

from pycni.lab.document import Fields, Node, Problems
from pycni.lab.topology import Lab

_SPAN = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)\s*(?P<unit>ms|s|m)?\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}
LONGEST_S = 600.0


def parse_span(text: str) -> float:
    """Seconds of "5s", "200ms", "1m" or "3"; ValueError in words."""
    match = _SPAN.match(text)
    seconds = float(match["number"]) * _SECONDS[match["unit"]] if match else -1.0
    if not 0 <= seconds <= LONGEST_S:
        raise ValueError(f"{text!r} is no time such as 5s, 200ms or 1m, of at most 10 minutes")
    return seconds


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names that a pattern means: `h1/*` containers, `h*` hosts; `*` does not stand for a slash."""
    parts = pattern.split("/")
    return [
        name
        for name in names
        if len(own := name.split("/")) == len(parts) and all(map(fnmatch.fnmatchcase, own, parts))
    ]


class Known:
    """What the scenario may speak of: everything, where *lab* is None because the file does not say which it is."""

    def __init__(self, problems: Problems, lab: Lab | None) -> None:
        self.problems = problems
        self.lab = lab

    def checked(self, node: Node, parse: Callable[[str], float], default: float) -> float:
        """What *parse* makes of the text, or *default* with the error noted."""
        try:
            return parse(str(node.value))
        except ValueError as failure:
            self.problems.add(node, str(failure))
            return default

    def span(self, fields: Fields, key: str, default: float) -> float:
        """What *parse* makes of the text, or *default* with the error noted."""
        node = fields.get(key)
        return default if node is None else self.checked(node, parse_span, default)

    def family(self, fields: Fields) -> int:
        family = fields.integer("family", 4, 6, 0)
        if family == 5:
            fields.wrong("family", "is 4 or 6")
        return family

    def command(self, fields: Fields) -> tuple[str, ...]:
        node = fields.get("command")
        if node is not None and isinstance(node.value, str):
            return ("/bin/sh", "-c", node.value)
        words = fields.texts("command")
        if not words:
            fields.wrong("command", "needs `command`, a text for the shell or a list of words")
        return words

    def place(self, fields: Fields, key: str, *, addresses: bool = False) -> str:
        """HOST or HOST/CONTAINER under *key*, or an address where *addresses* may stand."""
        text = fields.text(key)
        if not text:
            fields.wrong(key, f"needs `{key}`: HOST or HOST/CONTAINER")
            return ""
        if addresses:
            try:
                return str(ipaddress.ip_address(text))
            except ValueError:
                pass
        node = fields.get(key)
        assert node is not None
        host, slash, container = text.partition("/")
        self.machine(node, host)
        spec = self.lab.machine(host) if self.lab else None
        if slash and spec is not None and spec.container(container) is None:
            there = ", ".join(each.name for each in spec.containers) or "none"
            self.problems.add(node, f"{host} has no container {container!r}; there are {there}")
        return text

    def pattern(self, fields: Fields, key: str, pattern: str) -> None:
        if self.lab is None:
            return
        names = [each.path for each in self.lab.containers] + [each.name for each in self.lab.machines]
        if not matching(names, pattern):
            fields.wrong(key, f"{pattern!r} matches no host or container of lab {self.lab.name}")

    def machine(self, node: Node, name: str) -> str:
        if self.lab is not None and self.lab.machine(name) is None:
            there = ", ".join(each.name for each in self.lab.machines)
            self.problems.add(node, f"lab {self.lab.name} has no host {name!r}; there are {there}")
        return name

    def process(self, node: Node, text: str) -> None:
        """`agent HOST`, `etcd MEMBER` or `host HOST`."""
        what, _, name = text.partition(" ")
        self.machine(node, name)
        spec = self.lab.machine(name) if self.lab else None
        if spec is not None and what == "etcd" and spec.role != "etcd":
            self.problems.add(node, f"{name} is no member of etcd")
        if spec is not None and what == "agent" and not spec.agent:
            self.problems.add(node, f"{name} has no agent")

    def link(self, node: Node, link: str) -> None:
        """HOST, or HOST:INTERFACE, or HOST:SEGMENT."""
        host, colon, end = link.partition(":")
        self.machine(node, host)
        spec = self.lab.machine(host) if self.lab else None
        if colon and spec is not None and not any(end in (each.ifname, each.segment) for each in spec.links):
            there = ", ".join(f"{each.ifname} ({each.segment})" for each in spec.links)
            self.problems.add(node, f"{host} has no link {end!r}; there are {there}")

    def network(self, node: Node, name: str) -> str:
        if self.lab is not None and self.lab.network(name) is None:
            there = ", ".join(each.name for each in self.lab.networks) or "none"
            self.problems.add(node, f"lab {self.lab.name} has no network {name!r}; there are {there}")
        return name
