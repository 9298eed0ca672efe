"""Which labs there are, for those who may look and those who may not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pycni.cli import main
from pycni.lab import running, state
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


@pytest.mark.parametrize("torn", ['{"format":', "[]", "{}"])
def test_one_torn_state_concerns_its_own_lab_alone(
    labs: Path, torn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ps` shows it in its place, and a file that is gone is looked for among the others."""
    (labs / "one" / "state.json").write_text(torn)
    assert main(["lab", "ps"]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("one: ") and "`pycni lab down one`" in shown
    assert main(["lab", "ps", "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)
    assert told["name"] == "one" and "state.json" in told["error"]
    assert main(["lab", "down", str(tmp_path / "gone.yaml")]) == 3
    assert "there is no file" in capsys.readouterr().err
    assert main(["lab", "ps", "one"]) == 1
    assert "`pycni lab down one`" in capsys.readouterr().err


def test_a_lab_that_goes_down_while_all_are_listed(labs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is neither there nor broken."""
    monkeypatch.setattr(running, "names", lambda: ["gone"])
    assert running.all_labs() == ([], {})
