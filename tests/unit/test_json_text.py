"""Our reading and writing of JSON is that of the standard library."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni import json_text

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def outcome(read: Any, text: str) -> tuple[str, str]:
    try:
        return "value", repr(read(text))
    except RecursionError:
        return "refused", "deep"
    except ValueError:
        return "refused", ""


@given(values)
def test_written_as_the_library_writes(value: Any) -> None:
    """On one line and indented, with characters beyond ASCII as they are."""
    assert json_text.dumps(value) == json.dumps(value, ensure_ascii=False)
    assert json_text.dumps(value, indent=4) == json.dumps(value, ensure_ascii=False, indent=4)


@given(values)
def test_read_back(value: Any) -> None:
    """Whatever was written, with any indentation."""
    assert json_text.loads(json.dumps(value)) == value
    assert json_text.loads(json_text.dumps(value, indent=2)) == value


@given(st.text(alphabet='{}[]:,"0123456789.eE+-truefalsn \t\n\\u\x00aé', max_size=40))
def test_any_text_is_read_or_refused_as_by_the_library(text: str) -> None:
    """The same value, or a ValueError from both."""
    assert outcome(json_text.loads, text) == outcome(json.loads, text)


@pytest.mark.parametrize("text", ["", " ", "{", "[1,", '{"a":1} x', "nul", '"\ud800"', "[" * 100000, "01", "1.", "-"])
def test_what_the_library_refuses_is_refused(text: str) -> None:
    """And what it takes is taken: a lone surrogate is for others to refuse."""
    assert outcome(json_text.loads, text) == outcome(json.loads, text)


@pytest.mark.parametrize("text", ["{", '{"a" 1}', "[1,]", '"\\x"', "[nul]", "tru", '"\n"', "[1 2]"])
def test_refusal_in_a_process_that_has_not_loaded_the_library(text: str) -> None:
    """The scanner's own exception lives in json.decoder: without it there must still be a ValueError."""
    code = (
        "import sys; sys.path.append(sys.argv[1]); from pycni.cni import json_text\n"
        "assert 'json' not in sys.modules\n"
        "try: json_text.loads(sys.argv[2])\n"
        "except ValueError as refused: print(refused)"
    )
    argv = [sys.executable, "-ISE", "-c", code, str(Path(json_text.__file__).parents[2]), text]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip()


def test_numbers_are_handed_over_as_words() -> None:
    """For readers that allow fewer of them than Python does."""
    seen: list[str] = []

    def note(word: str) -> float:
        seen.append(word)
        return 0.0

    json_text.loads("[1.5, NaN, -Infinity, 7]", parse_float=note, parse_constant=note)
    assert seen == ["1.5", "NaN", "-Infinity"]


def test_objects_are_handed_over_as_pairs() -> None:
    """For readers that want to know of a key that comes twice; the innermost first."""
    seen: list[list[tuple[str, Any]]] = []

    def note(pairs: list[tuple[str, Any]]) -> int:
        seen.append(pairs)
        return len(pairs)

    assert json_text.loads('{"a": {"b": 1, "b": 2}, "c": []}', object_pairs_hook=note) == 2
    assert seen == [[("b", 1), ("b", 2)], [("a", 2), ("c", [])]]


def test_without_the_scanner_the_library_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another interpreter may not have it."""
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "_json":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert json_text.loads('{"a": [1, 2.5]}') == {"a": [1, 2.5]}
    with pytest.raises(ValueError, match="Expecting"):
        json_text.loads("{")


def test_what_is_no_json_is_refused_or_replaced() -> None:
    """TypeError, as from the library; *default* gives a text instead."""
    with pytest.raises(TypeError):
        json_text.dumps(object())
    assert json_text.dumps([{1}], default=repr) == '["{1}"]'
