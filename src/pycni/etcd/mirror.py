"""What etcd holds below a prefix, kept up to date in memory: the wanted state that an agent brings about.

Level, not edge: a change only says which keys to look at again, by `get` or `items`, which answer from memory. What was
missed (history compacted away, a bug of the server's watch, an event lost) is found by comparing whole values with a
whole read, which also happens every RECHECK_S for no reason at all. While etcd is away the last state stands: nothing
is deleted because the store cannot be reached, nor because somebody put older data, or none, in its place.
"""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections.abc import Callable

from pycni.cni.errors import CniError, Code
from pycni.etcd.client import Client
from pycni.etcd.requests import KeyValue
from pycni.etcd.watch import Batch, Compacted, Watch

RECHECK_S = 300.0
RETRY_S = 1.0
PAGE_S = 10.0


class Mirror:
    """A copy of everything below *prefix*, or of the keys from it to *end*, which is one of them no more.

    *on_change(keys)* is called from the mirror's thread after the copy has changed: the keys that were written or
    deleted, all of them after the first reading (maybe none). It may take its time; what happens meanwhile comes after.
    synced: whether the copy was ever complete; nothing may be concluded from an absence before. stale_since: since when
    nothing was heard (time.time()), 0.0 while all is well. corrected: keys that only a comparison found changed.
    """

    def __init__(self, client: Client, prefix: str, on_change: Callable[[frozenset[str]], None], end: str = "") -> None:
        self._client = client
        self._prefix = prefix
        self._end = end
        self._on_change = on_change
        self._watch = Watch(client, prefix, end)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="etcd-mirror", daemon=True)
        self._entries: dict[str, KeyValue] = {}
        self.revision = 0
        self.synced = threading.Event()
        self._unread_since = 0.0
        self._reason = ""
        self._gone_back = ""
        self.corrected = 0
        self.readings = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._watch.stop()
        self._thread.join()

    def renew(self) -> None:
        """The client has moved: follow by way of it, from where it is."""
        self._watch.renew()

    def get(self, key: str) -> KeyValue | None:
        with self._lock:
            return self._entries.get(key)

    def items(self, prefix: str = "") -> dict[str, KeyValue]:
        """All entries below *prefix*, at one revision; a copy."""
        with self._lock:
            return {key: kv for key, kv in self._entries.items() if key.startswith(prefix)}

    @property
    def reconnects(self) -> int:
        return self._watch.reconnects

    @property
    def stale_since(self) -> float:
        return self._unread_since or self._watch.silent_since

    @property
    def reason(self) -> str:
        """Why it is stale, "" where it is not."""
        return self._reason or (self._watch.reason if self._watch.silent_since else "")

    @property
    def gone_back(self) -> str:
        """That etcd has older data than it had, in words; "" where it has not. What it gives out then, others have."""
        return self._gone_back or self._watch.gone_back

    def _run(self) -> None:
        recheck = False
        while not self._stop.is_set():
            try:
                self._read(recheck)
                recheck = True
                until = time.monotonic() + RECHECK_S * random.uniform(0.8, 1.2)
                for batch in self._watch.batches(self.revision, until):
                    self._apply(batch)
            except Compacted:
                recheck = False  # what the reading finds was no error of anybody's
            except CniError as failure:
                self._pause(str(failure))
            except Exception as failure:  # a bug must not end the following for ever, without a word
                traceback.print_exception(failure)
                self._pause(repr(failure))

    def _pause(self, reason: str) -> None:
        """It failed, for that reason: wait before the next reading."""
        self._reason = reason
        self._unread_since = self._unread_since or time.time()
        self._stop.wait(RETRY_S)

    def _read(self, recheck: bool) -> None:
        answer = self._client.read(self._prefix, end=self._end, page_s=PAGE_S)
        if answer.revision < self.revision:
            self._gone_back = f"it is at revision {answer.revision} and was at {self.revision}"
            raise CniError(
                Code.TRY_AGAIN,
                f"etcd is at revision {answer.revision} and was at {self.revision}: its data was replaced by older",
                "what was known before stands; restart the agents if the data are right",
            )
        fresh = {kv.key: kv for kv in answer.found}
        with self._lock:
            old, self._entries, self.revision = self._entries, fresh, answer.revision
        changed = {key for key in old.keys() | fresh.keys() if old.get(key) != fresh.get(key)}
        self.readings += 1
        self.corrected += len(changed) if recheck else 0
        self._unread_since, self._reason, self._gone_back = 0.0, "", ""
        first = not self.synced.is_set()
        self.synced.set()
        if changed or first:
            self._on_change(frozenset(changed))

    def _apply(self, batch: Batch) -> None:
        with self._lock:
            for event in batch.events:
                if event.value is None:
                    self._entries.pop(event.key, None)
                else:
                    self._entries[event.key] = event.value
            self.revision = batch.revision
        self._on_change(frozenset(event.key for event in batch.events))
