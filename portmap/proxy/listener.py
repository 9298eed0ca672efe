"""A TCP port: accepts as long as there is room, and connects to the container."""

from __future__ import annotations

import _socket
from _socket import socket as Socket  # socket.socket adds Python code to every call, and 300 bytes to every connection
from errno import EINPROGRESS, EMFILE, ENFILE, ENOBUFS, ENOMEM
from select import EPOLLIN

from pycni.portmap.proxy.engine import Watcher
from pycni.portmap.proxy.mapping import Counters
from pycni.portmap.proxy.tcp import BOTH, Connection, reset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.portmap.proxy.mapping import Mapping
    from pycni.portmap.proxy.service import Owner, Service

ACCEPT_MOST = 16  # connections of one port in one turn
BACKLOG = 4096  # the kernel makes it net.core.somaxconn at most
RETRY_S = 0.1  # until a port without room is tried again, should no connection have ended by then
NO_ROOM = frozenset((EMFILE, ENFILE, ENOBUFS, ENOMEM))

STREAM = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK
TCP = _socket.IPPROTO_TCP

# What a listening socket has, those that it accepts inherit. The times: a client that has gone without a word is
# noticed after two minutes of silence.
INHERITED = (
    (TCP, _socket.TCP_NODELAY, 1),
    (_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1),
    (TCP, _socket.TCP_KEEPIDLE, 60),
    (TCP, _socket.TCP_KEEPINTVL, 15),
    (TCP, _socket.TCP_KEEPCNT, 4),
)


class Listener(Watcher):
    """One mapping and its listening socket, which is this object's now."""

    __slots__ = (
        *("counters", "mapping", "owner", "paused", "service", "socket"),
        *("_accept", "_at_once", "_family", "_to_family", "_turn"),
    )

    def __init__(self, service: Service, owner: Owner, mapping: Mapping, sock: Socket) -> None:
        self.service = service
        self.owner = owner
        self.socket = sock
        self.counters = Counters()
        self.paused = False
        self._at_once = 1  # connections to accept in one turn
        self._turn = 0  # in which some were accepted last
        for option in INHERITED:
            sock.setsockopt(*option)
        if not sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
            sock.listen(BACKLOG)
        sock.setblocking(False)
        self._family = sock.family
        self._accept = sock._accept  # type: ignore[attr-defined]
        self.retarget(mapping)
        service.engine.watch(sock.fileno(), EPOLLIN, self.on_client)

    def retarget(self, mapping: Mapping) -> None:
        """Connections from now on go there; established ones stay where they are."""
        self.mapping = mapping
        self._to_family = _socket.AF_INET6 if ":" in mapping.to[0] else _socket.AF_INET

    def on_client(self, _events: int) -> None:
        # Level-triggered: who does not fit into this turn is seen in the next. Mostly one comes at a time, and a second
        # accept would be in vain; while there are some in every turn, more are taken in each.
        engine = self.service.engine
        self._at_once = min(self._at_once * 2, ACCEPT_MOST) if self._turn + 1 == engine.turns else 1
        self._turn = engine.turns
        for _ in range(self._at_once):
            if not self.service.has_room(self):
                self.pause()
                return
            backend = None
            try:
                backend = Socket(self._to_family, STREAM, TCP)  # first: who was accepted can only be reset
                fd, _address = self._accept()
            except OSError as failure:
                if backend is not None:
                    backend.close()
                if failure.errno in NO_ROOM:
                    self.pause()
                return  # else it was the client's trouble, accept(2)
            self._connect(Socket(self._family, STREAM, TCP, fd), backend)

    def _connect(self, client: Socket, backend: Socket) -> None:
        self.counters.connections += 1
        try:
            backend.setsockopt(TCP, _socket.TCP_NODELAY, 1)
            # The third segment of the handshake waits for the request, so that both are one: a fifteenth of all that
            # a connection costs. Connection._begin sends it off where there is no request.
            backend.setsockopt(TCP, _socket.TCP_QUICKACK, 0)
            failure = backend.connect_ex(self.mapping.to)
            if failure not in (0, EINPROGRESS):
                raise OSError(failure, "connect")
            connection = Connection(self, client, backend)
            self.service.engine.watch(backend.fileno(), BOTH, connection.on_backend)
        except OSError as failure:
            reset(client)
            client.close()
            backend.close()
            self.counters.resets += 1
            self.counters.refused += 1
            if failure.errno in NO_ROOM:
                self.pause()
            return
        self.service.began(connection)

    def pause(self) -> None:
        """Let the others wait in the kernel's queue: an epoll that says again and again what cannot be done is a loop
        that burns a processor."""
        self.counters.limited += 1
        self.paused = True
        self.service.engine.forget(self.socket.fileno())
        self.service.wait_for_room(self)

    def resume(self) -> None:
        self.paused = False
        self.service.engine.watch(self.socket.fileno(), EPOLLIN, self.on_client)

    def abort(self) -> None:
        """A failure in accepting: try again later."""
        if not self.paused:
            self.pause()

    def close(self) -> None:
        """No more of this port. Its connections are the service's to end."""
        if not self.paused:
            # Closing is not enough: while the agent holds the same socket open, epoll would go on to tell of it.
            self.service.engine.forget(self.socket.fileno())
        self.service.engine.close(self.socket)
