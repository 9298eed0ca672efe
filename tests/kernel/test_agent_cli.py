"""What operators and readers ask of `pycni agent` on a host of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from socket import create_server
from typing import Any

import pytest

import pycni
from netns_fixtures import Host, wait_until
from tests.kernel.agent_lab import BIN, DEADLINE_S, ENVIRONMENT, PYCNI, SOCKET, AgentHost

pytestmark = pytest.mark.needs("root", "kernel:veth", "kernel:bridge", "tool:nft")

NOBODY, READERS_GID = 65534, 4242
AS_READER = ("setpriv", f"--reuid={NOBODY}", "--regid=65534", f"--groups={READERS_GID}")
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", "--regid=65534", "--clear-groups")
READERS = 'readers = "pycni-readers"\n'


@pytest.fixture
def place(host: Host, tmp_path: Path) -> AgentHost:
    """A host without anything; agents that a test leaves running end with it."""
    return AgentHost(host, tmp_path / "agent.log")


@pytest.fixture
def installed(place: AgentHost) -> AgentHost:
    """The same with the executables of whatever launcher there can be."""
    place.pycni("install", "--bin-dir", BIN)
    return place


# -- looking -----------------------------------------------------------------------------------------------------------


def test_status_tells_what_was_done(installed: AgentHost) -> None:
    """Version, counters by outcome, the last comparison; as text and as JSON, and doctor is content."""
    agent = installed.start()
    installed.host.container("web")
    installed.pycni("add", "pycni", "web")
    wait_until(lambda: installed.ask("status")["reconciled"], DEADLINE_S)
    status = installed.json("agent", "status")
    assert (status["version"], status["pid"]) == (pycni.__version__, agent.pid)
    calls = [tuple(call[key] for key in ("plugin", "command", "code", "count")) for call in status["calls"]]
    assert calls == [("bridge", "ADD", 0, 1), ("portmap", "ADD", 0, 1)]
    text = installed.pycni("agent", "status").stdout
    assert "all in order" in text
    assert "bridge   ADD      ok" in text
    (finding,) = [one for one in installed.json("doctor", rc=None) if one["check"] == "agent"]
    assert finding["level"] == "OK"


def test_events_are_told_as_they_happen(installed: AgentHost) -> None:
    """A stream of JSON lines with the call's outcome and its TRACEPARENT, until Ctrl-C: exit code 130."""
    installed.start()
    web = installed.host.container("web")
    words = [*PYCNI, "events", "--json", "--since", "1h"]
    stream = installed.host.popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert stream.stdout is not None
    assert json.loads(stream.stdout.readline())["event"] == "started"
    conf = {"cniVersion": "1.0.0", "name": "n", "type": "pycni-bridge"}
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    installed.call("ADD", {**conf, "mtu": "many"}, web, env={"TRACEPARENT": trace})
    event = json.loads(stream.stdout.readline())
    assert (event["command"], event["container"], event["outcome"], event["code"]) == ("ADD", "web", "error", 7)
    assert event["traceparent"] == trace
    stream.send_signal(signal.SIGINT)
    assert stream.wait(DEADLINE_S) == 130
    stream.stdout.close()


def test_many_followers_delay_nobody(installed: AgentHost) -> None:
    """Forty that wait for events: a question and a call are answered, and the end of the agent ends their wait."""
    installed.start()
    last = installed.ask("events")["last"]
    answers: list[Any] = []
    plugins = 2  # of the network, each with an event of its own
    followers = [
        threading.Thread(target=lambda: answers.append(installed.ask("events", after=last + plugins)))
        for _ in range(40)
    ]
    for follower in followers:
        follower.start()
    wait_until(lambda: installed.ask("status")["clients"] == len(followers), DEADLINE_S)
    installed.host.container("web")
    installed.pycni("add", "pycni", "web")
    assert answers == []  # those were the events before the one they wait for
    assert installed.stop() == 0
    for follower in followers:
        follower.join()
    assert len(answers) == len(followers)


def test_reconcile_restores_what_was_flushed_and_reports_the_rest(installed: AgentHost) -> None:
    """A deleted host link is for its owner to explain: named, with exit code 0."""
    installed.start(config="reconcile_s = 0\n")
    installed.host.container("web")
    installed.pycni("add", "pycni", "web")
    (link,) = installed.json("list")[0]["hostLinks"]
    before = installed.host.run(["nft", "list", "ruleset"]).stdout
    installed.host.run(["nft", "flush", "ruleset"])
    wait_until(lambda: installed.host.run(["nft", "list", "ruleset"]).stdout == before, DEADLINE_S)
    installed.host.ip("link", "delete", link)
    done = installed.json("reconcile")
    assert done["foreign"] == [f"pycni/web/eth0: host link {link} is gone"]
    assert f"host link {link} is gone" in installed.pycni("reconcile").stdout
    assert "changed by others" in installed.pycni("agent", "status").stdout


