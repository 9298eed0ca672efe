"""Runs inside a host of the benchmark: makes container namespaces and calls plugins, on request.

Entering a host costs more than a plugin call (nsenter is a process, and so is the shell behind it), so it happens once:
requests come as one JSON object per line on stdin, each is answered by one line on stdout.

    {"do": "namespaces", "names": ["c1", ...]}                          -> {}
    {"do": "calls", "workers": 8, "agent": PID, "calls": [{"argv", "env", "stdin"}, ...]}
        -> {"wall": s, "agent_cpu": s, "calls": [outcome, ...]}

An outcome has "rc", "start" (seconds of CLOCK_MONOTONIC), "wall" and "cpu" (seconds; those of the process and of every
child it waited for, which is what wait4(2) tells), "stdout" and "stderr".
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from typing import Any

RUN_NETNS = "/run/netns"
CLONE_NEWNET = 0x40000000
MS_BIND = 4096
DEADLINE_S = 400  # for one request; SIGALRM then ends this process, and whoever reads its answers sees that

_libc = ctypes.CDLL(None, use_errno=True)


def make_namespaces(names: list[str]) -> None:
    """A network namespace per name, kept by a bind mount below RUN_NETNS as `ip netns` does; no process lives in it."""
    failures: list[OSError] = []
    for name in names:
        # The thread's own namespace goes with it, the mount keeps the new one. unshare moves one thread, not us.
        thread = threading.Thread(target=_make_namespace, args=(f"{RUN_NETNS}/{name}", failures))
        thread.start()
        thread.join()
    if failures:
        raise failures[0]


def _make_namespace(path: str, failures: list[OSError]) -> None:
    try:
        with open(path, "x"):
            pass
        _checked(_libc.unshare(CLONE_NEWNET), "unshare")
        _checked(_libc.mount(b"/proc/thread-self/ns/net", path.encode(), None, MS_BIND, None), f"mount {path}")
    except OSError as failure:
        failures.append(failure)


def _checked(answer: int, what: str) -> None:
    if answer:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


class Call:
    """One plugin call that runs; its in- and output are files in memory, so nobody has to feed or to drain it."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self._streams = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdin", "stdout", "stderr")]
        os.write(self._streams[0], wanted["stdin"].encode())
        os.lseek(self._streams[0], 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(self._streams)]
        argv = wanted["argv"]
        self.start = time.monotonic()
        # Python ignores these two, and an ignored signal would stay so in the plugin.
        self.pid = os.posix_spawn(
            argv[0], argv, wanted["env"], file_actions=actions, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ]
        )

    def ended(self, now: float, status: int, usage: Any) -> dict[str, Any]:
        stdout, stderr = (os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace") for fd in self._streams[1:])
        for fd in self._streams:
            os.close(fd)
        return {
            "rc": os.waitstatus_to_exitcode(status),
            "start": self.start,
            "wall": now - self.start,
            "cpu": usage.ru_utime + usage.ru_stime,
            "stdout": stdout,
            "stderr": stderr,
        }


def make_calls(wanted: list[dict[str, Any]], workers: int, agent: int) -> dict[str, Any]:
    """Make all calls, at most *workers* at a time, in the order given; "wall" is that of all of them together.

    "agent_cpu" is what the process *agent* used meanwhile; 0 without one.
    """
    before = cpu_of(agent)
    start = time.monotonic()
    running: dict[int, tuple[int, Call]] = {}
    outcomes: list[dict[str, Any]] = [{} for _ in wanted]
    for position, one in enumerate(wanted):
        call = Call(one)
        running[call.pid] = position, call
        if len(running) == workers:
            _reap(running, outcomes)
    while running:
        _reap(running, outcomes)
    wall = time.monotonic() - start
    return {"wall": wall, "agent_cpu": cpu_of(agent) - before, "calls": outcomes}


def cpu_of(pid: int) -> float:
    """Seconds of CPU of a running process and all its threads; 0 for pid 0."""
    # The clock of another process, as clock_getcpuclockid(3) makes it: CPUCLOCK_SCHED in linux/posix-timers.h.
    return time.clock_gettime(~pid << 3 | 2) if pid else 0.0


def _reap(running: dict[int, tuple[int, Call]], outcomes: list[dict[str, Any]]) -> None:
    pid, status, usage = os.wait4(-1, 0)
    now = time.monotonic()
    position, call = running.pop(pid)
    outcomes[position] = call.ended(now, status, usage)


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        signal.alarm(DEADLINE_S)
        answer: dict[str, Any] = {}
        if request["do"] == "namespaces":
            make_namespaces(request["names"])
        else:
            answer = make_calls(request["calls"], request["workers"], request["agent"])
        signal.alarm(0)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
