"""One command as a process: its streams closed or full, and what JSON has of an error."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest

from pycni.cli import main
from pycni.cli.failure import NOT_FOUND, USAGE, Failure
from pycni.cli.launcher import package_parent

COMMANDS = ("man", "completion bash", "--help", "--version", "version", "lab schema")


def shell(words: str, *, buffered: bool = True) -> subprocess.CompletedProcess[str]:
    """`pycni WORDS` by a shell, which knows redirections."""
    env = {"PYTHONPATH": package_parent(), "PATH": "/usr/bin:/bin", **({} if buffered else {"PYTHONUNBUFFERED": "1"})}
    line = f"exec {shlex.quote(sys.executable)} -m pycni {words}"
    return subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("words", COMMANDS)
def test_closed_streams_are_no_error(words: str) -> None:
    """Who closes them does not want to hear; the exit code is that of the command."""
    done = shell(f"{words} <&- >&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert shell(f"{words} 2>&-").stdout


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("buffered", [True, False])
def test_a_full_disk_is_one_error(words: str, buffered: bool) -> None:
    """One line that says it, its code, and exit code 1."""
    done = shell(f"{words} >/dev/full", buffered=buffered)
    assert done.returncode == 1
    error, code = done.stderr.splitlines()
    assert error.startswith("error: ") and error.endswith("No space left on device")
    assert "I/O failure" in code


def test_an_error_that_no_json_can_be_written_of_is_text() -> None:
    """It does not get lost, nor raise another one."""
    done = shell("lab ps nosuch --json >/dev/full")
    assert (done.returncode, done.stderr.count("error:"), "Traceback" in done.stderr) == (1, 1, False)


@pytest.mark.parametrize("encoding", ["utf-8:strict", "latin-1"])
@pytest.mark.parametrize("word", [b"\xff", "\u2026".encode()])
def test_what_stdout_cannot_encode_is_escaped(encoding: str, word: bytes) -> None:
    """Bytes of the command line that are no UTF-8, and characters that a Latin-1 terminal lacks: JSON all the same."""
    env = {"PYTHONPATH": package_parent(), "PYTHONUTF8": "1", "PYTHONIOENCODING": encoding}
    command = [sys.executable.encode(), b"-m", b"pycni", b"inspect", word, b"--cache-dir", b"/none", b"--json"]
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (NOT_FOUND, b"")
    tried = json.loads(done.stdout.decode())["facts"]["tried"]
    assert f"/run/netns/{word.decode(errors='surrogateescape')}\n" in tried


def test_json_has_all_that_the_text_has() -> None:
    """Details, every fact (also two of one label) and the next step; what is empty is left out."""
    failure = Failure("no", code=7, details="why", facts=[("tried", "a"), ("at", "x"), ("tried", "b")], next_step="go")
    facts = {"tried": "a\nb", "at": "x"}
    assert failure.as_json() == {"code": 7, "msg": "no", "details": "why", "facts": facts, "nextStep": "go"}
    assert Failure("no").as_json() == {"code": 999, "msg": "no"}


@pytest.mark.parametrize(("exit_code", "code"), [(USAGE, 4), (NOT_FOUND, 3)])
def test_a_failure_without_a_code_gets_one_from_its_exit_code(exit_code: int, code: int) -> None:
    """999 says that the plugin is at fault."""
    assert Failure("no", exit_code=exit_code).as_json()["code"] == code


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["list", "--json", "--nonsense"], "pycni list: unrecognized arguments: --nonsense"),
        (["lst", "--json"], "did you mean 'list'?"),
        (["ipam", "release", "--json"], "the following arguments are required: ADDRESS"),
    ],
)
def test_a_wrong_command_line_is_json_where_json_was_asked_for(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error object on stdout, with the usage; nothing on stderr; exit code 2."""
    assert main(argv) == 2
    shown = capsys.readouterr()
    error = json.loads(shown.out)
    assert error["code"] == 4 and message in error["msg"]
    assert error["facts"]["usage"].startswith("pycni")
    assert shown.err == ""


def test_a_file_that_is_not_there_has_the_code_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    """I/O failure, not the plugin's fault."""
    assert main(["lab", "up", "/nonexistent/lab.yaml", "--json"]) == 3
    assert json.loads(capsys.readouterr().out) == {"code": 5, "msg": "there is no file /nonexistent/lab.yaml"}


@pytest.mark.parametrize("option", ["--bin-dir", "--conf-dir", "--unit-dir"])
def test_no_directory_is_not_the_working_directory(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As `pycni install --bin-dir "$UNSET"` has it."""
    assert main(["install", option, ""]) == USAGE
    assert "no directory is named" in capsys.readouterr().err
