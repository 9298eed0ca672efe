"""Calling a CNI executable the way a runtime does: CNI_* in the environment, the configuration on stdin."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .namespace import Namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class CniRun:
    """How one call of a plugin ended."""

    command: str
    rc: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.rc == 0

    @property
    def json(self) -> dict[str, Any]:
        """The object on stdout: a result or an error; AssertionError if it is anything else."""
        try:
            decoded = json.loads(self.stdout)
        except ValueError:
            decoded = None
        if not isinstance(decoded, dict):
            raise AssertionError(f"no JSON object on stdout: {self}")
        return decoded

    @property
    def error_code(self) -> int | None:
        """The code of the error object; None after success. A failure without an error object breaks the protocol."""
        if self.ok:
            return None
        code = self.json.get("code")
        if type(code) is not int:
            raise AssertionError(f"failed without an error code: {self}")
        return code

    def result(self) -> dict[str, Any]:
        """The result of a call that must have worked."""
        if not self.ok:
            raise AssertionError(str(self))
        return self.json

    def __str__(self) -> str:
        return f"{self.command}: exit {self.rc}\nstdout: {self.stdout.strip()}\nstderr: {self.stderr.strip()}"


def run_cni(
    host: Namespace,
    plugin_path_or_dir: str | os.PathLike[str],
    type: str,
    command: str,
    conf: Mapping[str, Any] | str,
    *,
    container_id: str | None = None,
    netns: Namespace | str | None = None,
    ifname: str | None = "eth0",
    args: str | None = "",
    cni_path: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 30,
) -> CniRun:
    """Run *command* of the plugin *type* on *host*; no failure of the plugin raises, only *timeout* (seconds) does.

    The plugin is *plugin_path_or_dir*, or the file named *type* if that is a directory. *conf* is dumped as JSON, and
    a string goes as it is (a test of broken JSON needs that). Of the test's environment nothing is inherited: the
    plugin gets CNI_* (those that are not None), PATH, and *env* on top. CNI_PATH is *cni_path*, by default the
    plugin's directory.
    """
    plugin = Path(plugin_path_or_dir).absolute()
    if plugin.is_dir():
        plugin /= type
    if not os.access(plugin, os.X_OK):
        raise FileNotFoundError(f"{plugin} is not an executable")
    protocol = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": netns.path if isinstance(netns, Namespace) else netns,
        "CNI_IFNAME": ifname,
        "CNI_ARGS": args or None,
        "CNI_PATH": cni_path if cni_path is not None else str(plugin.parent),
    }
    environment = {key: value for key, value in protocol.items() if value is not None}
    environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    text = conf if isinstance(conf, str) else json.dumps(conf)
    done = host.run([plugin], input=text, check=False, timeout=timeout, env=environment | dict(env or {}))
    return CniRun(command=command, rc=done.returncode, stdout=done.stdout, stderr=done.stderr)
