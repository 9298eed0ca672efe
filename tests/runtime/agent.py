"""The agent beside a real runtime."""

from __future__ import annotations

import signal

from netns_fixtures import wait_until
from tests.kernel.agent_lab import DEADLINE_S
from tests.runtime.command_line import ARGV
from tests.runtime.isolated import Isolated


class Agent:
    """The agent beside a runtime, in all of its namespaces, as on a host that has only these."""

    def __init__(self, place: Isolated) -> None:
        self.place = place

    def start(self) -> None:
        self.place.run(["sh", "-c", '"$@" </dev/null >/run/agent.log 2>&1 &', "sh", *ARGV, "agent"])
        wait_until(self._answers, DEADLINE_S, "the agent answers")

    def _answers(self) -> bool:
        return self.place.run([*ARGV, "agent", "status"], check=False).returncode == 0

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        pid = str(self.place.pycni_json("agent", "status")["pid"])
        self.place.run(["kill", f"-{how.name.removeprefix('SIG')}", pid])
        wait_until(lambda: not self._answers(), DEADLINE_S)

    def counts(self, plugin: str = "bridge") -> dict[str, int]:
        """Calls of *plugin* without error since its start, by command."""
        calls = self.place.pycni_json("agent", "status")["calls"]
        return {call["command"]: call["count"] for call in calls if (call["plugin"], call["code"]) == (plugin, 0)}
