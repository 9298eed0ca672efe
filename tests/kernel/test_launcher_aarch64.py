"""The native launcher without a C library, compiled for AArch64 and run by an emulator: what bare.c has of its own for
it, which is every system call and the start with its stack of arguments."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycni.cni.errors import Code
from pycni.exe import build_launcher
from pycni.exe.wire import Answer, Request
from tests.kernel.launcher_lab import Ran, agent, answering, error_of, executable, python_text, start
from tests.kernel.test_launcher import SOMETHING, silent

pytestmark = pytest.mark.needs("tool:aarch64-linux-gnu-gcc", "tool:qemu-aarch64-static")

EMULATOR = "/usr/bin/qemu-aarch64-static"


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory with the launcher `pycni-bridge`, short enough for a socket as well."""
    with tempfile.TemporaryDirectory(prefix="pycni-") as name:
        command = ["aarch64-linux-gnu-gcc", *build_launcher.FLAGS, "-Werror", *build_launcher.BARE_FLAGS]
        subprocess.run([*command, "-o", f"{name}/pycni-bridge", build_launcher.SOURCE], check=True)
        yield Path(name)


def run(place: Path, environment: list[bytes], stdin: bytes = b"") -> Ran:
    """An emulator takes the first argument for the name it is called by, which the launcher does not look at."""
    argv = [b"qemu", bytes(place / "pycni-bridge")]
    return start(EMULATOR, environment, argv=argv, stdin=stdin).end()


def test_a_call_goes_to_the_agent_and_its_answer_comes_back(place: Path) -> None:
    """With the path of the executable, environment, stdin, and a descriptor of the namespace. (The emulator takes
    doubled keys out of the environment, and what has no `=`, and hands it on in an order of its own.)"""
    odd = [b"A=1", b"=", b"B=\xff\x80\n", b"CNI_NETNS=/proc/self/ns/net"]
    with agent(place / "s", answering(SOMETHING)) as served:
        environment = served.variables(*odd)
        ran = run(place, environment, b"\0\xff{}\n")
    assert ran == Ran(3, SOMETHING.stdout, SOMETHING.stderr)
    [heard] = served.heard
    assert heard.request.replace(environment=()) == Request(bytes(place / "pycni-bridge"), (), b"\0\xff{}\n")
    assert sorted(heard.request.environment) == sorted(environment)
    ours = os.stat("/proc/self/ns/net")
    assert [(one.st_dev, one.st_ino) for one in heard.descriptors] == [(ours.st_dev, ours.st_ino)]


def test_what_no_buffer_holds_goes_through(place: Path) -> None:
    """A megabyte each way: partial writes and reads, and waiting for room in between."""
    answer = Answer(0, os.urandom(1 << 20), b"x" * 300_000)
    config = os.urandom(1 << 20)
    with agent(place / "s", answering(answer)) as served:
        ran = run(place, served.variables(), config)
    assert ran == Ran(0, answer.stdout, answer.stderr)
    assert served.heard[0].request.stdin == config


def test_an_agent_that_is_silent_is_waited_for_until_the_deadline(place: Path) -> None:
    """Code 11, with the same words as on other processors."""
    with agent(place / "s", silent) as served:
        error = error_of(run(place, served.variables(b"PYCNI_TIMEOUT=1"), b"{}"))
    assert error["code"] == Code.TRY_AGAIN
    assert error["details"] == "it did not answer in time"


def test_without_an_agent_it_becomes_the_standalone_plugin(place: Path) -> None:
    """Which gets stdin and environment."""
    tell = "import posix; posix.write(1, posix.read(0, 99) + b' ' + posix.environ[b'A'])"
    executable(place / "pycni-standalone", python_text(sys.executable, tell))
    ran = run(place, [b"PYCNI_SOCKET=" + bytes(place / "nobody"), b"A=1"], b"config")
    assert ran == Ran(0, b"config 1", b"")
    (place / "pycni-standalone").unlink()
    error = error_of(run(place, [b"PYCNI_SOCKET=" + bytes(place / "nobody")]))
    assert (error["code"], error["details"]) == (Code.TRY_AGAIN, "No such file or directory")
