"""What is written by hand about commands has all of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pycni.cli.install import DROP_IN_NAMES, OWN_NAMES
from pycni.exe.run import STANDALONE

ROOT = Path(__file__).parents[2]


def test_the_install_listing_has_every_executable() -> None:
    """In the order of `pycni install`; and every name that --replace takes is said."""
    text = (ROOT / "docs" / "operations.md").read_text()
    assert tuple(re.findall(r"^/opt/cni/bin/(\S+) +written$", text, re.MULTILINE)) == (STANDALONE, *OWN_NAMES)
    replace = text[text.index("- `--replace` also takes") : text.index(".pycni-saved`. Without it")]
    assert set(re.findall(r"`([a-z-]+)`", replace)) == {"--replace", *DROP_IN_NAMES}


def test_make_help_has_every_target_for_people() -> None:
    """All that .PHONY names, each with what it does."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    (names,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    told = {name for line in shown.splitlines() for name in line.partition("\t")[0].split()}
    assert told == set(names.split())
