"""Many clients at once, none of which can delay another.

Threads of their own answer ordinary calls (acceptors.py). All others are one asyncio loop's, which reads requests and
writes answers, and has the commands run on a small pool of threads, since they block in the kernel. A client may send
slowly, never read, or vanish: it costs a few KiB and its own deadline.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import time
import traceback
from collections.abc import Awaitable, Callable

from pycni.agent.acceptors import ACCEPT_PAUSE_S, ONE_FD, Acceptors, Answering, Begun, receive_part, refusal
from pycni.agent.config import AgentConfig
from pycni.agent.listener import Listener, peer_uid
from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value
from pycni.exe.wire import Answer, Request, RequestParser, encode_answer

NS_GET_NSTYPE = 0xB703  # linux/nsfs.h, since Linux 4.11
CLONE_NEWNET = 0x40000000  # linux/sched.h
ANSWER_DEADLINE_S = 30.0  # for a client to take its answer
FULL_PATIENCE_S = 0.1  # with acceptors that are all busy
READERS_SHARE = 4  # one connection in so many may be that of another user than root


class Call(Value):
    """A request as it came: with the namespace's descriptor, -1 without one, and the socket and uid of who sent it."""

    request: Request
    netns_fd: int
    client: socket.socket
    uid: int


Handler = Callable[[Call], Awaitable[Answer]]


