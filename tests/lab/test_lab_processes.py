"""A lab's host has processes of its own: it sees no others, hits no others, reaps its orphans, and they end with it."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from netns_fixtures import wait_until
from pycni.host import pidns
from pycni.lab.process import Process
from pycni.lab.running import RunningLab
from pycni.lab.state import tool

from .conftest import LabCommand, command

FILE = """
networks: {blue: {ipv4: 10.1.0.0/24}}
hosts: {"h[1-2]": {containers: {c: {}, busy: {command: exec sleep 1000}}}}
"""

#: Kills everything that it may, and only where it is in a PID namespace that is not this machine's ($1).
KILL_ALL = """
import os, sys
here = os.readlink("/proc/self/ns/pid")
if not here.startswith("pid:[") or here == sys.argv[1]:
    sys.exit(f"these are the machine's processes: {here}")
os.kill(-1, 9)
"""


#: Prints the pids in /proc, without its own and those of zombies.
LOOK = """
import os
others = [entry for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid()]
print(*(pid for pid in others if open(f"/proc/{pid}/cmdline").read()))
"""


@pytest.fixture(scope="module")
def up(make_lab: Callable[[], LabCommand]) -> LabCommand:
    made = make_lab()
    made.up(FILE)
    return made


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def machines_namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def seen(lab: LabCommand, where: str) -> set[int]:
    """The pids in /proc there, without that of who looks."""
    return {int(pid) for pid in lab.exec(where, sys.executable, "-c", LOOK).split()}


def number(pid: int) -> int:
    """The pid that the process has in the namespace where it was born."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return int(next(line for line in file if line.startswith("NSpid:")).split()[-1])


def inhabitants(running: RunningLab, host: str) -> list[Process]:
    """The holder, the agent, the commands."""
    machine = running.hosts[host]
    found = [machine.holder, machine.agent, *(each.process for each in machine.containers)]
    return [each for each in found if each is not None]


