"""Programs that outlive the call, and even the process, that started them."""

from __future__ import annotations

import os
import select

from pycni.host.program import ENVIRONMENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def start(command: Sequence[str]) -> int:
    """Start *command* (absolute path first) in a session of its own, which no terminal ends; its pid. Its stderr is
    ours."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, nothing, number) for number in (0, 1)]
        # Python ignores SIGPIPE (13); a child must not inherit that.
        return os.posix_spawn(command[0], list(command), ENVIRONMENT, file_actions=actions, setsid=True, setsigdef=[13])
    finally:
        os.close(nothing)


def wait_for_end(pidfd: int) -> None:
    """Until the process of a descriptor of pidfd_open(2) has ended, child or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()


def reap(pid: int) -> bool:
    """Whether that process, a child of ours, has ended; it is forgotten then. False for anybody else's child."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False
