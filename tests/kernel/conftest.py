"""The plugins' executables, installed once for all tests into a directory that every host sees."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from netns_fixtures import Container, Host, Outside, Underlay
from pycni.cli.launcher import compile_package, interpreter, launcher_text, package_parent
from tests.kernel.agent_lab import AgentHost
from tests.kernel.agent_load import write_launchers
from tests.kernel.bridge_lab import Conf, Lab, network
from tests.kernel.firewall_plugin_lab import Chain
from tests.kernel.portmap_lab import BRIDGED, PortLab
from tests.kernel.tunnel_lab import Site

NAMES = (
    *("bridge", "loopback", "host-local", "static", "tuning", "bandwidth", "ptp", "firewall", "portmap"),
    *("pycni-bridge", "pycni-ipam", "pycni-loopback", "pycni-static"),
)


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CNI_PATH directory: one launcher under every name."""
    directory = tmp_path_factory.mktemp("cni")
    compile_package(package_parent())
    launcher = directory / NAMES[0]
    launcher.write_text(launcher_text(interpreter(), package_parent()))
    launcher.chmod(0o755)
    for name in NAMES[1:]:
        os.link(launcher, directory / name)
    return directory


@pytest.fixture
def lab(host: Host, plugins: Path) -> Lab:
    """A fresh host with the plugins, without a way out (ask for `outside` besides)."""
    return Lab(host, plugins)


@pytest.fixture(scope="session")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CNI_PATH directory whose executables ask the agent first."""
    return write_launchers(tmp_path_factory.mktemp("asking"))


@pytest.fixture
def agents(host: Host, tmp_path: Path) -> AgentHost:
    """Where agents of `host` are started and asked; none runs yet."""
    return AgentHost(host, tmp_path / "agent.log")


@pytest.fixture
def boxes(host: Host) -> Callable[[int], list[Container]]:
    """Makes that many containers on `host`: c1, c2, …"""

    def make(count: int) -> list[Container]:
        have = len(host.containers)
        return [host.container(f"c{have + number + 1}") for number in range(count)]

    return make


@pytest.fixture
def c1(host: Host) -> Container:
    """The namespace of a container with the id c1."""
    return host.container("c1")


@pytest.fixture
def c2(host: Host) -> Container:
    """The namespace of a container with the id c2."""
    return host.container("c2")


@pytest.fixture
def wide(lab: Lab, outside: Outside) -> Lab:
    """`lab` with the world outside behind its uplink."""
    return lab


@pytest.fixture
def port_lab(
    closing: ExitStack, make_host: Callable[..., Host], make_outside: Callable[..., Outside], plugins: Path
) -> Callable[..., PortLab]:
    """Makes a host that publishes ports; *bridged*: bridged frames pass iptables, as on hosts of Docker or Kubernetes;
    *outside*: with the world beyond."""

    def make(*, bridged: bool = False, outside: bool = False) -> PortLab:
        host = make_host(sysctls=dict.fromkeys(BRIDGED, "1" if bridged else "0"))
        return PortLab(Lab(host, plugins), closing.callback, make_outside(host) if outside else None)

    return make


@pytest.fixture
def firewalled(lab: Lab, closing: ExitStack) -> Callable[..., Chain]:
    """Makes a network of bridge NUMBER and the firewall plugin with *keys*, on `lab`; *net* has further keys of the
    bridge, which by itself neither isolates nor opens anything; *reference*: the bridge plugin is the reference's."""

    def make(number: int = 1, net: Conf | None = None, *, reference: bool = False, **keys: str) -> Chain:
        conf = network(f"net{number}", number, **{"backend": "none", "ipMasq": None, **(net or {})})
        conf["cniVersion"] = "1.0.0" if reference else "1.1.0"
        return Chain(lab, closing, conf, dict(keys), reference)

    return make


@pytest.fixture
def sites(closing: ExitStack, underlay: Callable[..., Underlay]) -> Callable[..., list[Site]]:
    """Makes hosts on one segment whose tunnels have addresses of *family*."""

    def make(count: int = 2, *, family: int = 4, mtu: int = 1500) -> list[Site]:
        segment = underlay(count, mtu=mtu)
        return [Site(segment, host, family, closing) for host in segment.hosts]

    return make
