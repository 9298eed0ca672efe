"""Taking a lab away: every process in its namespaces is ended, by what marks it as the lab's; the kernel does the rest.

With a machine's holder, the init of its PID namespace, the kernel ends all that runs on the machine. Besides, a process
is the lab's if its environment has the lab's id, or if it is in a namespace that the lab made, as a capture is that was
begun from outside. Nothing else is touched, whatever its name.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable

from pycni.lab.errors import LabError
from pycni.lab.process import Process
from pycni.lab.running import RunningContainer, RunningHost, RunningLab
from pycni.lab.state import BASE, MARK, directory_of

DEADLINE_S = 20.0
REAP_S = 0.1
KINDS = ("net", "mnt", "pid")


def end_lab(lab_id: str, machines: Iterable[RunningHost]) -> int:
    """End every process of the lab with that id; how many there were. LabError where some would not go."""
    mark = f"{MARK}={lab_id}".encode()
    with _Pins(place for machine in machines for place in _places(machine)) as pins:
        return _end_all(lambda pid: _has_mark(pid, mark) or pins.hold(pid))


def end_machine(lab: RunningLab, name: str) -> None:
    """End every process on a machine, in its containers too: the machine is off then."""
    with _Pins(_places(lab.machine(name))) as pins:
        _end_all(pins.hold)


def _places(machine: RunningHost) -> list[str]:
    """The namespaces of a machine and its containers. [] if it is off: the paths lead nowhere then, or to those of a
    process that has the holder's number now.
    """
    if not machine.holder.alive():
        return []
    places = [machine.namespace(kind) for kind in KINDS]
    return places + [machine.file(container.netns) for container in machine.containers]


def end_container(lab: RunningLab, container: RunningContainer) -> None:
    """End every process in the container's network namespace, which stays for its interfaces to be taken away."""
    with _Pins([lab.machine(container.host).file(container.netns)]) as pins:
        _end_all(pins.hold)


def remove_directory(name: str) -> None:
    """The lab's directory; and that of all labs, if this was the last."""
    shutil.rmtree(directory_of(name), ignore_errors=True)
    try:
        os.rmdir(BASE)
    except OSError:
        pass  # other labs


class _Pins:
    """Namespaces that are kept open, so that their numbers stay theirs while processes are compared with them."""

    def __init__(self, places: Iterable[str]) -> None:
        self._identities: set[tuple[int, int]] = set()
        self._open: list[int] = []
        everybodys = {_identity(f"/proc/{pid}/ns/{kind}") for kind in KINDS for pid in ("self", "1")}
        for place in places:
            try:
                self._open.append(os.open(place, os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                continue  # gone
            status = os.fstat(self._open[-1])
            identity = (status.st_dev, status.st_ino)
            if identity not in everybodys:
                self._identities.add(identity)

    def hold(self, pid: int) -> bool:
        """Whether the process is in one of them."""
        return any(_identity(f"/proc/{pid}/ns/{kind}") in self._identities for kind in KINDS)

    def __enter__(self) -> _Pins:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._open:
            os.close(fd)


def _end_all(matches: Callable[[int], bool]) -> int:
    """Kill what matches until nothing does: a fork in between is seen in the next round."""
    ended: set[Process] = set()
    end = time.monotonic() + DEADLINE_S
    while True:
        found = {process for pid in _pids() if matches(pid) and (process := _process(pid)) is not None}
        if not found:
            _reap(ended)
            return len(ended)
        if time.monotonic() > end:
            left = ", ".join(str(process.pid) for process in found)
            raise LabError(f"processes {left} of the lab do not end", next_step="see /proc/PID/stack of one of them")
        for process in found:
            process.send(signal.SIGKILL)
        for process in found:
            process.end()
        ended |= found


def _reap(ended: Iterable[Process]) -> None:
    """Leave no zombies to this process, if it made the lab itself: an init becomes one when all others are reaped."""
    end = time.monotonic() + REAP_S
    left = set(ended)
    while left and time.monotonic() < end:
        left = {process for process in left if not process.reap()}
        time.sleep(0.001 if left else 0)


def _process(pid: int) -> Process | None:
    try:
        process = Process.of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return process if process.alive() else None


def _pids() -> list[int]:
    me = os.getpid()
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != me]


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False  # ended, or a thread of the kernel


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
