"""What the Python launcher runs: the agent's answer to the call, or this process's own where no agent listens.

launcher.c in Python, for hosts without a compiler, and tested by the same tests; docs/launcher.md has the protocol.
Python's start is nine tenths of its time, so nothing is imported but what is built into the interpreter or needed.
"""

import _socket
import posix  # `os` costs as much as the whole exchange
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

DEFAULT_SOCKET = b"/run/pycni/agent.sock"
MAGIC = b"PYCNI\x01\n\0"
CHUNK = 1 << 16
ANSWER_LIMIT = 32 << 20
TIMEOUT_S, TIMEOUT_LIMIT_S = 60, 3600
IO, TRY_AGAIN = 5, 11  # error codes; pycni.cni.errors would import json


def main() -> int:
    """The exit code of the call; does not return where the agent has answered or ought to have."""
    _plug_closed()
    agent = _connect(posix.environ.get(b"PYCNI_SOCKET", DEFAULT_SOCKET))
    if agent is not None:
        posix._exit(_answer_of(_Agent(agent, _timeout())))  # saves the interpreter's end, a tenth of the call
    from pycni.exe.start import main as standalone

    return standalone()


def _plug_closed() -> None:
    """Open the standard descriptors that the caller closed: the socket or a database would become stdout otherwise."""
    for fd in range(3):
        try:
            posix.fstat(fd)
        except OSError:
            posix.set_inheritable(posix.open("/dev/null", posix.O_RDONLY), True)


def _connect(path: bytes) -> "_socket.socket | None":
    if not path:  # would be an abstract address
        return None
    agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    agent.setblocking(False)  # a stopped agent with a full backlog would be waited for for ever
    try:
        agent.connect(path)
    except OSError:
        return None
    return agent


def _timeout() -> int:
    given = posix.environ.get(b"PYCNI_TIMEOUT", b"")
    seconds = int(given) if given.isdigit() and len(given) < 19 else 0
    return seconds if 1 <= seconds <= TIMEOUT_LIMIT_S else TIMEOUT_S


class _Agent:
    """The connection, with a buffer before it and a deadline over it."""

    def __init__(self, connection: "_socket.socket", timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._unsent = bytearray()
        self._ancillary: list[tuple[int, int, bytes]] = []
        self.refused = False  # it has closed before the request's end: send no more of it, but read its answer
        self.restart_clock()

    def restart_clock(self) -> None:
        self._deadline = time.monotonic() + self._timeout

    def attach(self, fd: int) -> None:
        """Send *fd* with the first bytes: the path may be gone before the agent opens it."""
        self._ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))]

    def put(self, data: bytes) -> None:
        self._unsent += data
        if len(self._unsent) >= CHUNK:
            self.flush()

    def put_record(self, data: bytes = b"") -> None:
        """Without *data*: the end of a list of records."""
        self.put(len(data).to_bytes(4, "little") + data)

    def flush(self) -> None:
        unsent = memoryview(self._unsent)
        self._unsent = bytearray()
        while unsent and not self.refused:
            self._limit_wait()
            try:
                unsent = unsent[self._connection.sendmsg([unsent], self._ancillary) :]
                self._ancillary = []
            except (BrokenPipeError, ConnectionResetError):
                self.refused = True

    def receive(self, size: int) -> bytes:
        """*size* bytes of the answer; fails the call where the agent closes before."""
        data = bytearray(size)
        free = memoryview(data)
        while free:
            self._limit_wait()
            got = self._connection.recv_into(free)
            if not got:
                _lost("it closed the connection")
            free = free[got:]
        return bytes(data)

    def _limit_wait(self) -> None:
        self._connection.settimeout(max(self._deadline - time.monotonic(), 0.001))  # 0 would mean not to wait at all


def _answer_of(agent: _Agent) -> int:
    try:
        return _ask(agent)
    except TimeoutError:
        _lost("it did not answer in time")
    except OSError as failure:
        _lost(posix.strerror(failure.errno or 0))
    except MemoryError:
        _lost("Cannot allocate memory")


def _ask(agent: _Agent) -> int:
    netns = posix.environ.get(b"CNI_NETNS")
    try:
        # One that cannot be opened is the agent's to report. O_NONBLOCK: a FIFO would be waited for.
        if netns:
            agent.attach(posix.open(netns, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY))
    except OSError:
        pass
    agent.put(MAGIC)
    agent.put_record(_executable())
    for string in _environment():
        agent.put_record(string)
    agent.put_record()
    if posix.environ.get(b"CNI_COMMAND"):  # else a person asks what this is, and stdin is their terminal
        _put_stdin(agent)
    agent.put_record()
    agent.flush()
    return _relay_answer(agent)


def _executable() -> bytes:
    """The launcher's own path, links resolved, as /proc/self/exe tells it of a program that is no script."""
    try:
        return posix.readlink(b"/proc/self/fd/%d" % posix.open(sys.argv[0], posix.O_PATH))
    except OSError:  # an uninstall has just removed it
        return sys.argv[0].encode(sys.getfilesystemencoding(), "surrogateescape")


def _environment() -> list[bytes]:
    """Every string as it came: posix.environ has lost doubled ones, and Python may have added LC_CTYPE (PEP 538)."""
    parts = []
    fd = posix.open("/proc/self/environ", posix.O_RDONLY)
    while part := posix.read(fd, CHUNK):
        parts.append(part)
    posix.close(fd)
    return [string for string in b"".join(parts).split(b"\0") if string]  # an empty one would end the list


def _put_stdin(agent: _Agent) -> None:
    """stdin has no deadline, because a plugin would wait for it as well; the agent's starts when it has come."""
    data = b"more"
    while data and not agent.refused:
        try:
            data = posix.read(0, CHUNK)
        except BlockingIOError:
            _poll(0, reading=True)
            continue
        except OSError as failure:
            _fail(IO, "the network config cannot be read from stdin", posix.strerror(failure.errno or 0))
        agent.restart_clock()
        if data:
            agent.put_record(data)


def _relay_answer(agent: _Agent) -> int:
    """The whole answer is here before any of it is written: half a one and an error after it would be no document."""
    head = agent.receive(12)
    code, out_size, err_size = (int.from_bytes(head[at : at + 4], "little") for at in (0, 4, 8))
    if code > 255 or out_size + err_size > ANSWER_LIMIT:
        _lost("it is not the answer of a pycni agent")
    text = agent.receive(out_size + err_size)
    _write_all(2, text[out_size:])
    heard = _write_all(1, text[:out_size])
    return code if heard or code else 1


def _write_all(fd: int, data: bytes) -> bool:
    while data:
        try:
            data = data[posix.write(fd, data) :]
        except BlockingIOError:
            _poll(fd, reading=False)
        except OSError:
            return False
    return True


def _poll(fd: int, *, reading: bool) -> None:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN if reading else select.POLLOUT)
    poll.poll()


def _lost(why: str) -> "NoReturn":
    _fail(TRY_AGAIN, "the pycni agent took this call and gave no complete answer: repeat it, an ADD after a DEL", why)


def _fail(code: int, msg: str, why: str) -> "NoReturn":
    """Laid out like any other error of pycni; nothing in our texts and strerror's needs escaping."""
    _write_all(1, f'{{\n    "code": {code},\n    "msg": "{msg}",\n    "details": "{why}"\n}}'.encode())
    posix._exit(1)
