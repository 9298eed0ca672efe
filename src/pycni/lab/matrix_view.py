"""A ping matrix to be read: as a table, with one character for each pair, and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pycni.cni.value import Value
from pycni.lab.drawing import INK, PALE, Box, Drawing, Shape, Words, clipped, widest, width_of
from pycni.lab.matrix import NO, YES, Matrix, Seen

#: What is seen of a pair -> the colour of its cell; the words in it tell the same to those who see no colours.
FILLS = {
    "good": "#d3efe3",
    "lossy": "#fbe7b0",
    "part": "#f9d2a8",
    "bad": "#f4b6b3",
    "leak": "#e3a6d8",
    "open": "#e6edf5",
    "none": "#f6f7f8",
    "self": "#e2e5e8",
}
LEGEND = (
    ("good", "+", "reached, ms"),
    ("lossy", "%", "some echoes lost"),
    ("part", "4 6", "one family fails"),
    ("bad", "X", "no answer"),
    ("leak", "L", "reached, but must not be"),
    ("open", "o", "reached, not promised"),
    ("none", "·", "not reached, not expected"),
)


class Cell(Value):
    """Two containers in a word; *state* is a key of `FILLS`."""

    state: str
    text: str
    sign: str  # the same in one character
    tip: str


def cell_of(seen: Sequence[Seen]) -> Cell:
    """What is written where two containers meet."""
    tip = "\n".join(map(_told, seen))
    expected = [each for each in seen if each.pair.expected == YES]
    if any(each.wrong for each in seen if each.pair.expected == NO):
        return Cell("leak", "leak", "L", tip)
    if not expected:
        reached = [each for each in seen if each.reached]
        return Cell("open", f"({_ms(reached)})", "o", tip) if reached else Cell("none", "·", "·", tip)
    reached = [each for each in expected if each.reached]
    if not reached:
        return Cell("bad", "FAIL", "X", tip)
    missing = [each for each in expected if not each.reached]
    if missing:
        families = sorted({each.pair.family for each in missing})
        words = "/".join(f"v{family}" if family else "net" for family in families)
        return Cell("part", f"no {words}", str(families[0] or "?"), tip)
    lost, sent = sum(each.lost for each in expected), sum(each.echoes.sent for each in expected)
    if lost:
        return Cell("lossy", f"-{max(round(100 * lost / sent), 1)}%", "%", tip)
    return Cell("good", _ms(reached), "+", tip)


def _ms(seen: Sequence[Seen]) -> str:
    median = statistics.median([ms for each in seen for ms in each.echoes.rtts_ms])
    return f"{median:.2f}" if median < 10 else f"{median:.0f}"


def _told(seen: Seen) -> str:
    pair = seen.pair
    what = f"{pair.source} to {pair.target}, {pair.network} {pair.address or 'no address'}"
    if not seen.reached:
        return f"{what}: no answer"
    return f"{what}: {len(seen.echoes.rtts_ms)} of {seen.echoes.sent} answers, {_ms([seen])} ms"


def rows(matrix: Matrix) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table; latencies in ms, the median of all answers."""
    cells = matrix.cells()
    table = []
    for source in matrix.names:
        row = [cell_of(cells.get((source, target), ())).text if source != target else "—" for target in matrix.names]
        table.append([source, *row])
    return ["FROM \\ TO", *matrix.names], table


def compact(matrix: Matrix) -> list[str]:
    """The same with one character for each pair, for many containers; targets are numbered as the sources are."""
    cells = matrix.cells()
    width = max((len(name) for name in matrix.names), default=0)
    digits = len(str(len(matrix.names)))
    numbers = [str(number).rjust(digits) for number in range(1, len(matrix.names) + 1)]
    lines = [" " * (digits + width + 2) + "".join(number[at] for number in numbers) for at in range(digits)]
    for number, source in zip(numbers, matrix.names, strict=True):
        signs = [cell_of(cells.get((source, target), ())).sign if source != target else "-" for target in matrix.names]
        lines.append(f"{number} {source.ljust(width)} {''.join(signs)}")
    return lines


def legend() -> str:
    """The signs of `compact` in one line."""
    return "   ".join(f"{sign} {words}" for _, sign, words in LEGEND)


def draw_matrix(matrix: Matrix, name: str) -> Drawing:
    """The picture: a cell for each pair, sources from top to bottom, targets from left to right by number."""
    margin, side, size = 20.0, 38.0, 9.0
    cells = matrix.cells()
    labels = [f"{number} {clipped(each, 32)}" for number, each in enumerate(matrix.names, start=1)]
    left = margin + widest(labels) + 8
    title = f"lab {name}: ping matrix"
    shapes: list[Shape] = [Words(margin, margin + 14, title, 15, bold=True)]
    summary = f"{len(matrix.seen)} pairs asked, {len(matrix.wrong)} not as expected; rows ask columns"
    shapes.append(Words(margin, margin + 32, summary, colour=PALE))
    top = margin + 44
    for state, _, words in LEGEND:
        shapes += [Box(margin, top, 12, 12, FILLS[state], PALE, radius=2), Words(margin + 18, top + 10, words)]
        top += 16
    top += 26
    for at, source in enumerate(matrix.names):
        y = top + at * side
        shapes.append(Words(left + at * side + side / 2, top - 6, str(at + 1), anchor="middle"))
        shapes.append(Words(margin, y + side / 2 + 4, labels[at]))
        for column, target in enumerate(matrix.names):
            cell = cell_of(cells.get((source, target), ())) if source != target else Cell("self", "", "", source)
            x = left + column * side
            shapes.append(Box(x, y, side, side, FILLS[cell.state], "#ffffff", radius=3, tip=cell.tip))
            colour = PALE if cell.state in ("none", "open") else INK
            shapes.append(Words(x + side / 2, y + side / 2 + 3, cell.text, size, colour, anchor="middle"))
    width = max(left + side * len(matrix.names), margin + width_of(title, 15), margin + width_of(summary)) + margin
    return Drawing(width, top + side * len(matrix.names) + margin, title, tuple(shapes))
