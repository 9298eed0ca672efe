"""Waiting for a machine that has little else to do, within a budget for a whole run."""

from __future__ import annotations

import sys
import time

from bench import setting

LOOK_S, BUSY = 0.1, 0.25


class Calm:
    """`wait()` before a measurement. All waits of a run together take at most *budget_s* seconds; `missed` is how many
    measurements began on a busy machine, which belongs to what is reported."""

    def __init__(self, budget_s: float) -> None:
        self._left_s = budget_s
        self.missed = 0

    def wait(self) -> None:
        began = time.monotonic()
        while True:
            before = setting.processor_times()
            time.sleep(LOOK_S)
            used, whole = (after - earlier for after, earlier in zip(setting.processor_times(), before, strict=True))
            if used < BUSY * whole:
                break
            if time.monotonic() - began >= self._left_s:
                self.missed += 1
                if self.missed == 1:
                    print("others keep the machine busy: these figures show it", file=sys.stderr)
                break
        self._left_s = max(0.0, self._left_s - (time.monotonic() - began))
