"""`pycni lab down`, and every other way in which a lab ends, leaves nothing of the lab and touches nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from netns_fixtures import Namespace, wait_until
from pycni.lab.bringing_up import take_down
from pycni.lab.errors import LabError
from pycni.lab.process import Process
from pycni.lab.running import BASE, RunningLab

from .conftest import LabCommand, command

FILE = """
etcd: {}
networks: {blue: {type: overlay, ipv4: 10.1.0.0/16}}
hosts:
  h[1-2]:
    containers:
      c: {}
      busy: {command: sleep 1000}
"""
SMALL = """
networks: {blue: {ipv4: 10.1.0.0/24}}
hosts: {h1: {containers: {c: {}, busy: {command: sleep 1000}}}}
"""


@pytest.fixture
def stranger() -> Iterator[Process]:
    """A process that is none of the lab's: in namespaces of its own, and called like one of them."""
    namespace = Namespace("stranger", lo_up=True)
    process = namespace.popen(["sleep", "1000"])
    yield Process.of(process.pid)
    namespace.delete()


def interrupted(lab: LabCommand, number: signal.Signals, when: str) -> subprocess.CompletedProcess[str]:
    """`up` that gets a signal once it has said a line that begins with *when*."""
    up = subprocess.Popen(command("up", str(lab.file)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert up.stderr is not None
    said = ""
    for line in up.stderr:
        said += line
        if line.startswith(when):
            break
    lab.ids.add(lab.running().id)
    up.send_signal(number)
    out, more = up.communicate(timeout=60)
    return subprocess.CompletedProcess(up.args, up.returncode, out, said + more)


@pytest.mark.parametrize(("number", "when"), [(signal.SIGINT, "segment"), (signal.SIGTERM, "container")])
def test_interrupted_up_leaves_nothing(lab: LabCommand, number: signal.Signals, when: str) -> None:
    """Ctrl-C, or SIGTERM, at any point of `up`: what was made is gone when the command ends, with code 130."""
    lab.write(FILE)
    done = interrupted(lab, number, when)
    assert done.returncode == 130, done
    assert "taking down" in done.stderr
    assert not lab.traces()


@pytest.mark.parametrize("when", ["segment", "agent"])
def test_killed_up_is_cleaned_up(lab: LabCommand, stranger: Process, when: str) -> None:
    """After kill -9 of `up`, `down` ends what it had started, noted or not; strangers live on."""
    lab.write(FILE)
    interrupted(lab, signal.SIGKILL, when)
    assert lab.traces()
    lab.down()
    assert not lab.traces()
    assert stranger.alive()


def test_up_after_a_killed_up_begins_anew(lab: LabCommand) -> None:
    lab.write(SMALL)
    interrupted(lab, signal.SIGKILL, "host")
    done = lab.up()
    assert "was not finished" in done.stderr
    assert lab.ps()["h1"]["containers"]["c"]["state"] == "attached"


def test_down_finds_what_lost_its_holder_and_its_name(lab: LabCommand, stranger: Process) -> None:
    """Holders killed, a process with an empty environment, a command's child: all end with the lab."""
    lab.up(SMALL)
    running = lab.running()
    machine = running.hosts["h1"]
    hidden = running.popen("h1", "c", ["env", "-i", "sh", "-c", "sleep 999 & exec sleep 998"])
    wait_until(lambda: b"999" in _command_lines(hidden.pid), 10)
    machine.holder.end()
    lab.down()
    assert hidden.wait(10) == -signal.SIGKILL
    assert not lab.traces()
    assert stranger.alive()


def _command_lines(parent: int) -> bytes:
    with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
        children = file.read().split()
    lines = []
    for child in children:
        with open(f"/proc/{child}/cmdline", "rb") as file:
            lines.append(file.read())
    return b"".join(lines)


def test_one_command_at_a_time(lab: LabCommand) -> None:
    """While `up` works, `down` and a second `up` are refused; afterwards the lab is whole."""
    lab.write(FILE)
    up = subprocess.Popen(command("up", str(lab.file)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert up.stderr is not None
    assert up.stderr.readline().startswith("segment")
    for refused in (lab.run("down", lab.name, rc=1), lab.run("up", str(lab.file), rc=1)):
        assert "another `pycni lab` works on lab" in refused.stderr
    up.communicate(timeout=60)
    lab.ids.add(lab.running().id)
    assert up.returncode == 0 and lab.ps()["h2"]["containers"]["busy"]["state"] == "runs"


def test_down_twice_and_of_nothing(lab: LabCommand) -> None:
    """There is no lab: that is what was wanted, exit code 0."""
    lab.up(SMALL)
    lab.down()
    assert not lab.traces()
    assert "is not up" in lab.run("down", lab.name).stdout
    assert not os.path.exists(f"{BASE}/{lab.name}")


@pytest.mark.parametrize("name", ["..", ".", "A", "x\n", ""])
def test_no_name_leads_elsewhere(name: str) -> None:
    """/run/pycni-lab/.. is /run: what cannot be a lab's name is refused before anything is looked at."""
    with pytest.raises(LabError, match="cannot be a lab's name"):
        take_down(name)
    with pytest.raises(LabError, match="cannot be a lab's name"):
        RunningLab.load(name)


def test_down_of_a_lab_with_a_torn_state(lab: LabCommand) -> None:
    """Its id lies in a file of its own, by which everything is found."""
    lab.up(SMALL)
    with open(f"{BASE}/{lab.name}/state.json", "w", encoding="ascii") as file:
        file.write('{"format":')
    assert "cannot be read" in lab.run("ps", lab.name, rc=1).stderr
    lab.down()
    assert not lab.traces()


def test_a_shell_of_the_lab_cannot_take_it_down(lab: LabCommand) -> None:
    """It would end itself half way."""
    lab.up(SMALL)
    running = lab.running()
    done = subprocess.run(
        command("down", lab.name), env=running.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "leave it first" in done.stderr
    assert lab.ps()["h1"]["state"] == "agent runs"


def test_failed_up_says_why_and_leaves_nothing(lab: LabCommand) -> None:
    """A container that cannot be attached: the plugin's own words, and no lab."""
    lab.write(SMALL.replace("10.1.0.0/24}", "10.1.0.0/24, config: {mtu: 1000000}}"))
    done = lab.run("up", str(lab.file), rc=1)
    assert "h1/c: " in done.stderr and "1000000" in done.stderr
    assert not lab.traces()
