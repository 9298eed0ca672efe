"""Tables are aligned, complete in a pipe, and fit a terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cli import tables

CELLS = st.text(max_size=40)


def test_columns_are_aligned_and_empty_cells_marked() -> None:
    """Every column begins at one place; numbers can stand right."""
    lines = tables.render_table(("NAME", "N"), [("a", "5"), ("longer", "10"), ("", "")], right=("N",))
    assert lines == ["NAME     N", "a        5", "longer  10", "-        -"]


def test_a_cell_of_several_lines_takes_several_rows() -> None:
    """The other cells of the row are not repeated."""
    assert tables.render_table(("A", "B"), [("x", "1\n2")]) == ["A  B", "x  1", "   2"]


@given(st.lists(st.tuples(CELLS, CELLS), max_size=5), st.integers(20, 60))
def test_a_terminal_line_is_never_too_long(rows: list[tuple[str, str]], width: int) -> None:
    """Whatever the cells hold, a table fits a terminal that has room for two narrow columns."""
    assert all(len(line) <= width for line in tables.render_table(("ONE", "TWO"), rows, width=width))


@given(CELLS.filter(lambda text: "\n" not in text and text.strip()))
def test_in_a_pipe_nothing_is_cut(text: str) -> None:
    """Without a width the whole (printable) text is there."""
    (_, line) = tables.render_table(("A", "B"), [("x", text)])
    assert tables.printable(text).rstrip() in line


def test_control_characters_do_not_reach_the_terminal() -> None:
    """A plugin's message cannot steer it."""
    assert tables.printable("a\x1b[31m\x07é\u202e") == "a\\x1b[31m\\x07é\\u202e"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, NO_COLOR and a dumb terminal get plain text."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert tables.paint("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert tables.paint("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("TERM", "dumb")
    assert tables.paint("x", "red", Terminal()) == "x"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert tables.paint("x", "red", Terminal()) == "x"


@pytest.mark.parametrize(("seconds", "text"), [(-5, "0s"), (59.9, "59s"), (60, "1m"), (7200, "2h"), (200000, "2d")])
def test_ages_are_short(seconds: float, text: str) -> None:
    """One unit, and a clock that ran backwards is no age."""
    assert tables.age(seconds) == text
