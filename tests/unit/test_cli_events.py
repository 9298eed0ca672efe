"""`pycni events`: one event, one line; and time spans."""

from __future__ import annotations

import time
from argparse import ArgumentTypeError

import pytest

from pycni.cli.events import as_line, parse_span

CALL = {
    "time": 0.125,
    "level": "info",
    "number": 1,
    "event": "call",
    "plugin": "bridge",
    "command": "ADD",
    "container": "web",
    "ifname": "eth0",
    "ms": 4.31,
    "outcome": "ok",
}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (CALL, "ADD     bridge    web/eth0  4.3 ms  ok"),
        (
            {**CALL, "outcome": "error", "code": 101, "msg": "none\x1b left", "traceparent": "00-1"},
            "ADD     bridge    web/eth0  4.3 ms  error 101: none\\x1b left  trace 00-1",
        ),
        ({**CALL, "command": "GC", "container": "", "ifname": ""}, "GC      bridge    -/-  4.3 ms  ok"),
        (
            {
                "time": 0.125,
                "level": "info",
                "number": 2,
                "event": "reconciled",
                "released": ["a", "b"],
                "foreign": [],
            },
            "[reconciled]  released a, b",
        ),
    ],
)
def test_a_line_says_it_all(event: dict[str, object], line: str) -> None:
    """The local time in front; nothing in an event can steer the terminal."""
    assert as_line(event) == f"{time.strftime('%H:%M:%S', time.localtime(0))}.125  {line}"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400)])
def test_a_span_has_a_unit(text: str, seconds: float) -> None:
    """Seconds without one."""
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5", "1.5h", "5w", "yesterday"])
def test_what_is_no_span_is_refused(text: str) -> None:
    """With an example of one."""
    with pytest.raises(ArgumentTypeError, match="10m"):
        parse_span(text)
