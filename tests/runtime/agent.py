"""The agent beside a real runtime."""

from __future__ import annotations

import signal

from netns_fixtures import wait_until
from tests.kernel.agent_lab import DEADLINE_S
from tests.runtime.command_line import ARGV
from tests.runtime.isolated import Isolated

CONFIG = "/run/agent.toml"


class Agent:
    """The agent beside a runtime, in all of its namespaces, as on a host that has only these.

    Its rules go with the last container, so that what is left can be looked at without waiting.
    """

    def __init__(self, place: Isolated) -> None:
        self.place = place

    def start(self) -> None:
        self.place.run(["sh", "-c", f"echo keep_rules_s = 0 >{CONFIG}"])
        run = '"$@" </dev/null >/run/agent.log 2>&1 &'
        self.place.run(["sh", "-c", run, "sh", *ARGV, "agent", "--config", CONFIG])
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
