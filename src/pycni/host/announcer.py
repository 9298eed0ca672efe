"""A thread that carries out what a call leaves for a moment after its answer."""

from __future__ import annotations

import ctypes
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from pycni.host import netns

CLOCK_MONOTONIC = 1


class Announcer:
    """Calls what it is given *after_s* seconds later, one after the other, each inside its network namespace.

    A timer wakes the thread, not who puts something in: awake at once, it would take the interpreter from a call that
    is not answered yet, only to go to sleep until its time.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._waiting: deque[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = deque()
        self._guard = threading.Lock()
        self._timer = _Timer()
        threading.Thread(target=self._work, name="announcer", daemon=True).start()

    def put(self, netns_fd: int, function: Callable[..., object], *args: Any) -> None:
        """Have *function* called; the descriptor may be closed when this returns. From any thread."""
        with self._guard:
            self._waiting.append((time.monotonic() + self._after_s, os.dup(netns_fd), function, args))
            is_first = len(self._waiting) == 1
        if is_first:  # else the thread has set the timer, or will when it is done with what is before
            self._timer.set(self._after_s)

    def _work(self) -> None:
        while True:
            self._timer.wait()
            while self._waiting:
                left_s = self._waiting[0][0] - time.monotonic()
                if left_s > 0:
                    self._timer.set(left_s)
                    break
                _, fd, function, args = self._waiting.popleft()
                _call(fd, function, args)


def _call(fd: int, function: Callable[..., object], args: tuple[Any, ...]) -> None:
    try:
        netns.inside(fd, function, *args)
    except OSError:
        pass  # the container has gone meanwhile
    except Exception as failure:  # a bug must not cost the thread
        traceback.print_exception(failure)
    finally:
        os.close(fd)


class _Timer:
    """timerfd_create(2), which the os module has since Python 3.13."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(CLOCK_MONOTONIC, os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")

    def set(self, seconds: float) -> None:
        """Let `wait` end after that many seconds, which must be more than 0."""
        nanoseconds = max(1, round(seconds * 1e9))
        setting = (ctypes.c_long * 4)(0, 0, *divmod(nanoseconds, 10**9))  # struct itimerspec: interval, value
        if self._libc.timerfd_settime(self._fd, 0, setting, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def wait(self) -> None:
        os.read(self._fd, 8)
