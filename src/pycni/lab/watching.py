"""Pairs that must reach each other all the time: pinged by a thread of its own while a step does its work."""

from __future__ import annotations

import threading
import time

from pycni.lab.checks import Verdict, namespaces_of
from pycni.lab.errors import LabError
from pycni.lab.matrix import Pair
from pycni.lab.picture_of import picture_of
from pycni.lab.pings import Probe, ping
from pycni.lab.reaching import chosen_pairs
from pycni.lab.running import RunningLab
from pycni.lab.scenario import Expectation

EVERY_S = 0.05
ANSWER_S = 0.5
SHOWN = 4


class Watch:
    """Pings all pairs of *claim* from `start` to `stop`, about every 50 ms; the namespaces are those of the start."""

    def __init__(self, lab: RunningLab, claim: Expectation) -> None:
        self.claim = claim
        self._pairs: list[Pair] = chosen_pairs(picture_of(lab), claim)
        self._namespaces = namespaces_of(lab)
        self._answered = [0.0] * len(self._pairs)  # when each was last heard
        self._gaps = [0.0] * len(self._pairs)  # the longest time without an answer
        self._lost = [0] * len(self._pairs)
        self._rounds = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._answered = [time.monotonic()] * len(self._pairs)
        self._thread.start()

    def stop(self) -> Verdict:
        """One more round, and what came of all."""
        self._ending.set()
        self._thread.join()
        if self.failure is not None:
            raise LabError(f"{self.claim.words}: {self.failure}") from self.failure
        total = self._rounds * len(self._pairs)
        if not any(self._lost):
            return Verdict(True, f"all of {total} echoes came back")
        worst = max(range(len(self._pairs)), key=lambda at: self._gaps[at])
        pair = self._pairs[worst]
        seen = f"{sum(self._lost)} of {total} echoes lost; {pair.source} → {pair.target} ({pair.address}) had no answer"
        longest = self._gaps[worst]
        return Verdict(longest <= self.claim.gap_s, f"{seen} for {longest:.2f} s")

    def _watch(self) -> None:
        try:
            last = False
            while not last:
                last = self._ending.is_set()
                self._round()
                self._ending.wait(EVERY_S)
        except BaseException as failure:  # told by stop(), in the thread that waits
            self.failure = failure

    def _round(self) -> None:
        probes = [Probe(pair.source, pair.address) for pair in self._pairs]
        echoes = ping(self._namespaces, probes, timeout_s=ANSWER_S)
        now = time.monotonic()
        self._rounds += 1
        for at, seen in enumerate(echoes):
            if seen.rtts_ms:
                self._answered[at] = now
            else:
                self._lost[at] += 1
                self._gaps[at] = max(self._gaps[at], now - self._answered[at])
