"""What portmap.py says at the end: comparisons with the reference and netavark, own growth, and the targets. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench import figures
from bench.figures import Comparison, Spread, Target

COMMANDS = ("ADD", "DEL")
OURS = ("pycni", "pycni with agent")
REFERENCE, NETAVARK = "reference", "netavark"
EMPTY = ", empty"  # after the name of one of ours: the host that stays as empty as the run began
ONE, RANGE = "1", "range of 10000"

#: The most that ratios may be: to the reference with one port, to it next to 1000 others, and to our own one port.
TO_REFERENCE = {
    (OURS[0], "ADD"): 0.9, (OURS[0], "DEL"): 0.4, (OURS[1], "ADD"): 0.25, (OURS[1], "DEL"): 0.25
}  # fmt: skip
TO_OWN_PORT = {"100": 1.3, RANGE: 2.0}
NEXT_TO_1000, OWN_NEXT_TO_1000 = 0.2, 1.2

Figures = Mapping[str, Mapping[str, list[float]]]  # side → "wall", "cpu" → seconds, by round


def compared(found: Figures, ours: str, theirs: str) -> dict[str, Comparison]:
    """Wall and CPU of two sides, over the rounds in which both took part."""
    both = {}
    for what in ("wall", "cpu"):
        mine, other = found[ours][what], found[theirs][what]
        rounds = min(len(mine), len(other))
        both[what] = Comparison.of(mine[:rounds], other[:rounds])
    return both


def summary(measured: Mapping[str, Any]) -> dict[str, Any]:
    """From "lives" (by ports and command) and "existing" (by command) to lists of comparisons."""
    lives, existing = measured["lives"], measured["existing"]
    return {
        "lives": [
            {"ports": ports, "command": command, "ours": ours, "theirs": theirs, **compared(figures, ours, theirs)}
            for ports, by_command in lives.items()
            for command, figures in by_command.items()
            for ours in OURS
            for theirs in (REFERENCE, NETAVARK)
            if theirs in figures
        ],
        "own": [
            {"ports": ports, "command": command, "ours": ours, **_own(lives, ports, command, ours)}
            for ports in lives
            for command in COMMANDS
            for ours in OURS
            if ports != ONE
        ],
        "existing": [
            {"command": command, "ours": ours, "theirs": theirs, **compared(figures, ours, theirs)}
            for command, figures in existing.items()
            for ours in OURS
            for theirs in (REFERENCE, ours + EMPTY)
        ],
    }


def _own(lives: Mapping[str, Any], ports: str, command: str, ours: str) -> dict[str, Comparison]:
    """More ports against one, of the same rounds."""
    both = {"more": lives[ports][command][ours], "one": lives[ONE][command][ours]}
    return compared(both, "more", "one")


def render(found: Mapping[str, Any], existing: int) -> str:
    """The tables, as Markdown, and what became of the targets."""
    header = ("ms", "theirs, ms", "ratio", "CPU, ms", "CPU theirs, ms", "CPU ratio")
    lives = [[one["command"], one["ports"], one["ours"], one["theirs"], *_cells(one)] for one in found["lives"]]
    own = [[one["command"], one["ports"], one["ours"], "its 1 port", *_cells(one)] for one in found["own"]]
    crowd = [
        [one["command"], str(existing), one["ours"], one["theirs"].removeprefix(one["ours"] + ", "), *_cells(one)]
        for one in found["existing"]
    ]
    parts = [
        figures.render_table(("command", "ports", "", "against", *header), lives),
        figures.render_table(("command", "ports", "", "against", *header), own),
    ]
    if crowd:
        parts.append(figures.render_table(("command", "next to", "", "against", *header), crowd))
    parts.append("".join(f"{line}\n" for line in verdicts(found, existing)))
    return "\n".join(parts)


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    wall, cpu = one["wall"], one["cpu"]
    return (
        *(figures.milliseconds(side) for side in (wall.ours, wall.theirs)),
        figures.ratio(wall.ratio),
        *(figures.milliseconds(side) for side in (cpu.ours, cpu.theirs)),
        figures.ratio(cpu.ratio),
    )


def verdicts(found: Mapping[str, Any], existing: int) -> Iterator[str]:
    """A line for every target that this run says something about."""
    for one in found["lives"]:
        key = one["ours"], one["command"]
        if (one["ports"], one["theirs"]) == (ONE, REFERENCE):
            yield _verdict(one, f"{one['command']} of 1 port, {key[0]} / reference", TO_REFERENCE[key])
    for one in found["own"]:
        if one["ports"] in TO_OWN_PORT:
            name = f"{one['command']} of {one['ports']} ports / of 1, {one['ours']}"
            yield _verdict(one, name, TO_OWN_PORT[one["ports"]])
    for one in found["existing"]:
        if (one["command"], existing) == ("ADD", 1000):
            limit = NEXT_TO_1000 if one["theirs"] == REFERENCE else OWN_NEXT_TO_1000
            yield _verdict(one, f"ADD next to 1000, {one['ours']} / {one['theirs']}", limit)


def _verdict(one: Mapping[str, Any], name: str, limit: float) -> str:
    return Target(name, limit).verdict(one["wall"].ratio.median)


def as_json(found: Any) -> Any:
    """*found* with its tuples as objects, for json.dump."""
    if isinstance(found, Mapping):
        return {key: as_json(value) for key, value in found.items()}
    if isinstance(found, list):
        return [as_json(value) for value in found]
    return as_json(found._asdict()) if isinstance(found, (Spread, Comparison)) else found
