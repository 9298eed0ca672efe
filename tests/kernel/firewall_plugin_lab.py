"""Containers on a bridge with the firewall plugin chained behind it, and who of them reaches whom."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from netns_fixtures import CniRun, Container, EchoServer, Namespace, run_cni, tcp_peer_seen
from tests.kernel.bridge_lab import Conf, Lab, address_of

FAMILIES = (4, 6)
REFUSED_S = 0.25  # how long a packet that is dropped is waited for
REFERENCE = "/usr/lib/cni"
PORT = 7777
LINK_LOCAL = "*dst=fe80*"  # the bridge's address, a second or two after it came up
EMPTY_TABLES = ["*/nft/ip*", "*/ip*tables-*", LINK_LOCAL]  # of iptables: it makes them, and they stay


def firewall(net: Conf, **keys: Any) -> Conf:
    """The firewall plugin's configuration in the network of *net*."""
    return {"cniVersion": net["cniVersion"], "name": net["name"], "type": "firewall", **keys}


@dataclass
class Chain:
    """A network whose list is *net* and then the firewall plugin with *keys*."""

    lab: Lab
    closing: ExitStack
    net: Conf
    keys: Conf = field(default_factory=dict)
    reference: bool = False  # the first plugin is the reference's

    @property
    def conf(self) -> Conf:
        return firewall(self.net, **self.keys)

    def first(self, command: str, container: Container | str, **how: Any) -> CniRun:
        """A call of the plugin that makes the interface."""
        if not self.reference:
            return self.lab.call(command, self.net, container, **how)
        assert isinstance(container, Container)
        how = {"container_id": container.name, "netns": container, **how}
        return run_cni(self.lab.host, REFERENCE, self.net["type"], command, self.net, **how)

    def attach(self, container: Container) -> Box:
        """Both ADDs, which must work."""
        previous = self.first("ADD", container).result()
        result = self.lab.add({**self.conf, "prevResult": previous}, container)
        assert result == {key: value for key, value in previous.items() if value}  # the reference adds "dns": {}
        server = EchoServer(container)
        self.closing.callback(server.close)
        return Box(self, container, result)

    def add(self, box: Box, **keys: Any) -> CniRun:
        """The firewall plugin's ADD again, with *keys* on top."""
        return self.lab.call("ADD", {**self.conf, "prevResult": box.result, **keys}, box.ns)

    def check(self, box: Box, **keys: Any) -> CniRun:
        return self.lab.check({**self.conf, **keys}, box.ns, box.result)

    def delete(self, box: Box) -> None:
        """The firewall plugin's DEL."""
        self.lab.delete({**self.conf, "prevResult": box.result}, box.ns)

    def detach(self, box: Box) -> None:
        """Both DELs, in a runtime's order."""
        self.delete(box)
        assert self.first("DEL", box.ns).ok


@dataclass
class Box:
    """An attached container with a server on PORT."""

    chain: Chain
    ns: Container
    result: Conf

    def address(self, family: int) -> str:
        return address_of(self.result, family)


def reaches(client: Namespace, address: str, port: int, *, expected: bool) -> bool:
    """Whether a TCP connection works; what is dropped is waited for only as long as *expected* says."""
    with contextlib.suppress(OSError):
        tcp_peer_seen(client, address, port, deadline_s=3.0 if expected else REFUSED_S)
        return True
    return False


def wrong_paths(boxes: dict[str, Box], expected: Callable[[str, str], bool]) -> list[str]:
    """Whatever connects where *expected* says that it must not ("a>b/4"), or does not where it must ("a!b/4").

    All at once: what is dropped is waited for.
    """
    asked = [(one, other, family) for one in boxes for other in boxes for family in FAMILIES if one != other]

    def ask(one: str, other: str, family: int) -> str:
        wanted = expected(one, other)
        works = reaches(boxes[one].ns, boxes[other].address(family), PORT, expected=wanted)
        return "" if works is wanted else f"{one}{'!' if wanted else '>'}{other}/{family}"

    with ThreadPoolExecutor(len(asked)) as pool:
        return [wrong for wrong in pool.map(ask, *zip(*asked, strict=True)) if wrong]
