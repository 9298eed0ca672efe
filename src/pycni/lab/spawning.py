"""Starting processes that outlive this one: sessions of their own, nothing inherited, and without Popen's memory."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Iterator, Mapping, Sequence

from pycni.host import pidns
from pycni.lab.errors import LabError
from pycni.lab.process import Process


def spawn(argv: Sequence[str], environment: Mapping[str, str], *, output: int, stdin: int | None = None) -> Process:
    """Start *argv* (absolute path first) in a new session, stdout and stderr to the descriptor *output*."""
    with contextlib.ExitStack() as closing:
        if stdin is None:
            stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            closing.callback(os.close, stdin)
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
        # Python ignores SIGPIPE, and a shell in the background SIGINT: an ignored signal would stay so.
        default = [signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT]
        pid = os.posix_spawn(
            argv[0], list(argv), dict(environment), file_actions=actions, setsid=True, setsigdef=default, setsigmask=[]
        )
    return Process.of(pid)


@contextlib.contextmanager
def log_file(path: str) -> Iterator[int]:
    """A descriptor that appends to the log at *path*."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield opened
    finally:
        os.close(opened)


def tail(path: str, lines: int = 15) -> list[str]:
    """The last lines of a log; none if there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()[-lines:]
    except FileNotFoundError:
        return []


class Starting:
    """A process that says "ready" once it has prepared its namespaces, and then keeps them.

    *first*: in a new PID namespace, of which it is the init.
    """

    def __init__(self, name: str, argv: Sequence[str], environment: Mapping[str, str], *, first: bool = False) -> None:
        self.name = name
        self._read, write = os.pipe2(os.O_CLOEXEC)
        try:
            start = functools.partial(spawn, argv, environment, output=write)
            self.process = pidns.fresh(start) if first else start()
        except BaseException:
            os.close(self._read)
            raise
        finally:
            os.close(write)

    def ready(self) -> Process:
        """The process, once it is ready; LabError with what it said instead."""
        with open(self._read, encoding="utf-8", errors="replace") as file:
            said = file.read().split("\n")  # ends when the script points its outputs elsewhere, or dies
        if "ready" not in said:
            self.process.end()
            raise LabError(f"the namespaces of {self.name} cannot be made", [line for line in said if line])
        return self.process
