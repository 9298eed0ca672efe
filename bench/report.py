"""What add_del.py says at the end: comparisons of both sides, their growth, and how far off the targets are. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from bench import figures
from bench.figures import Comparison, Spread, Target

COMMANDS = ("ADD", "CHECK", "DEL")


class Targets(NamedTuple):
    """The most that ratios may be, with ipMasq: of calls by command and number of others, and of bursts by workers."""

    calls: dict[tuple[str, int], float]
    own_add: float  # next to 1000 against next to 0
    bursts: dict[tuple[str, int], float]  # wall and CPU alike


STANDALONE = Targets({("ADD", 0): 1.5, ("ADD", 1000): 0.5, ("DEL", 0): 0.5, ("DEL", 1000): 0.5}, 1.2, {})
AGENT = Targets(
    {("ADD", 0): 0.3, ("CHECK", 0): 0.5, ("DEL", 0): 0.35, ("ADD", 1000): 0.08, ("DEL", 1000): 0.25},
    1.15,
    {("ADD", 8): 0.3},
)


def summary(measured: dict[str, Any]) -> dict[str, Any]:
    """Comparisons of wall and CPU for every command and burst ("calls", "bursts"), and what more containers cost pycni
    ("own": the ratio to the same call next to the fewest)."""
    calls = [
        {"existing": existing, "command": command, **_compared(found)}
        for existing, by_command in measured["calls"].items()
        for command, found in by_command.items()
    ]
    bursts = [
        {"workers": workers, "command": command, **_compared(found), "failed": found["failed"]}
        for workers, by_command in measured["bursts"].items()
        for command, found in by_command.items()
    ]
    fewest, *more = measured["calls"]
    own = [
        {"existing": existing, "over": fewest, "command": command}
        | {what: Comparison.of(found[what][0], found[what][2]).ratio for what in ("wall", "cpu")}
        for existing in more
        for command, found in measured["calls"][existing].items()
    ]
    return {"calls": calls, "bursts": bursts, "own": own}


def _compared(found: dict[str, Any]) -> dict[str, Comparison]:
    return {what: Comparison.of(*found[what][:2]) for what in ("wall", "cpu")}


def render(found: dict[str, Any], *, burst: int, targets: Targets | None) -> str:
    """The tables, as Markdown, and what became of the *targets*."""
    both = ("pycni, ms", "reference, ms", "ratio", "CPU pycni, ms", "CPU reference, ms", "CPU ratio")
    rows = [[one["command"], str(one["existing"]), *_cells(one)] for one in found["calls"]]
    parts = [figures.render_table(("command", "next to", *both), rows)]
    if found["bursts"]:
        rows = [
            [one["command"], str(one["workers"]), *_cells(one), "{} / {}".format(*one["failed"])]
            for one in found["bursts"]
        ]
        parts.append(figures.render_table((f"{burst} at once", "workers", *both, "failed"), rows))
    if found["own"]:
        rows = [
            [one["command"], f"{one['existing']} over {one['over']}", *(figures.ratio(one[w]) for w in ("wall", "cpu"))]
            for one in found["own"]
        ]
        parts.append(figures.render_table(("pycni's own", "next to", "ratio", "CPU ratio"), rows))
    if targets is not None:
        parts.append("".join(f"{line}\n" for line in verdicts(found, targets)))
    return "\n".join(parts)


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    wall, cpu = one["wall"], one["cpu"]
    return (
        figures.milliseconds(wall.ours),
        figures.milliseconds(wall.theirs),
        figures.ratio(wall.ratio),
        figures.milliseconds(cpu.ours),
        figures.milliseconds(cpu.theirs),
        figures.ratio(cpu.ratio),
    )


def verdicts(found: dict[str, Any], targets: Targets) -> list[str]:
    """A line for every target that this run says something about."""
    lines = []
    for one in found["calls"]:
        key = one["command"], one["existing"]
        if key in targets.calls:
            target = Target(f"{key[0]} next to {key[1]}, pycni / reference", targets.calls[key])
            lines.append(target.verdict(one["wall"].ratio.median))
    for one in found["own"]:
        if (one["command"], one["existing"], one["over"]) == ("ADD", 1000, 0):
            target = Target("own ADD next to 1000 / next to 0", targets.own_add)
            lines.append(target.verdict(one["wall"].median))
    for one in found["bursts"]:
        key = one["command"], one["workers"]
        for what in ("wall", "cpu") if key in targets.bursts else ():
            target = Target(f"burst of {key[0]} by {key[1]} workers, {what}, pycni / reference", targets.bursts[key])
            lines.append(target.verdict(one[what].ratio.median))
    return lines


def as_json(found: dict[str, Any]) -> Any:
    """*found* with its tuples as objects, for json.dump."""
    if isinstance(found, dict):
        return {key: as_json(value) for key, value in found.items()}
    if isinstance(found, list):
        return [as_json(value) for value in found]
    return as_json(found._asdict()) if isinstance(found, (Spread, Comparison)) else found
