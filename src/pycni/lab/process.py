"""Processes that outlive the command that started them, known by pid and start time."""

from __future__ import annotations

import os
import select
import signal
import time

from pycni.cni.value import Value
from pycni.store.boot import process_alive

_START = 19  # proc_pid_stat(5): field 22, counted from behind the command name


class Process(Value):
    """One process; *start* in clock ticks since boot, because a pid is given to another some time after its end."""

    pid: int
    start: int

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return process_alive(self.pid, self.start)

    def send(self, number: signal.Signals) -> bool:
        """Signal it; False if it has ended."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive():  # the pid is held by the descriptor from here on, so it cannot become another's
                return False
            signal.pidfd_send_signal(pidfd, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(pidfd)

    def end(self, number: signal.Signals = signal.SIGKILL, deadline_s: float = 10.0) -> None:
        """Signal it and wait for its end; after *deadline_s* seconds it is killed."""
        if not self.send(number):
            self._reap()
            return
        if not self.wait(deadline_s):
            self.send(signal.SIGKILL)
            self.wait(deadline_s)
        self._reap()

    def wait(self, deadline_s: float) -> bool:
        """Wait for its end; False if it still runs after *deadline_s* seconds."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            end = time.monotonic() + deadline_s
            while self.alive():
                if not select.select([pidfd], [], [], max(end - time.monotonic(), 0))[0]:
                    return not self.alive()
            return True
        finally:
            os.close(pidfd)

    def _reap(self) -> None:
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # somebody else's child

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has *pid* now; FileNotFoundError or ProcessLookupError where there is none."""
        with open(f"/proc/{pid}/stat", "rb") as file:
            return cls(pid=pid, start=int(file.read().rpartition(b")")[2].split()[_START]))

    @classmethod
    def own(cls) -> Process:
        return cls.of(os.getpid())

    @classmethod
    def from_json(cls, value: list[int] | None) -> Process | None:
        return None if value is None else cls(pid=value[0], start=value[1])

    def as_json(self) -> list[int]:
        return [self.pid, self.start]
