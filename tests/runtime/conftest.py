"""The executables under test, and a containerd of its own for the tests that want a real runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from netns_fixtures import Host, needs
from pycni.cli.install import DROP_IN_NAMES, OWN_NAMES
from pycni.cli.launcher import interpreter, launcher_text, package_parent
from tests.runtime.containerd import PAUSE_IMAGE, Containerd
from tests.runtime.images import write_image
from tests.runtime.podman import Podman


@pytest.fixture(scope="session")
def bin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every executable of pycni, under its own and its drop-in name, and nothing else."""
    return write_executables(tmp_path_factory.mktemp("bin"), (*OWN_NAMES, *DROP_IN_NAMES))


@pytest.fixture(scope="session")
def buildkit_bin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drop-in executables as BuildKit packages rename them."""
    return write_executables(tmp_path_factory.mktemp("buildkit"), [f"buildkit-cni-{name}" for name in DROP_IN_NAMES])


def write_executables(directory: Path, names: Sequence[str]) -> Path:
    """The launcher under all of *names*, hard links of one file as `pycni install` makes them."""
    first, *others = (directory / name for name in names)
    first.write_text(launcher_text(interpreter(), package_parent()))
    first.chmod(0o755)
    for other in others:
        os.link(first, other)
    return directory


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that sleeps, or runs any busybox command; it serves as pause image too."""
    needs("tool:busybox")
    path = tmp_path_factory.mktemp("image") / "image.tar"
    write_image(path, PAUSE_IMAGE, ["/bin/sleep", "86400"])
    return path


@pytest.fixture
def containerd(host: Host, image: Path) -> Iterator[Containerd]:
    """A containerd on `host` that has the image, and the plugins of `pycni install --replace` as its only ones."""
    needs("root", "tool:containerd", "tool:ctr", "tool:runc", "tool:unshare", "kernel:bridge")
    runtime = Containerd(host)
    try:
        for namespace in ("default", "k8s.io"):
            runtime.import_image(image, namespace=namespace)
        runtime.install()
        yield runtime
    finally:
        runtime.close()


@pytest.fixture
def podman(host: Host, image: Path) -> Iterator[Podman]:
    """A podman on `host` that has the image, and the plugins of `pycni install --replace` as its only ones."""
    needs("root", "tool:podman", "tool:runc", "tool:unshare", "kernel:bridge")
    runtime = Podman(host)
    try:
        runtime.install()
        runtime.load_image(image)  # podman says nothing without its plugin directory
        yield runtime
    finally:
        runtime.close()
