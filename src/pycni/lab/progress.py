"""What a long command shows while it works: a line for each thing that is done, and on a terminal how much is left."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """Lines on *stream*; none if *quiet*. Times are seconds on the monotonic clock."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.spent: dict[str, tuple[int, float]] = {}  # kind -> how many, and the seconds for all of them together
        self._terminal = self.stream.isatty()
        self._began = time.monotonic()
        self._left: dict[str, int] = {}

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def expect(self, kinds: Sequence[str]) -> None:
        """How much there is to do: the kind of each thing."""
        self._left = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
        self._show_left()

    def say(self, text: str) -> None:
        """A line by itself."""
        self._write(f"{text}\n")

    def done(self, kind: str, name: str, seconds: float, text: str = "") -> None:
        """One thing is done, in *seconds* of its own."""
        if kind in self._left:
            self._left[kind] -= 1
        self._write(f"{kind:<9} {name:<16} {seconds * 1000:7.0f} ms  {text}".rstrip() + "\n")

    @contextmanager
    def doing(self, kind: str, name: str, text: str = "") -> Iterator[None]:
        """The block does it."""
        began = time.monotonic()
        yield
        self.done(kind, name, time.monotonic() - began, text)

    def spend(self, kind: str, number: int, seconds: float) -> None:
        """So many things of a kind took so long, many of them at the same time."""
        known, before = self.spent.get(kind, (0, 0.0))
        self.spent[kind] = (known + number, before + seconds)

    def end(self) -> None:
        """Take the line away that says what is left."""
        self._left = {}
        self._write("")

    def _write(self, text: str) -> None:
        if self.quiet:
            return
        if self._terminal:
            self.stream.write("\r\x1b[K")
        self.stream.write(text)
        self._show_left()
        self.stream.flush()

    def _show_left(self) -> None:
        left = ", ".join(f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in self._left.items() if number)
        if self._terminal and left and not self.quiet:
            line = f"… {self.elapsed_s:.1f} s, still to do: {left}"
            self.stream.write(line[: shutil.get_terminal_size().columns - 1])  # one that wraps cannot be taken back
            self.stream.flush()
