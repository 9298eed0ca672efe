"""Plain text output: aligned tables and blocks that read the same on a terminal, in a pipe and in a bug report.

On a terminal the widest columns give way until a row fits; in a pipe nothing is ever cut. Colour only on a terminal
without NO_COLOR (https://no-color.org) and TERM=dumb.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
_GAP = "  "
_NARROWEST = 8  # a column that had to give way still shows this much


def wants_colour(stream: TextIO) -> bool:
    """Whether escape sequences may be written to *stream*."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width_of(stream: TextIO) -> int | None:
    """Columns of the terminal; None for a pipe or file, where lines may be of any length."""
    return shutil.get_terminal_size((100, 24)).columns if stream.isatty() else None


def paint(text: str, colour: str, stream: TextIO) -> str:
    """*text* in that colour if the stream shows colours."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if wants_colour(stream) else text


def printable(text: str) -> str:
    """*text* with control characters shown as escapes: a plugin's message must not steer the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _fitted(widths: list[int], room: int) -> list[int]:
    """*widths* with the widest taken down, one column at a time, until they fit *room* (or nothing more can give)."""
    widths = list(widths)
    while sum(widths) + len(_GAP) * (len(widths) - 1) > room and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def render_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None, right: Sequence[str] = ()
) -> list[str]:
    """Lines of a table. A cell with newlines takes several lines; columns named in *right* are aligned right.

    An empty cell shows as `-`, so that a row keeps its number of words for awk.
    """
    cells = [[[printable(line) for line in (cell or "-").split("\n")] for cell in row] for row in rows]
    widths = [len(title) for title in head]
    for row in cells:
        for column, lines in enumerate(row):
            widths[column] = max(widths[column], *map(len, lines))
    if width is not None:
        widths = _fitted(widths, width)
    out = [_line(head, widths, head, right)]
    for row in cells:
        for depth in range(max(len(lines) for lines in row)):
            out.append(_line([lines[depth] if depth < len(lines) else "" for lines in row], widths, head, right))
    return out


def _line(texts: Sequence[str], widths: Sequence[int], head: Sequence[str], right: Sequence[str]) -> str:
    parts = []
    for text, width, title in zip(texts, widths, head, strict=True):
        shown = _cut(text, width)
        parts.append(shown.rjust(width) if title in right else shown.ljust(width))
    return _GAP.join(parts).rstrip()


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Write a table to stdout, its head in bold."""
    first, *rest = render_table(head, rows, width=width_of(sys.stdout), right=right)
    print(paint(first, "bold", sys.stdout))
    for line in rest:
        print(line)


def render_facts(facts: Sequence[tuple[str, str]], *, indent: str = "  ", width: int | None = None) -> list[str]:
    """Label/value lines, values aligned; further lines of a value stand below its first. Wrapped to *width*."""
    pad = max((len(label) for label, _ in facts), default=0)
    room = None if width is None else max(width - len(indent) - pad - len(_GAP), 20)
    out = []
    for label, value in facts:
        lines = [part for line in value.split("\n") for part in _wrapped(printable(line), room)]
        for number, line in enumerate(lines):
            name = label if number == 0 else ""
            out.append(f"{indent}{name.ljust(pad)}{_GAP}{line}".rstrip())
    return out


def _wrapped(text: str, room: int | None) -> list[str]:
    if room is None:
        return [text]
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def age(seconds: float) -> str:
    """`41s`, `12m`, `5h`, `3d`; clocks that ran backwards count as 0."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def counted(number: int, thing: str) -> str:
    """`1 lease`, `2 leases`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
