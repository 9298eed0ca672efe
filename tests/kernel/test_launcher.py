"""The executable behind every plugin name, in C and in Python: one class of claims for both."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netns_fixtures import wait_until
from pycni.cni.errors import CniError, Code
from pycni.cni.result import dump
from pycni.exe.wire import Answer, Request, encode_answer, encode_request
from tests.kernel.launcher_lab import (
    KINDS,
    Agent,
    Launcher,
    Ran,
    agent,
    answering,
    error_of,
    hear,
    installed,
    start,
)

pytestmark = pytest.mark.needs("tool:cc")


@pytest.fixture(scope="module", params=KINDS)
def launcher(request: pytest.FixtureRequest) -> Iterator[Launcher]:
    with installed(request.param) as found:
        yield found


NO_ANSWER = "the pycni agent took this call and gave no complete answer: repeat it, an ADD after a DEL"
SOMETHING = Answer(3, b'{"a": "\xc3\xa4"}\n', b"a warning\n")
environment_strings = st.binary(min_size=1, max_size=200).map(lambda data: data.replace(b"\0", b"\1"))
mostly_plain = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def no_answer(why: str) -> dict[str, object]:
    return {"code": Code.TRY_AGAIN, "msg": NO_ANSWER, "details": why}


def silent(served: Agent, connection: socket.socket) -> None:
    """Neither read nor answer until the launcher has gone."""
    wait_for_hangup(connection)


def wait_for_hangup(connection: socket.socket) -> None:
    poll = select.poll()
    poll.register(connection, 0)  # POLLHUP is always reported
    assert poll.poll(60_000)


class TestLauncher:
    """What holds of every launcher."""

    # -- the call goes to the agent as it came -------------------------------------------------------------------------

    def test_call_is_forwarded_and_the_answer_relayed(self, launcher: Launcher) -> None:
        """Every string of the environment, doubled, without `=` or no UTF-8, in its order; stdin; both outputs."""
        odd = [b"A=1", b"A=2", b"no equals", b"=", b"", b"B=\xff\x80\n", b"CNI_ARGS=K=V;"]
        with agent(launcher.socket, answering(SOMETHING)) as served:
            environment = served.variables(*odd)
            ran = launcher.run(environment, stdin=b"\0\xff{}\n")
        assert ran == Ran(3, SOMETHING.stdout, SOMETHING.stderr)
        sent = tuple(string for string in environment if string)  # an empty one means nothing to anybody
        assert served.heard[0].request == Request(os.fsencode(launcher.path), sent, b"\0\xff{}\n")
        assert served.connections == 1

    @mostly_plain
    @given(
        st.lists(environment_strings, max_size=30),
        st.binary(max_size=1000),
        st.builds(Answer, code=st.integers(0, 255), stdout=st.binary(max_size=500), stderr=st.binary(max_size=500)),
    )
    def test_nothing_is_lost_or_changed(
        self, launcher: Launcher, strings: list[bytes], stdin: bytes, answer: Answer
    ) -> None:
        """Whatever bytes environment, stdin and answer are made of."""
        with agent(launcher.socket, answering(answer)) as served:
            environment = served.variables(*strings)
            ran = launcher.run(environment, stdin=stdin)
        assert ran == Ran(answer.code, answer.stdout, answer.stderr)
        assert served.heard[0].request == Request(os.fsencode(launcher.path), tuple(environment), stdin)

    def test_descriptor_of_the_namespace_goes_along(self, launcher: Launcher) -> None:
        """The agent may be in another mount namespace, or the path gone, by the time it acts."""
        with agent(launcher.socket, answering(SOMETHING)) as served:
            launcher.run(served.variables(b"CNI_NETNS=/proc/self/ns/net"))
        [descriptor] = served.heard[0].descriptors
        ours = os.stat("/proc/self/ns/net")
        assert (descriptor.st_dev, descriptor.st_ino) == (ours.st_dev, ours.st_ino)

    @pytest.mark.parametrize("netns", [None, "", "/nonexistent/netns"])
    def test_namespace_that_cannot_be_opened_is_left_to_the_agent(self, launcher: Launcher, netns: str | None) -> None:
        """DEL of a namespace that is gone must succeed, and only the handler knows what the command was."""
        with agent(launcher.socket, answering(SOMETHING)) as served:
            ran = launcher.run(served.variables(*([] if netns is None else [b"CNI_NETNS=" + netns.encode()])))
        assert ran.code == 3
        assert served.heard[0].descriptors == ()

    def test_fifo_as_namespace_is_not_waited_for(self, launcher: Launcher, tmp_path: Path) -> None:
        """open() of a FIFO without a writer would block for ever."""
        os.mkfifo(tmp_path / "fifo")
        with agent(launcher.socket, answering(SOMETHING)) as served:
            ran = launcher.run(served.variables(b"CNI_NETNS=" + bytes(tmp_path / "fifo")))
        assert ran.code == 3

    def test_caller_sees_only_the_name_behind_a_link(self, launcher: Launcher, tmp_path: Path) -> None:
        """The path is absolute and free of symbolic links, whatever argv[0] says, so the agent can compare files."""
        (tmp_path / "other").symlink_to(launcher.path)
        with agent(launcher.socket, answering(SOMETHING)) as served:
            start(tmp_path / "other", served.variables(), argv=[b"nonsense"]).end()
        assert served.heard[0].request.path() == str(launcher.path)

    def test_hard_links_keep_their_own_names(self, launcher: Launcher) -> None:
        """One file under many names: the name says which plugin is meant."""
        link = launcher.place / "host-local"
        link.hardlink_to(launcher.path)
        with agent(launcher.socket, answering(SOMETHING)) as served:
            start(link, served.variables()).end()
        link.unlink()
        assert served.heard[0].request.path() == str(link)

    @pytest.mark.parametrize(
        "argv", [[], [b""], [b"x" * 100_000], [b"a", b"--help"]], ids=["none", "empty", "long", "two"]
    )
    def test_arguments_do_not_matter(self, launcher: Launcher, argv: list[bytes]) -> None:
        """execve allows an empty argv; a plugin has no arguments."""
        with agent(launcher.socket, answering(SOMETHING)) as served:
            ran = launcher.run(served.variables(), argv=argv)
        assert ran.code == 3
        assert served.heard[0].request.path() == str(launcher.path)

    def test_bare_run_does_not_wait_for_the_terminal(self, launcher: Launcher) -> None:
        """Without CNI_COMMAND somebody wants to know what this is; Nomad asks like that, too."""
        read, write = os.pipe()
        with agent(launcher.socket, answering(SOMETHING)) as served:
            ran = launcher.run(served.variables()[:1], stdin=read)
        os.close(read)
        os.close(write)
        assert ran.code == 3
        assert served.heard[0].request.stdin == b""

    # -- sizes ---------------------------------------------------------------------------------------------------------

    def test_largest_config_passes(self, launcher: Launcher) -> None:
        """16 MiB through a pipe, in whatever pieces it gives, and an answer as large as one may be."""
        stdin = os.urandom(1 << 16) * 256
        answer = Answer(0, os.urandom(1 << 16) * 511, b"w" * (1 << 16))
        read, write = os.pipe()
        feeder = threading.Thread(target=feed, args=(write, stdin))
        with agent(launcher.socket, answering(answer)) as served:
            started = start(launcher.path, served.variables(), stdin=read)
            os.close(read)
            feeder.start()
            ran = started.end()
        feeder.join()
        assert served.heard[0].request.stdin == stdin
        assert ran == Ran(0, answer.stdout, answer.stderr)

    def test_largest_environment_passes(self, launcher: Launcher) -> None:
        """The longest strings the kernel allows (MAX_ARG_STRLEN), as many as the agent accepts, and many short ones."""
        longest = [b"L%d=" % number + b"x" * (131071 - 3) for number in range(7)]
        short = [b"S%d=" % number for number in range(4000)]
        with agent(launcher.socket, answering(SOMETHING)) as served:
            environment = served.variables(*longest, *short)
            ran = launcher.run(environment)
        assert ran.code == 3
        assert served.heard[0].request.environment == tuple(environment)

    def test_refusal_before_the_end_of_the_request_is_relayed(self, launcher: Launcher) -> None:
        """An environment near the kernel's limit (a quarter of the stack's) is too large, and the agent says so."""
        with agent(launcher.socket, refusing) as served:
            ran = launcher.run(served.variables(*(b"L%d=" % number + b"x" * 100_000 for number in range(19))))
        assert (ran.code, json.loads(ran.out)["code"]) == (1, Code.ENVIRONMENT)

    def test_agent_may_refuse_without_reading(self, launcher: Launcher) -> None:
        """As one does that has too many clients; the answer survives that the request was thrown away."""

        def behave(_: Agent, connection: socket.socket) -> None:
            connection.sendall(encode_answer(SOMETHING))

        with agent(launcher.socket, behave) as served:
            for stdin in (b"{}", b"x" * (1 << 20)):
                assert launcher.run(served.variables(), stdin=stdin) == Ran(3, SOMETHING.stdout, SOMETHING.stderr)

    def test_endless_stdin_ends_with_the_refusal(self, launcher: Launcher) -> None:
        """The agent closes after its answer, and the launcher stops to read what nobody wants."""
        zero = os.open("/dev/zero", os.O_RDONLY)
        with agent(launcher.socket, refusing) as served:
            ran = launcher.run(served.variables(), stdin=zero)
        os.close(zero)
        assert (ran.code, json.loads(ran.out)["code"]) == (1, Code.DECODE)

    # -- odd callers ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("closed", [(0,), (2,), (0, 2)])
    def test_closed_descriptors_are_no_harm(self, launcher: Launcher, closed: tuple[int, ...]) -> None:
        """A closed stdin is an empty one, a closed stderr loses what goes there; the socket replaces neither."""
        with agent(launcher.socket, answering(SOMETHING)) as served:
            ran = launcher.run(served.variables(), stdin=b"config", closed=closed)
        assert ran == Ran(3, SOMETHING.stdout, b"" if 2 in closed else SOMETHING.stderr)
        assert served.heard[0].request.stdin == (b"" if 0 in closed else b"config")

    @pytest.mark.parametrize(("code", "expected"), [(0, 1), (3, 3)])
    def test_closed_stdout_is_a_failure(self, launcher: Launcher, code: int, expected: int) -> None:
        """Success without a result would be none."""
        with agent(launcher.socket, answering(Answer(code, b"result"))) as served:
            assert launcher.run(served.variables(), closed=(0, 1, 2)).code == expected

    def test_caller_that_went_away_is_a_failure(self, launcher: Launcher) -> None:
        """Exit code 1, as from any plugin, and no death by SIGPIPE."""
        read, write = os.pipe()
        os.close(read)
        with agent(launcher.socket, answering(Answer(0, b"result"))) as served:
            ran = launcher.run(served.variables(), stdout=write)
        os.close(write)
        assert ran.code == 1

    def test_non_blocking_pipes_of_the_caller_lose_nothing(self, launcher: Launcher) -> None:
        """O_NONBLOCK belongs to the open file and is inherited: both ends must be waited for."""
        answer = Answer(0, os.urandom(1 << 20))
        in_read, in_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        out_read, out_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with agent(launcher.socket, answering(answer)) as served:
            started = start(launcher.path, served.variables(), stdin=in_read, stdout=out_write)
            assert not started.ended_within(0.2)  # it waits for stdin
            os.write(in_write, b"config")
            os.close(in_write)
            os.close(in_read)
            os.close(out_write)
            assert drain(out_read) == answer.stdout
            assert started.end().code == 0
        assert served.heard[0].request.stdin == b"config"

    def test_unreadable_stdin_is_error_5(self, launcher: Launcher) -> None:
        """The specification's code for it; the agent never gets the end of the request and does nothing."""
        heard: list[str] = []

        def behave(_: Agent, connection: socket.socket) -> None:
            with pytest.raises(CniError) as failure:
                hear(connection)
            heard.append(failure.value.msg)

        write_only = os.open("/dev/null", os.O_WRONLY)
        with agent(launcher.socket, behave) as served:
            ran = launcher.run(served.variables(), stdin=write_only)
        os.close(write_only)
        expected = {
            "code": Code.IO,
            "msg": "the network config cannot be read from stdin",
            "details": "Bad file descriptor",
        }
        assert error_of(ran) == expected
        assert "the launcher ended" in heard[0]

    def test_stopped_and_continued_launcher_goes_on(self, launcher: Launcher) -> None:
        """Job control interrupts system calls."""
        processes: list[int] = []
        known = threading.Event()

        def behave(served: Agent, connection: socket.socket) -> None:
            served.heard.append(hear(connection))
            assert known.wait(60)
            os.kill(processes[0], signal.SIGSTOP)
            wait_until(lambda: state_of(processes[0]) == "T", 10)
            os.kill(processes[0], signal.SIGCONT)
            connection.sendall(encode_answer(SOMETHING))

        with agent(launcher.socket, behave) as served:
            started = start(launcher.path, served.variables())
            processes.append(started.pid)
            known.set()
            assert started.end().code == 3

    # -- no agent ------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("absence", ["nothing", "empty", "stale", "file", "too long", "directory"])
    def test_without_an_agent_the_plugin_answers_itself(self, launcher: Launcher, tmp_path: Path, absence: str) -> None:
        """VERSION, as standalone, whatever keeps the connection from coming about."""
        path = absent(absence, launcher.place)
        ran = launcher.run([b"PYCNI_SOCKET=" + path, b"CNI_COMMAND=VERSION"], stdin=b"{}")
        assert (ran.code, ran.err) == (0, b"")
        assert "1.1.0" in json.loads(ran.out)["supportedVersions"]

    def test_standalone_reads_the_stdin_of_the_call(self, launcher: Launcher) -> None:
        """Nothing of it was read before."""
        environment = [b"CNI_CONTAINERID=c", b"CNI_IFNAME=eth0", b"CNI_NETNS=/n", b"CNI_PATH=/p", b"CNI_COMMAND=ADD"]
        ran = launcher.run([b"PYCNI_SOCKET=", *environment], stdin=b'{"cniVersion": "9.9.9", "name": "n"}')
        assert ran.code == 1
        assert json.loads(ran.out)["code"] == Code.VERSION

    def test_agent_with_a_full_queue_is_no_agent(self, launcher: Launcher) -> None:
        """connect() would wait for a stopped agent for ever, while the plugin can do the work itself."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.fspath(launcher.socket))
            listener.listen(0)
            waiting = fill(launcher.socket)
            ran = launcher.run([b"PYCNI_SOCKET=" + bytes(launcher.socket), b"CNI_COMMAND=VERSION"])
        for connection in waiting:
            connection.close()
        launcher.socket.unlink()
        assert (ran.code, b"1.1.0" in ran.out) == (0, True)

    @mostly_plain
    @given(environment_strings, environment_strings)
    def test_no_value_of_the_settings_does_harm(self, launcher: Launcher, path: bytes, timeout: bytes) -> None:
        """A socket that is none, a timeout that is none: the plugin answers, one way or the other."""
        path = b"/nonexistent/" + path  # a socket of somebody else's is none of ours
        ran = launcher.run([b"PYCNI_SOCKET=" + path, b"PYCNI_TIMEOUT=" + timeout, b"CNI_COMMAND=VERSION"])
        assert (ran.code, b"1.1.0" in ran.out) == (0, True)

    @pytest.mark.parametrize("timeout", [b"", b"0", b"-1", b"+5", b" 5", b"5s", b"3601", b"9" * 40, b"\xb2", b"1e3"])
    def test_senseless_timeout_is_the_default(self, launcher: Launcher, timeout: bytes) -> None:
        """A typing error must not make calls fail at once."""
        with agent(launcher.socket, answering(SOMETHING)) as served:
            assert launcher.run(served.variables(b"PYCNI_TIMEOUT=" + timeout)).code == 3

    # -- an agent that fails -------------------------------------------------------------------------------------------

    def test_agent_that_dies_while_it_reads_is_error_11(self, launcher: Launcher) -> None:
        """After each byte of the request: one JSON document, no second attempt, no standalone answer."""
        environment = [b"PYCNI_SOCKET=" + bytes(launcher.socket), b"CNI_COMMAND=ADD"]
        size = len(encode_request(Request(bytes(launcher.path), tuple(environment), b"{}")))
        left = iter(range(size + 1))

        def behave(_: Agent, connection: socket.socket) -> None:
            take(connection, next(left))

        with agent(launcher.socket, behave) as served:
            for _ in range(size + 1):
                error = error_of(launcher.run(environment, stdin=b"{}"))
                assert error in (no_answer("it closed the connection"), no_answer("Connection reset by peer"))
        assert served.connections == size + 1

    def test_agent_that_dies_while_it_answers_is_error_11(self, launcher: Launcher) -> None:
        """After each byte of the answer: nothing of it is relayed."""
        answer = encode_answer(SOMETHING)
        left = iter(range(len(answer)))

        def behave(served: Agent, connection: socket.socket) -> None:
            served.heard.append(hear(connection))
            connection.sendall(answer[: next(left)])

        with agent(launcher.socket, behave) as served:
            for _ in range(len(answer)):
                ran = launcher.run(served.variables(), stdin=b"{}")
                assert error_of(ran) == no_answer("it closed the connection")
                assert ran.err == b""
        assert served.connections == len(answer)

    @pytest.mark.parametrize(
        "stdin", [b"{}", b"x" * (8 << 20)], ids=["that does not answer", "that does not even read"]
    )
    def test_silent_agent_is_error_11_after_the_deadline(self, launcher: Launcher, stdin: bytes) -> None:
        """Not before, and without a second attempt."""
        with agent(launcher.socket, silent) as served:
            started = start(launcher.path, served.variables(b"PYCNI_TIMEOUT=1"), stdin=stdin)
            assert not started.ended_within(0.9)
            assert started.ended_within(20)
            assert error_of(started.end()) == no_answer("it did not answer in time")
        assert served.connections == 1

    def test_deadline_is_for_the_whole_answer(self, launcher: Launcher) -> None:
        """An agent that sends a byte now and then does not prolong it."""

        def behave(served: Agent, connection: socket.socket) -> None:
            hear(connection)
            connection.sendall(encode_answer(Answer(0, b"x" * 1000))[:-1000])
            gone = threading.Event()
            for _ in range(600):  # ends with EPIPE
                connection.sendall(b"x")
                gone.wait(0.05)

        with agent(launcher.socket, behave) as served:
            started = start(launcher.path, served.variables(b"PYCNI_TIMEOUT=1"))
            assert started.ended_within(20)
            assert error_of(started.end()) == no_answer("it did not answer in time")

    def test_stdin_may_take_longer_than_the_deadline(self, launcher: Launcher) -> None:
        """That time is the caller's, and a standalone plugin would wait as well."""
        read, write = os.pipe()
        with agent(launcher.socket, answering(SOMETHING)) as served:
            started = start(launcher.path, served.variables(b"PYCNI_TIMEOUT=1"), stdin=read)
            os.write(write, b"con")
            assert not started.ended_within(1.5)
            os.write(write, b"fig")
            os.close(write)
            os.close(read)
            assert started.end().code == 3
        assert served.heard[0].request.stdin == b"config"

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\0\1\0\0" + bytes(8),
            bytes(4) + b"\xff" * 8,
            bytes(4) + b"\1\0\0\2" + bytes(4),  # 32 MiB and one byte
            bytes(4) + b"\0\0\0\2\1\0\0\0",
        ],
    )
    def test_garbage_is_error_11(self, launcher: Launcher, answer: bytes) -> None:
        """Sizes and exit codes that cannot be are not waited for."""
        with agent(launcher.socket, answering(answer)) as served:
            assert error_of(launcher.run(served.variables())) == no_answer("it is not the answer of a pycni agent")

    @mostly_plain
    @given(st.binary(max_size=100), st.integers(0, 300), st.integers(0, 60), st.integers(0, 60))
    def test_any_answer_is_relayed_or_error_11(
        self, launcher: Launcher, body: bytes, code: int, out_size: int, err_size: int
    ) -> None:
        """Exactly what its sizes say is relayed; if it is shorter or the code is none, nothing."""
        sizes = b"".join(number.to_bytes(4, "little") for number in (code, out_size, err_size))
        with agent(launcher.socket, answering(sizes + body)) as served:
            ran = launcher.run(served.variables())
        if code > 255 or len(body) < out_size + err_size:
            assert error_of(ran)["code"] == Code.TRY_AGAIN
        else:
            assert ran == Ran(code, body[:out_size], body[out_size : out_size + err_size])