def command_line(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read().split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def running_as(*words: str) -> list[int]:
    """The processes of this machine with that command line."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in pids if command_line(pid) == list(words)]


def nap(number: int) -> str:
    """What no other `sleep` of this machine has as its argument."""
    return f"1000.{os.getpid()}{number}"


def test_a_host_sees_its_own_processes_and_no_others(up: LabCommand) -> None:
    """/proc has the host's holder, which is 1, the agent, the commands; a container's is that of its host."""
    running = up.running()
    for host in ("h1", "h2"):
        own = {number(process.pid) for process in inhabitants(running, host)}
        assert 1 in own and seen(up, host) == own == seen(up, f"{host}/c") == seen(up, f"{host}/busy")
    places = {up.exec(host, "readlink", "/proc/self/ns/pid").strip() for host in ("h1", "h1/busy", "h2")}
    assert len(places) == 2 and machines_namespace() not in places


def test_what_kills_everything_hits_one_host(up: LabCommand) -> None:
    """`kill -9 -1` ends the agent and the commands of that host; not its init, another host, or the machine."""
    up.exec("h1", sys.executable, "-c", KILL_ALL, machines_namespace())
    running = up.running()
    holder, *others = inhabitants(running, "h1")
    wait_until(lambda: not any(each.alive() for each in others), 10)
    assert holder.alive() and all(each.alive() for each in inhabitants(running, "h2"))
    states = {name: host["state"] for name, host in up.ps().items()}
    assert states == {"h1": "agent ended", "h2": "agent runs"}
    assert "start agent h1" in up.up().stderr
    up.run("reboot", "--lab", up.name, "h1")
    host = up.ps()["h1"]
    assert host["state"] == "agent runs" and host["containers"]["busy"]["state"] == "runs"
    assert up.reaches("h1/c", up.ps()["h1"]["containers"]["busy"]["attachments"][0]["addresses"][0].split("/")[0])


def test_orphans_are_reaped(up: LabCommand) -> None:
    """A hundred daemons that end at about the same time leave no zombie."""
    up.exec("h2", "sh", "-c", "for i in $(seq 100); do (sleep 0.2 &); done")
    look = ["sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null"]
    assert wait_until(lambda: not re.search(r"\(sleep\) . 1 ", up.exec("h2", *look, rc=None)), 10)


def test_what_runs_on_a_host_ends_with_it(lab: LabCommand) -> None:
    """Even what gave up its environment, its session and all other namespaces; `down` finds nothing left to kill."""
    lab.up(FILE)
    script = f"setsid env -i unshare --net --mount --uts sleep {nap(1)} >/dev/null 2>&1 &"
    lab.exec("h1", "sh", "-c", script)
    (hidden,) = wait_until(lambda: running_as("sleep", nap(1)), 10)
    everybody = [each for host in ("h1", "h2") for each in inhabitants(lab.running(), host)]
    lab.down()
    assert not os.path.exists(f"/proc/{hidden}/ns/net") and not any(each.alive() for each in everybody)


def test_down_where_nobody_reaps(lab: LabCommand) -> None:
    """In a container whose first process takes no notice of orphans: reboots and `down` do not wait for it."""
    lab.write(FILE)
    script = "mount -t proc proc /proc; exec sleep 1000"
    first = pidns.fresh(lambda: subprocess.Popen([tool("unshare"), "--mount", "--", "/bin/sh", "-c", script]))
    fd = os.open(f"/proc/{first.pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        wait_until(lambda: command_line(first.pid) == ["sleep", "1000"], 10)

        def there(*argv: str) -> str:
            whole = [tool("nsenter"), f"--mount=/proc/{first.pid}/ns/mnt", "--", *command(*argv)]
            process = pidns.inside(fd, lambda: subprocess.Popen(whole, stdout=subprocess.PIPE, text=True))
            said, _ = process.communicate(timeout=60)
            assert process.returncode == 0, said
            return said

        there("up", str(lab.file), "--quiet")
        there("reboot", "--lab", lab.name, "h1")
        assert there("exec", "--lab", lab.name, "h1", "--", "hostname") == "h1\n"
        took = re.search(r"is down after ([0-9.]+) s", there("down", lab.name))
        assert took and float(took[1]) < 5
    finally:
        os.close(fd)
        first.kill()
        first.wait()


# -- lab exec ----------------------------------------------------------------------------------------------------------


def started(lab: LabCommand, closing: ExitStack, *argv: str) -> subprocess.Popen[bytes]:
    """`pycni lab exec h1` that has said its first line, and ends with the test."""
    whole = command("exec", "--lab", lab.name, "h1", "--", *argv)
    # A process group of its own, whose parent is in this session: in an orphaned one, as a service's or a background
    # job's may be, SIGTSTP stops nobody (POSIX, get_signal in kernel/signal.c).
    process = closing.enter_context(subprocess.Popen(whole, stdout=subprocess.PIPE, process_group=0))
    closing.callback(process.kill)
    assert process.stdout is not None and process.stdout.readline()
    return process


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_exec_passes_signals_on(up: LabCommand, closing: ExitStack, sent: signal.Signals) -> None:
    """The program has the signal, can have its own way with it, and its end is that of `exec`."""
    name = sent.name.removeprefix("SIG")
    process = started(up, closing, "sh", "-c", f"trap 'exit 42' {name}; echo ready; while :; do sleep 0.05; done")
    process.send_signal(sent)
    assert process.wait(10) == 42
    process = started(up, closing, "sh", "-c", "echo ready; exec sleep 1000")
    process.send_signal(sent)
    assert process.wait(10) == -sent


def test_the_program_of_a_killed_exec_ends(up: LabCommand, closing: ExitStack) -> None:
    """Nothing goes on by itself that was started in the foreground."""
    process = started(up, closing, "sh", "-c", f"echo ready; exec sleep {nap(2)}")
    (program,) = wait_until(lambda: running_as("sleep", nap(2)), 10)
    process.kill()
    process.wait()
    assert wait_until(lambda: not command_line(program), 10)


def test_exec_stops_and_goes_on_with_its_program(up: LabCommand, closing: ExitStack) -> None:
    """Ctrl-Z in a shell without a terminal's help: the program stops, then `exec`; SIGCONT wakes both."""
    process = started(up, closing, "sh", "-c", f"echo ready; sleep 0.1; echo on; exec sleep {nap(3)}")
    process.send_signal(signal.SIGTSTP)
    wait_until(lambda: has_stopped(process.pid), 10)
    process.send_signal(signal.SIGCONT)
    assert process.stdout is not None and process.stdout.readline() == b"on\n"
    assert wait_until(lambda: running_as("sleep", nap(3)), 10)


def has_stopped(pid: int) -> bool:
    found, status = os.waitpid(pid, os.WUNTRACED | os.WNOHANG)
    return found == pid and os.WIFSTOPPED(status)


def at_terminal(keys: Sequence[tuple[str, bytes]], argv: Sequence[str]) -> tuple[int, str]:
    """Exit code and screen of *argv* at a terminal of its own; each text is waited for before its keys are pressed."""
    code = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, *argv], stdin=pipe, stdout=pipe, bufsize=0) as terminal:
        assert terminal.stdin is not None and terminal.stdout is not None
        screen = ""
        at = 0
        try:
            for text, pressed in (*keys, ("", b"")):
                while text not in screen[at:] or not text:
                    assert select.select([terminal.stdout], [], [], 10)[0], f"no {text!r} in {screen!r}"
                    read = terminal.stdout.read(4096)
                    screen += read.decode()
                    if not read:
                        return terminal.wait(10), screen
                at = screen.index(text, at) + len(text)
                terminal.stdin.write(pressed)
        finally:
            terminal.kill()
    raise AssertionError(screen)


#: Says 42 and copies lines, in one process.
CAT = "sh -c 'echo $((40 + 2)); exec cat'"


def test_a_shell_has_the_terminal(up: LabCommand) -> None:
    """Ctrl-C and Ctrl-Z hit what runs in it; it has job control; no complaint, and the right exit code, at its end."""
    keys = [
        ("h1# ", f"{CAT}\n".encode()),
        ("42\r\n", b"\x1a"),
        ("Stopped", b"fg\n"),
        ("fg\r\n", b""),
        ('cat"\r\n', b"x\n"),  # the shell says what it puts in front
        ("x\r\nx\r\n", b"\x03"),
        ("h1# ", b"test -d /proc/$$ && exit 7\n"),
    ]
    code, screen = at_terminal(keys, command("shell", "--lab", up.name, "h1"))
    assert code == 7, screen
    assert "tty" not in screen


def test_exec_at_a_terminal_is_a_job(up: LabCommand) -> None:
    """Ctrl-Z gives the terminal back to the shell that ran `exec`, `fg` gives it to the program, Ctrl-C ends it."""
    exec_cat = " ".join(command("exec", "--lab", up.name, "h1", "--", CAT))
    keys = [
        ("here> ", f"{exec_cat}\n".encode()),
        ("42\r\n", b"\x1a"),
        ("Stopped", b"fg\n"),
        ("fg\r\n", b""),
        ('cat"\r\n', b"x\n"),
        ("x\r\nx\r\n", b"\x03"),
        ("here> ", b"exit 3\n"),
    ]
    code, screen = at_terminal(keys, ["env", "PS1=here> ", "/bin/sh", "-i"])
    assert code == 3, screen
