"""Plugins that are shell scripts: they write down what they got and answer what the test put beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pycni.cli.networks import NetworkList, parse_list
from pycni.cli.runtime import Runtime

SCRIPT = """#!/bin/sh
me={root}/{name}
at=$(ls {root}/log | wc -l)
cat >{root}/log/$(printf %03d $at)-$CNI_COMMAND-{name}
env >{root}/env-$CNI_COMMAND-{name}
if [ -f $me.fails-$CNI_COMMAND ]; then cat $me.fails-$CNI_COMMAND; exit 1; fi
if [ $CNI_COMMAND = ADD ] && [ -f $me.result ]; then cat $me.result; fi
if [ $CNI_COMMAND = VERSION ]; then echo '{{"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0"]}}'; fi
"""
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}]}


class Bench:
    """Two scripted plugins, `one` and `two`, and a runtime over them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "log").mkdir()
        (root / "bin").mkdir()
        for name in ("one", "two"):
            script = root / "bin" / name
            script.write_text(SCRIPT.format(root=root, name=name))
            script.chmod(0o755)
            self.answers(name, RESULT)
        self.cache = str(root / "cache")
        self.runtime = Runtime([str(root / "bin")], self.cache)

    def answers(self, name: str, result: object) -> None:
        (self.root / f"{name}.result").write_text(result if isinstance(result, str) else json.dumps(result))

    def fails(self, name: str, command: str, error: object) -> None:
        (self.root / f"{name}.fails-{command}").write_text(json.dumps(error))

    @property
    def calls(self) -> list[str]:
        """ "ADD one" and so on, in order."""
        return [" ".join(path.name.split("-")[1:]) for path in sorted((self.root / "log").iterdir())]

    def stdin(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(sorted((self.root / "log").iterdir())[number].read_text())
        return found

    def environ(self, command: str, name: str) -> dict[str, str]:
        lines = (self.root / f"env-{command}-{name}").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line.startswith("CNI_"))


def network(version: str = "1.0.0", **more: Any) -> NetworkList:
    plugins = [{"type": "one", "key": 1}, {"type": "two", "capabilities": {"mac": True, "ips": False}}]
    return parse_list(json.dumps({"name": "net", "cniVersion": version, "plugins": plugins, **more}).encode())