def feed(fd: int, data: bytes) -> None:
    with open(fd, "wb") as file:
        file.write(data)


def drain(fd: int) -> bytes:
    os.set_blocking(fd, True)
    with open(fd, "rb") as file:
        return file.read()


def take(connection: socket.socket, size: int) -> None:
    """Read exactly *size* bytes."""
    while size:
        got = len(connection.recv(size))
        assert got
        size -= got


def refusing(_: Agent, connection: socket.socket) -> None:
    """Answer with the parser's refusal and close, as the agent does."""
    with pytest.raises(CniError) as failure:
        hear(connection)
    connection.sendall(encode_answer(Answer(1, dump(failure.value.as_json()).encode())))


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def absent(absence: str, place: Path) -> bytes:
    """A value of PYCNI_SOCKET where nobody can be reached."""
    path = place / f"no-{absence.split(maxsplit=1)[0]}"
    if absence == "empty":
        return b""
    if absence == "stale":
        with socket.socket(socket.AF_UNIX) as dead:
            path.unlink(missing_ok=True)
            dead.bind(os.fspath(path))
    if absence == "file":
        path.touch()
    if absence == "directory":
        return bytes(place)
    if absence == "too long":
        return bytes(path) + b"x" * 108
    return bytes(path)


def fill(path: Path) -> list[socket.socket]:
    """Connect until no more is accepted into the queue."""
    waiting: list[socket.socket] = []
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        waiting.append(connection)
        try:
            connection.connect(os.fspath(path))
        except BlockingIOError:
            return waiting