def test_a_changed_link_is_named_once_for_a_chain(place: AgentHost) -> None:
    """A routed pair that publishes ports is on no bridge, which is in order; once it is down, one line says so."""
    place.pycni("install", "--bin-dir", BIN, "--no-conf")
    place.host.run(["mkdir", "-p", "/etc/cni/net.d"])
    ranges = [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00:2::/64"}]]
    ptp = {"type": "pycni-ptp", "ipMasq": True, "ipam": {"type": "pycni-ipam", "ranges": ranges}}
    plugins = [ptp, {"type": "pycni-portmap", "capabilities": {"portMappings": True}}]
    conf = {"cniVersion": "1.0.0", "name": "net", "plugins": plugins}
    place.host.file("/etc/cni/net.d/net.conflist").write_text(json.dumps(conf))
    place.host.container("web")
    place.pycni("add", "net", "web", "--port", "8080:80")
    place.start(config="reconcile_s = 0\n")
    assert place.json("reconcile")["foreign"] == []
    (link,) = place.json("list")[0]["hostLinks"]
    place.host.ip("link", "set", link, "down")
    assert place.json("reconcile")["foreign"] == [f"net/web/eth0: host link {link} is down"]
    assert place.json("list")[0]["state"] == "link down"


def test_without_an_agent_questions_say_so(installed: AgentHost) -> None:
    """status, reconcile and events end with code 3 and the next step; doctor takes it for normal."""
    for command in (("agent", "status"), ("reconcile",), ("events",)):
        assert f"no agent runs at {SOCKET}" in installed.pycni(*command, rc=3).stderr
    (finding,) = [one for one in installed.json("doctor", rc=None) if one["check"] == "agent"]
    assert finding["level"] == "OK"


# -- readers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_readers(installed: AgentHost) -> AgentHost:
    """A group of readers, one attachment, and an agent that knows the group."""
    installed.host.run(["sh", "-c", f"echo pycni-readers:x:{READERS_GID}: >>/etc/group"])
    probe = installed.host.run([*AS_NOBODY, *PYCNI, "--version"], check=False, env=ENVIRONMENT)
    if probe.returncode:
        pytest.skip("another user than root cannot read the package or the interpreter of this checkout")
    installed.start(config=READERS)
    installed.host.container("web")
    installed.pycni("add", "pycni", "web")
    return installed


@pytest.mark.needs("tool:setpriv")
def test_a_reader_may_look(with_readers: AgentHost) -> None:
    """list, inspect, ports, networks, ipam, usage, status and events as another user, one of the readers' group."""
    place = with_readers
    (whole,), (shown,) = place.json("list"), place.json("list", as_user=AS_READER)
    assert shown == whole
    assert place.json("ipam", as_user=AS_READER) == place.json("ipam")
    assert place.json("ipam", "usage", as_user=AS_READER) == place.json("ipam", "usage")
    assert place.json("ports", as_user=AS_READER) == place.json("ports")
    assert place.json("networks", as_user=AS_READER) == place.json("networks") != []
    (seen,) = place.json("inspect", "web", as_user=AS_READER)
    assert seen["record"]["state"] == "ready"
    assert {one["found"] for one in seen["kernel"]} <= {"yes", "yes, up"}
    assert place.json("agent", "status", as_user=AS_READER)["config"]["readers"] == "pycni-readers"
    levels = {one["check"]: one["level"] for one in place.json("doctor", rc=None, as_user=AS_READER)}
    assert (levels["attachments"], levels["address pools"], levels["agent"]) == ("OK", "OK", "OK")


@pytest.mark.needs("tool:setpriv")
def test_a_reader_may_do_nothing_else(with_readers: AgentHost) -> None:
    """Neither reconcile nor a plugin's call; who is no reader gets nothing at all."""
    place = with_readers
    assert "only root may" in place.pycni("reconcile", rc=1, as_user=AS_READER).stderr
    environment = {**ENVIRONMENT, "CNI_COMMAND": "GC", "CNI_PATH": BIN}
    conf = json.dumps({"cniVersion": "1.1.0", "name": "pycni", "type": "pycni-bridge"})
    done = place.host.run([*AS_READER, f"{BIN}/pycni-bridge"], input=conf, check=False, env=environment)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 4)
    for command in (["list"], ["ports"], ["peers"], ["networks"], ["agent", "status"]):
        assert "Permission denied" in place.pycni(*command, rc=1, as_user=AS_NOBODY).stderr
    assert place.json("list") != []


