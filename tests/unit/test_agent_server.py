"""The agent's socket and server, and the command line's client, over real sockets in one process."""

from __future__ import annotations

import array
import asyncio
import errno
import json
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pycni.agent.config import AgentConfig
from pycni.agent.listener import Listener, is_member, peer_uid
from pycni.agent.server import Call, Server
from pycni.cli.agent_client import NoAgent, ask
from pycni.cli.failure import Failure
from pycni.cni.errors import CniError, Code
from pycni.exe.wire import Answer, Request, decode_answer, encode_request

QUESTION = encode_request(Request(b"/x/bridge", (b"A=1",), b"{}"))
QUICK = AgentConfig(connections=4, request_deadline_s=0.3)
Handler = Callable[[Call], Awaitable[Answer]]


async def echo(call: Call) -> Answer:
    return Answer(0, call.request.stdin, str(call.netns_fd >= 0).encode())


@contextmanager
def served(path: Path, handler: Handler = echo, config: AgentConfig = QUICK) -> Iterator[Server]:
    """A server on a thread; it must end when told to."""
    started: list[tuple[Server, asyncio.AbstractEventLoop]] = []
    ready = threading.Event()
    listener = Listener.made(str(path))

    async def serve() -> None:
        started.append((Server(listener, config, handler), asyncio.get_running_loop()))
        ready.set()
        await started[0][0].serve()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    server, loop = started[0]
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(server.stop)
        thread.join(10)
        listener.close()
        assert not thread.is_alive()


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(path))
    return client


def rest(client: socket.socket) -> bytes:
    data = b""
    try:
        while part := client.recv(65536):
            data += part
    except ConnectionResetError:
        pass  # closed with some of our bytes unread, after the answer
    return data


def answer_to(path: Path, data: bytes = QUESTION) -> Answer:
    with connect(path) as client:
        try:
            client.sendall(data)
        except BrokenPipeError:
            pass  # refused before it was asked, and closed: the answer is there all the same
        return decode_answer(rest(client))


def error_of(answer: Answer) -> tuple[int, int]:
    return answer.code, json.loads(answer.stdout)["code"]


def test_slow_and_silent_clients_delay_nobody(tmp_path: Path) -> None:
    """Three that send half a request wait for their own deadline; the fourth is answered at once."""
    path = tmp_path / "s"
    with served(path):
        slow = [connect(path) for _ in range(3)]
        for client in slow:
            client.sendall(QUESTION[:5])
        assert answer_to(path) == Answer(0, b"{}", b"False")
        assert [rest(client) for client in slow] == [b""] * 3  # too slow: nobody to answer
        for client in slow:
            client.close()


def test_one_client_too_many_is_told_to_come_back(tmp_path: Path) -> None:
    """Error 11 without a wait, and room again once another has gone."""
    path = tmp_path / "s"
    with served(path, config=AgentConfig(connections=4)):
        others = [connect(path) for _ in range(4)]
        assert error_of(answer_to(path)) == (1, Code.TRY_AGAIN)
        while others:
            others.pop().close()
        answers = (answer_to(path) for _ in range(1000))
        assert next(answer for answer in answers if answer.code == 0).stdout == b"{}"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", Code.DECODE),
        (QUESTION + b"more", Code.DECODE),
        (QUESTION[:8] + b"\xff\xff\xff\xff", Code.DECODE),
    ],
)
def test_nonsense_is_answered(tmp_path: Path, data: bytes, code: int) -> None:
    """With an error in the protocol's form."""
    with served(tmp_path / "s"):
        assert error_of(answer_to(tmp_path / "s", data)) == (1, code)


def test_a_client_that_leaves_harms_nobody(tmp_path: Path) -> None:
    """In the middle of its request, or before its answer."""
    with served(tmp_path / "s"):
        for length in range(0, len(QUESTION) + 1, 3):
            with connect(tmp_path / "s") as client:
                client.sendall(QUESTION[:length])
        assert answer_to(tmp_path / "s").code == 0


