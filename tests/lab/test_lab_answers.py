"""What the verbs of `pycni lab` answer beside tables: JSON, `-` for standard input and output, refusals in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from .conftest import DEADLINE_S, LabCommand, command

FILE = """
networks: {blue: {ipv4: 10.1.0.0/24}}
hosts: {"h[1-2]": {agent: false, containers: {c: {command: echo hello}}}}
"""


@pytest.fixture(scope="module")
def up(make_lab: Callable[[], LabCommand]) -> LabCommand:
    made = make_lab()
    made.up(FILE)
    return made


def piped(lab: LabCommand, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """`pycni lab ARGV` in the directory of the lab's file, bytes in and out."""
    words = command(*argv)
    return subprocess.run(words, input=stdin, capture_output=True, cwd=lab.directory, check=False, timeout=DEADLINE_S)


def test_breaking_and_mending_answer_with_an_object(up: LabCommand) -> None:
    """The lab, what was done, and the faults that there are now; nothing on stderr."""
    faults: list[str] = []
    for words, did in (
        (["cut", "h1"], "h1:eth0 is cut"),
        (["loss", "20%", "h1"], "h1:eth0 loses 20 %"),
        (["rate", "10mbit", "h1"], "h1:eth0 passes 10"),
        (["mtu", "1400", "h1"], "h1:eth0 has MTU 1400"),
        (["split", "h1", "h2"], "do not hear each other"),
        (["kill", "host", "h2"], "host h2 is off"),
        (["start", "host", "h2"], "host h2 runs"),
        (["reboot", "h1"], "h1 was booted again"),
        (["heal"], "no more: "),
        (["heal"], "nothing was broken"),
    ):
        verb = words[0]
        done = up.run(*words, "--lab", up.name, "--json")
        told = json.loads(done.stdout)
        assert told["lab"] == up.name and did in told["did"][0] and done.stderr == ""
        faults = {"start": faults[:-1], "reboot": faults, "heal": []}.get(verb, [*faults, verb])
        assert [fault["kind"] for fault in told["faults"]] == faults


def test_errors_of_every_verb_are_json(up: LabCommand) -> None:
    """Also of those whose output is another program's."""
    for words in (
        ["exec", "--json", "h9", "--", "true"],
        ["shell", "h9"],
        ["capture", "h9"],
        ["logs", "h9"],
        ["cut", "h9"],
    ):
        verb, *rest = words
        error = json.loads(up.run(verb, "--lab", up.name, "--json", *rest, rc=3).stdout)
        assert (error["code"], error["msg"]) == (3, f"lab {up.name} has no host 'h9'")


def test_completion_knows_hosts_and_containers(up: LabCommand) -> None:
    """Of every lab that is up."""
    words = [sys.executable, "-m", "pycni", "completion", "bash", "--names"]
    for kind, names in (("lab", {up.name}), ("host", {"h1", "h2"}), ("place", {"h1", "h2", "h1/c", "h2/c"})):
        told = subprocess.run([*words, kind], capture_output=True, text=True, check=True).stdout.split()
        assert names <= set(told)


def test_logs_begin_at_the_last_lines(up: LabCommand) -> None:
    """Of what there is; all of it where that is less."""
    path = up.running().log("h2/c")
    with open(path, "w", encoding="utf-8") as file:
        file.write("one\ntwo\nthree\n")
    for count, text in (("0", ""), ("2", "two\nthree\n"), ("9", "one\ntwo\nthree\n")):
        assert up.run("logs", "h2/c", "-n", count, "--lab", up.name).stdout == text
    assert "no number from 0 on" in up.run("logs", "h2/c", "-n", "-1", "--lab", up.name, rc=2).stderr


def test_logs_are_pieces_in_json(up: LabCommand) -> None:
    """One object a line."""
    (line,) = up.run("logs", "h1/c", "--lab", up.name, "--json").stdout.splitlines()
    told = json.loads(line)
    assert told["of"] == "h1/c" and told["text"].startswith("hello\n")  # once for each boot


