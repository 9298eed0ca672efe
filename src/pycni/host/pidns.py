"""PID namespaces: start a process in one, or as the first of a new one.

A process stays where it was born. What setns(2) and unshare(2) move is the place where the calling *thread's* children
are born (pid_namespaces(7)); posix_spawn, fork and subprocess return the child's number in the caller's own namespace.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWPID = 0x20000000  # <linux/sched.h>
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

_libc = ctypes.CDLL(None, use_errno=True)


def inside(fd: int, start: Callable[[], T]) -> T:
    """What *start* answers, or raises; the processes that it starts are in the PID namespace of *fd*.

    OSError EINVAL if that is none below our own; ENOMEM from the start itself once the namespace's init has ended.
    """
    return _apart(lambda: enter(fd), start)


def fresh(start: Callable[[], T]) -> T:
    """As `inside`, of a new namespace: the first process that *start* starts is its init, all end with it."""
    return _apart(lambda: _check("unshare", _libc.unshare(CLONE_NEWPID)), start)


def enter(fd: int) -> None:
    """From now on the calling thread's children are born there, and it cannot make threads any more (clone(2))."""
    _check("setns", _libc.setns(fd, CLONE_NEWPID))


def end_with_parent() -> None:
    """The calling process is killed when the thread that made it ends; also after execve of what is not setuid."""
    _check("prctl", _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def _apart(move: Callable[[], None], start: Callable[[], T]) -> T:
    """In a thread that ends afterwards: nothing has to be put back, whatever happens, and no other thread is moved.

    The caller's signals wait for it: a KeyboardInterrupt on the way would not know of a process that is being started.
    """
    answers: list[T] = []
    failures: list[BaseException] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def work() -> None:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # the child's, too
            move()
            answers.append(start())
        except BaseException as failure:  # the caller's
            failures.append(failure)

    try:
        thread = threading.Thread(target=work, name="pidns")
        thread.start()
        thread.join()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if failures:
        raise failures[0]
    return answers[0]


def _check(call: str, answer: int) -> None:
    if answer:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
