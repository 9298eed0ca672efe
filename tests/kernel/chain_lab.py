"""A list of plugins called as a runtime does: ADD and CHECK forwards, each with the result so far, DEL backwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netns_fixtures import CniRun, Container, run_cni
from tests.kernel.bridge_lab import Conf, Lab

REFERENCE = Path("/usr/lib/cni")


@dataclass
class Chain:
    """The plugins of one network on a host; *by* tells for a type which directory its executable comes from."""

    lab: Lab
    plugins: list[Conf]
    version: str = "1.0.0"
    by: dict[str, Path] = field(default_factory=dict)

    def call(self, command: str, plugin: Conf, container: Container | str, **how: Any) -> CniRun:
        """One call of one plugin."""
        how = {"netns": container if isinstance(container, Container) else "", **how}
        name = container if isinstance(container, str) else container.name
        version = "1.1.0" if command in ("GC", "STATUS") else self.version
        conf = {**plugin, "cniVersion": version, "name": "net"}
        directory = self.by.get(plugin["type"], self.lab.plugins)
        how.setdefault("cni_path", str(self.lab.plugins))
        return run_cni(self.lab.host, directory, plugin["type"], command, conf, container_id=name or None, **how)

    def add(self, container: Container, **how: Any) -> Conf:
        """The result of the list, every ADD of which must work."""
        result: Conf | None = None
        for plugin in self.plugins:
            result = self.call("ADD", _with(plugin, result), container, **how).result()
        assert result is not None
        return result

    def check(self, container: Container, result: Conf) -> list[CniRun]:
        """The answers of the CHECKs that failed."""
        answers = [self.call("CHECK", _with(plugin, result), container) for plugin in self.plugins]
        return [answer for answer in answers if not answer.ok]

    def delete(self, container: Container | str, result: Conf | None = None, **how: Any) -> None:
        """A DEL that must work."""
        for plugin in reversed(self.plugins):
            answer = self.call("DEL", _with(plugin, result), container, **how)
            assert answer.ok, answer
            assert answer.stdout == ""

    def gc(self, *valid: str) -> None:
        """GC with these containers (their eth0) as the valid ones."""
        listed = [{"containerID": name, "ifname": "eth0"} for name in valid]
        for plugin in self.plugins:
            answer = self.call("GC", {**plugin, "cni.dev/valid-attachments": listed}, "")
            assert answer.ok, answer


def _with(plugin: Conf, result: Conf | None) -> Conf:
    return plugin if result is None else {**plugin, "prevResult": result}
