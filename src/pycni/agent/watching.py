"""The kernel's side of the overlay: whoever changes a device, an uplink or an entry is noticed and answered at once."""

from __future__ import annotations

import math
import os
import select
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pycni.host.link_events import Change, LinkEvents

if TYPE_CHECKING:
    from pycni.agent.cluster import Cluster


class Watching:
    """A thread that hears of changes to the kernel from the moment this is made, and tells all *clusters*; it also has
    them try again what failed, when that is due."""

    def __init__(self, clusters: Callable[[], Iterable[Cluster]]) -> None:
        self._clusters = clusters
        self._events = LinkEvents()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="overlay-kernel", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Something is due sooner than it was."""
        os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        self._stopped = True
        self.ring()
        self._thread.join()
        self._events.close()
        os.close(self._bell)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._events, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        while not self._stopped:
            try:
                due = min((cluster.compare_due() for cluster in self._clusters()), default=math.inf)
                poll.poll(None if due == math.inf else max(0.0, due - time.monotonic()) * 1000)
                self._drain_bell()
                self._hand_out(self._events.read())
            except Exception as failure:  # a bug must not end the watching for ever, without a word
                traceback.print_exception(failure)
                time.sleep(1.0)

    def _hand_out(self, changes: list[Change] | None) -> None:
        while changes is None or changes:
            later: list[Change] | None = []
            for cluster in self._clusters():
                more = cluster.happened(changes, self._events.read)
                later = None if later is None or more is None else [*later, *more]
            changes = later

    def _drain_bell(self) -> None:
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            pass
