"""pycni against the reference plugins in one interleaved run: ADD, CHECK and DEL next to N containers, and bursts.

    sudo python bench/add_del.py            # under six minutes on two cores
    sudo python bench/add_del.py --quick    # under one

Each side has a host of its own (namespaces), and the two take turns, the order swapped every round. What counts are the
ratios pycni / reference of neighbouring calls; see README.md for what is measured and what is not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import report, setting
from bench.sides import (
    Burst,
    Outcome,
    Side,
    agent_plugins,
    network,
    reference_plugins,
    standalone_plugins,
    with_result,
)

QUICK = {"existing": [0, 200], "rounds": 9, "burst": 40, "burst_rounds": 1, "workers": [8]}
BRIDGE_PORTS = 1024  # BR_MAX_PORTS in net/bridge/br_private.h

Figures = dict[str, list[list[float]]]  # "wall" and "cpu": for each side, by round, in seconds


class Run:
    """One run over three hosts: pycni's, the reference's, and a second one of pycni's that stays as empty as it began.

    What more containers cost pycni is thus a ratio of neighbouring calls too, and not of minutes that lie apart.
    """

    def __init__(self, ours: Side, theirs: Side, empty: Side, conf: dict[str, Any], burst: int) -> None:
        self.sides = (ours, theirs, empty)
        self.conf = conf
        self.present = [0, 0, 0]
        self._burst_names = [f"burst{number}" for number in range(burst)]
        for side in self.sides:
            side.make_containers(["measured", *self._burst_names])

    def calls(self, rounds: int) -> dict[str, Figures]:
        """By command: ADD, CHECK and DEL of one more container."""
        found = {command: _no_figures(len(self.sides)) for command in report.COMMANDS}
        self._one_round("warm-up", range(len(self.sides)))  # the bridge, the caches
        for number in range(rounds):
            show(f"next to {self.present[0]}: round {number + 1} of {rounds}", fleeting=True)
            for at, command, outcome in self._one_round(f"round{number}", _order(number, len(self.sides))):
                found[command]["wall"][at].append(outcome.wall)
                found[command]["cpu"][at].append(outcome.cpu)
        return found

    def _one_round(self, container: str, order: Sequence[int]) -> list[tuple[int, str, Outcome]]:
        given = [self.conf] * len(self.sides)
        made = []
        for command in report.COMMANDS:
            for at in order:
                side = self.sides[at]
                outcome = side.call(side.request(command, given[at], container, netns="measured"))
                if command == "ADD":
                    given[at] = with_result(self.conf, outcome.stdout)
                made.append((at, command, outcome))
        return made

    def bursts(self, workers: int, rounds: int) -> dict[str, Any]:
        """A burst of ADDs, then of as many DELs, *workers* at a time: wall and CPU of all, and how many "failed"."""
        size = len(self._burst_names)
        found: dict[str, Any] = {command: {**_no_figures(2), "failed": [0, 0]} for command in ("ADD", "DEL")}
        for number in range(rounds):
            show(f"burst of {size}, {workers} workers: round {number + 1} of {rounds}")
            results = [[""] * size, [""] * size]
            for command in ("ADD", "DEL"):
                for at in _order(number, 2):
                    burst = self._burst(at, command, results[at], workers)
                    failed = [call for call in burst.calls if call.rc]
                    for call in failed[:1]:
                        show(f"{self.sides[at].name}: {command} failed: {call.stdout}{call.stderr}\n")
                    found[command]["wall"][at].append(burst.wall)
                    found[command]["cpu"][at].append(burst.cpu)
                    found[command]["failed"][at] += len(failed)
                    if command == "ADD":
                        results[at] = ["" if call.rc else call.stdout for call in burst.calls]
        return found

    def _burst(self, at: int, command: str, results: Sequence[str], workers: int) -> Burst:
        side = self.sides[at]
        confs = [with_result(self.conf, result) for result in results]
        requests = [side.request(command, conf, name) for name, conf in zip(self._burst_names, confs, strict=True)]
        return side.burst(requests, workers)

    def populate(self, at: int, existing: int) -> None:
        """Make real ADDs until *existing* containers are there on side *at*."""
        side = self.sides[at]
        if existing > self.present[at]:
            show(f"{side.name}: {existing - self.present[at]} more containers")
        names = [f"present{number}" for number in range(self.present[at], existing)]
        side.make_containers(names)
        burst = side.burst([side.request("ADD", self.conf, name) for name in names], os.cpu_count() or 1)
        for call in burst.calls:
            if call.rc:
                raise RuntimeError(f"{side.name}: {call.stdout}{call.stderr}")
        self.present[at] = existing


def _no_figures(sides: int) -> Figures:
    return {"wall": [[] for _ in range(sides)], "cpu": [[] for _ in range(sides)]}


def _order(number: int, sides: int) -> list[int]:
    """The sides, each first in its turn, and every neighbourhood in both orders."""
    order = list(range(sides))[number % sides :] + list(range(sides))[: number % sides]
    return order if number // sides % 2 == 0 else order[::-1]


def settle(deadline_s: float = 120.0, busy: float = 0.15) -> None:
    """Wait until the machine has little to do: a second in which less than *busy* of it is used.

    Every new container sends router solicitations and multicast reports for some ten seconds, and a bridge copies each
    of them to all its ports: a thousand containers that were just made keep two cores busy by themselves.
    """
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        before = setting.processor_times()
        show("waiting until the containers have said what they have to say", fleeting=True)
        time.sleep(1)
        used, whole = (after - earlier for after, earlier in zip(setting.processor_times(), before, strict=True))
        if used < busy * whole:
            return
    show(f"the machine did not become idle within {deadline_s:g} s: the figures are those of a busy one")


def show(text: str, *, fleeting: bool = False) -> None:
    """Progress, on stderr: one line that changes on a terminal, else a line for each step."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text and not fleeting:
        print(text, file=sys.stderr, flush=True)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The whole run: "calls" by number of existing containers and command, "bursts" by workers and command."""
    conf = network(masquerade=given.variant == "masquerade")
    calls: dict[int, Any] = {}
    bursts: dict[int, Any] = {}
    with contextlib.ExitStack() as stack:
        plugins = agent_plugins if given.agent else standalone_plugins
        ours = stack.enter_context(Side("pycni", plugins))
        theirs = stack.enter_context(Side("reference", reference_plugins))
        empty = stack.enter_context(Side("pycni-empty", plugins))
        run = Run(ours, theirs, empty, conf, given.burst if given.workers else 0)
        fewest, *more = sorted(given.existing)
        run.populate(2, fewest)
        for existing in (fewest, *more):
            run.populate(0, existing)
            run.populate(1, existing)
            settle()
            calls[existing] = run.calls(given.rounds)
            if existing == fewest:
                for workers in given.workers:
                    bursts[workers] = run.bursts(workers, given.burst_rounds)
    return {"calls": calls, "bursts": bursts}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",") if part]

    parser = argparse.ArgumentParser(description="pycni against the reference plugins, interleaved, as ratios")
    parser.add_argument("--existing", type=numbers, default=[0, 500, 1000], help="containers already there: 0,500,1000")
    parser.add_argument("--rounds", type=int, default=31, help="measurements of each command (default 31)")
    parser.add_argument("--burst", type=int, default=100, help="ADDs at once (default 100)")
    parser.add_argument("--burst-rounds", type=int, default=3, help="bursts for each number of workers (default 3)")
    parser.add_argument(
        "--workers", type=numbers, default=[1, 8, 32], help="calls at a time in bursts: 1,8,32; '' for none"
    )
    parser.add_argument(
        "--variant", choices=("masquerade", "plain"), default="masquerade", help="with or without ipMasq"
    )
    parser.add_argument("--agent", action="store_true", help="pycni with its agent and native launchers")
    parser.add_argument("--quick", action="store_true", help=f"a look: {QUICK}")
    parser.add_argument("--json", metavar="FILE", help="write the figures and the setting there too")
    given = parser.parse_args(argv)
    if given.quick:
        vars(given).update(QUICK)
    if not given.existing or max(given.existing) >= BRIDGE_PORTS:
        parser.error(f"--existing: a bridge takes {BRIDGE_PORTS} ports, one of them is measured")
    if min(given.existing) + given.burst > BRIDGE_PORTS:
        parser.error(f"--burst: a bridge takes {BRIDGE_PORTS} ports")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    given = parse(argv)
    where = setting.read()
    found = report.summary(measure(given))
    show("")
    targets = None if given.variant == "plain" else report.AGENT if given.agent else report.STANDALONE
    print(setting.shown(where))
    print(report.render(found, burst=given.burst, targets=targets), end="")
    setting.write(given, where, report.as_json(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
