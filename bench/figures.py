"""From measurements to the figures that are shown: medians, quartiles, ratios of pairs, and the tables. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """The three quartiles of a set of measurements, in their unit."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """ValueError for no values; of one value, that value thrice."""
        if not values:
            raise ValueError("no measurements")
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


class Comparison(NamedTuple):
    """One thing measured on both sides. The ratio is that of neighbours in time, so that a slow minute of the machine
    slows both of a pair and not one of two medians."""

    ours: Spread
    theirs: Spread
    ratio: Spread

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
        """From measurements in the order of the rounds; ValueError where they are no pairs."""
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        return cls(Spread.of(ours), Spread.of(theirs), Spread.of(ratios))


class Target(NamedTuple):
    """What a ratio must not exceed."""

    name: str
    limit: float

    def verdict(self, measured: float) -> str:
        return f"{self.name}: {measured:.2f} (at most {self.limit:g}) {'met' if measured <= self.limit else 'MISSED'}"


def milliseconds(spread: Spread) -> str:
    """A spread of seconds as "median (low to high)" in milliseconds, two or three digits that count."""
    return f"{_digits(spread.median)} ({_digits(spread.low)} to {_digits(spread.high)})"


def _digits(seconds: float) -> str:
    ms = seconds * 1000
    if ms < 1:
        return f"{ms:.2f}"
    return f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"


def ratio(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below each other: the first column to the left, figures to the right."""
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [_line(header, widths), _line(rule, widths), *(_line(row, widths) for row in rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.ljust(width) if at == 0 else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"