def test_a_bug_is_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """999 for the caller, the traceback for the log; a handler's own refusal goes as it is."""

    async def broken(call: Call) -> Answer:
        if call.request.stdin == b"refuse":
            raise CniError(Code.EXHAUSTED, "none left")
        raise ZeroDivisionError

    with served(tmp_path / "s", broken):
        assert error_of(answer_to(tmp_path / "s")) == (1, Code.INTERNAL)
        assert error_of(answer_to(tmp_path / "s", encode_request(Request(b"x", (), b"refuse")))) == (1, Code.EXHAUSTED)
    assert "ZeroDivisionError" in capsys.readouterr().err


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's descriptors are taken")
def test_descriptors_that_came_along_are_closed(tmp_path: Path) -> None:
    """One is for the handler; more are refused, however they come; none stays open."""
    with served(tmp_path / "s"), open("/proc/self/ns/net", "rb") as given:
        before = open_descriptors()
        for messages in ([1], [2], [9], [1, 1], [1] * 5):
            with connect(tmp_path / "s") as client:
                size = len(QUESTION) // len(messages)
                pieces = [QUESTION[at * size : (at + 1) * size] for at in range(len(messages) - 1)]
                pieces.append(QUESTION[len(pieces) * size :])
                try:
                    for count, piece in zip(messages, pieces, strict=True):
                        fds = array.array("i", [given.fileno()] * count)
                        client.sendmsg([piece], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                except BrokenPipeError:
                    pass  # refused before the end
                answer = decode_answer(rest(client))
            assert answer == Answer(0, b"{}", b"True") if messages == [1] else error_of(answer) == (1, Code.DECODE)
        assert open_descriptors() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's descriptors are taken")
@pytest.mark.parametrize("path", ["/dev/null", "/proc/self/ns/mnt", "/etc/passwd"])
def test_a_descriptor_that_is_no_network_namespace_is_not_used(tmp_path: Path, path: str) -> None:
    """The plugin opens the path by itself then, and has the words for it."""
    with served(tmp_path / "s"), open(path, "rb") as given, connect(tmp_path / "s") as client:
        client.sendmsg([QUESTION], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [given.fileno()]))])
        assert decode_answer(rest(client)) == Answer(0, b"{}", b"False")


def test_those_who_had_connected_are_answered_at_the_end(tmp_path: Path) -> None:
    """stop() takes the path away first; the queue is served, the busy are waited for."""
    path = tmp_path / "s"
    go = threading.Event()

    async def wait(call: Call) -> Answer:
        await asyncio.get_running_loop().run_in_executor(None, go.wait)
        return await echo(call)

    with served(path, wait, AgentConfig()) as server:
        clients = [connect(path) for _ in range(5)]
        for client in clients:
            client.sendall(QUESTION)
        threading.Timer(0, go.set).start()
    assert server.clients == 0
    assert not path.exists()
    for client in clients:
        assert decode_answer(rest(client)).stdout == b"{}"
        client.close()


# -- the listening socket ----------------------------------------------------------------------------------------------


def test_one_listener_to_a_path(tmp_path: Path) -> None:
    """A living one is not pushed away, a dead one's socket is replaced, another file is left alone."""
    path = tmp_path / "sub" / "s"
    first = Listener.made(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(OSError, match=f"another agent serves {path}: pid {os.getpid()}$") as caught:
        Listener.made(str(path))
    assert caught.value.errno == errno.EADDRINUSE
    os.rename(path, tmp_path / "kept")
    first.close()  # the file at the path is not ours any more
    os.rename(tmp_path / "kept", path)
    second = Listener.made(str(path))
    second.close()
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        Listener.made(str(path))
    assert path.read_text() == "precious"


def test_a_socket_that_systemd_listens_on_is_not_taken(tmp_path: Path) -> None:
    """Nobody holds the lock, but somebody listens."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        other.listen()
        with pytest.raises(OSError, match="systemd or another agent"):
            Listener.made(str(tmp_path / "s"))


def test_the_kernel_says_who_calls() -> None:
    """The uid, and the groups of the process, supplementary ones too."""
    import grp

    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_uid(ours) == os.geteuid()
        known = {entry.gr_gid: entry.gr_name for entry in grp.getgrall()}
        for gid in {os.getegid(), *os.getgroups()} & set(known):
            assert is_member(ours, known[gid])
        others = set(known) - {os.getegid(), *os.getgroups()}
        assert not any(is_member(ours, known[gid]) for gid in others)
        assert not is_member(ours, "no such group")


# -- the client --------------------------------------------------------------------------------------------------------


def test_the_client_asks_and_hears(tmp_path: Path) -> None:
    """The question goes as JSON, the answer comes as what it means, a refusal with its code."""

    async def api(call: Call) -> Answer:
        question = json.loads(call.request.stdin)
        assert call.request.executable == b"pycni-api"
        if question["method"] == "no":
            raise CniError(Code.ENVIRONMENT, "you may not", "ask somebody")
        return Answer(0, json.dumps([question]).encode())

    with served(tmp_path / "s", api):
        assert ask("yes", str(tmp_path / "s"), after=5) == [{"method": "yes", "after": 5}]
        with pytest.raises(Failure, match="you may not") as caught:
            ask("no", str(tmp_path / "s"))
        assert (caught.value.code, caught.value.details) == (4, "ask somebody")


@pytest.mark.parametrize("how", ["missing", "dead", "silent", "nonsense"])
def test_the_client_says_why_there_is_no_answer(tmp_path: Path, how: str) -> None:
    """No socket, nobody behind it, no word in time, or words that are none."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        if how != "missing":
            listener.bind(str(path))
        if how in ("silent", "nonsense"):
            listener.listen()
        if how == "nonsense":
            threading.Thread(target=_hang_up, args=(listener,)).start()
        with pytest.raises(Failure) as caught:
            ask("status", str(path), timeout_s=0.2)
    assert isinstance(caught.value, NoAgent) == (how in ("missing", "dead"))
    assert caught.value.exit_code == (3 if how in ("missing", "dead") else 1)


def _hang_up(listener: socket.socket) -> None:
    listener.accept()[0].close()
