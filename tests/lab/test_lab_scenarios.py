"""`pycni lab test`: scenarios as people run them, on labs of their own or one that is up; reports and exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from netns_fixtures import wait_until
from pycni.lab import breaking
from pycni.lab.running import BASE, RunningLab, read_state
from pycni.lab.scenario import Step
from pycni.lab.scenario_file import parse_scenario
from pycni.lab.scenario_run import run_scenario

from .broken_lab import RACKS, claim, fresh_name, lab_of, now

pytestmark = pytest.mark.needs("root", "kernel:nft_bridge", "python:yaml")

ECHO = "import socket; s = socket.create_server(('', 7)); exec('while 1: s.accept()[0].send(b\"hello\")')"


@pytest.fixture(scope="module")
def racks() -> Iterator[RunningLab]:
    with lab_of(RACKS, "scenarios") as lab:
        yield lab


@pytest.fixture
def lab(racks: RunningLab) -> Iterator[RunningLab]:
    yield racks
    breaking.heal(racks)


def pycni(*argv: str | Path, rc: int = 0) -> subprocess.CompletedProcess[str]:
    """The command as a program; *rc* is its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "pycni", "lab", *map(str, argv)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == rc, f"{done.returncode}: {done.stdout}{done.stderr}"
    return done


def steps_of(text: str) -> tuple[Step, ...]:
    return parse_scenario(f"name: s\nwithin: 5s\nsteps:\n{text}", "s.yaml").steps


def run(lab: RunningLab, text: str, *, keep_going: bool = False) -> tuple[list[tuple[str, str]], list[str]]:
    """(words, verdict) of each outcome, and the lines that were shown."""
    said: list[str] = []
    scenario = parse_scenario(f"name: s\nwithin: 5s\nsteps:\n{text}", "s.yaml")
    report = run_scenario(lab, scenario, keep_going=keep_going, say=said.append)
    return [(each.words, each.verdict) for each in report.outcomes], said


def test_a_scenario_brings_its_lab_up_and_takes_it_down(tmp_path: Path) -> None:
    """Progress step by step, JUnit and JSON reports, exit code 0; nothing is left of the lab."""
    name = fresh_name("own")
    (tmp_path / "lab.yaml").write_text(
        f"name: {name}\nnetworks: {{blue: {{ipv4: 10.88.0.0/24}}}}\n"
        f"hosts: {{h1: {{agent: false, containers: {{a: {{}}, b: {{command: [python3, -c, {json.dumps(ECHO)}]}}}}}}}}\n"
    )
    (tmp_path / "s.yaml").write_text(
        "name: drill\nlab: lab.yaml\nsteps:\n"
        "- name: at first\n  expect:\n"
        "  - reach: blue\n"
        "  - address: {of: h1/a, network: blue, is: [10.88.0.0/24]}\n"
        "  - port: {from: h1/a, to: h1/b, port: 7, answer: hello}\n"
        "  - port: {from: h1/a, to: h1/b, port: 8, open: false}\n"
        "- name: later\n  run: {on: h1/a, command: 'ip link set eth0 down'}\n"
        "  expect: [{unreachable: {from: h1/b, to: h1/a}}]\n"
    )
    done = pycni("test", tmp_path / "s.yaml", "--junit", tmp_path / "j.xml", "--report", tmp_path / "r.json")
    assert "1. at first\n   ok " in done.stdout and "2. later\n" in done.stdout
    assert re.search(r"drill: 6 passed in \d+\.\d s\n$", done.stdout)
    assert not os.path.exists(os.path.join(BASE, name))
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()[0]
    assert [case.get("line") for case in suite] == ["6", "7", "8", "9", "11", "12"]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["passed"] and report["scenarios"][0]["counts"]["passed"] == 6


