"""Calls through `pycni agent` on a host of its own: every launcher, and the agent's start and end."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import Container, Host, wait_until
from tests.kernel.agent_lab import BIN, CONFIG, DEADLINE_S, SOCKET, WAITING_IPAM, AgentHost

pytestmark = pytest.mark.needs("root", "kernel:veth", "kernel:bridge", "tool:nft")


@pytest.fixture
def place(host: Host, tmp_path: Path) -> AgentHost:
    """A host without anything; agents that a test leaves running end with it."""
    return AgentHost(host, tmp_path / "agent.log")


@pytest.fixture
def installed(place: AgentHost) -> AgentHost:
    """The same with the executables of whatever launcher there can be."""
    place.pycni("install", "--bin-dir", BIN)
    return place


@pytest.mark.parametrize("kind", [pytest.param("c", marks=pytest.mark.needs("tool:cc")), "python", "standalone"])
def test_a_life_with_every_kind_of_launcher(place: AgentHost, kind: str) -> None:
    """ADD, CHECK, DEL and GC work; the agent answers those of launchers that ask it, and nothing is left."""
    place.install(kind)
    place.start()
    place.host.container("web")
    result = place.json("add", "pycni", "web")
    assert [ip["address"] for ip in result["ips"]] == ["10.77.0.2/16", "fd00:7079:636e:69::2/64"]
    (listed,) = place.json("list")
    assert listed["state"] == "ready"
    place.pycni("check", "pycni", "web")
    place.pycni("del", "pycni", "web")
    place.pycni("gc", "pycni")
    assert place.json("list") == place.json("ipam") == []
    assert place.counts() == ({} if kind == "standalone" else {"ADD": 1, "CHECK": 1, "DEL": 1, "GC": 1})
    place.stop()
    place.pycni("uninstall")
    assert not place.host.file(BIN).exists()


@pytest.mark.parametrize("kind", [pytest.param("c", marks=pytest.mark.needs("tool:cc")), "python", "standalone"])
def test_without_an_agent_the_own_ipam_needs_no_process(place: AgentHost, kind: str) -> None:
    """A plugin recognises itself under the IPAM's name: it works from a directory where nothing can be executed."""
    place.install(kind)
    place.host.run(["mkdir", "/run/noexec"])
    place.host.run(["mount", "--bind", BIN, "/run/noexec"])
    place.host.run(["mount", "-o", "remount,bind,noexec", "/run/noexec"])
    web = place.host.container("web")
    ipam = {"type": "pycni-ipam", "subnet": "10.1.0.0/24"}
    conf = {"cniVersion": "1.0.0", "name": "n", "type": "pycni-bridge", "ipam": ipam}
    added = place.call("ADD", conf, web, cni_path="/run/noexec").result()
    assert added["ips"][0]["address"] == "10.1.0.2/24"


@pytest.mark.needs("tool:cc")
def test_an_ipam_plugin_of_another_installation_does_not_wait_for_its_caller(place: AgentHost) -> None:
    """Not the same file, so the agent executes it; were that to ask the agent, it would wait for this very call."""
    place.install("c")
    place.host.run(["mkdir", "/run/other"])
    place.host.run(["cp", f"{BIN}/pycni-ipam", f"{BIN}/pycni-standalone", "/run/other"])
    place.start()
    web = place.host.container("web")
    ipam = {"type": "pycni-ipam", "subnet": "10.1.0.0/24"}
    conf = {"cniVersion": "1.0.0", "name": "n", "type": "pycni-bridge", "ipam": ipam}
    place.host.run(["rm", f"{BIN}/pycni-ipam"])
    deadline = {"PYCNI_TIMEOUT": str(DEADLINE_S)}
    added = place.call("ADD", conf, web, cni_path=f"{BIN}:/run/other", env=deadline)
    assert added.result()["ips"][0]["address"] == "10.1.0.2/24"
    assert place.call("DEL", conf, web, cni_path=f"{BIN}:/run/other", env=deadline).ok
    assert place.counts() == {"ADD": 1, "DEL": 1}


def test_a_killed_agent_is_replaced_by_standalone_calls(installed: AgentHost) -> None:
    """Its socket is still there, nobody answers: the call is carried out, doctor says so, a new agent takes over."""
    installed.start()
    installed.stop(signal.SIGKILL)
    installed.host.container("web")
    installed.pycni("add", "pycni", "web")
    (finding,) = [one for one in installed.json("doctor", rc=None) if one["check"] == "agent"]
    assert finding["level"] == "WARN"
    installed.start()
    installed.pycni("del", "pycni", "web")
    assert installed.counts() == {"DEL": 1}


