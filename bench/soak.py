"""Thousands of ADD/DEL pairs through one agent: do its memory and its descriptors stay as they are, is anything left?

    sudo python bench/soak.py                     # 20000 pairs by 8 workers over 64 containers
    sudo python bench/soak.py --pairs 0 --kills 200   # instead: the agent killed 200 times under the same load

All in a host made of namespaces. The agent runs with its defaults and answers the native launcher; state is on tmpfs.
Exits with 1 where anything was left, an address was given twice, or a call was answered wrongly.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import setting
from netns_fixtures import Host, Outside, diff
from tests.kernel.agent_lab import AgentHost
from tests.kernel.agent_load import HASTY, Load, write_launchers
from tests.kernel.bridge_lab import Lab, network

SAMPLE_S = 1.0
WARM_UP = 0.1  # of the samples: the pool's threads start, caches fill
RESULTS = Path(__file__).resolve().parent / "results" / "soak.json"
# The agent's directories, and what the kernel derives late or keeps of a bridge that came and went.
KEPT = ("*/file/run/pycni*", "*/file/etc*", "*dst=fe80*", "*/process/*")


def measure(given: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="pycni-soak-") as name:
        host = Host("soak", sysctls={"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"})
        try:
            outside = Outside(host)
            try:
                return run(host, Path(name), given)
            finally:
                outside.delete()
        finally:
            host.delete()


def run(host: Host, directory: Path, given: argparse.Namespace) -> dict[str, Any]:
    agents = AgentHost(host, directory / "agent.log")
    plugins = directory / "plugins"
    plugins.mkdir()
    load = Load(Lab(host, write_launchers(plugins)), agents, given.containers, network())
    before = load.lab.traces()
    found = kills(load, given) if given.kills else soak(load, given)
    told = load.told[-1]
    wrong = [*told.indefinite, *told.unexpected, *told.stuck]
    try:
        for container in load.containers.keys() - told.attached.keys():
            assert load.call("DEL", container).ok
        load.assert_exactly(told.attached)
        load.delete_all()
    except AssertionError as failure:
        wrong.append(str(failure))
    if agents.agents:
        agents.stop()
    return {
        **found,
        "pairs": told.pairs,
        "seconds": round(told.seconds, 1),
        "slowest_call_s": round(told.slowest_s, 3),
        "calls": dict(sorted(told.counts.items())),
        "duplicate_addresses": told.duplicate,
        "wrong": wrong,
        "left": diff(before, load.lab.traces(), ignore=KEPT),
    }


def kills(load: Load, given: argparse.Namespace) -> dict[str, Any]:
    """Runtimes that ADD, CHECK and DEL, and an agent that is killed at random moments."""
    load.agents.configure(HASTY)
    with load.runtimes([load.lab.plugins], seed=given.seed, workers=given.workers):
        load.kill_again_and_again(given.kills, seed=given.seed)
    return {"kills": given.kills}


def soak(load: Load, given: argparse.Namespace) -> dict[str, Any]:
    """Runtimes that ADD and DEL until there were enough pairs, and an agent that is looked at meanwhile."""
    agent = load.agents.start(config='log_level = "warning"\n')
    idle = sample(agent.pid)
    samples: list[tuple[int, int, int]] = []
    options = {"seed": given.seed, "workers": given.workers, "pairs": given.pairs, "check": False}
    with load.runtimes([load.lab.plugins], **options) as crowd:
        began = time.monotonic()
        while True:
            try:
                crowd.wait(SAMPLE_S)
                break
            except subprocess.TimeoutExpired:
                samples.append(sample(agent.pid))
                show(f"{time.monotonic() - began:.0f} s: {samples[-1][0] >> 10} KiB, {samples[-1][1]} descriptors")
    load.agents.ask("reconcile")
    settled = samples[int(len(samples) * WARM_UP) :] or [idle]
    thousands = given.pairs / 1000 * len(settled) / max(1, len(samples))
    memory = [one[0] for one in settled]
    return {
        "idle": named(idle),
        "first": named(settled[0]),
        "last": named(settled[-1]),
        "end": named(sample(agent.pid)),
        "most": [max(column) for column in zip(*settled, strict=True)],
        "memory_growth_bytes_per_1000_pairs": round(growth(memory) / thousands),
        "memory_growth_bytes_per_1000_pairs_second_half": round(growth(memory[len(memory) // 2 :]) / thousands * 2),
        "descriptor_growth_per_1000_pairs": round(growth([one[1] for one in settled]) / thousands, 3),
        "samples_memory_kib": [one[0] >> 10 for one in samples],
    }


def sample(pid: int) -> tuple[int, int, int]:
    """Resident bytes, descriptors, threads."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    fds, tasks = (len(list(Path(f"/proc/{pid}/{name}").iterdir())) for name in ("fd", "task"))
    return pages * 4096, fds, tasks


def named(one: tuple[int, int, int]) -> dict[str, int]:
    return dict(zip(("memory_bytes", "descriptors", "threads"), one, strict=True))


def growth(values: Sequence[float]) -> float:
    """From the first sample to the last, by least squares; 0 for fewer than two."""
    if len(values) < 2:
        return 0.0
    return statistics.linear_regression(range(len(values)), values).slope * len(values)


def show(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="many ADD/DEL pairs through one agent, or one that is killed")
    parser.add_argument("--pairs", type=int, default=20_000, help="of ADD and DEL (default 20000)")
    parser.add_argument("--containers", type=int, default=64, help="in rotation (default 64)")
    parser.add_argument("--workers", type=int, default=8, help="calls at a time (default 8)")
    parser.add_argument("--kills", type=int, default=0, help="kill the agent so often instead, in random moments")
    parser.add_argument("--seed", type=int, default=1, help="of everything random (default 1)")
    parser.add_argument("--json", metavar="FILE", default=str(RESULTS), help=f"default {RESULTS.name} in results/")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    given = parse(argv)
    where = setting.read()
    found = measure(given)
    show("\n")
    for key, value in found.items():
        if not key.startswith("samples"):
            print(f"{key}: {json.dumps(value)}")
    setting.write(given, where, found)
    return 1 if found["wrong"] or found["left"] or found["duplicate_addresses"] else 0


if __name__ == "__main__":
    sys.exit(main())
