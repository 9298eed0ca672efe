"""The network lists of runtimes, as test data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent / "data" / "conflists"

#: Plugins that pycni does not have yet: they are taken out of the lists.
ABSENT = frozenset({"portmap", "firewall", "tuning", "bandwidth"})


def shipped_lists() -> list[Path]:
    return sorted(DIRECTORY.iterdir())


def read_list(path: Path) -> dict[str, Any]:
    """The list (or the single plugin) in *path* without the plugins that are `ABSENT`."""
    conf: dict[str, Any] = json.loads(path.read_text())
    if "plugins" in conf:
        conf["plugins"] = [plugin for plugin in conf["plugins"] if plugin["type"] not in ABSENT]
    return conf


def bridge_of(conf: dict[str, Any]) -> dict[str, Any]:
    """The bridge plugin's part of a list; empty if it has none."""
    found: dict[str, Any] = next((p for p in conf.get("plugins", [conf]) if p["type"] == "bridge"), {})
    return found
