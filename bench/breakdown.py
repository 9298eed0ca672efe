"""Where the time of a standalone bridge call goes, phase by phase, from real calls in a host of its own.

    sudo python bench/breakdown.py [--existing 1] [--repeat 21] [--variant plain]

The calls run with a clock at the borders of the phases (traced_call.py); the last line is the same call without it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import setting
from bench.figures import Spread, render_table
from bench.sides import Outcome, Side, network, standalone_plugins, with_result

COMMANDS = ("ADD", "CHECK", "DEL")
START, END, TRACING = "interpreter's start", "interpreter's end", "tracing"
TOTAL, UNTRACED, CPU = "sum", "without the clock", "CPU without the clock"
CHILD = "from time import monotonic; born = monotonic(); import sys; sys.path.append({bench!r}); import traced_call; "
CHILD += "sys.path.pop(); traced_call.run(born, {parent!r}, {executable!r})"


def phases_of(outcome: Outcome) -> dict[str, float]:
    """Seconds by phase of one traced call, start and end of the interpreter among them."""
    traced = json.loads(outcome.stderr)
    phases: dict[str, float] = {START: traced["born"] - outcome.start, **traced["phases"]}
    phases[END] = outcome.start + outcome.wall - traced["end"]
    phases.pop(TRACING)
    return {**phases, TOTAL: sum(phases.values())}


def measure(existing: int, repeat: int, conf: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """By command and phase, the seconds of every call, next to *existing* containers."""
    found: dict[str, dict[str, list[float]]] = {command: {} for command in COMMANDS}
    with Side("breakdown", standalone_plugins) as side:
        names = [f"present{number}" for number in range(existing)]
        side.make_containers([*names, "measured"])
        for name in names:
            side.call(side.request("ADD", conf, name))
        _one_life(side, conf, traced=True)  # compiles traced_call
        _one_life(side, conf, traced=False)
        for _ in range(repeat):
            for command, outcome in _one_life(side, conf, traced=True):
                for phase, seconds in phases_of(outcome).items():
                    found[command].setdefault(phase, []).append(seconds)
            for command, outcome in _one_life(side, conf, traced=False):
                found[command].setdefault(UNTRACED, []).append(outcome.wall)
                found[command].setdefault(CPU, []).append(outcome.cpu)
    return found


def _one_life(side: Side, conf: dict[str, Any], *, traced: bool) -> list[tuple[str, Outcome]]:
    given = conf
    outcomes = []
    for command in COMMANDS:
        request = side.request(command, given, "measured")
        if traced:
            request["argv"] = traced_argv(side, request["argv"][-1])
        outcome = side.call(request)
        if command == "ADD":
            given = with_result(conf, outcome.stdout)
        outcomes.append((command, outcome))
    return outcomes


def traced_argv(side: Side, executable: str) -> list[str]:
    """The words that run *executable*'s call under the clock: its own interpreter, flags and path of the package."""
    first, *lines = side.host.file(executable).read_text().splitlines()
    append = next(line for line in lines if line.startswith("sys.path.append("))
    parent = json.loads(append.removeprefix("sys.path.append(").removesuffix(")").replace("'", '"'))
    here = str(Path(__file__).resolve().parent)
    return [*first.removeprefix("#!").split(), "-c", CHILD.format(bench=here, parent=parent, executable=executable)]


def render(
    found: dict[str, dict[str, list[float]]],
    commands: Sequence[str] = COMMANDS,
    *,
    first: tuple[str, ...] = (START,),
    last: tuple[str, ...] = (END, TOTAL, UNTRACED, CPU),
) -> str:
    """A row per phase: *first*, the others dearest first as the first of *commands* has them, *last*; medians in ms."""
    medians = {
        command: {phase: 1000 * Spread.of(values).median for phase, values in phases.items()}
        for command, phases in found.items()
    }
    inner = {phase for phases in medians.values() for phase in phases} - {*first, *last}
    dearest = sorted(inner, key=lambda phase: [-medians[command].get(phase, 0.0) for command in commands])
    rows = [
        (phase, *(f"{medians[command].get(phase, 0.0):.2f}" for command in commands))
        for phase in (*first, *dearest, *last)
    ]
    return render_table(("median, ms", *commands), rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="where the time of a standalone bridge call goes")
    parser.add_argument("--existing", type=int, default=1, help="containers that are there already (default 1)")
    parser.add_argument("--repeat", type=int, default=21, help="calls of each command (default 21)")
    parser.add_argument(
        "--variant", choices=("masquerade", "plain"), default="masquerade", help="with or without ipMasq"
    )
    given = parser.parse_args(argv)
    where = setting.read()
    found = measure(given.existing, given.repeat, network(masquerade=given.variant == "masquerade"))
    print("".join(f"{key}: {value}\n" for key, value in where.items()))
    print(render(found), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
