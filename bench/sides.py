"""The two sides of the benchmark: a host each, with an outside, a set of plugins, and a worker that calls them.

A host is a network, mount and UTS namespace with a /run and a /var/lib of its own, so either side's state, bridge and
packet filter are its own, and nothing of the machine's changes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from netns_fixtures import Host, Outside, wait_until

ROOT = Path(__file__).resolve().parents[1]
REFERENCE_DIR = "/usr/lib/cni"
SOURCE = f"{ROOT}/src"
PYCNI_DIR = "/run/pycni-bench"  # of the host: a tmpfs that goes with it
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IFNAME = "eth0"


class Outcome(NamedTuple):
    """How a call ended; wall and cpu in seconds."""

    rc: int
    start: float  # CLOCK_MONOTONIC
    wall: float
    cpu: float
    stdout: str
    stderr: str


class Burst(NamedTuple):
    """Many calls at once; wall in seconds from the first start to the last end."""

    wall: float
    agent_cpu: float
    calls: list[Outcome]

    @property
    def cpu(self) -> float:
        return self.agent_cpu + sum(call.cpu for call in self.calls)


class Plugins(NamedTuple):
    """Where the executables of a side are, and the process that carries out what they ask, if any."""

    directory: str
    agent: int = 0


def network(*, masquerade: bool, name: str = "bench") -> dict[str, Any]:
    """The one configuration that both sides get; 1.0.0 is the newest version that Debian 12's plugins speak."""
    return {
        "cniVersion": "1.0.0",
        "name": name,
        "type": "bridge",
        "bridge": f"{name}0",
        "isGateway": True,
        "ipMasq": masquerade,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.88.0.0/16"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }


def reference_plugins(host: Host) -> Plugins:
    """The directory of the reference's executables; FileNotFoundError names the package."""
    if not os.access(f"{REFERENCE_DIR}/bridge", os.X_OK):
        raise FileNotFoundError(f"no {REFERENCE_DIR}/bridge: install containernetworking-plugins")
    return Plugins(REFERENCE_DIR)


def standalone_plugins(host: Host) -> Plugins:
    """Install this tree's executables in *host*, under the names of the reference's: every call a process of Python."""
    install(host, "standalone")
    return Plugins(PYCNI_DIR)


def agent_plugins(host: Host) -> Plugins:
    """The same with native launchers and a running agent."""
    install(host, "c")
    agent = host.popen(
        [sys.executable, "-m", "pycni", "agent"], env={"PATH": PATH, "PYTHONPATH": SOURCE}, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: host.file("/run/pycni/agent.sock").exists(), 20, "the agent listens")
    return Plugins(PYCNI_DIR, agent.pid)


def install(host: Host, launcher: str, bin_dir: str = PYCNI_DIR) -> None:
    install = ["install", "--bin-dir", bin_dir, "--replace", "--no-conf", "--launcher", launcher]
    host.run([sys.executable, "-m", "pycni", *install], env={"PATH": PATH, "PYTHONPATH": SOURCE})


class Side:
    """A host with one set of plugins. A context manager: everything goes with it."""

    def __init__(self, name: str, plugins: Callable[[Host], Plugins]) -> None:
        self.name = name
        self.host = Host(name)
        try:
            self.outside = Outside(self.host, name=f"{name}-outside")
            try:
                self.bin_dir, self.agent = plugins(self.host)
                self._worker = self.host.popen(
                    [sys.executable, f"{ROOT}/bench/worker.py"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={"PATH": PATH},
                )
            except BaseException:
                self.outside.delete()
                raise
        except BaseException:
            self.host.delete()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.outside.delete()
        finally:
            self.host.delete()  # kills the worker and what it started

    def ask(self, **request: Any) -> dict[str, Any]:
        """What the worker answers; RuntimeError if it ended instead (its stderr is ours)."""
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        self._worker.stdin.write(json.dumps(request) + "\n")
        self._worker.stdin.flush()
        line = self._worker.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker of {self.name} ended: exit {self._worker.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def make_containers(self, names: Sequence[str]) -> None:
        self.ask(do="namespaces", names=list(names))

    def request(
        self, command: str, conf: dict[str, Any], container: str, *, netns: str = "", before: Sequence[str] = ()
    ) -> dict[str, Any]:
        """One call for `call` or `burst`; *netns* is a name given to make_containers, by default the container's.

        *before* are words to put before the executable: an interpreter with its options.
        """
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{netns or container}",
            "CNI_IFNAME": IFNAME,
            "CNI_PATH": self.bin_dir,
            "PATH": PATH,
        }
        executable = f"{self.bin_dir}/{conf['type']}"
        return {"argv": [*before, executable], "env": environment, "stdin": json.dumps(conf)}

    def burst(self, requests: Sequence[dict[str, Any]], workers: int) -> Burst:
        """Make the calls of *requests*, *workers* at a time; failed ones are among the outcomes."""
        answer = self.ask(do="calls", calls=list(requests), workers=workers, agent=self.agent)
        return Burst(answer["wall"], answer["agent_cpu"], [Outcome(**call) for call in answer["calls"]])

    def call(self, request: dict[str, Any]) -> Outcome:
        """Make one call that must succeed; RuntimeError says how it did not."""
        burst = self.burst([request], 1)
        outcome = burst.calls[0]._replace(cpu=burst.cpu)
        if outcome.rc:
            words = f"{request['env']['CNI_COMMAND']} of {self.name}"
            raise RuntimeError(f"{words}: exit {outcome.rc}\n{outcome.stdout}{outcome.stderr}")
        return outcome


def with_result(conf: dict[str, Any], stdout: str) -> dict[str, Any]:
    """*conf* as a runtime gives it to CHECK and DEL: with the result of the ADD, if there was one."""
    return {**conf, "prevResult": json.loads(stdout)} if stdout.strip() else conf