def test_what_does_not_hold_fails_and_ends_the_run(lab: RunningLab, tmp_path: Path) -> None:
    """Exit code 1, what was seen instead, the rest skipped; the lab that was up stays up."""
    (tmp_path / "s.yaml").write_text(
        "name: wrong\nwithin: 300ms\nsteps:\n- cut: h1\n  expect: [{reach: {from: h1, to: h2}}]\n- heal: all\n"
    )
    done = pycni("test", tmp_path / "s.yaml", "--lab", lab.name, "--json", rc=1)
    (report,) = json.loads(done.stdout)["scenarios"]
    assert [each["verdict"] for step in report["steps"] for each in step["outcomes"]] == ["passed", "failed", "skipped"]
    seen = report["steps"][0]["outcomes"][1]["seen"]
    assert seen.startswith("no answer: h1 → h2 (192.0.2.") and seen.endswith("2 of 2 pairs (after 0.3 s)")
    assert "FAIL" in done.stderr
    assert RunningLab.load(lab.name).phase == "up"


def test_errors_of_a_file_are_found_before_anything_is_done(tmp_path: Path) -> None:
    """The second file is wrong: the first one's lab is not even brought up. Exit code 2."""
    name = fresh_name("never")
    (tmp_path / "good.yaml").write_text(
        f"lab: {{name: {name}, hosts: {{h1: {{agent: false}}}}}}\nsteps: [{{run: {{on: h1, command: 'true'}}}}]\n"
    )
    (tmp_path / "bad.yaml").write_text(
        f"lab: {{name: {name}, hosts: {{h1: {{agent: false}}}}}}\nsteps:\n- cut: h2\n- expect: [{{reach: red}}]\n"
    )
    done = pycni("test", tmp_path / "good.yaml", tmp_path / "bad.yaml", rc=2)
    assert "bad.yaml:3: steps[0].cut: lab" in done.stderr and "bad.yaml:4: steps[1]" in done.stderr
    assert not os.path.exists(os.path.join(BASE, name))
    (tmp_path / "none.yaml").write_text("steps: [{expect: [{reach: all}]}]\n")
    assert "names no lab" in pycni("test", tmp_path / "none.yaml", rc=2).stderr


def test_claims_wait_for_their_deadline(lab: RunningLab) -> None:
    """Asked again until it holds: here somebody heals the link half a second later."""
    late = "import sys, time; time.sleep(0.5); from pycni.cli import main; sys.exit(main())"
    healer = subprocess.Popen([sys.executable, "-c", late, "lab", "heal", "--lab", lab.name])
    outcomes, said = run(lab, "- cut: h1\n  expect: [{reach: {from: h1, to: h2}}]\n")
    assert healer.wait(10) == 0
    assert [verdict for _, verdict in outcomes] == ["passed", "passed"], said


def test_a_claim_must_hold_for_as_long_as_it_says(lab: RunningLab) -> None:
    """`for`: what is true every other time has not held; without `for`, once is enough."""
    command = "n=$(cat /run/n); echo $((n + 1)) >/run/n; test $((n % 2)) = 0"
    blinking = f"- expect: [{{run: {{on: h1, command: '{command}'}}, for: 200ms, within: 600ms}}]\n"
    lab.run("h1", None, ["sh", "-c", "echo 0 >/run/n"])
    assert run(lab, blinking)[0][0][1] == "failed"
    lab.run("h1", None, ["sh", "-c", "echo 1 >/run/n"])
    assert run(lab, blinking.replace(", for: 200ms", ""))[0][0][1] == "passed"


def test_meanwhile_sees_every_lost_echo(lab: RunningLab) -> None:
    """A short outage while the step works is a failure, however whole everything is at its end; `gap` allows it."""
    step = """
- meanwhile: [{reach: {from: h1, to: h3}GAP}]
  cut: h1
  unplug: h2
  expect: [{unreachable: {from: h1, to: h3}}]
"""
    (cut, unplug, unreachable, watched), said = run(lab, step.replace("GAP", ""))
    assert (cut[1], unplug[1], unreachable[1], watched[1]) == ("passed", "passed", "passed", "failed")
    assert re.search(r"echoes lost; h1 → h3 .* had no answer for \d\.\d\d s", said[-1])
    breaking.heal(lab)
    outcomes, _ = run(lab, step.replace("GAP", ", gap: 20s"))
    assert [verdict for _, verdict in outcomes] == ["passed"] * 4
    quiet, _ = run(lab, "- meanwhile: [{reach: {from: h1/*, to: h1/*}}]\n  cut: h1\n")
    assert [verdict for _, verdict in quiet] == ["passed", "passed"]


