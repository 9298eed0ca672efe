"""The network lists of runtimes, as test data, and the port mappings that those runtimes send with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

DIRECTORY = Path(__file__).parent / "data" / "conflists"

#: Who calls through containerd's go-cni, whose structures have no JSON tags: "HostPort", and all keys always there.
GO_CNI = ("10-containerd", "every-plugin", "flannel", "gke", "kind", "minikube", "nerdctl", "nomad")


class Port(NamedTuple):
    """One published port."""

    host: int
    container: int
    proto: str = "tcp"
    host_ip: str = ""


def shipped_lists() -> list[Path]:
    return sorted(DIRECTORY.iterdir())


def read_list(path: Path) -> dict[str, Any]:
    """The list (or the single plugin) in *path*."""
    conf: dict[str, Any] = json.loads(path.read_text())
    return conf


def interface_plugin(conf: dict[str, Any]) -> dict[str, Any]:
    """The part of a list that makes the container's link, a bridge or a ptp; empty if it has none."""
    plugins = conf.get("plugins", [conf])
    found: dict[str, Any] = next((plugin for plugin in plugins if plugin["type"] in ("bridge", "ptp")), {})
    return found


def maps_ports(conf: dict[str, Any]) -> bool:
    return any(plugin["type"] == "portmap" for plugin in conf.get("plugins", [conf]))


def port_mappings(path: Path, ports: Sequence[Port]) -> str:
    """The capability arguments that publish *ports*, as the runtime of the list in *path* spells them."""
    if path.name.startswith(GO_CNI):
        spelled = [
            {"HostPort": port.host, "ContainerPort": port.container, "Protocol": port.proto, "HostIP": port.host_ip}
            for port in ports
        ]
    else:
        spelled = [
            {"hostPort": port.host, "containerPort": port.container, "protocol": port.proto}
            | ({"hostIP": port.host_ip} if port.host_ip else {})
            for port in ports
        ]
    return json.dumps({"portMappings": spelled})