class Server:
    """Serves *handler* on a listener until stop(). `config` may be put anew while it serves.

    *answering*: what threads of their own do with an ordinary call (see Acceptors); without it the loop has them all.
    """

    def __init__(
        self, listener: Listener, config: AgentConfig, handler: Handler, answering: Answering | None = None
    ) -> None:
        self.config = config
        self._listener = listener
        self._handler = handler
        self._clients: dict[asyncio.Task[None], int] = {}  # with the uid of each
        self._stopping = asyncio.Event()
        self._checking = False  # whether a look at busy acceptors is due
        self._acceptors: Acceptors | None = None
        if answering is not None:
            self._acceptors = Acceptors(listener.sock, config.workers, answering, self._hand_over)
            self._acceptors.on_full = self._on_full
            self._acceptors.on_free = self._on_free

    @property
    def clients(self) -> int:
        return len(self._clients) + self.accepted

    @property
    def accepted(self) -> int:
        """How many clients threads of their own serve now."""
        return self._acceptors.busy if self._acceptors is not None else 0

    async def serve(self) -> None:
        """Accept until stop(), then wait for the clients that are being answered."""
        self._listener.sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        if self._acceptors is not None:
            self._acceptors.start()
        else:
            self._accept_here()
        await self._stopping.wait()
        self._loop.remove_reader(self._listener.sock)
        self._listener.retire()
        if self._acceptors is not None:
            self._acceptors.stop()
        self._take_the_queued()
        if self._acceptors is not None:
            await asyncio.to_thread(self._acceptors.join)
        if self._clients:
            await asyncio.wait(self._clients)

    def stop(self) -> None:
        self._stopping.set()

    def _take_the_queued(self) -> None:
        """Accept those who had connected before the path was gone. systemd's socket keeps them for the next agent."""
        while self._listener.own and self._accept_one():
            pass

    def _accept_here(self) -> None:
        if not self._stopping.is_set():
            self._loop.add_reader(self._listener.sock, self._accept_one)

    def _accept_one(self) -> bool:
        """Take one client of those who wait; whether there was one."""
        try:
            client = self._listener.sock.accept()[0]
        except BlockingIOError:
            return False
        except OSError:  # the socket stays readable: else this would be a busy loop
            self._loop.remove_reader(self._listener.sock)
            self._loop.call_later(ACCEPT_PAUSE_S, self._accept_here)
            return False
        client.setblocking(False)
        self._start(Begun(client, peer_uid(client), RequestParser(), []))
        return True

    # -- what acceptors say, from their threads ------------------------------------------------------------------------

    def _hand_over(self, begun: Begun) -> None:
        self._loop.call_soon_threadsafe(self._start, begun)

    def _on_full(self) -> None:
        if not self._checking:
            self._checking = True
            self._loop.call_soon_threadsafe(self._loop.call_later, FULL_PATIENCE_S, self._look_at_acceptors)

    def _look_at_acceptors(self) -> None:
        """Accept here where all of them have been busy for FULL_PATIENCE_S, as with IPAM plugins that hang."""
        assert self._acceptors is not None
        self._checking = False
        since = self._acceptors.all_busy_since()
        if not since:
            return
        if time.monotonic() - since < FULL_PATIENCE_S:
            self._on_full()
            return
        self._acceptors.overrun = True
        if self._acceptors.all_busy_since():
            self._accept_here()
        else:  # one ended between the two looks, and did not say so
            self._acceptors.overrun = False

    def _on_free(self) -> None:
        self._loop.call_soon_threadsafe(self._end_overrun)

    def _end_overrun(self) -> None:
        assert self._acceptors is not None
        self._acceptors.overrun = False
        self._loop.remove_reader(self._listener.sock)

    # -- one client ----------------------------------------------------------------------------------------------------

    def _start(self, begun: Begun) -> None:
        full = self._full(begun.uid)
        task = asyncio.ensure_future(self._client(begun, full))
        self._clients[task] = begun.uid
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._clients[task]

    def _full(self, uid: int) -> str:
        """Why another client is one too many, "" if it is not. Readers cannot keep runtimes out."""
        most = self.config.connections
        if uid != 0 and sum(other != 0 for other in self._clients.values()) >= most // READERS_SHARE:
            return f"the agent serves {most // READERS_SHARE} clients of other users than root already"
        return f"the agent serves {most} clients already" if len(self._clients) >= most else ""

    async def _client(self, begun: Begun, full: str) -> None:
        with begun.client as client:
            try:
                data = begun.answer
                if not data:
                    data = encode_answer(refusal(Code.TRY_AGAIN, full) if full else await self._answer(begun))
                async with asyncio.timeout(ANSWER_DEADLINE_S):
                    await _send(client, data)
            except CniError as failure:
                await self._refuse(client, failure)
            except (OSError, TimeoutError):
                pass  # gone, or too slow: nobody to answer
            except Exception as failure:
                traceback.print_exception(failure)
                bug = f"bug in pycni: {type(failure).__name__}: {failure}"
                await self._refuse(client, CniError(Code.INTERNAL, bug))
            finally:
                for fd in begun.fds:
                    os.close(fd)

    async def _answer(self, begun: Begun) -> Answer:
        request = begun.request
        if request is None:
            async with asyncio.timeout(self.config.request_deadline_s):
                request = await _read_request(begun)
        return await self._handler(Call(request, namespace_in(begun.fds), begun.client, begun.uid))

    async def _refuse(self, client: socket.socket, failure: CniError) -> None:
        answer = refusal(failure.code, failure.msg, failure.details)
        try:
            async with asyncio.timeout(1.0):
                await _send(client, encode_answer(answer))
        except (OSError, TimeoutError):
            pass


def namespace_in(fds: list[int]) -> int:
    """The network namespace that came with a request, or -1. What is none is left to the plugin, which then opens the
    path itself and says what is wrong with it."""
    try:
        return fds[0] if fds and fcntl.ioctl(fds[0], NS_GET_NSTYPE) == CLONE_NEWNET else -1
    except OSError:
        return -1


async def _read_request(begun: Begun) -> Request:
    """The rest of a request; CniError for what is none, ends too early, or brings more than one descriptor."""
    # What other users send along is not taken: closing the descriptor of a file system in user space can block.
    ancillary_bytes = ONE_FD if begun.uid == 0 else 0
    while True:
        try:
            request = receive_part(begun.client, begun.parser, begun.fds, ancillary_bytes)
        except BlockingIOError:
            await _readable(begun.client)
            continue
        if request is not None:
            return request


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