HOG = """
import socket, sys
from pycni.cli.agent_client import ask
from pycni.cli.failure import Failure
held = [socket.socket(socket.AF_UNIX) for _ in range(2)]
for each in held:
    each.connect("/run/pycni/agent.sock")
while True:  # until the agent has seen both
    try:
        ask("status")
    except Failure as failure:
        print(failure.code, flush=True)
        break
sys.stdin.read()
"""


@pytest.mark.needs("tool:setpriv")
def test_readers_cannot_keep_others_out(with_readers: AgentHost) -> None:
    """A quarter of the connections is theirs: one more is told to come back, and root is answered."""
    place = with_readers
    place.stop()
    agent = place.start(config=f"{READERS}connections = 8\n")
    words = [*AS_READER, sys.executable, "-c", HOG]
    hog = place.host.popen(words, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert hog.stdout is not None
    assert hog.stdin is not None
    assert hog.stdout.readline() == "11\n"
    assert place.ask("status")["pid"] == agent.pid
    place.pycni("check", "pycni", "web")
    hog.stdin.close()
    hog.stdout.close()
    hog.wait(DEADLINE_S)


# -- reload, metrics ---------------------------------------------------------------------------------------------------


@pytest.mark.needs("tool:setpriv")
def test_a_reload_takes_the_new_configuration(with_readers: AgentHost) -> None:
    """SIGHUP: all now but workers; former readers are shut out; a file that makes no sense changes nothing."""
    place = with_readers
    place.configure('log_level = "error"\nreconcile_s = 7\ngrace_s = 1\nworkers = 2\n')
    place.agents[-1].send_signal(signal.SIGHUP)
    wait_until(lambda: place.ask("status")["config"]["grace_s"] == 1, DEADLINE_S)
    (event,) = [one for one in place.ask("events")["events"] if one["event"] == "reloaded"]
    assert event["changed"] == ["grace_s", "log_level", "readers", "reconcile_s"]
    assert event["at_restart"] == ["workers"]
    assert place.ask("status")["config"]["workers"] == 8
    place.pycni("list", rc=1, as_user=AS_READER)
    place.pycni("check", "pycni", "web")
    assert "CHECK" not in {line.get("command") for line in place.log()}  # of level info
    place.configure("grace_s = -1\n")
    place.agents[-1].send_signal(signal.SIGHUP)
    wait_until(lambda: place.logged("reload-refused"), DEADLINE_S)
    assert place.ask("status")["config"]["grace_s"] == 1


@pytest.mark.needs("python:prometheus_client")
def test_metrics_are_served_where_configured(installed: AgentHost) -> None:
    """Calls with their latency, objects and the reconciler's state; scraping costs no descriptor."""
    installed.start(config='metrics = "127.0.0.1:9123"\n')
    web = installed.host.container("web")
    installed.pycni("add", "pycni", "web")
    installed.call("DEL", {"name": "x", "type": "pycni-bridge", "cniVersion": "9"}, web)

    def scrape() -> str:
        with urllib.request.urlopen("http://127.0.0.1:9123/metrics") as answer:
            return str(answer.read().decode())

    text = installed.host.in_namespace(scrape)
    assert 'pycni_calls_total{code="0",command="ADD",plugin="bridge"} 1.0' in text
    assert 'pycni_calls_total{code="1",command="DEL",plugin="bridge"} 1.0' in text
    assert 'pycni_call_duration_seconds_count{code="0",command="ADD",plugin="bridge"} 1.0' in text
    assert 'pycni_attachments{network="pycni",state="ready"} 1.0' in text
    assert 'pycni_leases{network="pycni"} 2.0' in text
    assert "pycni_reconcile_failures 0.0" in text
    before = installed.ask("status")["descriptors"]
    for _ in range(10):
        installed.host.in_namespace(scrape)
    # the last scrape's connection may be closed a moment after its answer
    wait_until(lambda: installed.ask("status")["descriptors"] <= before)
    assert installed.stop() == 0


@pytest.mark.needs("python:prometheus_client")
def test_a_port_for_metrics_that_is_taken_is_named(installed: AgentHost) -> None:
    """The agent does not start, says why in the words of the command, and leaves no socket that callers would ask."""
    installed.configure('metrics = "127.0.0.1:9123"\n')
    owner = installed.host.in_namespace(lambda: create_server(("127.0.0.1", 9123)))
    with owner:
        said = installed.pycni("agent", rc=1).stderr
    assert said.startswith("error: metrics cannot be served at 127.0.0.1:9123: Address already in use\n")
    assert "Traceback" not in said
    assert not installed.host.file(SOCKET).exists()
