"""Which UDP clients were silent for too long. A flow notes when it was used; nothing is moved for a packet. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Aging(Protocol):
        seen: float  # when it was used last
        closed: bool

        def close(self) -> None: ...


SPOKES = 64
TICKS = 60  # of an idle time


class Wheel:
    """Spokes of a tick each. A flow waits on the spoke of the tick in which it ends unless it is used before; when the
    spoke comes by it is closed, or it was used, and waits on another. What was closed meanwhile is forgotten then.

    Times are seconds of one clock. A flow is closed when it was idle for *idle_s*, or up to two ticks later.
    """

    def __init__(self, idle_s: float, now: float) -> None:
        self.idle_s = idle_s
        self.tick_s = idle_s / TICKS
        self.waiting = 0  # flows on all spokes, closed ones too
        self._spokes: list[list[Aging]] = [[] for _ in range(SPOKES)]
        self._at = 0
        self._next = now + self.tick_s

    def add(self, flow: Aging, now: float) -> None:
        left = max(0.0, flow.seen + self.idle_s - now)
        ahead = min(SPOKES - 1, 1 + int(left / self.tick_s))
        self._spokes[(self._at + ahead) % SPOKES].append(flow)
        self.waiting += 1

    def turn(self, now: float) -> None:
        """Close what was idle for too long by *now*. However late, a round is enough."""
        for _ in range(SPOKES):
            if self._next > now:
                return
            self._next += self.tick_s
            self._at = (self._at + 1) % SPOKES
            due = self._spokes[self._at]
            self._spokes[self._at] = []
            self.waiting -= len(due)
            for flow in due:
                if flow.closed:
                    continue
                if flow.seen + self.idle_s <= now:
                    flow.close()
                else:
                    self.add(flow, now)
        self._next = now + self.tick_s

    def flows(self) -> list[Aging]:
        """Those that are not closed."""
        return [flow for spoke in self._spokes for flow in spoke if not flow.closed]
