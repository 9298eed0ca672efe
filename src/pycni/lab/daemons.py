"""Starting and ending the processes of a lab: agents, members of etcd."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

import pycni
from pycni.agent.config import DEFAULT_SOCKET
from pycni.lab.cluster import spawn_member, wait_healthy
from pycni.lab.errors import LabError
from pycni.lab.hosts import machine_directory
from pycni.lab.process import Process
from pycni.lab.running import RunningLab
from pycni.lab.spawning import log_file, spawn, tail

PYCNI = (sys.executable, "-m", "pycni")
ANSWERS_S = 60.0
STOP_S = 20.0
_PAUSE_S = 0.005


def package_environment() -> dict[str, str]:
    """What lets PYCNI find this package, wherever it was started from."""
    return {"PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(str(pycni.__file__))))}


# -- agents ------------------------------------------------------------------------------------------------------------


def configure_agent(lab: RunningLab, host: str, keys: Mapping[str, Any]) -> None:
    """Write the agent's configuration; none for no keys."""
    path = os.path.join(machine_directory(lab, host), "etc-pycni", "agent.toml")
    if keys:
        with open(path, "w", encoding="utf-8") as file:
            file.write("".join(f"{key} = {_toml(value)}\n" for key, value in keys.items()))
    elif os.path.exists(path):
        os.unlink(path)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}"'
    return str(value)


def spawn_agent(lab: RunningLab, host: str) -> Process:
    """Start the agent of *host*; `wait_agent` says when it answers."""
    argv = lab.argv(host, None, [*PYCNI, "agent"])
    with log_file(lab.log(host)) as log:
        return lab.starting(host, lambda: spawn(argv, lab.environment(package_environment()), output=log))


def wait_agent(lab: RunningLab, host: str, agent: Process, deadline_s: float = ANSWERS_S) -> None:
    """Until the agent listens; LabError with the end of its log where it does not."""
    path = lab.machine(host).file(DEFAULT_SOCKET)
    end = time.monotonic() + deadline_s
    while not _listens(path):
        if not agent.alive():
            raise LabError(f"the agent of {host} ended", tail(lab.log(host)))
        if time.monotonic() > end:
            raise LabError(f"the agent of {host} does not answer after {deadline_s:g} s", tail(lab.log(host)))
        time.sleep(_PAUSE_S)


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attempt:
        try:
            attempt.connect(path)
        except OSError:
            return False
        return True


def start_agent(lab: RunningLab, host: str) -> Process:
    """Start the agent of *host* and wait until it answers; the one that runs, if one does."""
    found = lab.machine(host).agent
    if found is not None and found.alive():
        return found
    with lab.changing() as state:
        agent = spawn_agent(lab, host)
        state["machines"][host]["agent"] = agent.as_json()
    wait_agent(lab, host, agent)
    return agent


def stop_agent(lab: RunningLab, host: str) -> None:
    """End it as systemd would, and wait."""
    _end_agent(lab, host, signal.SIGTERM)


def kill_agent(lab: RunningLab, host: str) -> None:
    """End it without a chance to do anything more."""
    _end_agent(lab, host, signal.SIGKILL)


def _end_agent(lab: RunningLab, host: str, how: signal.Signals) -> None:
    found = lab.machine(host).agent
    if found is not None:
        found.end(how, STOP_S)


# -- etcd --------------------------------------------------------------------------------------------------------------


def start_member(lab: RunningLab, name: str, *, wait: bool = True) -> None:
    """Start a member of etcd, if it does not run; *wait* until it is healthy (one alone of three never is)."""
    found = _member(lab, name)
    if found is None or not found.alive():
        with lab.changing() as state:
            state["etcd"][name]["process"] = spawn_member(lab, name).as_json()
    if wait:
        wait_healthy(lab, name)


def stop_member(lab: RunningLab, name: str) -> None:
    """SIGTERM, and wait: etcd hands leadership over and closes its files."""
    _end_member(lab, name, signal.SIGTERM)


def kill_member(lab: RunningLab, name: str) -> None:
    """SIGKILL, and wait."""
    _end_member(lab, name, signal.SIGKILL)


def _end_member(lab: RunningLab, name: str, how: signal.Signals) -> None:
    found = _member(lab, name)
    if found is not None:
        found.send(signal.SIGCONT)  # a paused one would keep SIGTERM pending
        found.end(how, STOP_S)


def _member(lab: RunningLab, name: str) -> Process | None:
    members = lab.etcd
    if name not in members:
        raise LabError(f"lab {lab.name} has no etcd member {name!r}", (f"there are: {', '.join(members) or 'none'}",))
    return members[name].process
