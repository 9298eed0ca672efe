"""Overlay networks on hosts of their own: `overlay()` makes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from netns_fixtures import Etcd, Host, Underlay, needs
from tests.kernel.agent_lab import AgentHost
from tests.kernel.agent_load import write_launchers
from tests.overlay.overlay_lab import NAMES, OverlayLab


@pytest.fixture(scope="session")
def overlay_plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CNI_PATH directory that every host sees, whose executables ask an agent first."""
    return write_launchers(tmp_path_factory.mktemp("overlay-cni"), NAMES)


@pytest.fixture
def overlay(
    make_host: Callable[..., Host],
    underlay: Callable[..., Underlay],
    make_etcd: Callable[..., Etcd],
    overlay_plugins: Path,
    tmp_path: Path,
) -> Callable[..., OverlayLab]:
    """`overlay(hosts=2, members=1, family=4, mtu=1500)`: hosts h1, h2, … and one more with etcd (*members* on it), all
    on one segment. *family* is that of etcd's address, and so of the tunnels."""
    needs("root", "tool:etcd", "kernel:vxlan", "kernel:bridge", "kernel:nf_tables")

    def make(hosts: int = 2, *, members: int = 1, family: int = 4, mtu: int = 1500) -> OverlayLab:
        made = [make_host(f"h{number}") for number in range(1, hosts + 1)]
        store = make_host("etcd")
        segment = underlay(hosts=[*made, store], mtu=mtu)
        etcd = make_etcd(places=[(store, segment.address(store, family))] * members)
        agents = [AgentHost(host, tmp_path / f"{host.name}.log") for host in made]
        return OverlayLab(segment, etcd, made, agents, overlay_plugins, family)

    return make
