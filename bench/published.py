"""What README.md says of speed, out of bench/results; a test holds both together.

python -m bench.published    # the tables, to be put into README.md after new results
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.figures import render_table

RESULTS = Path(__file__).parent / "results"
AGENT, STANDALONE = "pycni with agent", "pycni"
AT_A_TIME = (1, 32)


def calls() -> str:
    """A row for each call: milliseconds of the reference, and what pycni takes of that time."""
    agent, standalone, ports = _read("agent"), _read("standalone"), _read("portmap")
    header = ["call", "next to", "reference, ms", "pycni, with its agent", "without"]
    rows = []
    for existing in (0, 1000):
        for command in ("ADD", "CHECK", "DEL"):
            of_call = {"existing": existing, "command": command}
            found = [_one(one["calls"], of_call)["wall"] for one in (agent, standalone)]
            rows.append(_row(f"bridge {command}", existing, found))
    for part, existing in (("lives", 0), ("existing", 1000)):
        for command in ("ADD", "DEL"):
            of_call = {"command": command, "theirs": "reference", **({"ports": "1"} if part == "lives" else {})}
            found = [_one(ports[part], {**of_call, "ours": ours})["wall"] for ours in (AGENT, STANDALONE)]
            rows.append(_row(f"bridge + portmap, 1 port, {command}", existing, found))
    of_call = {"ports": "100", "command": "ADD", "theirs": "reference"}
    found = [_one(ports["lives"], {**of_call, "ours": ours})["wall"] for ours in (AGENT, STANDALONE)]
    rows.append(_row("bridge + portmap, 100 ports, ADD", 0, found))
    of_call = {"workers": 8, "command": "ADD"}
    rows.append(_row("100 ADDs, 8 at a time", 0, [_one(one["bursts"], of_call)["wall"] for one in (agent, standalone)]))
    return render_table(header, rows)


def proxy() -> str:
    """The userland proxy's share of what docker-proxy needs, and its multiple of what that passes on."""
    measured = _read("proxy")

    def of(load: str, figure: str) -> str:
        return f"{_one(measured['loads'], {'load': load, 'figure': figure})['ratio']['median']:.2f}"

    memory = _one(measured["memory"], {"ports": 100})
    rows = [
        *([f"throughput {load}", of(load, "throughput")] for load in ("to the container", "from the container")),
        *([f"CPU of a GB {load}", of(load, "CPU")] for load in ("to the container", "from the container")),
        *([f"CPU of a connection, {n} at a time", of(f"connections, {n} at a time", "CPU")] for n in AT_A_TIME),
        ["CPU of a datagram there and back", of("datagrams, there and back", "CPU")],
        ["memory of 100 ports", f"{memory['pycni'] / memory['docker-proxy']:.2f}"],
    ]
    return render_table(["userland proxy", "pycni / docker-proxy"], rows)


def _row(what: str, existing: int, found: list[dict[str, Any]]) -> list[str]:
    reference = found[0]["theirs"]["median"] * 1000
    ratios = [f"{one['ratio']['median']:.2f}" for one in found]
    return [what, f"{existing or 'no'} containers", f"{reference:.0f}", *ratios]


def _read(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return read


def _one(found: list[dict[str, Any]], which: Mapping[str, Any]) -> dict[str, Any]:
    """The one of *found* that has these values; LookupError where it is not exactly one."""
    these = [one for one in found if all(one.get(key) == value for key, value in which.items())]
    if len(these) != 1:
        raise LookupError(f"{len(these)} results for {dict(which)}")
    return these[0]


if __name__ == "__main__":
    print(calls(), proxy(), sep="\n", end="")
