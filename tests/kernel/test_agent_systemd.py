"""What systemd and the agent say to each other: the listening socket, readiness, the watchdog, units."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from netns_fixtures import Host, wait_until
from pycni.cli import systemd
from pycni.cli.systemd import SERVICE, SOCKET
from tests.kernel.agent_lab import BIN, DEADLINE_S, ENVIRONMENT, PYCNI, AgentHost
from tests.kernel.agent_lab import SOCKET as PATH

pytestmark = pytest.mark.needs("root")

# systemd hands the socket over as descriptor 3 and says to which process.
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def place(host: Host, tmp_path: Path) -> AgentHost:
    return AgentHost(host, tmp_path / "agent.log")


def unix_socket(host: Host, kind: socket.SocketKind, path: str) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_UNIX, kind)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        made.bind(path)
        return made

    found = host.in_namespace(make)
    found.settimeout(DEADLINE_S)
    return found


def start(place: AgentHost, listener: socket.socket, **environment: str) -> subprocess.Popen[str]:
    fd = listener.fileno()
    argv = place.host.argv([sys.executable, "-c", AS_SYSTEMD, str(fd), *PYCNI, "agent"])
    env = {**ENVIRONMENT, "LISTEN_FDS": "1", **environment}
    with open(place.logs, "a", encoding="utf-8") as log:
        agent = subprocess.Popen(argv, env=env, pass_fds=(fd,), stderr=log, stdin=subprocess.DEVNULL, text=True)
    place.host.holder.started.append(agent)
    return agent


def test_an_activated_agent_serves_the_socket_and_leaves_it(place: AgentHost) -> None:
    """A client that connected before the start is answered; at the end the socket stays, for the next agent."""
    with unix_socket(place.host, socket.SOCK_STREAM, PATH) as listener:
        listener.listen(16)
        first = start(place, listener)
        assert place.ask("status")["pid"] == first.pid  # queued by the kernel until the agent is there
        first.terminate()
        assert first.wait(DEADLINE_S) == 0
        assert place.host.file(PATH).is_socket()
        second = start(place, listener)
        assert place.ask("status")["pid"] == second.pid
        second.terminate()
        assert second.wait(DEADLINE_S) == 0


def test_readers_are_admitted_to_systemds_socket_too(place: AgentHost) -> None:
    """The unit says 0600; the agent's configuration knows better."""
    place.host.run(["sh", "-c", "echo pycni-readers:x:4242: >>/etc/group"])
    place.configure('readers = "pycni-readers"\n')
    with unix_socket(place.host, socket.SOCK_STREAM, PATH) as listener:
        listener.listen(16)
        agent = start(place, listener)
        place.ask("status")
        status = place.host.file(PATH).stat()
        assert (status.st_mode & 0o777, status.st_gid) == (0o660, 4242)
        agent.terminate()
        assert agent.wait(DEADLINE_S) == 0


