"""Many clients at once, none of which can delay another.

One asyncio loop reads requests and writes answers; the commands run on a small pool of threads, since they block in the
kernel. A client may send slowly, never read, or vanish: it costs a few KiB and its own deadline.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import socket
import struct
import traceback
from collections.abc import Awaitable, Callable

from pycni.agent.config import AgentConfig
from pycni.agent.listener import Listener, peer_uid
from pycni.cni.errors import CniError, Code
from pycni.cni.result import dump
from pycni.cni.value import Value
from pycni.exe.wire import Answer, Request, RequestParser, encode_answer

READ_BYTES = 65536
NS_GET_NSTYPE = 0xB703  # linux/nsfs.h, since Linux 4.11
CLONE_NEWNET = 0x40000000  # linux/sched.h
ONE_FD = socket.CMSG_SPACE(struct.calcsize("i"))
ANSWER_DEADLINE_S = 30.0  # for a client to take its answer
ACCEPT_PAUSE_S = 0.1  # after a failed accept(2), which is for want of descriptors or memory
READERS_SHARE = 4  # one connection in so many may be that of another user than root


class Call(Value):
    """A request as it came: with the namespace's descriptor, -1 without one, and the socket and uid of who sent it."""

    request: Request
    netns_fd: int
    client: socket.socket
    uid: int


Handler = Callable[[Call], Awaitable[Answer]]


class Server:
    """Serves *handler* on a listener until stop(). `config` may be put anew while it serves."""

    def __init__(self, listener: Listener, config: AgentConfig, handler: Handler) -> None:
        self.config = config
        self._listener = listener
        self._handler = handler
        self._clients: dict[asyncio.Task[None], int] = {}  # with the uid of each
        self._stopping = asyncio.Event()

    @property
    def clients(self) -> int:
        return len(self._clients)

    async def serve(self) -> None:
        """Accept until stop(), then wait for the clients that are being answered."""
        self._listener.sock.setblocking(False)
        loop = asyncio.get_running_loop()
        stopping = asyncio.ensure_future(self._stopping.wait())
        while not self._stopping.is_set():
            accepting = asyncio.ensure_future(loop.sock_accept(self._listener.sock))
            await asyncio.wait({accepting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not accepting.done():
                accepting.cancel()
                break
            if accepting.exception() is not None:
                await asyncio.sleep(ACCEPT_PAUSE_S)  # the socket stays readable: else this would be a busy loop
                continue
            self._start(accepting.result()[0])
        stopping.cancel()
        self._take_the_queued()
        if self._clients:
            await asyncio.wait(self._clients)

    def stop(self) -> None:
        self._stopping.set()

    def _take_the_queued(self) -> None:
        """Accept those who had connected before the path was gone. systemd's socket keeps them for the next agent."""
        self._listener.retire()
        while self._listener.own:
            try:
                self._start(self._listener.sock.accept()[0])
            except OSError:
                return

    def _start(self, client: socket.socket) -> None:
        uid = peer_uid(client)
        full = self._full(uid)
        task = asyncio.ensure_future(self._client(client, uid, full))
        self._clients[task] = uid
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._clients[task]

    def _full(self, uid: int) -> str:
        """Why another client is one too many, "" if it is not. Readers cannot keep runtimes out."""
        most = self.config.connections
        if uid != 0 and sum(other != 0 for other in self._clients.values()) >= most // READERS_SHARE:
            return f"the agent serves {most // READERS_SHARE} clients of other users than root already"
        return f"the agent serves {most} clients already" if len(self._clients) >= most else ""

    async def _client(self, client: socket.socket, uid: int, full: str) -> None:
        with client:
            client.setblocking(False)
            fds: list[int] = []
            try:
                answer = refusal(Code.TRY_AGAIN, full) if full else await self._answer(client, uid, fds)
                async with asyncio.timeout(ANSWER_DEADLINE_S):
                    await _send(client, encode_answer(answer))
            except CniError as failure:
                await self._refuse(client, failure)
            except (OSError, TimeoutError):
                pass  # gone, or too slow: nobody to answer
            except Exception as failure:
                traceback.print_exception(failure)
                bug = f"bug in pycni: {type(failure).__name__}: {failure}"
                await self._refuse(client, CniError(Code.INTERNAL, bug))
            finally:
                for fd in fds:
                    os.close(fd)

    async def _answer(self, client: socket.socket, uid: int, fds: list[int]) -> Answer:
        # What other users send along is not taken: closing the descriptor of a file system in user space can block.
        async with asyncio.timeout(self.config.request_deadline_s):
            request = await read_request(client, fds, ancillary_bytes=ONE_FD if uid == 0 else 0)
        # What is no namespace is left to the plugin, which then opens the path itself and says what is wrong with it.
        netns_fd = fds[0] if fds and is_network_namespace(fds[0]) else -1
        return await self._handler(Call(request, netns_fd, client, uid))

    async def _refuse(self, client: socket.socket, failure: CniError) -> None:
        answer = refusal(failure.code, failure.msg, failure.details)
        try:
            async with asyncio.timeout(1.0):
                await _send(client, encode_answer(answer))
        except (OSError, TimeoutError):
            pass


def is_network_namespace(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False


def refusal(code: int, msg: str, details: str = "") -> Answer:
    """An error answer in the protocol's form."""
    return Answer(1, dump(CniError(code, msg, details).as_json()).encode())


async def read_request(client: socket.socket, fds: list[int], *, ancillary_bytes: int = ONE_FD) -> Request:
    """One whole request; the descriptor that came with it goes to *fds*, for the caller to close.

    CniError for what is no request, ends too early, or brings more than one descriptor.
    """
    parser = RequestParser()
    while True:
        data, ancillary = await _receive(client, ancillary_bytes)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(content[: len(content) - len(content) % received.itemsize])
                fds += received
        if len(fds) > 1:  # the room for one holds two, because the kernel aligns it
            raise CniError(Code.DECODE, f"{len(fds)} descriptors came with the request, at most one belongs to it")
        if not data:
            return parser.end()
        request = parser.feed(data)
        if request is not None:
            return request


async def _receive(client: socket.socket, ancillary_bytes: int) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    while True:
        try:
            data, ancillary, _, _ = client.recvmsg(READ_BYTES, ancillary_bytes, socket.MSG_CMSG_CLOEXEC)
            return data, ancillary
        except BlockingIOError:
            await _readable(client)


async def _readable(client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(client, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(client)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


async def _send(client: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(client, data)
