"""What overlay.py says at the end: the overlay beside the VXLAN made by hand, ADD's latency, and how soon a container
is reached. Pure."""

from __future__ import annotations

import math
from typing import Any

from bench.figures import Comparison, Spread, Target, milliseconds, ratio, render_table

OURS, THEIRS = "pycni", "by hand"
#: Of each load what counts: (figure, unit, below which figure it is divided, factor to the unit).
FIGURES = {
    "upload": (("throughput", "Gb/s", "bytes", "seconds", 8e-9),),
    "request": (("p50", "us", "p50_us", "", 1.0), ("p99", "us", "p99_us", "", 1.0)),
}
LEAST_THROUGHPUT, MOST_LATENCY = 0.97, 1.05
MOST_P50_MS, MOST_P99_MS = 12.0, 60.0


def summary(measured: dict[str, Any]) -> dict[str, Any]:
    """ "transfer": of each setting, load and figure the spreads and their ratio; "add": of each kind of call the spread
    in seconds; "reach": the distribution in milliseconds. Parts that were not measured are left out. "busy": how many
    measurements began while others used the machine."""
    found: dict[str, Any] = {"busy": measured.get("busy", 0)}
    if measured.get("transfer"):
        found["transfer"] = [
            {
                "segmentation": setting,
                "load": load,
                "figure": name,
                "unit": unit,
                **_compared(ways, above, below, factor),
            }
            for setting, loads in measured["transfer"].items()
            for load, ways in loads.items()
            for name, unit, above, below, factor in FIGURES[load]
        ]
    if measured.get("add"):
        found["add"] = [{**one, "wall": Spread.of(one["wall"])._asdict()} for one in measured["add"]]
    if measured.get("reach"):
        found["reach"] = {name: distribution(values) for name, values in measured["reach"].items()}
    return found


def _compared(ways: dict[str, list[dict[str, float]]], above: str, below: str, factor: float) -> dict[str, Any]:
    values = {way: [one[above] / (one[below] if below else 1.0) * factor for one in ones] for way, ones in ways.items()}
    compared = Comparison.of(values[OURS], values[THEIRS])
    return {
        OURS: compared.ours._asdict(),
        THEIRS: compared.theirs._asdict(),
        "ratio": compared.ratio._asdict(),
    }


def distribution(values: list[float]) -> dict[str, float]:
    """Of seconds: how many, and the least, the median, the 90th and 99th percentile and the most, in milliseconds."""
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1000, 3)

    return {"count": len(ordered), "min": at(0), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1)}


def render(found: dict[str, Any]) -> str:
    """The tables, as Markdown, and what became of the targets."""
    parts = []
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    if "transfer" in found:
        head = ("between two hosts", "tunnel segmentation", "unit", OURS, THEIRS, "ratio")
        rows = [
            (one["figure"], one["segmentation"], one["unit"], _shown(one[OURS]), _shown(one[THEIRS]), _ratio(one))
            for one in found["transfer"]
        ]
        parts.append(render_table(head, rows))
    if "add" in found:
        head = ("call", "by", "etcd members", "ms")
        rows = [
            (one["command"], one["by"], str(one["members"]), milliseconds(Spread(**one["wall"])))
            for one in found["add"]
        ]
        parts.append(render_table(head, rows))
    if "reach" in found:
        head = ("from ADD's return to the first answer, ms", "min", "p50", "p90", "p99", "max", "rounds")
        rows = [
            (name, *(f"{one[key]:.1f}" for key in ("min", "p50", "p90", "p99", "max")), f"{one['count']:.0f}")
            for name, one in found["reach"].items()
        ]
        parts.append(render_table(head, rows))
    parts.append("".join(f"{line}\n" for line in verdicts(found)))
    if found["busy"]:
        parts.append(f"{found['busy']} measurements began while others used the machine\n")
    return "\n".join(parts)


def _shown(spread: dict[str, float]) -> str:
    return f"{spread['median']:.1f} ({spread['low']:.1f} to {spread['high']:.1f})"


def _ratio(one: dict[str, Any]) -> str:
    return ratio(Spread(**one["ratio"]))


def verdicts(found: dict[str, Any]) -> list[str]:
    """A line for every target that this run says something about."""
    lines = []
    for one in found.get("transfer", ()):
        name = f"{one['figure']}, segmentation {one['segmentation']}, pycni / by hand"
        measured = one["ratio"]["median"]
        if one["figure"] == "throughput":
            word = "met" if measured >= LEAST_THROUGHPUT else "MISSED"
            lines.append(f"{name}: {measured:.3f} (at least {LEAST_THROUGHPUT:g}) {word}")
        elif one["figure"] == "p50":
            lines.append(Target(name, MOST_LATENCY).verdict(measured))
    for name, one in found.get("reach", {}).items():
        lines.append(Target(f"{name}: p50 in ms", MOST_P50_MS).verdict(one["p50"]))
        lines.append(Target(f"{name}: p99 in ms", MOST_P99_MS).verdict(one["p99"]))
    return lines
