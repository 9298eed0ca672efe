"""An agent under the load of several runtimes, on a host whose every change can be seen."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netns_fixtures import wait_until
from pycni.cli.launcher import compile_package, interpreter, launcher_text, package_parent
from pycni.exe import build_launcher
from pycni.exe.run import STANDALONE
from tests.kernel import runtime_crowd
from tests.kernel.agent_lab import DEADLINE_S, ENVIRONMENT, PYCNI, SOCKET, AgentHost
from tests.kernel.bridge_lab import Conf, Lab, masqueraded
from tests.kernel.test_concurrency import Crowd

NAMES = ("bridge", "host-local", "static", "loopback", "portmap", "firewall")
# Nothing waits for the runtime's own DEL, and the log is for problems: the agents that are killed live for moments.
HASTY = 'grace_s = 0\nreconcile_s = 1\nlog_level = "warning"\n'


def write_launchers(directory: Path, names: Sequence[str] = NAMES) -> Path:
    """The native launcher under *names*, and what it becomes without an agent, for every host to see."""
    compile_package(package_parent())
    first, *others = (directory / name for name in names)
    assert build_launcher.build(str(first)) == str(first)
    for other in others:
        other.hardlink_to(first)
    standalone = directory / STANDALONE
    standalone.write_text(launcher_text(interpreter(), package_parent()))
    standalone.chmod(0o755)
    return directory


@dataclass
class Told:
    """What the runtimes said in the end."""

    attached: dict[str, Conf]
    counts: dict[str, int]
    pairs: int
    seconds: float
    slowest_s: float
    indefinite: list[Any]
    duplicate: list[Any]
    unexpected: list[Any]
    stuck: list[Any]

    def assert_sound(self) -> None:
        """Every call got a definite answer, a success or "try again"; no address was anywhere twice."""
        assert not self.indefinite, self.indefinite
        assert not self.duplicate, self.duplicate
        assert not self.unexpected, self.unexpected
        assert not self.stuck, self.stuck


@dataclass
class Load:
    """Containers n1, n2, … on the host of *lab*, whose plugins ask the agent, and runtimes that use them."""

    lab: Lab
    agents: AgentHost
    size: int
    conf: Conf
    told: list[Told] = field(default_factory=list)

    def __post_init__(self) -> None:
        Crowd(self.lab, self.size)
        self.containers = {f"c{number}": f"/run/netns/n{number}" for number in range(1, self.size + 1)}

    @contextmanager
    def runtimes(self, plugins: Sequence[Path], *, seed: int, **how: Any) -> Iterator[subprocess.Popen[str]]:
        """Eight runtimes during the block; what they say at its end is the newest in `told`."""
        wanted = {
            "plugins": [str(path) for path in plugins],
            "workers": 8,
            "containers": self.containers,
            "conf": self.conf,
            "check": True,
            "pairs": 0,
            "seed": seed,
            "settled": self.told[-1].attached if self.told else {},
            **how,
        }
        crowd = self.lab.host.popen(
            [sys.executable, str(runtime_crowd.__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert crowd.stdin is not None
        assert crowd.stdout is not None
        crowd.stdin.write(json.dumps(wanted) + "\n")
        crowd.stdin.flush()
        try:
            yield crowd
        finally:
            crowd.stdin.close()
            text = crowd.stdout.read()
            crowd.stdout.close()
            crowd.wait(DEADLINE_S)
        self.told.append(Told(**json.loads(text)))

    def call(self, command: str, container: str, conf: Conf | None = None, plugins: Path | None = None) -> Any:
        lab = self.lab if plugins is None else Lab(self.lab.host, plugins)
        return lab.call(command, conf or self.conf, container, netns=self.containers[container])

    def kill_again_and_again(self, times: int, *, seed: int, longest_s: float = 0.4) -> None:
        """Start an agent, let it live for a moment, which may end before it serves, and kill it: so many *times*."""
        draw = random.Random(seed)
        for _ in range(times):
            agent = self.launch()
            if draw.random() < 0.8:
                wait_until(lambda agent=agent: self.agents.answers(agent), DEADLINE_S)  # type: ignore[misc]
            try:
                agent.wait(draw.uniform(0, longest_s))
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait(DEADLINE_S)
                continue
            raise AssertionError(f"the agent ended by itself: {self.agents.logs.read_text()[-3000:]}")

    def launch(self) -> subprocess.Popen[str]:
        """Start an agent without waiting for it."""
        with open(self.agents.logs, "a", encoding="utf-8") as log:
            return self.lab.host.popen([*PYCNI, "agent", "--socket", SOCKET], env=ENVIRONMENT, stderr=log)

    def assert_exactly(self, attached: dict[str, Conf]) -> None:
        """Records, leases, links and rules are those of *attached*, all of which work, and of nobody else."""
        lab = self.lab
        network = self.conf["name"]
        assert lab.records() == {f"{network}/{name}/eth0": "ready" for name in attached}
        addresses = sorted(ip["address"].split("/")[0] for result in attached.values() for ip in result["ips"])
        assert sorted(lab.leases()) == addresses
        links = sorted(link["name"] for result in attached.values() for link in result["interfaces"][1:2])
        wait_until(lambda: sorted(name for name in lab.host.links() if name.startswith("veth")) == links, DEADLINE_S)
        assert sorted(lab.ports(self.conf["bridge"]) if attached else []) == links
        for name, result in attached.items():
            answer = self.call("CHECK", name, {**self.conf, "prevResult": result})
            assert answer.ok, (name, answer)
        assert sorted(masqueraded(lab)) == addresses

    def delete_all(self) -> None:
        """The DEL of every runtime once more, and the network's GC: from here on there was never anything."""
        for name in self.containers:
            answer = self.call("DEL", name)
            assert answer.ok, (name, answer)
        assert self.lab.gc(self.conf).ok


def seconds_until(condition: Any, deadline_s: float) -> float:
    """How long it takes until *condition* holds."""
    began = time.monotonic()
    wait_until(condition, deadline_s)
    return time.monotonic() - began
