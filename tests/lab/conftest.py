"""Labs made by the real command, each under a name of its own, and down at the end whatever happened."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import needs
from pycni.lab.running import BASE, MARK, RunningLab

_numbers = itertools.count(1)
DEADLINE_S = 60


@dataclass
class LabCommand:
    """`pycni lab` for one lab; `text` is the newest version of its file."""

    name: str
    directory: Path
    text: str = ""
    ids: set[str] = field(default_factory=set)

    @property
    def file(self) -> Path:
        return self.directory / f"{self.name}.yaml"

    def run(self, *argv: str, rc: int | None = 0) -> subprocess.CompletedProcess[str]:
        """`pycni lab ARGV`; *rc* is the exit code it must have (None: any)."""
        done = subprocess.run(
            command(*argv), capture_output=True, text=True, check=False, timeout=DEADLINE_S, stdin=subprocess.DEVNULL
        )
        assert rc in (None, done.returncode), f"pycni lab {argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def write(self, text: str) -> None:
        self.text = text
        self.file.write_text(f"name: {self.name}\n{text}")

    def up(self, text: str | None = None, *more: str, rc: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Bring it up as *text* (default: the newest) has it."""
        if text is not None:
            self.write(text)
        done = self.run("up", str(self.file), *more, rc=rc)
        if self.there():
            self.ids.add(self.running().id)
        return done

    def down(self) -> None:
        self.run("down", self.name)

    def running(self) -> RunningLab:
        return RunningLab.load(self.name)

    def there(self) -> bool:
        return os.path.exists(f"{BASE}/{self.name}/state.json")

    def exec(self, where: str, *argv: str, rc: int | None = 0) -> str:
        return self.run("exec", "--lab", self.name, where, "--", *argv, rc=rc).stdout

    def ps(self) -> dict[str, dict[str, Any]]:
        """`ps --json`: every host by name, its containers by name."""
        (told,) = json.loads(self.run("ps", self.name, "--json").stdout)
        return {
            host["name"]: {**host, "containers": {each["name"]: each for each in host["containers"]}}
            for host in told["hosts"]
        }

    def reaches(self, source: str, target: str) -> bool:
        return self.run("exec", "--lab", self.name, source, "--", "ping", "-c1", "-W2", target, rc=None).returncode == 0

    def traces(self) -> list[str]:
        """What is left of it: its directory, processes that carry its id."""
        left = [f"{BASE}/{self.name}"] if os.path.exists(f"{BASE}/{self.name}") else []
        return left + [f"process {pid}" for lab_id in self.ids for pid in marked(lab_id)]


def command(*argv: str) -> list[str]:
    return [sys.executable, "-m", "pycni", "lab", *argv]


def marked(lab_id: str) -> list[int]:
    """Processes that have the lab's id in their environment."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"{MARK}={lab_id}".encode() in environment:
            found.append(int(entry))
    return found


@pytest.fixture(scope="module")
def make_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], LabCommand]]:
    """`make_lab()`: a lab of a name that no other test has; down, without trace, when the file is through."""
    needs("root", "tool:etcd", "tool:ip", "tool:ping", "python:yaml")
    made: list[LabCommand] = []

    def make() -> LabCommand:
        name = f"t{os.getpid()}-{next(_numbers)}"
        made.append(LabCommand(name, tmp_path_factory.mktemp(name)))
        return made[-1]

    yield make
    for each in made:
        each.down()
    for each in made:
        assert not each.traces()


@pytest.fixture
def lab(make_lab: Callable[[], LabCommand]) -> Iterator[LabCommand]:
    """One lab for one test."""
    made = make_lab()
    yield made
    made.down()
    assert not made.traces()
