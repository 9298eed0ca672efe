"""Calls recorded from containerd, CRI-O, podman, buildah, BuildKit, crictl with the reference plugins; their replay.

The recording keeps one call of every kind that a client made, in order, so a DEL can be there without its ADD: the
replay makes up for what is missing (see `Replay.prepare`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netns_fixtures import CniRun, Host, Namespace

DATA = Path(__file__).parent / "data" / "calls.jsonl"

#: Those that make the link and begin a chain; the others go on with its result.
INTERFACE_PLUGINS = ("bridge", "loopback")


@dataclass(frozen=True, kw_only=True)
class RecordedCall:
    """One call and the reference's answer; `stdout` is decoded JSON, "" if there was none. CNI_PATH is "BIN"."""

    client: str
    plugin: str
    env: dict[str, str]
    stdin: dict[str, Any]
    rc: int
    stdout: Any

    @property
    def command(self) -> str:
        return self.env["CNI_COMMAND"]

    @property
    def attachment(self) -> tuple[str, str]:
        """Network and container id; a chain of plugins shares them, and so the result."""
        return self.stdin.get("name", ""), self.env.get("CNI_CONTAINERID", "")

    def __str__(self) -> str:
        return f"{self.client}: {self.command} {self.plugin} {'/'.join(self.attachment)}"


def recorded_calls(client: str, plugins: tuple[str, ...]) -> list[RecordedCall]:
    calls = [RecordedCall(**json.loads(line)) for line in DATA.read_text().splitlines()]
    return [call for call in calls if call.client == client and call.plugin in plugins]


def clients() -> list[str]:
    return list(dict.fromkeys(json.loads(line)["client"] for line in DATA.read_text().splitlines()))


class Replay:
    """The calls of one client on one host, with namespaces where the recording had them."""

    def __init__(self, host: Host, bin_dir: Path, on_exit: Callable[..., object], *, prefix: str = "") -> None:
        self.host = host
        self.bin_dir = bin_dir
        self.prefix = prefix  # of the executables' names, and so of the types in the configuration
        self.results: dict[tuple[str, str], dict[str, Any]] = {}  # by RecordedCall.attachment, while attached
        self.sandboxes: dict[tuple[str, str], str] = {}  # the recorded CNI_NETNS of the ADD
        self.containers: dict[str, Namespace] = {}  # by the recorded path
        self._paths: dict[str, str] = {}  # recorded path → path here
        self._on_exit = on_exit

    def play(self, call: RecordedCall) -> CniRun:
        """Make what the recording does not show, then the call itself."""
        self.prepare(call)
        return self._call(call, call.env, self._with_own_result(call))

    def prepare(self, call: RecordedCall) -> None:
        """The interface plugin's ADD that a prevResult speaks of; the other container that has the requested address;
        and for a DEL without namespace the end of that namespace."""
        path = call.env.get("CNI_NETNS", "")
        knows_result = call.plugin not in INTERFACE_PLUGINS or call.attachment in self.results
        if call.command in ("DEL", "CHECK") and "prevResult" in call.stdin and not knows_result:
            interfaces = call.stdin["prevResult"].get("interfaces", ())
            sandbox = path or next(i["sandbox"] for i in interfaces if "sandbox" in i)
            env = call.env | {"CNI_COMMAND": "ADD", "CNI_NETNS": sandbox}
            assert self._call(call, env, without(call.stdin, "prevResult")).ok
        if call.rc and call.command == "ADD" and "requested IP address" in call.stdout["msg"]:
            env = call.env | {"CNI_CONTAINERID": "has-the-address", "CNI_NETNS": f"{path}-other"}
            assert self._call(call, env, call.stdin).ok
        if call.command == "DEL" and not path and call.attachment in self.results:
            self.containers[self.sandboxes[call.attachment]].delete()

    def path(self, recorded: str) -> str:
        """That path on the host, with a namespace behind it; paths of processes become those of a process here."""
        if not recorded.startswith("/"):
            return recorded  # "" or "dummy"
        if recorded not in self._paths:
            self._paths[recorded] = self._make(recorded)
        return self._paths[recorded]

    def _make(self, recorded: str) -> str:
        self.containers[recorded] = made = self.host.container(f"c{len(self.containers) + 1}")
        if re.fullmatch(r"/proc/\d+/ns/net", recorded):
            return made.path
        if re.fullmatch(r"/proc/\d+/fd/\d+", recorded):
            fd = os.open(made.path, os.O_RDONLY)
            self._on_exit(os.close, fd)
            return f"/proc/{os.getpid()}/fd/{fd}"
        bind = 'mkdir -p "${1%/*}" && : >"$1" && mount --bind "$2" "$1"'
        self.host.run(["sh", "-c", bind, "sh", recorded, made.path])
        return recorded

    def _with_own_result(self, call: RecordedCall) -> dict[str, Any]:
        own = self.results.get(call.attachment)
        return {**call.stdin, "prevResult": own} if "prevResult" in call.stdin and own else call.stdin

    def _call(self, call: RecordedCall, env: dict[str, str], stdin: dict[str, Any]) -> CniRun:
        here = {"CNI_PATH": str(self.bin_dir)} if env["CNI_PATH"] == "BIN" else {}
        if "CNI_NETNS" in env:
            here["CNI_NETNS"] = self.path(env["CNI_NETNS"])
        executable = self.bin_dir / f"{self.prefix}{call.plugin}"
        text = json.dumps(self._renamed(stdin))
        done = self.host.run([executable], input=text, check=False, env=env | here)
        run = CniRun(command=env["CNI_COMMAND"], rc=done.returncode, stdout=done.stdout, stderr=done.stderr)
        if run.ok and run.command == "ADD":
            attachment = stdin["name"], env["CNI_CONTAINERID"]
            self.results[attachment], self.sandboxes[attachment] = run.json, env["CNI_NETNS"]
        if run.ok and run.command == "DEL" and call.plugin in INTERFACE_PLUGINS:
            self.results.pop(call.attachment, None)
        return run

    def collect(self, call: RecordedCall) -> None:
        """GC of that call's network with no attachment valid any more."""
        conf = {**without(call.stdin, "prevResult"), "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
        run = self._call(call, {"CNI_COMMAND": "GC", "CNI_PATH": "BIN"}, conf)
        assert run.ok, str(run)

    def _renamed(self, stdin: dict[str, Any]) -> dict[str, Any]:
        if not self.prefix or "type" not in stdin:
            return stdin
        renamed = {**stdin, "type": self.prefix + stdin["type"]}
        if stdin.get("ipam"):
            renamed["ipam"] = {**stdin["ipam"], "type": self.prefix + stdin["ipam"]["type"]}
        return renamed


def without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}
