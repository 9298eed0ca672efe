"""Processes that outlive the command that started them, known by pid and start time."""

from __future__ import annotations

import os
import signal
import time

from pycni.cni.value import Value
from pycni.store.boot import GONE, START, STATE, stat_fields

_FLAGS = 6  # proc_pid_stat(5): field 9, counted as STATE is
_PF_EXITING = 0x4  # <linux/sched.h>
_PAUSE_S = 0.002


class Process(Value):
    """One process; *start* in clock ticks since boot, because a pid is given to another some time after its end."""

    pid: int
    start: int

    def alive(self) -> bool:
        """Whether it still runs. A zombie does not, nor does an init that has nothing left but its number.

        The init of a PID namespace becomes a zombie when every process that was there has been reaped by its parent
        (zap_pid_ns_processes()). Some have theirs outside, and who gets them when that has ended, the first process of
        a container for example, may take its time, or reap nobody. The init sleeps then, and its memory, files and
        namespaces are gone; in any other process's end nothing sleeps so.
        """
        try:
            fields = stat_fields(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        if int(fields[START]) != self.start or fields[STATE] in GONE:
            return False
        waits = fields[STATE] == b"S" and int(fields[_FLAGS]) & _PF_EXITING
        return not waits or os.path.exists(f"/proc/{self.pid}/ns/net")

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
        if self.send(number) and not self.wait(deadline_s):
            self.send(signal.SIGKILL)
            self.wait(deadline_s)
        self.reap()

    def wait(self, deadline_s: float) -> bool:
        """Wait for its end; False if it still runs after *deadline_s* seconds."""
        end = time.monotonic() + deadline_s
        while self.alive():
            if time.monotonic() > end:
                return False
            time.sleep(_PAUSE_S)
        return True

    def reap(self) -> bool:
        """Take notice of its end; False where it is a child of this process and no zombie yet."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:  # somebody else's child
            return True

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has *pid* now; FileNotFoundError or ProcessLookupError where there is none."""
        return cls(pid=pid, start=int(stat_fields(pid)[START]))

    @classmethod
    def own(cls) -> Process:
        return cls.of(os.getpid())

    @classmethod
    def from_json(cls, value: list[int] | None) -> Process | None:
        return None if value is None else cls(pid=value[0], start=value[1])

    def as_json(self) -> list[int]:
        return [self.pid, self.start]
