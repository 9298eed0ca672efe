"""What it takes to start a launcher and to be answered: a VERSION that the agent answers, by every kind of launcher.

    sudo python bench/launcher.py [--rounds 200] [--json FILE]

The kinds take turns. Two of the processes ask nobody: an empty program with a C library, and Python, which is what any
launcher written in it takes before its first line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import setting
from bench.figures import Comparison, Spread, milliseconds, ratio, render_table
from bench.sides import PATH, PYCNI_DIR, Side, agent_plugins, install
from pycni.cli.launcher import FLAGS, interpreter
from pycni.exe import build_launcher

NATIVE = "native"
WARM_UP = 5
LIBRARY, EMPTY, PYTHON = f"{PYCNI_DIR}-library", f"{PYCNI_DIR}-empty", f"{PYCNI_DIR}-python"
#: What is started, by what the table calls it.
KINDS: dict[str, list[str]] = {
    NATIVE: [f"{PYCNI_DIR}/bridge"],
    "native, with a C library": [f"{LIBRARY}/bridge"],
    "in Python": [f"{PYTHON}/bridge"],
    "an empty program with a C library": [f"{EMPTY}/empty"],
    "an interpreter that does nothing": [interpreter(), FLAGS, "-c", "pass"],
}


def prepare(side: Side) -> None:
    """Put beside the native launcher, which is there, the others."""
    side.host.run(["mkdir", LIBRARY, EMPTY])
    side.host.file(f"{EMPTY}/empty.c").write_text("int main(void) { return 0; }\n")
    cc = ["cc", *build_launcher.FLAGS, "-static"]
    side.host.run([*cc, "-o", f"{LIBRARY}/bridge", build_launcher.SOURCE], env={"PATH": PATH})
    side.host.run([*cc, "-o", f"{EMPTY}/empty", f"{EMPTY}/empty.c"], env={"PATH": PATH})
    install(side.host, "python", PYTHON)


def measure(rounds: int) -> dict[str, list[float]]:
    """By kind, the seconds from start to end of each round."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with Side("launcher", agent_plugins) as side:
        prepare(side)
        kinds = list(KINDS)
        for number in range(-WARM_UP, rounds):
            at = number % len(kinds)
            for kind in kinds[at:] + kinds[:at]:
                environment = {"CNI_COMMAND": "VERSION", "PATH": PATH}
                outcome = side.call({"argv": KINDS[kind], "env": environment, "stdin": '{"cniVersion": "1.0.0"}'})
                if number >= 0:
                    found[kind].append(outcome.wall)
    return found


def report(found: dict[str, list[float]]) -> str:
    rows = [
        (kind, milliseconds(Spread.of(times)), ratio(Comparison.of(times, found[NATIVE]).ratio))
        for kind, times in found.items()
    ]
    return render_table(("VERSION by a launcher", "ms", f"of the {NATIVE} one's"), rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="what it takes to start a launcher and to be answered")
    parser.add_argument("--rounds", type=int, default=200, help="of every kind (default %(default)s)")
    parser.add_argument("--json", help="a file for the figures, in seconds")
    given = parser.parse_args(argv)
    where = setting.read()
    found = measure(given.rounds)
    print(setting.shown(where))
    print(report(found), end="")
    kept: dict[str, Any] = {kind: Spread.of(times)._asdict() for kind, times in found.items()}
    setting.write(given, where, {"kinds": kept})
    return 0


if __name__ == "__main__":
    sys.exit(main())
