"""What proxy.py says at the end: rates and costs over each way, their ratios, and how far off the targets are. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.figures import Comparison, Spread, Target, ratio, render_table

OURS, THEIRS = "pycni", "docker-proxy"


class Load(NamedTuple):
    """A mode of proxy_load with so many clients, and what counts: figures, each with its unit and a factor to it."""

    name: str
    mode: str
    clients: int
    figures: tuple[Figure, ...]


class Figure(NamedTuple):
    """A quotient of two of the load's figures times *factor*. *least*, *most*: of the ratio pycni / docker-proxy."""

    name: str
    unit: str
    above: str
    below: str
    factor: float
    least: float | None = None
    most: float | None = None


def _rate(name: str, unit: str, of: str, factor: float, least: float | None = None) -> Figure:
    return Figure(name, unit, of, "seconds", factor, least=least)


def _cpu(unit: str, of: str, factor: float, most: float | None = None) -> Figure:
    return Figure("CPU", unit, "cpu", of, factor, most=most)


BULK = (_rate("throughput", "Gb/s", "bytes", 8e-9, 0.95), _cpu("s/GB", "bytes", 1e9, 0.95))
P99 = Figure("p99", "us", "p99_us", "", 1)
LOADS = (
    Load("to the container", "upload", 1, BULK),
    Load("from the container", "download", 1, BULK),
    Load("connections, 1 at a time", "connect", 1, (_rate("rate", "1/s", "count", 1), _cpu("us", "count", 1e6, 0.8))),
    Load("connections, 32 at a time", "connect", 32, (_rate("rate", "1/s", "count", 1), _cpu("us", "count", 1e6, 0.8))),
    Load(
        "requests, 1 connection",
        "request",
        1,
        (Figure("p50", "us", "p50_us", "", 1, most=1.05), P99, _cpu("us", "count", 1e6)),
    ),
    Load(
        "requests, 32 connections",
        "request",
        32,
        (_rate("rate", "1/s", "count", 1, 1.0), P99, _cpu("us", "count", 1e6)),
    ),
    Load(
        "datagrams, there and back", "datagram", 32, (_rate("rate", "1/s", "count", 1), _cpu("us", "count", 1e6, 0.8))
    ),
)
MEMORY_RATIO, MEMORY_MB = {100: 0.3}, {1000: 30.0}


def summary(measured: dict[str, Any]) -> dict[str, Any]:
    """For each load and figure the spread over each way and the "ratio" of the proxies; "memory" as it was measured."""
    found = []
    for load in LOADS:
        rounds = measured["loads"].get(load.name)
        if rounds is None:
            continue
        for figure in load.figures:
            values = {way: [_value(figure, one) for one in ones] for way, ones in rounds.items()}
            spreads = {way: Spread.of(ones)._asdict() for way, ones in values.items() if any(ones)}
            compared = Comparison.of(values[OURS], values[THEIRS]).ratio
            found.append(
                {
                    "load": load.name,
                    "figure": figure.name,
                    "unit": figure.unit,
                    "ways": spreads,
                    "ratio": compared._asdict(),
                }
            )
    return {"loads": found, "memory": measured["memory"]}


def _value(figure: Figure, one: dict[str, float]) -> float:
    return one[figure.above] / (one[figure.below] if figure.below else 1) * figure.factor


def render(found: dict[str, Any]) -> str:
    """The tables, as Markdown, and what became of the targets."""
    ways = list(found["loads"][0]["ways"]) if found["loads"] else []
    every = sorted({way for one in found["loads"] for way in one["ways"]}, key=lambda way: (way not in ways, way))
    rows = [
        [
            one["load"],
            f"{one['figure']}, {one['unit']}",
            *(_cell(one["ways"].get(way)) for way in every),
            ratio(Spread(**one["ratio"])),
        ]
        for one in found["loads"]
    ]
    parts = [render_table(("load", "figure", *every, f"{OURS} / {THEIRS}"), rows)]
    rows = [
        [str(one["ports"]), *(f"{one[way]:.1f}" if way in one else "" for way in (OURS, THEIRS)), _share(one)]
        for one in found["memory"]
    ]
    parts.append(render_table(("ports", f"{OURS}, MB", f"{THEIRS}, MB", "ratio"), rows))
    return "\n".join([*parts, "".join(f"{line}\n" for line in verdicts(found))])


def _cell(spread: dict[str, float] | None) -> str:
    if spread is None:
        return ""
    median = spread["median"]
    return f"{median:.0f}" if median >= 1000 else f"{median:.3g}"


def _share(one: dict[str, float]) -> str:
    return f"{one[OURS] / one[THEIRS]:.2f}" if THEIRS in one else ""


def verdicts(found: dict[str, Any]) -> list[str]:
    """A line for every target that this run says something about."""
    lines = []
    for one in found["loads"]:
        figure = next(
            figure
            for load in LOADS
            if load.name == one["load"]
            for figure in load.figures
            if figure.name == one["figure"]
        )
        name, measured = f"{one['load']}: {figure.name}, {OURS} / {THEIRS}", one["ratio"]["median"]
        if figure.most is not None:
            lines.append(Target(name, figure.most).verdict(measured))
        if figure.least is not None:
            verdict = "met" if measured >= figure.least else "MISSED"
            lines.append(f"{name}: {measured:.2f} (at least {figure.least:g}) {verdict}")
    for one in found["memory"]:
        if one["ports"] in MEMORY_RATIO and THEIRS in one:
            target = Target(f"memory of {one['ports']} ports, {OURS} / {THEIRS}", MEMORY_RATIO[one["ports"]])
            lines.append(target.verdict(one[OURS] / one[THEIRS]))
        if one["ports"] in MEMORY_MB:
            lines.append(Target(f"memory of {one['ports']} ports, MB", MEMORY_MB[one["ports"]]).verdict(one[OURS]))
    return lines
