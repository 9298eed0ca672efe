"""The packet filter's tables outlive a host's last container by a while.

To make them is a quarter of an ADD (1.6 of 6 ms: 30 sets, 11 chains with 43 rules), and where containers come one at a
time every one is the first. Empty tables do nothing, and they do not stay: they go after `keep_rules_s` without a
container, when the agent stops, and at the start of one whose predecessor was killed meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from pycni.agent.journal import Journal
from pycni.cni.errors import CniError
from pycni.host.firewall import open_firewall, remove_tables_by
from pycni.store import open_store


class IdleRules:
    """Removes the tables in time. *keep_s*: asked each time; 0 leaves it to the DEL. *upkeep* has one thread."""

    def __init__(self, keep_s: Callable[[], float], upkeep: Executor, journal: Journal) -> None:
        self._keep_s = keep_s
        self._upkeep = upkeep
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def install(self) -> None:
        """From now on DELs in this process leave the tables to us. A predecessor may have left some."""
        remove_tables_by(self.put_off)
        self.put_off()

    def put_off(self) -> bool:
        """Remove the tables later; False where that is not wanted. On any thread."""
        if not self._keep_s():
            return False
        self._loop.call_soon_threadsafe(self._begin)
        return True

    def remove(self) -> None:
        """Remove them now, where they were waiting for it. Also when somebody changed them: the next ADD would rely on
        what is left of them."""
        if self._cancel():
            self._upkeep.submit(self._remove)

    def close(self) -> None:
        """The same, and be done with it: no call is carried out any more."""
        remove_tables_by(None)
        if self._cancel():
            self._remove()

    def _begin(self) -> None:
        self._cancel()
        self._timer = self._loop.call_later(self._keep_s(), self.remove)

    def _cancel(self) -> bool:
        """Whether they were waiting to be removed."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        return timer is not None

    def _remove(self) -> None:
        try:
            with open_store() as store, store.transaction():  # an ADD has a record before it relies on them
                if store.attachments.has_any_with_rules():
                    return
                firewall = open_firewall()
                try:
                    # A container that no record speaks of, as after a lost store, may be running.
                    if firewall.name == "nftables" and not firewall.owners():
                        firewall.remove_all()
                finally:
                    firewall.close()
        except (CniError, OSError) as failure:
            self._journal.note("warning", event="rules-not-removed", msg=str(failure))