def test_errors_of_a_step_are_told_and_end_it(lab: RunningLab) -> None:
    """An action that cannot be done: the rest of its step is skipped; later steps, too, unless asked for."""
    text = "- {cut: h9, heal: all, expect: [{reach: all}]}\n- {heal: all}\n"
    outcomes, said = run(lab, text)
    ended = [("cut h9", "error"), ("heal all", "skipped"), ("reach all", "skipped")]
    assert outcomes == [*ended, ("heal all", "skipped")]
    assert "has no host 'h9'" in said[1]
    assert run(lab, text, keep_going=True)[0] == [*ended, ("heal all", "passed")]


def test_a_command_ends_with_its_process_or_with_its_deadline(lab: RunningLab) -> None:
    """What it leaves in the background is not waited for, and goes on to write; what does not end does not hold."""
    server = f'python3 -c "{ECHO}" & echo begun'.replace('b"hello"', "bytes(6)").replace("exec(", "print(1); exec(")
    text = (
        f"- run: {{on: h1/c1, command: {json.dumps(server)}}}\n"
        "  expect:\n"
        "  - port: {from: h1/c2, to: h1/c1, port: 7}\n"
        "  - run: {on: h1/c1, command: 'sleep 60 & echo begun', output: begun}\n"
        "  - run: {on: h1/c1, command: 'echo begun; sleep 60; true'}\n"
        "    within: 100ms\n"
    )
    began = time.monotonic()
    outcomes, said = run(lab, text)
    assert [verdict for _, verdict in outcomes] == ["passed", "passed", "passed", "failed"]
    assert "did not end within 2 s" in said[-1]
    assert time.monotonic() - began < 20


def test_reports_of_what_ran_are_written_where_the_next_lab_cannot_be(tmp_path: Path) -> None:
    """The first scenario's outcomes are not lost with the second's lab."""
    for number, more in enumerate(("", "rootfs: gone, "), start=1):
        text = f"hosts: {{h1: {{agent: false, containers: {{a: {{{more}command: sleep 60}}}}}}}}"
        (tmp_path / f"{number}.yaml").write_text(
            f"name: drill {number}\nlab: {{name: {fresh_name('report')}, {text}}}\n"
            'steps: [{run: {on: h1, command: "true"}}]\n'
        )
    files = [tmp_path / f"{name}.yaml" for name in (1, 2)]
    told = pycni("test", *files, "--junit", tmp_path / "j.xml", "--report", tmp_path / "r.json", rc=1)
    assert "gone is no directory" in told.stderr
    assert [each.attrib["name"] for each in ElementTree.parse(tmp_path / "j.xml").getroot()] == ["drill 1"]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["passed"] is False and report["scenarios"][0]["passed"] is True


def test_throughput_is_a_share_of_the_underlays(lab: RunningLab) -> None:
    """Between hosts of one segment it is all of it; through a link of 20 Mbit/s that only one of them has, too."""
    verdict = now(lab, claim("throughput", "h1", "h2", share=20.0, seconds=0.2))
    assert verdict.good and "of the underlay" not in verdict.seen and "on the underlay" in verdict.seen
    assert not now(lab, claim("throughput", "h1", "h2", share=100_000.0, seconds=0.1)).good


def test_ctrl_c_in_the_middle_takes_the_lab_down(tmp_path: Path) -> None:
    """Interrupted while a claim is waited for: exit code 130, and nothing is left."""
    name = fresh_name("interrupted")
    (tmp_path / "s.yaml").write_text(
        f"lab: {{name: {name}, hosts: {{h1: {{agent: false}}}}}}\n"
        "steps: [{expect: [{run: {on: h1, command: 'false'}, within: 1m}]}]\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-m", "pycni", "lab", "test", str(tmp_path / "s.yaml")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert running.stdout is not None
    wait_until(lambda: (read_state(name) or {}).get("phase") == "up", 20)
    running.send_signal(2)
    assert running.wait(20) == 130
    running.stdout.close()
    assert not os.path.exists(os.path.join(BASE, name))