def test_a_picture_goes_to_stdout_or_into_json(up: LabCommand) -> None:
    """`-` is no file's name."""
    shown = piped(up, "graph", up.name, "-o", "-").stdout.decode()
    assert shown.startswith("<svg") and shown == up.run("graph", up.name).stdout
    assert not (up.directory / "-").exists()
    assert json.loads(up.run("graph", up.name, "--json").stdout) == {"lab": up.name, "format": "svg", "text": shown}
    path = str(up.directory / "g.mmd")
    told = json.loads(up.run("graph", up.name, "--json", "-o", path).stdout)
    assert told == {"lab": up.name, "format": "mermaid", "file": path}


def test_save_goes_to_stdout_but_not_to_a_terminal(up: LabCommand) -> None:
    """The same archive as in a file."""
    done = piped(up, "save", up.name, "-o", "-")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        assert f"{up.name}/state.json" in archive.getnames()
    assert not (up.directory / "-").exists()
    assert "nothing for a terminal" in up.run("save", up.name, "-o", "-", "--json", rc=2).stdout
    ours, theirs = os.openpty()
    try:
        words = command("save", up.name, "-o", "-")
        refused = subprocess.run(words, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert refused.returncode == 2 and "nothing for a terminal" in refused.stderr


def test_up_reads_standard_input(lab: LabCommand) -> None:
    """A lab without a file; relative paths are below the working directory."""
    (lab.directory / "root" / "bin").mkdir(parents=True)
    text = f"name: {lab.name}\nhosts: {{h1: {{agent: false, containers: {{c: {{networks: [], rootfs: root}}}}}}}}\n"
    done = piped(lab, "up", "-", "--json", stdin=text.encode())
    assert done.returncode == 0, done.stderr
    lab.ids.add(lab.running().id)
    assert lab.running().state["file"] == "/dev/stdin"
    (container,) = json.loads(lab.run("ps", lab.name, "--json").stdout)[0]["hosts"][0]["containers"]
    assert container["rootfs"] == str(lab.directory / "root")
    assert b"/dev/stdin:1" in piped(lab, "up", "-", stdin=b"nonsense: 1").stderr


def test_a_lab_is_found_by_a_file_that_is_gone(lab: LabCommand) -> None:
    """It was made of it; its name need not be known. A file that no lab was made of is not there."""
    lab.up(FILE)
    lab.file.unlink()
    assert answer_of(lab, "ps", lab.file.name, "--json")[0]["name"] == lab.name
    assert answer_of(lab, "down", lab.file.name, "--json")[0]["wasThere"]
    gone = piped(lab, "down", lab.file.name)
    assert gone.returncode == 3 and b"there is no file" in gone.stderr


def answer_of(lab: LabCommand, *argv: str) -> Any:
    return json.loads(piped(lab, *argv).stdout)


@pytest.mark.parametrize(("option", "rc"), [("m.png", 2), ("-", 2), ("/nonexistent/m.svg", 1)])
def test_a_matrix_is_not_measured_for_a_picture_that_cannot_be(up: LabCommand, option: str, rc: int) -> None:
    """Told before the first ping, and nothing is written."""
    before = set(os.listdir(up.directory))
    done = piped(up, "ping-matrix", up.name, "--picture", option)
    assert (done.returncode, done.stdout) == (rc, b"")
    assert set(os.listdir(up.directory)) == before


@pytest.mark.parametrize("count", ["0", "-1", "x"])
def test_no_echo_is_no_matrix(up: LabCommand, count: str) -> None:
    """A count from 1 on."""
    assert "no number from 1 on" in up.run("ping-matrix", up.name, f"-c{count}", rc=2).stderr


@pytest.mark.parametrize("option", ["--junit", "--report"])
def test_a_report_that_cannot_be_written_is_told_before_the_run(up: LabCommand, tmp_path: Path, option: str) -> None:
    """And one that can be is not touched by the question."""
    scenario = tmp_path / "s.yaml"
    scenario.write_text("steps: [{run: {on: h1, command: 'true'}}]\n")
    done = up.run("test", str(scenario), "--lab", up.name, option, "/nonexistent/x", rc=1)
    assert done.stdout == "" and "/nonexistent/x: No such file or directory" in done.stderr
    up.run("test", str(scenario), "--lab", up.name, option, str(tmp_path / "x"))
    assert (tmp_path / "x").stat().st_size > 0
