"""Launchers to test, a way to start them as no shell could, and agents that behave as a test says."""

from __future__ import annotations

import array
import ctypes
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pycni.cni.result import dump
from pycni.exe import build_launcher
from pycni.exe.wire import Answer, Request, RequestParser, encode_answer

SRC = Path(__file__).parents[2] / "src"
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SANITIZER_OPTIONS = """
const char *__asan_default_options(void) { return "exitcode=99"; }
const char *__ubsan_default_options(void) { return "exitcode=99"; }
"""  # no exit code of ours, in case stderr is closed; compiled in: an empty environment could not carry them
DEADLINE_S = 60

_libc = ctypes.CDLL(None, use_errno=True)


def python_text(python: str, *lines: str) -> str:
    """A Python launcher of *lines*, as `pycni install` would write it."""
    return "\n".join(
        (f"#!{python} -ISE", "# pycni launcher", "import sys", f"sys.path.append({str(SRC)!r})", *lines, "")
    )


PYTHON_LAUNCHER = ("from pycni.exe.client import main", "sys.exit(main())")
STANDALONE = ("del sys.argv[0]", "from pycni.exe.run import main", "sys.exit(main())")


@dataclass(frozen=True)
class Ran:
    """How a launcher ended; *code* is minus the signal where one killed it."""

    code: int
    out: bytes
    err: bytes


@dataclass
class Started:
    """A launcher that runs; its output is in memory files."""

    pid: int
    pidfd: int
    outputs: tuple[int, int]

    def ended_within(self, seconds: float) -> bool:
        return bool(select.select([self.pidfd], [], [], seconds)[0])

    def end(self) -> Ran:
        """Wait for it; one that hangs is killed and fails the test."""
        hangs = not self.ended_within(DEADLINE_S)
        if hangs:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        out, err = (os.pread(fd, os.fstat(fd).st_size, 0) for fd in self.outputs)
        for fd in (self.pidfd, *self.outputs):
            os.close(fd)
        assert not hangs, f"the launcher hangs: {out[:300]!r} {err[:300]!r}"
        for complaint in (b"Sanitizer", b"runtime error"):
            assert complaint not in err, err.decode(errors="replace")
        return Ran(code, out, err)


def start(
    path: Path | str,
    environment: Sequence[bytes] = (),
    *,
    argv: Sequence[bytes] = (b"launcher",),
    stdin: bytes | int = b"",
    stdout: int | None = None,
    closed: Sequence[int] = (),
) -> Started:
    """Start *path* with exactly these strings, which may be none at all, and without the descriptors in *closed*."""
    outputs = (os.memfd_create("out"), os.memfd_create("err"))
    given = stdin if isinstance(stdin, int) else os.memfd_create("in")
    if not isinstance(stdin, int):
        os.pwrite(given, stdin, 0)
    actions = ctypes.create_string_buffer(512)  # posix_spawn_file_actions_t is 80 bytes in glibc
    _libc.posix_spawn_file_actions_init(actions)
    ends = (given, outputs[0] if stdout is None else stdout, outputs[1])
    for number, fd in enumerate(ends):
        if number in closed:
            _libc.posix_spawn_file_actions_addclose(actions, number)
        else:
            _libc.posix_spawn_file_actions_adddup2(actions, fd, number)
    pid = ctypes.c_int()
    attributes = _default_sigpipe()
    failed = _libc.posix_spawn(
        ctypes.byref(pid), os.fsencode(path), actions, attributes, _strings(argv), _strings(environment)
    )
    _libc.posix_spawn_file_actions_destroy(actions)
    if not isinstance(stdin, int):
        os.close(given)
    if failed:
        for fd in outputs:
            os.close(fd)
        raise OSError(failed, os.strerror(failed), os.fspath(path))
    return Started(pid.value, os.pidfd_open(pid.value), outputs)


def _default_sigpipe() -> ctypes.Array[ctypes.c_char]:
    """Python ignores SIGPIPE; no runtime hands that on to its plugins."""
    attributes = ctypes.create_string_buffer(512)  # posix_spawnattr_t is 336 bytes in glibc
    signals = ctypes.create_string_buffer(128)
    _libc.posix_spawnattr_init(attributes)
    _libc.sigemptyset(signals)
    _libc.sigaddset(signals, signal.SIGPIPE)
    _libc.posix_spawnattr_setsigdefault(attributes, signals)
    _libc.posix_spawnattr_setflags(attributes, ctypes.c_short(0x04))  # POSIX_SPAWN_SETSIGDEF (spawn.h)
    return attributes


