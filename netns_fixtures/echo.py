"""An echo server that says whom it saw. Its sockets are in a namespace, its thread is in the test process.

So there is nothing to start, to wait for or to leave behind: it answers when the constructor returns, on every address
of the namespace, of both families, TCP and UDP, and it is gone with the test process whatever ends that.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from dataclasses import dataclass

from .namespace import Namespace

IP_PKTINFO = 8  # <bits/in.h>; the socket module has no name for it before Python 3.14
PORT = 7777
LONGEST_MESSAGE = 65536  # bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What an echo server told its client."""

    server: str  # the name it was given
    address: str  # the client's address as the server saw it; IPv4 in dotted form also on an IPv6 socket
    port: int  # the client's port as the server saw it


class EchoServer:
    """Greets a TCP connection with a line "NAME ADDRESS PORT", then echoes; answers a datagram with both at once."""

    def __init__(self, namespace: Namespace, port: int = PORT, *, name: str | None = None) -> None:
        self.namespace = namespace
        self.name = name or namespace.name
        self._selector = selectors.DefaultSelector()
        self._stop, self._wake = os.pipe()
        self._selector.register(self._stop, selectors.EVENT_READ, None)
        self._tcp, self._udp = namespace.in_namespace(lambda: self._bind(port))
        self.port: int = self._tcp.getsockname()[1]
        self._selector.register(self._tcp, selectors.EVENT_READ, self._accept)
        self._selector.register(self._udp, selectors.EVENT_READ, self._datagram)
        self._thread = threading.Thread(target=self._serve, name=f"echo in {namespace.name}", daemon=True)
        self._thread.start()

    def _bind(self, port: int) -> tuple[socket.socket, socket.socket]:
        # An IPv6 socket serves both families (bindv6only=0), but a namespace without IPv6 has only the other.
        family = socket.AF_INET6 if os.path.exists("/proc/sys/net/ipv6") else socket.AF_INET
        tcp = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A wildcard UDP socket answers from the address the route prefers, not from the one that was asked; conntrack
        # and connected clients need the latter. IP_PKTINFO and IPV6_RECVPKTINFO tell which one it was.
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            udp.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        tcp.bind(("", port))
        tcp.listen(64)
        udp.bind(("", tcp.getsockname()[1]))
        return tcp, udp

    def close(self) -> None:
        os.write(self._wake, b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._stop)
        os.close(self._wake)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(BlockingIOError):
                    key.data(key.fileobj)

    def _greeting(self, peer: tuple[str, int]) -> bytes:
        return f"{self.name} {peer[0].removeprefix('::ffff:')} {peer[1]}\n".encode()

    def _accept(self, listener: socket.socket) -> None:
        connection, peer = listener.accept()
        connection.settimeout(1)
        try:
            connection.sendall(self._greeting(peer[:2]))
        except OSError:
            connection.close()
            return
        self._selector.register(connection, selectors.EVENT_READ, self._echo)

    def _echo(self, connection: socket.socket) -> None:
        try:
            message = connection.recv(LONGEST_MESSAGE)
            connection.sendall(message)
        except OSError:
            message = b""
        if not message:
            self._selector.unregister(connection)
            connection.close()

    def _datagram(self, udp: socket.socket) -> None:
        message, ancillary, _, peer = udp.recvmsg(LONGEST_MESSAGE, 256)
        with contextlib.suppress(OSError):  # no way back to the client: its loss
            udp.sendmsg([self._greeting(peer[:2]), message], [_any_link(item) for item in ancillary], 0, peer)


def _any_link(item: tuple[int, int, bytes]) -> tuple[int, int, bytes]:
    """The address that was asked without the link that was used: the answer goes where the routes say."""
    level, kind, data = item
    if level == socket.IPPROTO_IPV6:
        return level, kind, data[:16] + bytes(4)  # struct in6_pktinfo: address, ifindex
    return level, kind, bytes(4) + data[4:]  # struct in_pktinfo: ifindex, local address, destination


IP_PKTINFO = 8  # <bits/in.h>; the socket module has no name for it before Python 3.14
