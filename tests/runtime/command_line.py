"""The command line of pycni, from the sources under test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from netns_fixtures import Namespace

SOURCES = Path(__file__).parents[2] / "src"
ARGV = (sys.executable, "-m", "pycni")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCES), "PATH": SYSTEM_PATH}


def pycni(place: Namespace, *args: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `pycni ARGS` in *place*."""
    return place.run([*ARGV, *args], check=check, env=environment())


def pycni_json(place: Namespace, *args: str | Path) -> Any:
    """The decoded output of `pycni ARGS --json`, which must succeed."""
    return json.loads(pycni(place, *args, "--json").stdout)
