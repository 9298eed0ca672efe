"""A TCP connection through the proxy: what one side says goes to the other, every end and reset as it was meant."""

from __future__ import annotations

import _socket
from os import splice
from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
from struct import pack

from pycni.portmap.proxy.engine import Watcher
from pycni.portmap.proxy.proxy_protocol import header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket

    from pycni.portmap.proxy.limits import Limits
    from pycni.portmap.proxy.listener import Listener
    from pycni.portmap.proxy.pipes import Pipe

COPY_BYTES = 65536
TURN_COPIES = 16  # reads of one connection in one turn
TURN_SPLICES = 2
FULL_READS = 2  # without a small one between: it is bulk, and splice(2) saves both copies
SMALL = 8192  # bytes; of what comes in such portions, two copies cost less than two splices

DONTWAIT = _socket.MSG_DONTWAIT
SPLICE = 1 | 2  # SPLICE_F_MOVE | SPLICE_F_NONBLOCK, bits/fcntl-linux.h
RESET_ON_CLOSE = pack("ii", 1, 0)  # struct linger: close(2) sends a reset

# Edge-triggered, so one registration lasts a connection's life. A read that gets less than it asked for has emptied the
# queue, and what comes later is a new edge: epoll(7), question 9. But a read also ends at an urgent byte (EPOLLPRI),
# and the end of the stream (EPOLLRDHUP) may have come with the data: then one reads on.
BOTH = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET
READ_ON = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI
READABLE = EPOLLIN | READ_ON

_buffer = bytearray(COPY_BYTES)  # one for all: nothing stays in it from one call to the next
_view = memoryview(_buffer)


def reset(sock: Socket) -> None:
    """Make the coming close(2) a reset, so that the peer does not take it for the end of what was to be said."""
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, RESET_ON_CLOSE)
    except OSError:
        pass  # the connection is gone already


class Way:
    """One of a connection's two ways."""

    __slots__ = (
        *("source", "sink", "readable", "writable", "read_on", "over", "rest"),
        *("splicing", "full_reads", "pipe", "in_pipe", "moved"),
    )

    def __init__(self, source: Socket, sink: Socket) -> None:
        self.source = source
        self.sink = sink
        self.readable = False
        self.writable = False
        self.read_on = False  # a short read is not the last
        self.over = False  # the source has said all, and the sink was told
        self.rest: bytes | memoryview | None = None  # read, and not yet taken by the sink
        self.splicing = False
        self.full_reads = 0
        self.pipe: Pipe | None = None  # in hand while there is something in it
        self.in_pipe = 0
        self.moved = 0  # bytes


