"""Clients of the agent that are slow, silent, hostile or many: nobody else notices, and the agent lives."""

from __future__ import annotations

import array
import json
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import CniRun, Container, Host, wait_until
from pycni.cni.errors import CniError
from pycni.exe.wire import MAGIC, Answer, Request, decode_answer, encode_request
from tests.kernel.agent_lab import DEADLINE_S, SOCKET, WAITING_IPAM, AgentHost
from tests.kernel.bridge_lab import Conf, Lab, network

pytestmark = pytest.mark.needs("root", "tool:nft", "tool:cc", "kernel:bridge", "kernel:veth")

QUIET = 'reconcile_s = 0\nlog_level = "error"\n'
PROMPTLY_S = 1.0  # a call takes 5 ms; two cores may be busy
STATE_FILES = 2 * 9  # descriptors: each of eight workers, and the upkeep, opens file and lock when it first needs them
VERSION = b'{"cniVersion": "1.0.0"}'


@pytest.fixture
def lab(host: Host, asking: Path) -> Lab:
    """A host whose plugins ask the agent."""
    return Lab(host, asking)


@pytest.fixture
def connect(host: Host, closing: ExitStack) -> Callable[[], socket.socket]:
    """Makes a connection to the agent."""

    def make() -> socket.socket:
        client = closing.enter_context(socket.socket(socket.AF_UNIX))
        client.settimeout(DEADLINE_S)
        client.connect(str(host.file(SOCKET)))
        return client

    return make


def request(asking: Path, command: str = "VERSION", stdin: bytes = VERSION, *more: bytes) -> bytes:
    return encode_request(Request(f"{asking}/bridge".encode(), (f"CNI_COMMAND={command}".encode(), *more), stdin))


def answer_of(client: socket.socket) -> Answer:
    parts = []
    try:
        while part := client.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass  # in place of the end, where the agent had not read everything (unix_release_sock() in af_unix.c)
    return decode_answer(b"".join(parts))


def error_in(answer: Answer) -> Conf:
    assert answer.code == 1
    said: Conf = json.loads(answer.stdout)
    return said


def assert_prompt(lab: Lab, container: Container, times: int = 5) -> None:
    """ADD and DEL are answered by the agent, each of them promptly."""
    for _ in range(times):
        for command in ("ADD", "DEL"):
            began = time.monotonic()
            answer = lab.call(command, network(), container)
            assert answer.ok, answer
            assert time.monotonic() - began < PROMPTLY_S


# -- slow and silent ---------------------------------------------------------------------------------------------------