SLOW = {"cniVersion": "1.0.0", "name": "slow", "type": "pycni-bridge", "ipam": {"type": "slow-ipam"}}


class Slow:
    """An ADD whose foreign IPAM plugin waits for `go`."""

    def __init__(self, place: AgentHost, container: Container) -> None:
        place.put_executable(f"{BIN}/slow-ipam", WAITING_IPAM)
        place.host.run(["mkfifo", "/run/go", "/run/asked"])
        self.host = place.host
        self.answers: list[Any] = []
        self._calling = threading.Thread(target=lambda: self.answers.append(place.call("ADD", SLOW, container)))
        self._calling.start()
        self.host.run(["sh", "-c", "read -r _ </run/asked"])

    def go(self) -> None:
        self.host.run(["sh", "-c", "echo >/run/go"])

    def answer(self) -> Any:
        self._calling.join()
        return self.answers[0]


def test_a_call_in_flight_is_answered_before_the_agent_ends(installed: AgentHost) -> None:
    """SIGTERM while a foreign IPAM plugin thinks: new calls go elsewhere, this one gets its result, exit code 0."""
    agent = installed.start()
    slow = Slow(installed, installed.host.container("web"))
    agent.send_signal(signal.SIGTERM)
    wait_until(lambda: not installed.host.file(SOCKET).exists(), DEADLINE_S)
    installed.host.container("other")
    installed.pycni("add", "pycni", "other")  # by itself: no agent can be reached
    assert agent.poll() is None
    slow.go()
    assert slow.answer().result()["ips"][0]["address"] == "10.9.0.2/24"
    assert agent.wait(DEADLINE_S) == 0
    assert [(line["container"], line["outcome"]) for line in installed.logged("call")] == [("web", "ok")]


def test_a_call_that_lost_its_agent_is_answered_and_can_be_repeated(installed: AgentHost) -> None:
    """SIGKILL in the middle: error 11, then DEL and ADD as a runtime repeats them: one record, one link."""
    installed.start()
    web = installed.host.container("web")
    slow = Slow(installed, web)
    installed.stop(signal.SIGKILL)
    assert slow.answer().error_code == 11
    slow.go()
    installed.start()
    conf = {**SLOW, "ipam": {"type": "pycni-ipam", "subnet": "10.9.0.0/24"}}
    assert installed.call("DEL", conf, web).ok
    assert installed.json("list") == []
    assert installed.call("ADD", conf, web).ok
    assert [one["state"] for one in installed.json("list")] == ["ready"]
    assert len(installed.host.ip_json("link", "show", "type", "veth")) == 1


# -- one agent to a socket ---------------------------------------------------------------------------------------------


def test_a_second_agent_is_refused(installed: AgentHost) -> None:
    """With words, and the first goes on; at another socket it may run."""
    first = installed.start()
    assert f"another agent serves {SOCKET}" in installed.pycni("agent", rc=1).stderr
    installed.start("--socket", "/run/other.sock", socket="/run/other.sock")
    assert installed.ask("status")["pid"] == first.pid
    assert "pid" in installed.pycni("agent", "--socket", "/run/other.sock", "status").stdout


def test_a_file_that_is_no_socket_stays(installed: AgentHost) -> None:
    """Whatever lies at the socket's path and is none is not removed."""
    installed.host.run(["sh", "-c", "mkdir -p /run/pycni && echo precious >/run/pycni/agent.sock"])
    assert "is no socket" in installed.pycni("agent", rc=1).stderr
    assert installed.host.file(SOCKET).read_text() == "precious\n"


def test_a_wrong_configuration_is_refused_before_anything_is_made(installed: AgentHost) -> None:
    """The file, the key and the limit are named; a missing file that was asked for is as wrong."""
    installed.configure("workers = 0\n")
    failed = installed.pycni("agent", rc=1).stderr
    assert f"{CONFIG}: workers is 0, not in 1..64" in failed
    assert "does not exist" in installed.pycni("agent", "--config", "/nowhere.toml", rc=1).stderr
    assert not installed.host.file("/run/pycni").exists()
