"""The plugins' executables, made by `pycni install` on one host: their directory is the same on all.

What `pycni install` notes is each host's own file, so it is copied: `pycni doctor` and `uninstall` go by it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

from pycni.lab.daemons import PYCNI, package_environment
from pycni.lab.errors import LabError
from pycni.lab.hosts import disk, machine_directory
from pycni.lab.running import PLUGIN_DIR, RunningLab

NOTED = "var-lib/pycni/install.json"


class Installation:
    """It takes half a second, a compiler's, in which etcd and the agents can start."""

    def __init__(self, lab: RunningLab) -> None:
        self._lab = lab
        self._process: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()

    def begin(self) -> None:
        """Start it on the first host, unless the executables are there."""
        if self._process is not None or os.path.exists(os.path.join(disk(self._lab), "bin", "pycni-bridge")):
            return
        host = next((each.name for each in self._lab.hosts.values() if each.holder.alive()), None)
        if host is not None:
            argv = self._lab.argv(host, None, [*PYCNI, "install", "--bin-dir", PLUGIN_DIR, "--no-conf"])
            environment = self._lab.environment(package_environment())
            said = self._said

            def start() -> subprocess.Popen[bytes]:
                return subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, start_new_session=True
                )

            self._process = self._lab.starting(host, start)

    def finish(self) -> None:
        """Wait for it; LabError with what it said where it failed."""
        if self._process is not None and self._process.wait():
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").splitlines()
            raise LabError("the plugins' executables cannot be made", said)
        self._share_notes()

    def _share_notes(self) -> None:
        paths = [os.path.join(machine_directory(self._lab, name), NOTED) for name in self._lab.hosts]
        noted = next(filter(os.path.exists, paths), None)
        for path in paths:
            if noted is not None and not os.path.exists(path):
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                shutil.copy2(noted, path)

    def end(self) -> None:
        """Whatever became of it, it runs no more."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._said.close()
