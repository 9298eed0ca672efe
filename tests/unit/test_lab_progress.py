"""What `up` shows: lines, and on a terminal how much is left."""

from __future__ import annotations

import io

import pytest

from pycni.lab.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(stream: io.StringIO, *, quiet: bool = False) -> str:
    progress = Progress(stream, quiet=quiet)
    progress.expect(["host", "host", "agent"])
    progress.done("host", "h1", 0.0123, "192.0.2.1")
    progress.say("something else")
    progress.end()
    return stream.getvalue()


def test_plain_lines_elsewhere() -> None:
    """A file or pipe gets a line for each thing, with its time, and no escape."""
    assert told(io.StringIO()) == "host      h1                    12 ms  192.0.2.1\nsomething else\n"


def test_a_terminal_also_sees_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a last line that each next one replaces, and that is gone at the end; never wider than the terminal."""
    monkeypatch.setenv("COLUMNS", "40")
    shown = told(Terminal())
    assert "still to do: 2 hosts, 1" in shown and "still to do: 1 host, 1 a" in shown
    assert shown.endswith("\r\x1b[K")
    pieces = shown.replace("\n", "\r").split("\r")
    assert all(len(piece) < 40 for piece in pieces if piece.startswith("…"))


def test_quiet_is_quiet() -> None:
    assert told(Terminal(), quiet=True) == ""


def test_shares_of_the_time() -> None:
    """Things of a kind that were made in two goes count together."""
    progress = Progress(io.StringIO())
    progress.spend("host", 3, 0.5)
    progress.spend("host", 1, 0.25)
    assert progress.spent == {"host": (4, 0.75)}
