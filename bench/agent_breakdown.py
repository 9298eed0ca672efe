"""Where the time of a bridge call through the agent goes, phase by phase, beside what the kernel alone would take.

    sudo python bench/agent_breakdown.py [--existing 1] [--repeat 51] [--json FILE]

The calls are those of a runtime: the native launcher, a fresh process each. The agent runs with a clock at the borders
of the phases (traced_agent.py). The floor is rtnl_floor.c: the same links, addresses and routes, requested by a program
that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import setting
from bench.breakdown import render
from bench.sides import (
    PATH,
    PYCNI_DIR,
    ROOT,
    SOURCE,
    Outcome,
    Plugins,
    Side,
    agent_plugins,
    install,
    network,
    with_result,
)
from netns_fixtures import Host, wait_until

COMMANDS = ("ADD", "CHECK", "DEL")
BEFORE, AFTER = "launcher until the agent has it", "launcher after the answer"
TOTAL, UNTRACED, FLOOR = "sum", "without the clock", "the kernel alone, asked in C"
FLOOR_CONTAINERS = 20
DELETION_S = 0.06  # a DEL is answered before the kernel is done with the link, and until then no other link can be made


def traced_plugins(host: Host) -> Plugins:
    """Native launchers, and an agent that writes what it measured to /run/phases of the host."""
    install(host, "c")
    words = [sys.executable, "-m", "bench.traced_agent", "/run/phases"]
    agent = host.popen(words, env={"PATH": PATH, "PYTHONPATH": f"{SOURCE}:{ROOT}"}, stderr=subprocess.DEVNULL)
    wait_until(lambda: host.file("/run/pycni/agent.sock").exists(), 20, "the agent listens")
    return Plugins(PYCNI_DIR, agent.pid)


def measure(existing: int, repeat: int, conf: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """By command and phase, the seconds of every call, next to *existing* containers."""
    found: dict[str, dict[str, list[float]]] = {command: {} for command in COMMANDS}
    with Side("traced", traced_plugins) as traced, Side("plain", agent_plugins) as plain:
        for side in (traced, plain):
            names = [f"present{number}" for number in range(existing)]
            side.make_containers([*names, "measured"])
            for name in names:
                side.call(side.request("ADD", conf, name))
            list(_one_life(side, conf))
        for _ in range(repeat):
            time.sleep(DELETION_S)
            for command, outcome in _one_life(traced, conf):
                for phase, seconds in _phases(traced, outcome).items():
                    found[command].setdefault(phase, []).append(seconds)
            time.sleep(DELETION_S)
            for command, outcome in _one_life(plain, conf):
                found[command].setdefault(UNTRACED, []).append(outcome.wall)
    return found


def _one_life(side: Side, conf: dict[str, Any]) -> Iterator[tuple[str, Outcome]]:
    """Each call is made when the one before has been looked at."""
    given = conf
    for command in COMMANDS:
        outcome = side.call(side.request(command, given, "measured"))
        given = with_result(conf, outcome.stdout) if command == "ADD" else given
        yield command, outcome


def _phases(side: Side, outcome: Outcome) -> dict[str, float]:
    """Seconds by phase of the call that *outcome* is of: the agent's, and the launcher's before and after."""

    def written() -> list[dict[str, Any]]:  # after the answer, so maybe not yet
        lines = side.host.file("/run/phases").read_text().splitlines()
        return [one for one in map(json.loads, lines[-1:]) if one["taken"] > outcome.start]

    (traced,) = wait_until(written, 5)
    end = outcome.start + outcome.wall
    phases = {BEFORE: traced["taken"] - outcome.start, **traced["phases"], AFTER: max(0.0, end - traced["end"])}
    return {**phases, TOTAL: sum(phases.values())}


def measure_floor(existing: int) -> dict[str, float]:
    """Seconds by command next to *existing* containers, as rtnl_floor.c has them; CalledProcessError without cc."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/rtnl_floor"
        subprocess.run(["cc", "-O2", "-o", program, f"{ROOT}/bench/rtnl_floor.c"], check=True)
        said = subprocess.run(
            [program, str(existing), str(FLOOR_CONTAINERS)], check=True, capture_output=True, text=True
        ).stdout
    add, delete = map(float, said.split())
    return {"ADD": add / 1e6, "DEL": delete / 1e6}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="where the time of a bridge call through the agent goes")
    parser.add_argument("--existing", type=int, default=1, help="containers that are there already (default 1)")
    parser.add_argument("--repeat", type=int, default=51, help="calls of each command (default 51)")
    parser.add_argument("--json", help="a file for the figures, in seconds")
    given = parser.parse_args(argv)
    where = setting.read()
    found = measure(given.existing, given.repeat, network(masquerade=True))
    for command, seconds in measure_floor(given.existing).items():
        found[command][FLOOR] = [seconds]
    print(setting.shown(where))
    print(render(found, first=(BEFORE,), last=(AFTER, TOTAL, UNTRACED, FLOOR)), end="")
    setting.write(given, where, {"seconds": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
