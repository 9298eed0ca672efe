"""What every executable imports on the way of ADD, CHECK and DEL: modules and time, from the real executables.

    sudo python bench/imports.py [--repeat 7] [--dearest 12]

Each executable runs under `python -X importtime` in a host of its own; what a bare interpreter loads is left out. Times
are larger than without -X importtime, their proportions hold.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.figures import render_table
from bench.sides import PATH, Side, network, standalone_plugins, with_result

COMMANDS = ("ADD", "CHECK", "DEL")


class Import(NamedTuple):
    """One line of -X importtime."""

    module: str
    self_us: int


class Way(NamedTuple):
    """What one executable imports for one command, run by run."""

    executable: str
    command: str
    runs: list[list[Import]]

    def modules(self, *, ours: bool) -> int:
        return sum(is_ours(one.module) == ours for one in self.runs[0])

    def self_ms(self, *, ours: bool) -> float:
        """Of all pycni's modules, or of all others: the median over the runs."""
        sums = (sum(one.self_us for one in run if is_ours(one.module) == ours) for run in self.runs)
        return statistics.median(sums) / 1000

    def dearest(self, count: int) -> list[tuple[str, float]]:
        """The *count* modules with the most self time, in ms."""
        times: dict[str, list[int]] = {}
        for module, self_us in (one for run in self.runs for one in run):
            times.setdefault(module, []).append(self_us)
        medians = [(module, statistics.median(found) / 1000) for module, found in times.items()]
        return sorted(medians, key=lambda one: -one[1])[:count]


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == "pycni"


def parse_import_time(stderr: str) -> list[Import]:
    """The lines of -X importtime in *stderr*, in the order in which the imports ended."""
    found = []
    for line in stderr.splitlines():
        if line.startswith("import time:"):
            self_us, _, module = line.removeprefix("import time:").split("|")
            if self_us.strip().isdigit():  # the heading has words there
                found.append(Import(module.strip(), int(self_us)))
    return found


def configurations() -> dict[str, dict[str, Any]]:
    """A configuration for every drop-in executable, by its name."""
    bridge = network(masquerade=True)
    addresses = {"type": "static", "addresses": [{"address": "10.89.0.2/24"}]}
    return {
        "bridge": bridge,
        "loopback": {"cniVersion": "1.0.0", "name": "lo", "type": "loopback"},
        "host-local": {**bridge, "name": "leases", "type": "host-local"},
        "static": {"cniVersion": "1.0.0", "name": "fixed", "type": "static", "ipam": addresses},
    }


def measure(repeat: int) -> list[Way]:
    """Run every executable *repeat* times for every command, next to one container that stays."""
    with Side("imports", standalone_plugins) as side:
        side.make_containers(["present", "measured"])
        side.call(side.request("ADD", network(masquerade=True), "present"))
        first_line = side.host.file(f"{side.bin_dir}/bridge").read_text().splitlines()[0]
        python = [*first_line.removeprefix("#!").split(), "-X", "importtime"]
        bare = side.burst([{"argv": [*python, "-c", "pass"], "env": {"PATH": PATH}, "stdin": ""}], 1).calls[0]
        known = {one.module for one in parse_import_time(bare.stderr)}
        ways = []
        for executable, conf in configurations().items():
            by_command: dict[str, list[list[Import]]] = {command: [] for command in COMMANDS}
            for number in range(repeat + 1):
                for command, found in _one_life(side, executable, conf, python):
                    if number:  # the first may find modules uncompiled
                        by_command[command].append([one for one in found if one.module not in known])
            ways += [Way(executable, command, runs) for command, runs in by_command.items()]
    return ways


def _one_life(
    side: Side, executable: str, conf: dict[str, Any], python: Sequence[str]
) -> list[tuple[str, list[Import]]]:
    given = conf
    found = []
    for command in COMMANDS:
        request = side.request(command, given, "measured")
        request["argv"] = [*python, f"{side.bin_dir}/{executable}"]
        outcome = side.call(request)
        if command == "ADD":
            given = with_result(conf, outcome.stdout)
        found.append((command, parse_import_time(outcome.stderr)))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="what every executable imports, from the real executables")
    parser.add_argument("--repeat", type=int, default=7, help="runs of each command (default 7)")
    parser.add_argument("--dearest", type=int, default=12, help="how many modules of the bridge's ADD to list")
    given = parser.parse_args(argv)
    ways = measure(given.repeat)
    header = (
        "executable",
        "command",
        "modules of pycni",
        "other modules",
        "self ms of pycni's",
        "self ms of the others",
    )
    rows = [
        (
            *(one.executable, one.command),
            *(str(one.modules(ours=ours)) for ours in (True, False)),
            *(f"{one.self_ms(ours=ours):.1f}" for ours in (True, False)),
        )
        for one in ways
    ]
    print(render_table(header, rows))
    dearest = ways[0].dearest(given.dearest)
    print(
        render_table(
            (f"dearest modules of {ways[0].executable} {ways[0].command}", "self ms"),
            [(m, f"{ms:.2f}") for m, ms in dearest],
        ),
        end="",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
