"""A host with pycni installed and an agent that runs as `pycni agent`, and what the tests ask of both."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netns_fixtures import CniRun, Host, Namespace, wait_until
from pycni.cli.agent_client import ask
from pycni.cli.launcher import package_parent

BIN = "/run/pycni-bin"  # /run is the host's own
SOCKET = "/run/pycni/agent.sock"
CONFIG = "/etc/pycni/agent.toml"
DEADLINE_S = 20
ENVIRONMENT = {"PYTHONPATH": package_parent(), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH": BIN}
PYCNI = (sys.executable, "-m", "pycni")

# A foreign IPAM plugin that says when it was asked and answers when it may.
WAITING_IPAM = """#!/bin/sh
[ "$CNI_COMMAND" = ADD ] && echo asked >/run/asked && read -r _ </run/go
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24"}]}'
"""


@dataclass
class AgentHost:
    """A host, and the agents that were started on it."""

    host: Host
    logs: Path
    agents: list[subprocess.Popen[str]] = field(default_factory=list)

    def pycni(self, *argv: str, rc: int | None = 0, as_user: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """`pycni ARGV`; *rc* is the exit code it must have (None: any)."""
        done = self.host.run([*as_user, *PYCNI, *argv], check=False, env=ENVIRONMENT)
        assert rc in (None, done.returncode), f"pycni {' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def json(self, *argv: str, **how: Any) -> Any:
        return json.loads(self.pycni(*argv, "--json", **how).stdout)

    def install(self, kind: str = "standalone") -> None:
        self.pycni("install", "--bin-dir", BIN, "--launcher", kind)

    def configure(self, text: str) -> None:
        """Put *text* into the configuration; without a word about it, rules go with the last container."""
        if "keep_rules_s" not in text:
            text = f"keep_rules_s = 0\n{text}"
        self.host.run(["mkdir", "-p", "/etc/pycni"])
        self.host.run(["sh", "-c", f"cat >{CONFIG}"], input=text)

    def start(self, *argv: str, config: str = "", socket: str = SOCKET) -> subprocess.Popen[str]:
        """Start an agent and wait until it answers."""
        if config or not self.host.file(CONFIG).exists():
            self.configure(config)
        with open(self.logs, "a", encoding="utf-8") as log:
            agent = self.host.popen([*PYCNI, "agent", *argv], env=ENVIRONMENT, stderr=log)
        self.agents.append(agent)
        wait_until(lambda: self.answers(agent, socket), DEADLINE_S)
        return agent

    def answers(self, agent: subprocess.Popen[str], socket: str = SOCKET) -> bool:
        assert agent.poll() is None, self.logs.read_text()
        try:
            return bool(self.ask("status", socket)["pid"] == agent.pid)
        except Exception:  # not yet, or still the one before
            return False

    def ask(self, method: str, socket: str = SOCKET, **question: Any) -> Any:
        """A question to the agent, from a thread on the host."""
        return self.host.in_namespace(lambda: ask(method, socket, **question))

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the newest agent; its exit code."""
        agent = self.agents.pop()
        agent.send_signal(how)
        return agent.wait(DEADLINE_S)

    def log(self) -> list[dict[str, Any]]:
        """What agents wrote so far."""
        return [json.loads(line) for line in self.logs.read_text().splitlines()]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == event]

    def counts(self) -> dict[str, int]:
        """Calls that the agent answered without error, by command."""
        return {call["command"]: call["count"] for call in self.ask("status")["calls"] if call["code"] == 0}

    def call(
        self, command: str, conf: dict[str, Any], container: Namespace, *, cni_path: str = BIN, env: Any = ()
    ) -> CniRun:
        """One call of the installed plugin that *conf* names, as a runtime makes it."""
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container.name,
            "CNI_NETNS": container.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": cni_path,
            **dict(env),
        }
        done = self.host.run([f"{BIN}/{conf['type']}"], input=json.dumps(conf), check=False, env=variables)
        return CniRun(command=command, rc=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def put_executable(self, path: str, text: str) -> None:
        self.host.run(["sh", "-c", 'cat >"$1" && chmod 755 "$1"', "sh", path], input=text)
