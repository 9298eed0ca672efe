"""Threads that take a plugin call from the socket and answer it themselves.

A call that is handed from the loop to a thread and back changes threads four times, each time waiting for the
interpreter: 2 ms of the 6 of an ADD. So each of these threads waits for a client by itself, and as long as all is
ordinary (root, a whole request at once, an interface that nobody works on) nobody else hears of it. Whatever is not
goes to the loop, which waits for any number of slow clients; and when every thread has been busy for a while, the
loop accepts as well (see Server).
"""

from __future__ import annotations

import array
import os
import select
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable

from pycni.agent.listener import peer_uid
from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value
from pycni.exe.wire import Answer, Request, RequestParser, encode_answer

READ_BYTES = 65536
ONE_FD = socket.CMSG_SPACE(struct.calcsize("i"))
REQUEST_PATIENCE_S = 0.02  # a launcher sends at once what it has; with a runtime that is slow to write it is the loop's
ACCEPT_PAUSE_S = 0.1  # after a failed accept(2), which is for want of descriptors or memory


class Begun(Value):
    """A client that an acceptor does not finish: what it received from it, or what is still to be sent."""

    client: socket.socket
    uid: int
    parser: RequestParser
    fds: list[int]  # for the taker to close
    request: Request | None = None  # whole
    answer: bytes = b""  # the rest of it; b"": not asked yet


Answering = Callable[[Request, int], Answer | None]  # None: not here and now


class Acceptors:
    """*number* threads at *sock*, which has to be non-blocking. `hand_over` must be quick, and safe from any thread."""

    def __init__(
        self, sock: socket.socket, number: int, answering: Answering, hand_over: Callable[[Begun], None]
    ) -> None:
        self.since = [0.0] * number  # when each began what it is at (monotonic); 0: it waits
        self.on_full: Callable[[], None] = lambda: None  # called when the last one becomes busy
        self.on_free: Callable[[], None] = lambda: None  # called when one is done, after `overrun` was set
        self.overrun = False
        self._sock = sock
        self._answering = answering
        self._hand_over = hand_over
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._threads = [
            threading.Thread(target=self._work, args=(index,), name=f"acceptor_{index}") for index in range(number)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each end what it is at, and take nothing new."""
        os.eventfd_write(self._stop, 1)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        os.close(self._stop)

    @property
    def busy(self) -> int:
        return sum(map(bool, self.since))

    def all_busy_since(self) -> float:
        """When the one that became busy last did so; 0.0 while one of them waits."""
        return max(self.since) if all(self.since) else 0.0

    def _work(self, index: int) -> None:
        with select.epoll() as waiting:
            # EXCLUSIVE: a client wakes one thread, not all of them.
            waiting.register(self._sock, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            waiting.register(self._stop, select.EPOLLIN)
            while True:
                if any(fd == self._stop for fd, _ in waiting.poll()):
                    return
                try:
                    client = self._sock.accept()[0]
                except BlockingIOError:
                    continue  # another took it
                except OSError:
                    time.sleep(ACCEPT_PAUSE_S)  # the socket stays readable: else this would be a busy loop
                    continue
                self._serve_counted(index, client)

    def _serve_counted(self, index: int, client: socket.socket) -> None:
        self.since[index] = time.monotonic()
        if all(self.since):
            self.on_full()
        left = None
        try:
            left = self._serve(client)
        except Exception as failure:  # a bug must not cost the thread
            traceback.print_exception(failure, file=sys.stderr)
            client.close()
        finally:
            self.since[index] = 0.0
            if left is not None:
                self._hand_over(left)  # when it is no longer counted here
            if self.overrun:
                self.on_free()

    def _serve(self, client: socket.socket) -> Begun | None:
        """Answer *client*; what is to be handed over, if it could not be."""
        client.setblocking(False)
        begun = Begun(client, peer_uid(client), RequestParser(), [])
        if begun.uid != 0:
            return begun
        try:
            request = receive(client, begun.parser, begun.fds, REQUEST_PATIENCE_S)
        except CniError as failure:
            return self._send(begun, refusal(failure.code, failure.msg, failure.details))
        except OSError:
            _drop(begun)  # gone: nobody to answer
            return None
        answer = None
        if request is not None:
            answer = self._answering(request, begun.fds[0] if begun.fds else -1)
        if answer is None:
            return begun.replace(request=request)
        return self._send(begun, answer)

    def _send(self, begun: Begun, answer: Answer) -> Begun | None:
        data = encode_answer(answer)
        try:
            sent = begun.client.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            _drop(begun)
            return None
        if sent < len(data):
            return begun.replace(answer=data[sent:])
        _drop(begun)
        return None


def _drop(begun: Begun) -> None:
    begun.client.close()
    for fd in begun.fds:
        os.close(fd)


def receive(client: socket.socket, parser: RequestParser, fds: list[int], patience_s: float) -> Request | None:
    """The request, if it is whole within *patience_s*; what came so far stays in *parser* and *fds*."""
    waiting: select.poll | None = None
    end = 0.0
    while True:
        try:
            request = receive_part(client, parser, fds, ONE_FD)
        except BlockingIOError:
            if waiting is None:
                waiting = select.poll()
                waiting.register(client, select.POLLIN)
                end = time.monotonic() + patience_s
            if not waiting.poll(max(0.0, end - time.monotonic()) * 1000):
                return None
            continue
        if request is not None:
            return request


def receive_part(client: socket.socket, parser: RequestParser, fds: list[int], ancillary_bytes: int) -> Request | None:
    """Feed *parser* what has come; the request once it is whole. The descriptor that came goes to *fds*.

    BlockingIOError where nothing has come; CniError for what is no request, ends too early, or brings more than one
    descriptor.
    """
    data, ancillary, _, _ = client.recvmsg(READ_BYTES, ancillary_bytes, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
            fds += received
    if len(fds) > 1:  # the room for one holds two, because the kernel aligns it
        raise CniError(Code.DECODE, f"{len(fds)} descriptors came with the request, at most one belongs to it")
    return parser.feed(data) if data else parser.end()


def refusal(code: int, msg: str, details: str = "") -> Answer:
    """An error answer in the protocol's form."""
    from pycni.cni.result import dump

    return Answer(1, dump(CniError(code, msg, details).as_json()).encode())
