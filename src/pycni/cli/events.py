"""`pycni events`: what the agent does, as it happens."""

from __future__ import annotations

import json
import re
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from pycni.cli.agent_client import ask
from pycni.cli.failure import warn
from pycni.cli.tables import paint, printable

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_COLOURS = {"warning": "yellow", "error": "red"}
_ENVELOPE = ("time", "level", "number", "event", "at")


def parse_span(text: str) -> float:
    """Seconds of `90`, `90s`, `10m`, `2h`, `1d`."""
    found = re.fullmatch(r"(\d+)([smhd]?)", text)
    if found is None:
        raise ArgumentTypeError(f"{text!r} is no time span such as 90s, 10m or 2h")
    return float(int(found[1]) * _UNITS_S[found[2] or "s"])


def follow(given: Namespace) -> NoReturn:
    """Print events until Ctrl-C: the kept ones of the time asked for, then each as it comes."""
    said = ask("events", given.socket)
    first = time.time() - given.since if given.since is not None else float("inf")
    _print_all(given, [event for event in said["events"] if event["time"] >= first])
    while True:
        said = ask("events", given.socket, after=said["last"])
        if said["missed"]:
            warn("some events came too fast to be shown, or a former agent's were lost")
        _print_all(given, said["events"])


def _print_all(given: Namespace, events: Iterable[Mapping[str, Any]]) -> None:
    for event in events:
        print(json.dumps(event) if given.json else as_line(event))
    sys.stdout.flush()


def as_line(event: Mapping[str, Any]) -> str:
    """One event for people: the time, what happened, and the rest as words."""
    at = time.strftime("%H:%M:%S", time.localtime(event["time"])) + f"{event['time'] % 1:.3f}"[1:]
    text = _call(event) if event["event"] == "call" else _other(event)
    colour = _COLOURS.get(event["level"])
    return f"{at}  {paint(printable(text), colour, sys.stdout) if colour else printable(text)}"


def _call(event: Mapping[str, Any]) -> str:
    outcome = "ok" if event["outcome"] == "ok" else f"error {event['code']}: {event['msg']}"
    owner = f"{event['container'] or '-'}/{event['ifname'] or '-'}"
    trace = f"  trace {event['traceparent']}" if "traceparent" in event else ""
    return f"{event['command']:<6}  {event['plugin']:<8}  {owner}  {event['ms']:.1f} ms  {outcome}{trace}"


def _other(event: Mapping[str, Any]) -> str:
    facts = [f"{key} {_words(value)}" for key, value in event.items() if key not in _ENVELOPE and value not in ([], "")]
    return "  ".join((f"[{event['event']}]", *facts))


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


HANDLERS = {"events": follow}
