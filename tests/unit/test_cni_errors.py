"""Codes and the error object."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.errors import SHOWN_LENGTH, CniError, Code, shown

ERRORS_PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_error_object_has_code_msg_and_details_only_when_there_are_any() -> None:
    """The object is the specification's; empty details are left out as the reference does."""
    assert CniError(Code.NETNS, "gone").as_json() == {"code": 8, "msg": "gone"}
    assert CniError(7, "bad", "more").as_json() == {"code": 7, "msg": "bad", "details": "more"}


def test_error_of_a_delegate_keeps_a_code_that_we_do_not_know() -> None:
    """A foreign plugin's number goes through unchanged."""
    assert json.dumps(CniError(140, "foreign").as_json()) == '{"code": 140, "msg": "foreign"}'


def test_text_of_the_exception_is_message_and_details() -> None:
    """Logs show both."""
    assert str(CniError(7, "bad", "more")) == "bad: more"
    assert str(CniError(7, "bad")) == "bad"


def test_docs_list_every_code_and_no_other() -> None:
    """docs/errors.md has one row per code, with its number and name."""
    rows = re.findall(r"^\| (\d+) \| `([A-Z_]+)` \|", ERRORS_PAGE.read_text(), re.MULTILINE)
    codes = [(code, name) for name, code in vars(Code).items() if name.isupper()]
    assert rows == [(str(code), name) for code, name in sorted(codes)]


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", '"a"'), (True, "true"), (None, "null"), ({"a": [1]}, '{"a": [1]}'), ("é", '"é"'), ("\udc80", '"\\udc80"')],
)
def test_values_are_shown_as_json(value: object, text: str) -> None:
    """A message repeats a value as the config spelled it."""
    assert shown(value) == text


@given(st.one_of(st.text(), st.text(alphabet="a\ud800\udc80\0\n", min_size=SHOWN_LENGTH), st.lists(st.integers())))
def test_shown_values_are_short_single_lines_of_valid_unicode(value: object) -> None:
    """Whatever a caller sends, it cannot flood, break or split a message."""
    text = shown(value)
    assert "\n" not in text
    assert len(text) <= SHOWN_LENGTH * len("\\udc80")
    text.encode()
