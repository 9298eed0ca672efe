"""A real containerd on a `Host`."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import IO

from netns_fixtures import Host, wait_until
from tests.runtime.isolated import BIN_DIR, CONF_DIR, Isolated

SOCKET = "/run/containerd/containerd.sock"
LOG = "/run/containerd.log"
CONFIG = "/run/containerd.toml"
PAUSE_IMAGE = "localhost/pycni-pause:1"
START_DEADLINE_S = 60.0

_CONFIG = f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
# Pods get no CPU weight, and so need no cgroup controller that the machine may not hand down.
disable_cgroup = true
# Lowering oom_score_adj needs CAP_SYS_RESOURCE, which root in a container or a small VM may lack.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{BIN_DIR}"
conf_dir = "{CONF_DIR}"
"""


class Containerd(Isolated):
    """A running containerd; `close` ends everything that it started."""

    def __init__(self, host: Host) -> None:
        host.file(CONFIG).write_text(_CONFIG)
        super().__init__(host, f"containerd --config {CONFIG} >{LOG} 2>&1")

    def _await_ready(self, said: IO[str]) -> None:
        super()._await_ready(said)
        wait_until(self._answers, START_DEADLINE_S, f"containerd answers; {LOG} ends {self.log()[-2000:]}")

    def _answers(self) -> bool:
        assert not self.ended(), f"containerd ended: {self.log()[-4000:]}"
        return self.file(SOCKET).is_socket() and self.ctr("version", check=False).returncode == 0

    def log(self) -> str:
        return self.file(LOG).read_text(errors="replace") if self.file(LOG).exists() else ""

    def ctr(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(["ctr", "--address", SOCKET, *args], check=check)

    def import_image(self, tar: Path, *, namespace: str = "default") -> None:
        self.ctr("-n", namespace, "images", "import", "--snapshotter", "native", str(tar))
