"""Pipes through which splice(2) moves data from socket to socket; made when first needed, and kept for the next."""

from __future__ import annotations

import os
from fcntl import F_SETPIPE_SZ, fcntl

TYPE_CHECKING = False
if TYPE_CHECKING:
    Pipe = tuple[int, int, int]  # where it is read, where it is written, bytes that it holds

# The more goes through at a time, the less often a reader that was faster has to be woken: through 1 MiB a gigabyte
# takes two thirds of the processor time that it takes through 256 KiB (to the container, docs/decisions/0007). 1 MiB is
# pipe-max-size, and all pipes of one unprivileged user may have pipe-user-pages-soft pages, 64 MiB, together; more is
# refused (fs/pipe.c). So half of that for a few large ones, as a pipe is in hand only for a moment or while its reader
# is slow, and the rest for many small ones.
LARGE = 1024 * 1024  # bytes
SMALL = 128 * 1024
MOST_LARGE = 32
MOST_PIPES = 256


class Pipes:
    """At most *most* pipes, each in nobody's or in one connection's hand."""

    def __init__(self, most: int = MOST_PIPES) -> None:
        self.most = most
        self._most_large = MOST_LARGE
        self._made = {LARGE: 0, SMALL: 0}
        self._free: dict[int, list[Pipe]] = {LARGE: [], SMALL: []}

    @property
    def made(self) -> int:
        """How many there are, free or not."""
        return sum(self._made.values())

    def take(self) -> Pipe | None:
        """An empty pipe, a large one if there is one; None where there are none left: data is copied then."""
        free = self._free
        if free[LARGE]:
            return free[LARGE].pop()
        if self._made[LARGE] < self._most_large and (pipe := self._make(LARGE)):
            return pipe
        return free[SMALL].pop() if free[SMALL] else self._make(SMALL)

    def give(self, pipe: Pipe, *, empty: bool) -> None:
        """Back; what is still in it is thrown away with it."""
        if empty:
            self._free[pipe[2]].append(pipe)
            return
        os.close(pipe[0])
        os.close(pipe[1])
        self._made[pipe[2]] -= 1

    def _make(self, size: int) -> Pipe | None:
        if self.made >= self.most:
            return None
        try:
            ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl(ends[1], F_SETPIPE_SZ, size)
        except OSError:
            for fd in ends:
                os.close(fd)
            if size == LARGE:
                self._most_large = self._made[LARGE]  # the system allows no more: not to be asked each time
            return None
        self._made[size] += 1
        return *ends, size