def test_a_descriptor_that_is_no_listening_socket_is_refused(place: AgentHost) -> None:
    """With a hint at the unit."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wrong:
        assert start(place, wrong).wait(DEADLINE_S) == 1
    assert "no listening Unix stream socket" in place.logs.read_text()


def test_systemd_hears_of_start_life_and_end(place: AgentHost) -> None:
    """READY=1 once it answers, WATCHDOG=1 twice in the interval, STOPPING=1 at SIGTERM."""
    notify = "/run/notify"
    with (
        unix_socket(place.host, socket.SOCK_STREAM, PATH) as listener,
        unix_socket(place.host, socket.SOCK_DGRAM, notify) as heard,
    ):
        listener.listen(16)
        agent = start(place, listener, NOTIFY_SOCKET=notify, WATCHDOG_USEC="200000")
        said = [heard.recv(64) for _ in range(4)]
        assert said == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        agent.terminate()
        assert agent.wait(DEADLINE_S) == 0
        while said[-1] == b"WATCHDOG=1":
            said.append(heard.recv(64))
        assert said[-1] == b"STOPPING=1"


def test_no_watchdog_where_none_is_asked_for(place: AgentHost) -> None:
    """Or where the question is for another process; a notification socket that is gone harms nothing."""
    environment = {"NOTIFY_SOCKET": "/run/gone", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    with unix_socket(place.host, socket.SOCK_STREAM, PATH) as listener:
        listener.listen(16)
        agent = start(place, listener, **environment)
        assert place.ask("status")["pid"] == agent.pid
        agent.terminate()
        assert agent.wait(DEADLINE_S) == 0


# -- units -------------------------------------------------------------------------------------------------------------


def test_units_come_and_go_with_the_installation(place: AgentHost) -> None:
    """Written and renewed, the commands shown; an edited one stays, and enabled ones lose their links."""
    units = "/etc/units"
    place.host.run(["mkdir", "-p", f"{units}/sockets.target.wants"])
    where = ("install", "--bin-dir", BIN, "--launcher", "standalone", "--systemd", "--unit-dir", units)
    text = place.pycni(*where).stdout
    assert f"systemctl enable --now {SOCKET} {SERVICE}" in text
    place.host.run(["ln", "-s", f"{units}/{SOCKET}", f"{units}/sockets.target.wants/{SOCKET}"])
    done = {row.get("path", row.get("command")): row["done"] for row in place.json(*where)}
    assert (done[f"{units}/{SERVICE}"], done["systemctl daemon-reload"]) == ("renewed", "is to be run")
    place.host.run(["sh", "-c", f"echo '# mine' >>{units}/{SERVICE}"])
    assert "left as it is" in place.pycni(*where).stdout
    gone = place.pycni("uninstall", rc=1).stdout
    assert "left: it was changed since" in gone
    assert f"systemctl stop {SOCKET} {SERVICE}" in gone
    left = place.host.run(["find", units, "-type", "f", "-o", "-type", "l"]).stdout.split()
    assert left == [f"{units}/{SERVICE}"]


@pytest.mark.needs("tool:systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(place: AgentHost) -> None:
    """`systemd-analyze verify` of both is silent and content."""
    units = "/etc/units"
    place.host.run(["mkdir", units])
    place.pycni("install", "--bin-dir", BIN, "--launcher", "standalone", "--systemd", "--unit-dir", units)
    paths = (f"{units}/{SERVICE}", f"{units}/{SOCKET}")
    done = place.host.run(["systemd-analyze", "verify", "--man=no", *paths], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_starts_this_very_package(place: AgentHost) -> None:
    """The line of ExecStart, run with the unit's environment and nothing else, is an agent."""
    place.host.run(["mkdir", "/etc/units"])
    place.pycni("install", "--bin-dir", BIN, "--launcher", "standalone", "--systemd", "--unit-dir", "/etc/units")
    lines = place.host.file(f"/etc/units/{SERVICE}").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    environment = dict([values["Environment"].split("=", 1)]) if "Environment" in values else {}
    with open(place.logs, "a", encoding="utf-8") as log:
        agent = place.host.popen(values["ExecStart"].split(), env=environment, stderr=log)
    wait_until(lambda: place.answers(agent), DEADLINE_S)
    agent.terminate()
    assert agent.wait(DEADLINE_S) == 0


def test_systemd_ends_the_agent_alone() -> None:
    """Not what it has started: connections through the userland proxy live while the agent restarts."""
    assert "KillMode=process" in systemd.service_text("/usr/bin/python3", "").splitlines()


@pytest.mark.parametrize(
    ("path", "word"),
    [("/usr/bin/python3", "/usr/bin/python3"), ("/opt/my py/100%$x", '"/opt/my py/100%%$$x"'), ('/a"b', '"/a\\"b"')],
)
def test_a_path_means_itself_in_a_unit(path: str, word: str) -> None:
    """Blanks, quotes, specifiers and variables are taken as they are."""
    assert f"ExecStart={word} -P -m pycni agent\n" in systemd.service_text(path, "")
