"""Where the time of the standalone calls of bridge and portmap goes, phase by phase; see breakdown.py.

sudo python bench/portmap_breakdown.py [--ports 1] [--existing 1] [--repeat 21]
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
from bench.breakdown import CPU, UNTRACED, phases_of, render, traced_argv
from bench.portmap_parties import EXISTING_PORTS, Chain, Ports
from bench.sides import Outcome, Side, standalone_plugins

CALLS = ("ADD bridge", "ADD portmap", "DEL portmap", "DEL bridge")
MEASURED = "measured"

Found = dict[str, dict[str, list[float]]]  # call → phase → seconds


class TracedChain(Chain):
    """Its calls run under the clock while *traced*."""

    traced = False

    def _call(self, command: str, conf: dict[str, Any], container: str) -> Outcome:
        request = self.side.request(command, conf, container)
        if self.traced:
            request["argv"] = traced_argv(self.side, request["argv"][-1])
        return self.side.call(request)


def measure(ports: Ports, existing: int, repeat: int) -> Found:
    found: Found = {call: {} for call in CALLS}
    with Side("breakdown", standalone_plugins) as side:
        chain = TracedChain(side)
        names = [f"present{number}" for number in range(existing)]
        side.make_containers([*names, MEASURED])
        chain.populate(names, EXISTING_PORTS, 1)
        for number in range(repeat + 1):
            for chain.traced in (True, False):
                outcomes = [*chain.add(MEASURED, ports), *chain.delete(MEASURED, ports)]
                if number:  # the first round compiles
                    _note(found, outcomes, traced=chain.traced)
    return found


def _note(found: Found, outcomes: Sequence[Outcome], *, traced: bool) -> None:
    for call, outcome in zip(CALLS, outcomes, strict=True):
        seconds = phases_of(outcome) if traced else {UNTRACED: outcome.wall, CPU: outcome.cpu}
        for phase, one in seconds.items():
            found[call].setdefault(phase, []).append(one)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="where the time of standalone calls of bridge and portmap goes")
    parser.add_argument("--ports", type=int, default=1, help="published ports (default 1)")
    parser.add_argument("--existing", type=int, default=1, help="containers with a port that are there (default 1)")
    parser.add_argument("--repeat", type=int, default=21, help="calls of each kind (default 21)")
    given = parser.parse_args(argv)
    where = setting.read()
    found = measure(Ports("", given.ports), given.existing, given.repeat)
    print("".join(f"{key}: {value}\n" for key, value in where.items()))
    print(render(found, CALLS), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
