"""The end of netfilter sockets, and those of a resident process, which do not end."""

from __future__ import annotations

import _socket
from struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T", bound="NetfilterSocket")

SOL_SOCKET, SCM_RIGHTS = 1, 1

_kept: Any = None  # a thread-local with an attribute for each kind of socket, once keep_open() was called
own_ports: set[int] = set()  # the port ids of the kept sockets, which notices of what they did have


class NetfilterSocket:
    """Has a `_socket`, which close() gives up unless it is *kept*."""

    _socket: _socket.socket
    kept = False

    def close(self) -> None:
        """Give the socket up without waiting for what was deleted to be freed; again is harmless."""
        if not self.kept:
            close_unwaited(self._socket)


def keep_open() -> None:
    """From now on each thread keeps the sockets it opens, for the namespace it was in then: for a resident process."""
    global _kept  # noqa: PLW0603 - a property of the process
    from _thread import _local

    _kept = _local()


def open_kept(kind: Callable[[], T], name: str) -> T:
    """What *kind* makes in the calling thread's namespace, or what it made for this thread and *name* before."""
    if _kept is None:
        return kind()
    found: T | None = getattr(_kept, name, None)
    if found is None:
        found = kind()
        found.kept = True
        if port := found._socket.getsockname()[0]:  # 0: not bound yet, and what the kernel does by itself has that
            own_ports.add(port)
        setattr(_kept, name, found)
    return found


def close_unwaited(sock: _socket.socket) -> None:
    """Give *sock* up; the kernel closes it a moment later, in a thread of its own.

    A netfilter socket's end waits until what any transaction deleted is freed (nft_rcv_nl_event, nf_tables_api.c):
    one RCU grace period, 6 to 22 ms. A process cannot leave that to its exit, which closes all the same.
    So *sock* goes, as SCM_RIGHTS, into the queue of a socket that lies in that queue itself. Once we have let go of
    them nobody can ever receive either, and the kernel's collector of such cycles (net/unix/garbage.c) closes them.
    It runs in a worker since Linux 6.9; before, it runs in whoever closes, who then waits as always.
    """
    ends: tuple[_socket.socket, ...] = ()
    try:
        queue, entrance = ends = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        entrance.sendmsg([b"\0"], [(SOL_SOCKET, SCM_RIGHTS, pack("=ii", queue.fileno(), sock.fileno()))])
    except OSError:
        pass  # no descriptors to be had, or it is closed already: the ordinary way
    for one in (sock, *ends):
        one.close()
