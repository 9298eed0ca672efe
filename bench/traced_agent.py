"""An agent with a clock at the borders of its calls' phases: what agent_breakdown.py starts instead of `pycni agent`.

After each call a line goes to the file that is argv[1]: {"phases": {...}, "taken": CLOCK_MONOTONIC, "end": the same},
seconds; "taken" is when a thread had the client's connection, "end" when the answer was sent.
"""

from __future__ import annotations

import _thread
import json
import sys
from time import monotonic
from typing import Any

from bench.traced_call import BORDERS, REST, Clock
from pycni.agent import acceptors

WIRE = "request and reply"
AGENT_BORDERS: dict[str, tuple[str, dict[str, str]]] = {
    **BORDERS,
    "pycni.exe.run": ("JSON in and out", {"": "parse_call"}),
    "pycni.agent.acceptors": (WIRE, {"": "receive", "Acceptors": "_send"}),
    "pycni.agent.journal": ("journal", {"Journal": "call"}),
}


class AgentClock(Clock):
    """Measures whichever thread carries out a call: there must be one at a time."""

    def __init__(self) -> None:
        super().__init__(monotonic())
        self._waiting = dict(AGENT_BORDERS)
        self._phases = [REST]

    def begin_call(self) -> float:
        self._main = _thread.get_ident()
        self._put_borders()  # of what has been loaded since
        self.totals.clear()
        self._since = monotonic()
        return self._since


def main() -> None:
    path = sys.argv.pop(1)
    clock = AgentClock()
    serve = acceptors.Acceptors._serve

    def measured(self: Any, client: Any) -> None:
        taken = clock.begin_call()
        serve(self, client)
        end = clock.book()
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"phases": clock.totals, "taken": taken, "end": end}) + "\n")

    acceptors.Acceptors._serve = measured  # type: ignore[method-assign]
    from pycni.cli import main as pycni

    sys.argv[1:] = ["agent"]
    sys.exit(pycni())


if __name__ == "__main__":
    main()
