"""A lab that was brought up, found again by its name: who is where, and how to run a program there.

What is known stands in /run/pycni-lab/NAME/state.json. It is written by `changing` alone, under the lab's lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, TypeVar

from pycni.host import pidns
from pycni.lab.errors import NOT_FOUND, LabError
from pycni.lab.machines import (
    EtcdMember,
    RunningAttachment,
    RunningContainer,
    RunningHost,
    RunningLink,
    machine_of,
    member_of,
)
from pycni.lab.parsing import parse_lab
from pycni.lab.process import Process
from pycni.lab.programs import finished, piped
from pycni.lab.state import BASE, MARK, SYSTEM_PATH, directory_of, names, read_state, tool, write_state
from pycni.lab.topology import Lab

__all__ = [
    "BASE",
    "MARK",
    "PLUGIN_DIR",
    "EtcdMember",
    "RunningAttachment",
    "RunningContainer",
    "RunningHost",
    "RunningLab",
    "RunningLink",
    "read_state",
    "tool",
]

T = TypeVar("T")

PLUGIN_DIR = "/run/cni-bin"  # in every host
_FOREIGN = ("CNI_", "PYCNI_", "NETCONFPATH", "TMPDIR", "XDG_")  # of the machine's own networks, and of its /run


def all_labs() -> tuple[list[RunningLab], dict[str, LabError]]:
    """The labs that are known, and by name what is wrong with those whose state cannot be read. One that goes down
    meanwhile is in neither. LabError for who may not look."""
    there: list[RunningLab] = []
    broken: dict[str, LabError] = {}
    for name in names():
        try:
            state = read_state(name)
        except LabError as failure:
            broken[name] = failure
            continue
        if state is not None:
            there.append(RunningLab(name, state))
    return there, broken


class RunningLab:
    """One lab as its state says; `reload` after others may have changed it."""

    def __init__(self, name: str, state: dict[str, Any]) -> None:
        self.name = name
        self.directory = directory_of(name)
        self.state = state
        self._lab: Lab | None = None

    @classmethod
    def load(cls, name: str) -> RunningLab:
        """The lab of that name; LabError where there is none, or its state was written by another version."""
        state = read_state(name)
        if state is None:
            there = ", ".join(names()) or "none"
            raise LabError(f"no lab called {name!r} is up", (f"labs that are: {there}",), exit_code=NOT_FOUND)
        return cls(name, state)

    def reload(self) -> None:
        """Read the state again."""
        self.state = type(self).load(self.name).state
        self._lab = None

    # -- what there is -------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Random, and different for every time that a lab is brought up."""
        return str(self.state["id"])

    @property
    def phase(self) -> str:
        """ "building" or "up"; building without a living builder means that `up` died."""
        return str(self.state["phase"])

    @property
    def builder(self) -> Process | None:
        return Process.from_json(self.state.get("builder"))

    @property
    def lab(self) -> Lab:
        """What was asked for; addresses that the file left open are "" (they are in `machines`)."""
        if self._lab is None:
            document, where = self.state["document"], self.state["directory"]
            self._lab = parse_lab(json.dumps(document), f"{self.directory}/state.json", directory=where)
        return self._lab

    @property
    def switch(self) -> Process | None:
        """Holds the one namespace in which all segments' bridges and the hosts' ports are; None before it is made."""
        return Process.from_json(self.state.get("switch"))

    def living_switch(self) -> Process:
        """`switch`; LabError once it is gone: without it there is no cable and no disk."""
        switch = self.switch
        if switch is None or not switch.alive():
            raise LabError(f"the switches of lab {self.name} are gone", next_step="`pycni lab up` makes it anew")
        return switch

    @property
    def machines(self) -> dict[str, RunningHost]:
        """Routers, etcd's hosts and hosts that were made, by name."""
        return {name: machine_of(name, each) for name, each in self.state["machines"].items()}

    @property
    def hosts(self) -> dict[str, RunningHost]:
        """Those with containers and an agent."""
        return {name: each for name, each in self.machines.items() if each.role == "host"}

    def machine(self, name: str) -> RunningHost:
        """LabError naming those there are."""
        found = self.state["machines"].get(name)
        if found is None:
            raise LabError(
                f"lab {self.name} has no host {name!r}", (_there(self.state["machines"]),), exit_code=NOT_FOUND
            )
        return machine_of(name, found)

    def container(self, host: str, name: str) -> RunningContainer:
        """LabError naming those there are."""
        containers = {each.name: each for each in self.machine(host).containers}
        if name not in containers:
            raise LabError(f"{host} has no container {name!r}", (_there(containers),), exit_code=NOT_FOUND)
        return containers[name]

    @property
    def containers(self) -> tuple[RunningContainer, ...]:
        return tuple(each for host in self.hosts.values() for each in host.containers)

    @property
    def links(self) -> tuple[RunningLink, ...]:
        """All cables of the underlay."""
        return tuple(link for machine in self.machines.values() for link in machine.links)

    def link(self, host: str, segment: str = "") -> RunningLink:
        """The cable of *host* to *segment* (default: its first); LabError where there is none."""
        for link in self.machine(host).links:
            if not segment or link.segment == segment:
                return link
        raise LabError(f"{host} has no link to {segment or 'any segment'}", exit_code=NOT_FOUND)

    @property
    def etcd(self) -> dict[str, EtcdMember]:
        """The members by name; {} for a lab without etcd."""
        return {name: member_of(name, each) for name, each in self.state.get("etcd", {}).items()}

    @property
    def etcd_connection(self) -> dict[str, Any]:
        """The `etcd` object of a plugin's config on any host; {} for a lab without etcd."""
        return dict(self.state.get("etcd_connection") or {})

    def log(self, name: str) -> str:
        """The log file of a host's agent ("h1"), a member ("etcd1") or a container's command ("h1/web")."""
        host, slash, container = name.partition("/")
        if slash:
            self.container(host, container)
            return self.log_of_container(host, container)
        self.machine(host)
        return os.path.join(self.directory, "logs", f"{name}.log")

    def log_of_container(self, host: str, container: str) -> str:
        """As `log`, also for a container that is not attached yet."""
        return os.path.join(self.directory, "logs", f"{host}.{container}.log")

    # -- running programs ----------------------------------------------------------------------------------------------

    def argv(self, host: str, container: str | None, argv: Sequence[str]) -> list[str]:
        """The command line that runs *argv* there, for `starting`; nsenter becomes the program, so the pid stays."""
        machine = self._running(host)
        prefix = [tool("nsenter"), f"--mount={machine.namespace('mnt')}"]
        if container is None:
            return [*prefix, f"--uts={machine.namespace('uts')}", f"--net={machine.namespace()}", "--", *argv]
        found = self.container(host, container)
        if found.process is not None and found.process.alive():
            inside = f"/proc/{found.process.pid}"
            kinds = [
                f"--{option}={inside}/ns/{kind}" for option, kind in (("mount", "mnt"), ("uts", "uts"), ("net", "net"))
            ]
            return [tool("nsenter"), *kinds, f"--root={inside}/root", f"--wd={inside}/root", "--", *argv]
        return [*prefix, f"--uts={machine.namespace('uts')}", f"--net={machine.file(found.netns)}", "--", *argv]

    def starting(self, host: str, start: Callable[[], T]) -> T:
        """What *start* answers; the processes that it starts are *host*'s. Their pids are those of this machine."""
        with self.pid_namespace(host) as fd:
            return pidns.inside(fd, start)

    @contextlib.contextmanager
    def pid_namespace(self, host: str) -> Iterator[int]:
        """A descriptor of *host*'s PID namespace. LabError where it is off."""
        machine = self._running(host)
        fd = os.open(machine.namespace("pid"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._running(host)  # so that the path was that of its holder, and not of who has its number now
            yield fd
        finally:
            os.close(fd)

    def _running(self, host: str) -> RunningHost:
        machine = self.machine(host)
        if not machine.holder.alive():
            raise LabError(f"{host} is off", next_step=f"`pycni lab start host {host}` starts it")
        return machine

    def switch_argv(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs *argv* in the network namespace of the switches, with this machine's files."""
        return [tool("nsenter"), f"--net=/proc/{self.living_switch().pid}/ns/net", "--", *argv]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """That of programs in the lab: the caller's, CNI's directory, and the mark by which `down` finds them."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
        path = f"{own.get('PATH', SYSTEM_PATH)}:{SYSTEM_PATH}:{os.path.dirname(sys.executable)}"
        return {**own, "PATH": path, "CNI_PATH": PLUGIN_DIR, MARK: self.id, **(more or {})}

    def run(
        self,
        host: str,
        container: str | None,
        argv: Sequence[str],
        *,
        input: str = "",
        check: bool = True,
        timeout_s: float | None = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on *host*, or in its *container*, to the end. LabError with both outputs where it fails."""
        where = f"{host}/{container}" if container else host
        command, own = self.argv(host, container, argv), self.environment(env)
        process = self.starting(host, lambda: piped(command, own))
        return finished(process, where, argv, input=input, check=check, timeout_s=timeout_s)

    def run_switch(
        self, argv: Sequence[str], *, input: str = "", check: bool = True, timeout_s: float | None = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """As `run`, in the namespace of the switches."""
        process = piped(self.switch_argv(argv), self.environment())
        return finished(process, "switch", argv, input=input, check=check, timeout_s=timeout_s)

    def popen(
        self,
        host: str,
        container: str | None,
        argv: Sequence[str],
        *,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start and return; the pid is the program's, which stays when this process ends, until the lab goes down."""
        command, own = self.argv(host, container, argv), self.environment(env)

        def start() -> subprocess.Popen[str]:
            return subprocess.Popen(
                command, stdin=stdin, stdout=stdout, stderr=stderr, text=True, env=own, start_new_session=True
            )

        return self.starting(host, start)

    # -- changing what is known ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """The newest state, to be changed in place; kept when the block ends without exception. One at a time.

        The lock is that of the file: brief, and not the one that `up` and `down` hold while they work.
        """
        with open(os.path.join(self.directory, "state.lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = read_state(self.name)
            if state is None or state["id"] != self.id:
                raise LabError(f"lab {self.name} was taken down meanwhile", exit_code=NOT_FOUND)
            yield state
            write_state(self.name, state)
            if state["document"] != self.state["document"]:
                self._lab = None
            self.state = state


def _there(found: Mapping[str, Any]) -> str:
    return f"there are: {', '.join(found) or 'none'}"
