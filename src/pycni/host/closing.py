"""Close a socket whose end waits for an RCU grace period, without waiting for it."""

from __future__ import annotations

import _socket
from struct import pack

SOL_SOCKET, SCM_RIGHTS = 1, 1


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
