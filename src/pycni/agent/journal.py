"""What the agent says of its work: one JSON object a line on stderr, events for those who follow, and counters."""

from __future__ import annotations

import json
import sys
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

from pycni.agent.config import LOG_LEVELS

KEPT_EVENTS = 1000  # a follower that is slower than that misses some and is told so
SAID = "pycni: "  # how a plugin's sentence on standard error begins
COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)  # upper ends


class Tally:
    """The calls of one plugin, command and outcome."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0  # in all
        self.buckets = [0] * (len(BUCKETS_S) + 1)  # how many took at most BUCKETS_S[i], and more than the one before

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds
        self.buckets[bisect_left(BUCKETS_S, seconds)] += 1


class Journal:
    """Thread-safe. `level`: the least important of LOG_LEVELS that is written.

    Events are numbered from the microsecond of the start on, so that a later agent's come after an earlier one's.
    """

    def __init__(self, level: str = "info") -> None:
        self.level = level
        self._tallies: dict[tuple[str, str, int], Tally] = {}
        self._recent: deque[dict[str, Any]] = deque(maxlen=KEPT_EVENTS)
        self._last = time.time_ns() // 1000
        self._listeners: set[Callable[[], None]] = set()
        self._lock = threading.Lock()

    def call(self, plugin: str, environ: dict[str, str], code: int, text: str, seconds: float) -> None:
        """Note one plugin call: *code* is its exit code, *text* its answer."""
        command = environ["CNI_COMMAND"]
        outcome = _outcome(code, text)
        event = {
            "event": "call",
            "plugin": plugin,
            "command": command,
            "container": environ.get("CNI_CONTAINERID", ""),
            "ifname": environ.get("CNI_IFNAME", ""),
            "ms": round(seconds * 1000, 2),
            **outcome,
        }
        if environ.get("TRACEPARENT"):
            event["traceparent"] = environ["TRACEPARENT"]
        # Whatever a caller makes up counts as one command, or the counters would grow with it.
        key = plugin, command if command in COMMANDS else "other", int(outcome.get("code", 0))
        with self._lock:
            self._tallies.setdefault(key, Tally()).add(seconds)
        self.note("info" if code == 0 else "warning", **event)

    def note(self, level: str, **event: Any) -> None:
        """Write *event* to the log if *level* is important enough, and hand it to every follower."""
        with self._lock:
            self._last += 1
            event = {"time": round(time.time(), 3), "level": level, "number": self._last, **event}
            self._recent.append(event)
            if LOG_LEVELS.index(level) >= LOG_LEVELS.index(self.level):
                _write_line(event)
            for listener in self._listeners:
                listener()

    def tallies(self) -> list[tuple[tuple[str, str, int], Tally]]:
        """((plugin, command, error code or 0), tally), sorted."""
        with self._lock:
            return sorted(self._tallies.items(), key=lambda item: item[0])

    def events(self, after: int | None) -> tuple[list[dict[str, Any]], int, bool]:
        """The kept events with numbers above *after* (None: all), the newest number, and whether some are missing."""
        with self._lock:
            kept, last = list(self._recent), self._last
        missed = after is not None and bool(kept) and after < kept[0]["number"] - 1
        return [event for event in kept if after is None or event["number"] > after], last, missed

    def listen(self, listener: Callable[[], None]) -> None:
        """Call *listener*, from whatever thread, at each event; it must be quick and not note anything itself."""
        with self._lock:
            self._listeners.add(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        with self._lock:
            self._listeners.discard(listener)


class Words:
    """Standard error of a process that has a journal: what plugins say there beside their answers ("pycni: …") becomes
    an event, everything else passes. Each line is one write: threads must not mix theirs."""

    def __init__(self, journal: Journal, stream: TextIO) -> None:
        self._journal = journal
        self._stream = stream
        self._begun = threading.local()  # `text`: a line without its end

    def write(self, text: str) -> int:
        *lines, rest = f"{getattr(self._begun, 'text', '')}{text}".split("\n")
        self._begun.text = rest
        for line in lines:
            if line.startswith(SAID):
                self._journal.note("warning", event="said", msg=line.removeprefix(SAID))
            else:
                self._stream.write(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:  # the command asks when it tells why there is no agent
        return self._stream.isatty()


def _write_line(event: dict[str, Any]) -> None:
    try:
        sys.stderr.write(json.dumps(event) + "\n")  # one write: threads must not mix their lines
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody reads the log, or the disk is full: no reason to fail a call that was carried out


def _outcome(code: int, text: str) -> dict[str, Any]:
    if code == 0:
        return {"outcome": "ok"}
    try:
        error = json.loads(text)
        return {"outcome": "error", "code": int(error["code"]), "msg": str(error["msg"])}
    except (ValueError, KeyError, TypeError):
        return {"outcome": "error", "code": code, "msg": text}
