"""Sockets that own a port of the host without ever taking a packet.

Verified on Linux 6.1 against a second process that binds with SO_REUSEADDR and listens:
- TCP with SO_REUSEADDR that is only bound loses its port to it, one that listens keeps it. Without SO_REUSEADDR our own
  bind would fail for a minute after each restart, by connections in TIME_WAIT.
- UDP keeps its port without SO_REUSEADDR and loses it with.
A listening socket answers a SYN and a UDP one queues datagrams, so a filter that drops everything is attached before
bind(2): whoever comes before the rules are live gets no answer from the wrong end, and tries again.
"""

from __future__ import annotations

import _socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h
BPF_RET = 0x06  # linux/bpf_common.h
IPV6_V6ONLY = 26  # linux/in6.h
BACKLOG = 4096  # cut by the kernel to net.core.somaxconn

_FAMILIES = {4: _socket.AF_INET, 6: _socket.AF_INET6}
_KINDS = {"tcp": _socket.SOCK_STREAM, "udp": _socket.SOCK_DGRAM}
# Nothing for SCTP: where the kernel has none, asking for a socket makes it run modprobe, every time.
PROTOCOLS = tuple(_KINDS)


def hold(family: int, proto: str, host_ip: str, port: int) -> _socket.socket:
    """A socket that owns *port* and drops what comes; *host_ip* "" is every address of *family* (4 or 6).

    OSError: EADDRINUSE, EADDRNOTAVAIL for an address that the host does not have, EAFNOSUPPORT without IPv6.
    """
    sock = _socket.socket(_FAMILIES[family], _KINDS[proto] | _socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(_socket.SOL_SOCKET, SO_ATTACH_FILTER, _drop_all())
        if family == 6:
            sock.setsockopt(_socket.IPPROTO_IPV6, IPV6_V6ONLY, 1)
        if proto == "tcp":
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        sock.bind((host_ip or ("0.0.0.0" if family == 4 else "::"), port))
        if proto == "tcp":
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def let_in(sock: _socket.socket) -> None:
    """Take the filter off: from here on the socket's owner gets what comes. Again is harmless."""
    try:
        sock.setsockopt(_socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    except FileNotFoundError:
        pass  # ENOENT: it has none


_program: array[int] | None = None  # one instruction of a classic BPF program: "return 0 bytes of the packet"


def _drop_all() -> bytes:
    """struct sock_fprog (linux/filter.h), which points to the program."""
    global _program  # noqa: PLW0603 - the kernel reads it by its address, so it must stay
    if _program is None:
        from array import array

        _program = array("B", struct.pack("=HBBI", BPF_RET, 0, 0, 0))
    return struct.pack("HP", 1, _program.buffer_info()[0])