def _strings(strings: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(strings) + 1))(*strings, None)


@dataclass
class Heard:
    """One request and the descriptors that came with it, as `os.fstat` tells them."""

    request: Request
    descriptors: tuple[os.stat_result, ...]


def hear(connection: socket.socket) -> Heard:
    """Read one request; CniError where it is refused or ends too early."""
    parser = RequestParser()
    facts: list[os.stat_result] = []
    while True:
        data, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(16))
        for _, _, numbers in ancillary:
            for fd in array.array("i", numbers):
                facts.append(os.fstat(fd))
                os.close(fd)
        request = parser.feed(data) if data else parser.end()
        if request is not None:
            return Heard(request, tuple(facts))


@dataclass
class Agent:
    """A server that does with every connection what the test says, and remembers what it heard."""

    path: Path
    behave: Callable[[Agent, socket.socket], None]
    heard: list[Heard] = field(default_factory=list)
    connections: int = 0
    failures: list[BaseException] = field(default_factory=list)

    def variables(self, *more: bytes) -> list[bytes]:
        """An environment that leads to this agent, as part of an ADD."""
        return [b"PYCNI_SOCKET=" + os.fsencode(self.path), b"CNI_COMMAND=ADD", *more]

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # shut down by `agent`
            self.connections += 1
            with connection:
                connection.settimeout(DEADLINE_S)
                try:
                    self.behave(self, connection)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the launcher may leave first
                except BaseException as failure:
                    self.failures.append(failure)


def answering(answer: Answer | bytes) -> Callable[[Agent, socket.socket], None]:
    """Hear the whole request, then answer."""
    data = answer if isinstance(answer, bytes) else encode_answer(answer)

    def behave(agent: Agent, connection: socket.socket) -> None:
        agent.heard.append(hear(connection))
        connection.sendall(data)

    return behave


@contextmanager
def agent(path: Path, behave: Callable[[Agent, socket.socket], None]) -> Iterator[Agent]:
    """Listen at *path* for the length of the block; what its thread failed with is raised at the end."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(path))
    listener.listen(16)
    served = Agent(path, behave)
    thread = threading.Thread(target=served.serve, args=(listener,))
    thread.start()
    try:
        yield served
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
        path.unlink()
    if served.failures:
        raise served.failures[0]


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


#: In C without a C library and with one, the same under sanitizers, and in Python.
NATIVE = "c", "c-library", "c-sanitized"
KINDS = *NATIVE, "python"


@dataclass(frozen=True)
class Launcher:
    """One installed launcher; *place* is its directory, short enough to hold a socket as well."""

    kind: str
    place: Path

    @property
    def path(self) -> Path:
        return self.place / "pycni-bridge"

    @property
    def socket(self) -> Path:
        return self.place / "s"

    def run(self, environment: list[bytes], **how: object) -> Ran:
        return start(self.path, environment, **how).end()  # type: ignore[arg-type]


@contextmanager
def installed(kind: str) -> Iterator[Launcher]:
    """A launcher of *kind* (one of KINDS) and what it needs beside it, gone after the block."""
    with tempfile.TemporaryDirectory(prefix="pycni-") as name:
        found = Launcher(kind, Path(name))
        if found.kind == "python":
            executable(found.path, python_text(sys.executable, *PYTHON_LAUNCHER))
        elif found.kind == "c":
            assert build_launcher.build(str(found.path)) == str(found.path)
        elif found.kind == "c-library":
            build_with_library(found.path)
        else:
            build_sanitized(found.path)
        if found.kind != "python":
            executable(found.place / "pycni-standalone", python_text(sys.executable, *STANDALONE))
        yield found


def build_with_library(path: Path) -> None:
    """As where the processor is none of bare.c's."""
    command = ["cc", *build_launcher.FLAGS, *build_launcher.LINKING[1], "-o", str(path), build_launcher.SOURCE]
    subprocess.run(command, check=True)


def build_sanitized(path: Path) -> None:
    options = path.with_name("options.c")
    options.write_text(SANITIZER_OPTIONS)
    command = ["cc", *SANITIZED, "-o", str(path), build_launcher.SOURCE, str(options)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        pytest.skip(f"the compiler has no sanitizers: {ran.stderr.splitlines()[-1:]}")


def error_of(ran: Ran) -> dict[str, object]:
    """The one JSON document on stdout, laid out as every other error of pycni."""
    assert ran.code == 1
    error = json.loads(ran.out)
    assert ran.out.decode() == dump(error)
    assert set(error) == {"code", "msg", "details"}
    return dict(error)
