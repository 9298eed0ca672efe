"""A real podman, version 4 with its CNI backend, on a `Host`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from netns_fixtures import Host
from tests.runtime.isolated import BIN_DIR, Isolated

IMAGE = "localhost/pycni-pause:1"

_CONTAINERS_CONF = f"""\
[containers]
apparmor_profile = "unconfined"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{BIN_DIR}"]
"""
# vfs copies layers where overlay would need a file system that the machine may not offer below a tmpfs.
_STORAGE_CONF = """\
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""


class Podman(Isolated):
    """A place where podman can be called; `close` ends the containers."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.run(["mkdir", "-p", "/etc/containers"])
        self.file("/etc/containers/containers.conf").write_text(_CONTAINERS_CONF)
        self.file("/etc/containers/storage.conf").write_text(_STORAGE_CONF)

    def podman(self, *args: str) -> str:
        """The output of `podman ARGS`, which must succeed."""
        return self.run(["podman", *args]).stdout

    def refused(self, *args: str) -> str:
        """What `podman ARGS` says while it fails."""
        done: subprocess.CompletedProcess[str] = self.run(["podman", *args], check=False)
        assert done.returncode, f"podman {args} worked: {done.stdout}{done.stderr}"
        return done.stderr

    def inspect(self, container: str) -> dict[str, Any]:
        (shown,) = json.loads(self.podman("inspect", container))
        assert isinstance(shown, dict)
        return shown

    def load_image(self, tar: Path) -> None:
        self.podman("load", "--input", str(tar))
