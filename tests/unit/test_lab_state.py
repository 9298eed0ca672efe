"""Which labs there are, for those who may look and those who may not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pycni.cli import main
from pycni.lab import state
from pycni.lab.errors import LabError


@contextmanager
def nobody() -> Iterator[None]:
    """Without root's rights."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of all labs, with one of them."""
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    base = tmp_path / "labs"
    monkeypatch.setattr(state, "BASE", str(base))
    (base / "one").mkdir(parents=True)
    (base / "one" / "state.json").write_text("{}")
    return base


@pytest.mark.needs("root")
@pytest.mark.parametrize("closed", ["", "one"])
def test_who_may_not_look_does_not_hear_that_there_is_none(
    labs: Path, closed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that says so and what to do, whichever directory is closed."""
    (labs / closed).chmod(0o700)
    with nobody():
        with pytest.raises(LabError, match="Permission denied"):
            state.names()
        assert [main(["lab", *words]) for words in (["ps"], ["exec", "h1", "--", "true"])] == [1, 1]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("run the command as root") == 2


def test_what_has_no_state_is_no_lab(labs: Path) -> None:
    """A killed command may leave a directory or a file."""
    (labs / "two").mkdir()
    (labs / "three").write_text("")
    assert state.names() == ["one"]
    assert state.traces() == ["one", "two"]
