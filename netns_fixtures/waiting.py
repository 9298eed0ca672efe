"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LONGEST_PAUSE_S = 0.005


def wait_until(predicate: Callable[[], T], deadline_s: float = 5.0, message: str = "") -> T:
    """The first truthy value of *predicate*, asked at least once; AssertionError with its last answer at the deadline.

    An exception of the predicate is not an answer "no": it goes to the caller at once.
    """
    end = time.monotonic() + deadline_s
    pause_s = 0.0002
    while not (value := predicate()):
        if time.monotonic() >= end:
            what = message or getattr(predicate, "__name__", repr(predicate))
            raise AssertionError(f"not within {deadline_s} s: {what}; last value {value!r}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
    return value
