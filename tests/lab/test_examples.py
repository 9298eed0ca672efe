"""Every example under examples/ does what it says: each lab comes up for its scenario, which passes, and goes down."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pycni.lab.parsing import read_lab
from pycni.lab.running import BASE
from pycni.lab.scenario_file import read_scenario

from .broken_lab import fresh_name

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCENARIOS = sorted(EXAMPLES.glob("test-*.yaml"))
CROWDS = ("test-ten",)

pytestmark = pytest.mark.needs("python:yaml")


def test_every_lab_has_a_scenario_and_every_file_is_right() -> None:
    """An example that nobody runs is one that does not work."""
    labs = {read_lab(str(path)).name for path in EXAMPLES.glob("lab-*.yaml")}
    tested = {scenario.lab.name for path in SCENARIOS if (scenario := read_scenario(str(path))).lab is not None}
    assert labs == tested
    assert len(labs) >= 5


@pytest.mark.needs(
    "root", "tool:etcd", "tool:openssl", "kernel:vxlan", "kernel:nft_bridge", "kernel:nft_numgen", "kernel:tbf"
)
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.crowd) if path.stem in CROWDS else path for path in SCENARIOS],
    ids=lambda path: path.stem,
)
def test_example(path: Path) -> None:
    """As its comment says to run it."""
    name = fresh_name(path.stem.removeprefix("test-"))
    done = subprocess.run(
        [sys.executable, "-m", "pycni", "lab", "test", str(path), "--name", name],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r": \d+ passed in ", done.stdout)
    assert not os.path.exists(os.path.join(BASE, name))
