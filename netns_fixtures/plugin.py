"""The fixtures and hooks that pytest finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .capabilities import needs
from .etcd_server import Etcd
from .holder import reap_holders
from .hosts import Container, Host
from .namespace import Namespace
from .pycni_lab import Lab, lab_command
from .segment import Underlay
from .snapshots import Snapshot, diff
from .uplink import Outside


def pytest_configure(config: pytest.Config) -> None:
    example = "needs('root', 'tool:nft', 'kernel:vxlan')"
    config.addinivalue_line("markers", f"needs(*capabilities): skip unless the machine has them, e.g. {example}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: one that cannot be made would be an error instead of a skip."""
    for mark in item.iter_markers("needs"):
        needs(*mark.args)


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """`assert netns_snapshot(host) == before` tells what changed."""
    if op == "==" and isinstance(left, Snapshot) and isinstance(right, Snapshot):
        lines = [line for change in diff(right, left) for line in change.splitlines()]
        return [f"the snapshot on the left has {len(lines)} changes against the one on the right", *lines]
    return None


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Closed, newest first, when the test ends; afterwards the pids of what it held may be used again."""
    try:
        with ExitStack() as stack:
            yield stack
    finally:
        reap_holders()


@pytest.fixture
def make_namespace(closing: ExitStack) -> Callable[..., Namespace]:
    """Makes a `Namespace`; takes its arguments, the name may be left out."""
    needs("root")
    made: list[Namespace] = []

    def make(name: str | None = None, *, lo_up: bool = False) -> Namespace:
        namespace = Namespace(name or f"ns{len(made) + 1}", lo_up=lo_up)
        made.append(namespace)
        closing.callback(namespace.delete)
        return namespace

    return make


@pytest.fixture
def make_host(closing: ExitStack) -> Callable[..., Host]:
    """Makes a `Host`; takes its arguments, the name may be left out: h1, h2, …"""
    needs("root", "tool:ip", "tool:mount")
    made: list[Host] = []

    def make(name: str | None = None, *, sysctls: dict[str, str] | None = None) -> Host:
        host = Host(name or f"h{len(made) + 1}", sysctls=sysctls)
        made.append(host)
        closing.callback(host.delete)
        return host

    return make


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    """A fresh host without any link but `lo`."""
    return make_host()


@pytest.fixture
def container_ns(host: Host) -> Container:
    """The network namespace of one container on `host`."""
    return host.container("c1")


@pytest.fixture
def make_outside(closing: ExitStack) -> Callable[..., Outside]:
    """Makes an `Outside` for the host it is given; takes its arguments."""
    needs("root", "kernel:veth")

    def make(host: Host, **options: Any) -> Outside:
        outside = Outside(host, **options)
        closing.callback(outside.delete)
        return outside

    return make


@pytest.fixture
def underlay(closing: ExitStack, make_host: Callable[..., Host]) -> Callable[..., Underlay]:
    """Makes an `Underlay`: `underlay(3)` with three new hosts, or `underlay(hosts=[h1, h2], mtu=1450, …)`."""
    needs("root", "kernel:bridge", "kernel:veth")

    def make(count: int = 2, *, hosts: Sequence[Host] | None = None, **options: Any) -> Underlay:
        made = Underlay(hosts if hosts is not None else [make_host() for _ in range(count)], **options)
        closing.callback(made.delete)
        return made

    return make


@pytest.fixture
def make_etcd(
    closing: ExitStack, make_namespace: Callable[..., Namespace], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Etcd]:
    """Makes and starts an `Etcd`: `make_etcd(members=3)` on the loopback of a new namespace, or
    `make_etcd(places=[(host, address), …])`, one member each.
    """
    needs("root", "tool:etcd")

    def make(
        members: int = 1,
        *,
        places: Sequence[tuple[Namespace, str]] | None = None,
        directory: Path | None = None,
        tls: bool = False,
    ) -> Etcd:
        if tls:
            needs("tool:openssl")
        if places is None:
            places = [(make_namespace("etcd", lo_up=True), "127.0.0.1")] * members
        made = Etcd(places, directory or tmp_path_factory.mktemp("etcd"), tls=tls)
        closing.callback(made.delete)
        made.start()
        return made

    return make


@pytest.fixture
def etcd(make_etcd: Callable[..., Etcd]) -> Etcd:
    """A started etcd of one member on the loopback of a namespace of its own, `etcd.namespace`."""
    return make_etcd()


@pytest.fixture
def lab(closing: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Lab]:
    """Makes a `Lab` and brings it up: `lab("hosts: {h[1-2]: {containers: {c1: {}}}}")`, or `lab(Path("lab.yaml"))`."""
    needs("root", "tool:ip", "kernel:bridge", "kernel:veth")
    if lab_command() is None:
        pytest.skip("pycni is not installed")

    def make(file: str | Path) -> Lab:
        made = Lab(file, tmp_path_factory.mktemp("lab"))
        closing.callback(made.down)
        made.up()
        return made

    return make


@pytest.fixture
def outside(host: Host, make_outside: Callable[..., Outside]) -> Outside:
    """The world beyond `host`, with default settings."""
    return make_outside(host)