class Connection(Watcher):
    """Client and container. Nothing is read from the client before the container has accepted."""

    __slots__ = ("backend", "client", "closed", "connected", "down", "listener", "quiet", "up")

    def __init__(self, listener: Listener, client: Socket, backend: Socket) -> None:
        self.listener = listener
        self.client = client
        self.backend = backend
        self.connected = False
        self.closed = False
        self.quiet = 0  # sweeps without an event
        self.up = Way(client, backend)
        self.down = Way(backend, client)

    def on_client(self, events: int) -> None:
        self._on_event(events, self.up, self.down)

    def on_backend(self, events: int) -> None:
        if self.connected:
            self._on_event(events, self.down, self.up)
        elif events & (EPOLLERR | EPOLLHUP):
            self.listener.counters.refused += 1
            self.abort()
        elif events & EPOLLOUT:
            self._begin(events)

    def _begin(self, events: int) -> None:
        """The container has accepted. Most clients have spoken by then, so try them before epoll is asked to watch."""
        self.connected = True
        up = self.up
        if self.listener.mapping.proxy_protocol:
            try:
                up.rest = header(self.client.getpeername()[:2], self.client.getsockname()[:2])
            except OSError:
                self.abort()  # it has gone meanwhile
                return
        up.readable = self.down.writable = True
        self._on_event(events, self.down, up)
        if not self.closed:
            if not up.moved:
                # The client waits for the container to speak, and that for the end of the handshake, which the kernel
                # would hold back for TCP_DELACK_MAX, 0.2 s.
                self.backend.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_QUICKACK, 1)
            self.listener.service.engine.watch(self.client.fileno(), BOTH, self.on_client)

    def _on_event(self, events: int, out: Way, back: Way) -> None:
        """Something happened to the source of *out*, which is the sink of *back*."""
        self.quiet = 0
        if events & EPOLLOUT:
            back.writable = True
        if events & READABLE:
            out.readable = not out.over
            if events & READ_ON:
                out.read_on = True
                # What it said before its reset is still read, if it can be passed on; that then meets the error.
                if events & EPOLLERR and (out.over or not out.writable):
                    self.abort()
        try:
            if out.readable and out.writable:
                (self._splice if out.splicing else self._copy)(out)
            if back.readable and back.writable:
                (self._splice if back.splicing else self._copy)(back)
        except OSError:
            self.abort()

    def proceed(self) -> None:
        """The next turn of a connection that had its share of the last."""
        self._on_event(0, self.up, self.down)

    def time_limit(self, limits: Limits) -> float:
        """Seconds that it may be silent now; 0: for ever."""
        if not self.connected:
            return limits.connect_s
        if limits.half_open_s and (self.up.over or self.down.over):
            return limits.half_open_s
        return limits.idle_s

    def count(self) -> None:
        """Put the bytes moved since the last time on the port's account."""
        counters = self.listener.counters
        counters.bytes_in += self.up.moved
        counters.bytes_out += self.down.moved
        self.up.moved = self.down.moved = 0

    def _copy(self, way: Way) -> None:
        """As much as both sides allow, or as one connection may have in one turn."""
        read, write = way.source.recv_into, way.sink.send
        for _ in range(TURN_COPIES):
            if way.rest is not None and not self._write_rest(way):
                return
            try:
                size = read(_buffer, 0, DONTWAIT)
            except BlockingIOError:
                way.readable = False
                return
            if not size:
                self._end(way)
                return
            way.moved += size
            try:
                sent = write(_view[:size], DONTWAIT)
            except BlockingIOError:
                sent = 0
            if sent < size:
                way.rest = bytes(_view[sent:size])
                way.writable = False
                return
            if size < COPY_BYTES:
                if size < SMALL:
                    way.full_reads = 0
                if not way.read_on:
                    way.readable = False
                    return
            else:
                way.full_reads += 1
                if way.full_reads >= FULL_READS and self._may_splice(way):
                    self._splice(way)
                    return
        self.listener.service.engine.again.append(self.proceed)

    def _write_rest(self, way: Way) -> bool:
        """Whether the sink has taken all of it."""
        assert way.rest is not None
        try:
            sent = way.sink.send(way.rest, DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent < len(way.rest):
            way.rest = memoryview(way.rest)[sent:]
            way.writable = False
            return False
        way.rest = None
        return True

    def _may_splice(self, way: Way) -> bool:
        """Give the way a pipe, if there is one."""
        way.full_reads = 0
        way.pipe = self.listener.service.pipes.take()
        if way.pipe is None:
            return False
        # Of a socket, splice(2) asks whether it may wait; the flag of one call, as recv(2) has it, does not count.
        self.client.setblocking(False)
        self.backend.setblocking(False)
        way.splicing = True
        return True

    def _splice(self, way: Way) -> None:
        """The same without a copy."""
        pipe = way.pipe or self.listener.service.pipes.take()
        if pipe is None:
            way.splicing = False
            self._copy(way)
            return
        way.pipe = pipe
        source, sink = way.source.fileno(), way.sink.fileno()
        before = way.moved
        for _ in range(TURN_SPLICES):
            if not way.in_pipe:
                try:
                    size = splice(source, pipe[1], pipe[2], flags=SPLICE)
                except BlockingIOError:
                    way.readable = False
                    way.splicing = way.moved - before >= SMALL
                    self._give_back(way)
                    return
                if not size:
                    self._give_back(way)
                    self._end(way)
                    return
                way.moved += size
                way.in_pipe = size
            try:
                way.in_pipe -= splice(pipe[0], sink, way.in_pipe, flags=SPLICE)
            except BlockingIOError:
                way.writable = False
                return
        self.listener.service.engine.again.append(self.proceed)

    def _give_back(self, way: Way) -> None:
        if way.pipe is not None:
            self.listener.service.pipes.give(way.pipe, empty=not way.in_pipe)
            way.pipe = None

    def _end(self, way: Way) -> None:
        """The source has said all: say so to the sink, or close, if that was the last."""
        way.over = True
        way.readable = False
        if self.up.over and self.down.over:
            self._close()
        else:
            way.sink.shutdown(_socket.SHUT_WR)

    def abort(self) -> None:
        """Reset both sides."""
        if not self.closed:
            self.listener.counters.resets += 1
            reset(self.client)
            reset(self.backend)
            self._close()

    def _close(self) -> None:
        self.closed = True
        for way in (self.up, self.down):
            way.readable = False
            self._give_back(way)
        engine = self.listener.service.engine
        engine.close(self.client)
        engine.close(self.backend)
        self.listener.service.ended(self)