def test_clients_that_stop_in_mid_request_delay_nobody(
    lab: Lab, agents: AgentHost, c1: Container, connect: Callable[[], socket.socket], asking: Path
) -> None:
    """At every point of a request: others are served meanwhile; the silent are let go at the deadline, unacted upon."""
    agents.start(config=QUIET + "request_deadline_s = 2\n")
    whole = request(asking, "ADD", json.dumps(network()).encode(), b"CNI_CONTAINERID=x", b"CNI_IFNAME=eth0")
    before = agents.ask("status")["descriptors"]
    silent = []
    for size in range(0, len(whole), len(whole) // 40):
        silent.append(connect())
        silent[-1].sendall(whole[:size])
    assert_prompt(lab, c1)
    for client in silent:
        assert client.recv(1) == b"", "closed without an answer"
    assert agents.ask("status")["descriptors"] <= before + STATE_FILES
    assert agents.ask("status")["clients"] == 0
    assert lab.records() == {}


def test_a_client_that_sends_byte_by_byte_is_served(
    lab: Lab, agents: AgentHost, connect: Callable[[], socket.socket], asking: Path
) -> None:
    """However the request is cut."""
    agents.start(config=QUIET)
    client = connect()
    for byte in request(asking):
        client.sendall(bytes([byte]))
    assert json.loads(answer_of(client).stdout)["supportedVersions"][-1] == "1.1.0"


def test_a_client_that_never_reads_delays_nobody(
    lab: Lab, agents: AgentHost, c1: Container, connect: Callable[[], socket.socket], asking: Path
) -> None:
    """Answers larger than what a socket holds (wmem_default) wait for their readers alone."""
    agents.start(config=QUIET)
    for number in range(1500):
        connect_and_forget(lab.host, request(asking, "ADD", b"{}", f"CNI_CONTAINERID={number:>80}".encode()))
    question = encode_request(Request(b"pycni-api", (), b'{"method": "events"}'))
    deaf = [connect() for _ in range(20)]
    for client in deaf:
        client.sendall(question)
    assert_prompt(lab, c1)
    assert len(json.loads(answer_of(deaf[0]).stdout)["events"]) == 1000, "who reads at last has it all"
    assert agents.ask("status")["clients"] >= len(deaf) - 1, "the answers did not fit into the sockets"


def connect_and_forget(host: Host, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(host.file(SOCKET)))
        client.sendall(data)
        client.recv(1)


def test_two_hundred_idle_connections(
    lab: Lab, agents: AgentHost, c1: Container, connect: Callable[[], socket.socket]
) -> None:
    """They cost nobody anything, and nothing stays of them."""
    agents.start(config=QUIET)
    before = agents.ask("status")["descriptors"]
    idle = [connect() for _ in range(200)]
    wait_until(lambda: agents.ask("status")["clients"] == len(idle), DEADLINE_S)
    assert_prompt(lab, c1)
    for client in idle:
        client.close()
    wait_until(lambda: agents.ask("status")["clients"] == 0, DEADLINE_S)
    assert agents.ask("status")["descriptors"] <= before + STATE_FILES


def test_a_client_that_vanishes_is_no_loss(
    lab: Lab, agents: AgentHost, c1: Container, connect: Callable[[], socket.socket], asking: Path
) -> None:
    """A launcher killed after its request: the ADD is done or not, a DEL takes it back, the agent goes on."""
    agents.start(config=QUIET)
    environment = (b"CNI_CONTAINERID=c1", b"CNI_IFNAME=eth0", f"CNI_NETNS={c1.path}".encode())
    for _ in range(20):
        with connect() as client:
            client.sendall(request(asking, "ADD", json.dumps(network()).encode(), *environment))
        lab.delete(network(), c1)
    wait_until(lambda: agents.ask("status")["busy"] == 0, DEADLINE_S)
    lab.delete(network(), c1)
    assert (lab.records(), lab.leases(), lab.ruleset(), c1.links()) == ({}, [], "", ["lo"])
    assert_prompt(lab, c1)


def test_calls_for_one_interface_do_not_hold_up_the_others(
    lab: Lab, agents: AgentHost, c1: Container, c2: Container, asking: Path
) -> None:
    """A runtime that repeats a call which hangs in a foreign IPAM plugin, more often than there are workers."""
    foreign = lab.host.file("/run/foreign")
    foreign.mkdir()
    (foreign / "slow").write_text(WAITING_IPAM)
    (foreign / "slow").chmod(0o755)
    lab.host.run(["mkfifo", "/run/go", "/run/asked"])
    agents.start(config=QUIET + "workers = 4\n")
    slow = network("slow", 9, ipam={"type": "slow"}, isDefaultGateway=None, ipMasq=None)
    path = f"{asking}:/run/foreign"
    answers: list[CniRun] = []
    repeats = [
        threading.Thread(target=lambda: answers.append(lab.call("ADD", slow, c1, cni_path=path))) for _ in range(8)
    ]
    repeats[0].start()
    lab.host.run(["sh", "-c", "read -r _ </run/asked"])
    for repeat in repeats[1:]:
        repeat.start()
    wait_until(lambda: agents.ask("status")["busy"] == len(repeats), DEADLINE_S)
    try:
        began = time.monotonic()
        answer = lab.call("ADD", network(), c2, env={"PYCNI_TIMEOUT": "3"})
        assert answer.ok, f"after {time.monotonic() - began:.1f} s: {answer}"
    finally:
        agents.host.popen(["sh", "-c", "while :; do echo >/run/go; done"])
        agents.host.popen(["sh", "-c", "cat /run/asked"])
        for repeat in repeats:
            repeat.join()
    assert sum(each.ok for each in answers) == 1
    assert {each.error_code for each in answers} <= {None, 11, 105}


# -- hostile -----------------------------------------------------------------------------------------------------------


def garbage() -> Iterator[bytes]:
    draw = random.Random(5)
    yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"PYCNI\x02\n\0" + b"\0" * 64  # another version
    yield MAGIC + struct.pack("<I", 0)  # no executable
    yield MAGIC + struct.pack("<I", 0xFFFFFFFF)
    yield MAGIC + struct.pack("<I", 5000) + b"/" * 5000
    yield encode_request(Request(b"/x/bridge", (b"CNI_COMMAND=ADD",))) + b"more"
    for _ in range(60):
        yield draw.randbytes(draw.randrange(1, 4000))
    for _ in range(60):
        yield MAGIC + draw.randbytes(draw.randrange(4, 4000))


def test_garbage_is_refused_in_words(
    lab: Lab, agents: AgentHost, c1: Container, connect: Callable[[], socket.socket]
) -> None:
    """Code 6, or 4 or 5 where it looks like a beginning; no descriptor stays, nothing on stderr, calls work."""
    agents.start(config=QUIET)
    before = agents.ask("status")["descriptors"]
    for data in garbage():
        with connect() as client:
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
            except BrokenPipeError:
                pass  # it has been refused by then
            error = error_in(answer_of(client))
            assert error["code"] in (4, 5, 6), (data[:40], error)
            assert error["msg"]
    assert agents.ask("status")["descriptors"] <= before + STATE_FILES
    assert agents.logs.read_text() == ""
    assert_prompt(lab, c1, 1)


@pytest.mark.parametrize("whole", [False, True])
def test_descriptors_sent_along_do_not_stay(
    lab: Lab, agents: AgentHost, connect: Callable[[], socket.socket], asking: Path, whole: bool
) -> None:
    """One or many, at the start or later, with a good request or with half of one."""
    agents.start(config=QUIET)
    data = request(asking)
    before = agents.ask("status")["descriptors"]
    for count in (1, 2, 16, 200):
        for at in (0, 9, len(data) - 5):
            with connect() as client:
                fds = array.array("i", [client.fileno()] * count)
                client.sendall(data[:at])
                try:
                    client.sendmsg([data[at : at + 4]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                    client.sendall(data[at + 4 :] if whole else b"")
                    client.shutdown(socket.SHUT_WR)
                except BrokenPipeError:
                    pass
                answer = answer_of(client)
                assert answer.code in (0, 1)
                assert (answer.code == 0) == (whole and count == 1), (count, at, answer)
    wait_until(lambda: agents.ask("status")["descriptors"] <= before + STATE_FILES, DEADLINE_S)


def test_oversized_requests_are_refused_by_name(lab: Lab, agents: AgentHost, c1: Container, asking: Path) -> None:
    """Through the launcher: more than a MiB of environment is code 4, more than 16 MiB of stdin code 6."""
    agents.start(config=QUIET)
    variables = {f"FILL{number}": "x" * 100_000 for number in range(11)}
    error = lab.refused(network(), c1, env=variables)
    assert error["code"] == 4
    assert "environment is larger than 1048576 bytes" in error["msg"]
    conf = json.dumps(network(args={"cni": {"fill": "x" * (17 << 20)}}))
    answer = lab.call("ADD", conf, c1)
    assert answer.error_code == 6, answer.stdout[:300]
    assert "longer than 16777216 bytes" in answer.json["msg"]
    assert agents.ask("status")["memory_bytes"] < 200 << 20
    assert lab.records() == {}
    assert_prompt(lab, c1, 1)


def test_one_client_too_many_is_told_to_try_again(
    lab: Lab, agents: AgentHost, c1: Container, connect: Callable[[], socket.socket]
) -> None:
    """Code 11 with the limit at once, not a place in a queue; as soon as one leaves it works."""
    agents.start(config=QUIET + "connections = 4\n")
    idle = [connect() for _ in range(4)]

    def is_full() -> bool:
        idle.append(connect())  # a probe may have come before one of them, which was refused instead
        return bool(error_in_refusal(connect) == 11)

    wait_until(is_full, DEADLINE_S)
    error = lab.refused(network(), c1)
    assert error["code"] == 11
    assert "serves 4 clients already" in error["msg"]

    def has_room() -> bool:
        idle.pop().close()
        return lab.call("VERSION", network(), c1).ok

    wait_until(has_room, DEADLINE_S)
    lab.add(network(), c1)


def error_in_refusal(connect: Callable[[], socket.socket]) -> Any:
    """The error code at once, None where a request is waited for."""
    client = connect()
    client.settimeout(0.05)
    try:
        return error_in(answer_of(client))["code"]
    except (TimeoutError, CniError):
        return None
    finally:
        client.close()


@pytest.mark.needs("tool:setpriv")
def test_another_user_is_refused_by_the_kernels_word(lab: Lab, agents: AgentHost, asking: Path) -> None:
    """Even where somebody has opened the socket's file to all: SO_PEERCRED says who calls, not the caller."""
    agents.start(config=QUIET)
    lab.host.run(["chmod", "666", SOCKET])
    script = f"""
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect({SOCKET!r}); s.sendall({request(asking)!r})
while part := s.recv(65536): sys.stdout.buffer.write(part)
"""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-ISc", script]
    ran = subprocess.run(lab.host.argv(nobody), capture_output=True, check=True)
    error = error_in(decode_answer(ran.stdout))
    assert (error["code"], "uid 65534 may not call plugins" in error["msg"]) == (4, True)
    assert lab.host.file(SOCKET).stat().st_mode & 0o777 == 0o666


def test_stopped_agent_is_waited_for_no_longer_than_told(lab: Lab, agents: AgentHost, c1: Container) -> None:
    """An agent that hangs (SIGSTOP): code 11 at the launcher's deadline; when it goes on, DEL finds everything."""
    agent = agents.start(config=QUIET)
    agent.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        error = lab.refused(network(), c1, env={"PYCNI_TIMEOUT": "1"})
    finally:
        agent.send_signal(signal.SIGCONT)
    assert error["code"] == 11
    assert "did not answer in time" in error["details"]
    assert 1.0 <= time.monotonic() - began < 1.0 + DEADLINE_S / 2
    wait_until(lambda: agents.ask("status")["busy"] == 0, DEADLINE_S)
    lab.delete(network(), c1)
    assert (lab.records(), lab.leases(), c1.links()) == ({}, [], ["lo"])
