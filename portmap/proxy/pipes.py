"""Pipes through which splice(2) moves data from socket to socket; made when first needed, and kept for the next."""

from __future__ import annotations

import os
from fcntl import F_SETPIPE_SZ, fcntl

TYPE_CHECKING = False
if TYPE_CHECKING:
    Pipe = tuple[int, int]  # where it is read, where it is written

# All pipes of one unprivileged user may have pipe-user-pages-soft pages, 64 MiB, together; those beyond get two pages
# each (fs/pipe.c). So 256 pipes of 256 KiB, which is 64 places: as many pieces of a socket's queue as one call takes.
MOST_PIPES = 256
PIPE_BYTES = 256 * 1024


class Pipes:
    """At most *most* pipes, each in nobody's or in one connection's hand."""

    def __init__(self, most: int = MOST_PIPES) -> None:
        self.most = most
        self.made = 0
        self._free: list[Pipe] = []

    def take(self) -> Pipe | None:
        """An empty pipe; None where there are none left, or none of a useful size: data is copied then."""
        if self._free:
            return self._free.pop()
        if self.made >= self.most:
            return None
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl(pipe[1], F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            self._close(pipe)
            return None
        self.made += 1
        return pipe

    def give(self, pipe: Pipe, *, empty: bool) -> None:
        """Back; what is still in it is thrown away with it."""
        if empty:
            self._free.append(pipe)
        else:
            self._close(pipe)
            self.made -= 1

    @staticmethod
    def _close(pipe: Pipe) -> None:
        os.close(pipe[0])
        os.close(pipe[1])
