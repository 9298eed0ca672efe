"""A lease that is kept, and the keys under it that are kept in place, by a thread of a resident process."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable

from pycni.cni.errors import CniError
from pycni.etcd.client import Client

PARTS = 3  # renewals in the time that a lease lasts: two may fail
RETRY_S = 1.0
ANSWER_S = 2.5


class Keeper:
    """Keeps a lease of *ttl_s* seconds; *establish(client, lease)* puts what belongs under it, and is called again at
    every renewal, so it must be content with what is in place already.

    *on_change(held, reason)* is told from the keeper's thread when the lease was had or lost. It is had only while
    `held` is true; what a host does without it is not the keeper's business. Start with `start`, end with `stop`.
    """

    def __init__(
        self,
        client: Client,
        ttl_s: int,
        establish: Callable[[Client, int], None],
        on_change: Callable[[bool, str], None] = lambda held, reason: None,
    ) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._establish = establish
        self._on_change = on_change
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="etcd-lease", daemon=True)
        self.lease = 0
        self.held = False
        self.reason = "not asked for yet"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the lease, and with it its keys, if etcd answers."""
        self._stop.set()
        self._thread.join()
        if self.lease:
            try:
                self._client.revoke(self.lease)
            except CniError:
                pass  # it runs out by itself
            self.lease = 0

    def _run(self) -> None:
        while not self._stop.is_set():
            pause_s = self._ttl_s / PARTS
            try:
                if self.lease and not self._client.keep_alive(self.lease, ANSWER_S):
                    self.lease = 0
                    self._tell(False, "the lease ran out")
                if not self.lease:
                    self.lease = self._client.grant(self._ttl_s, ANSWER_S)
                self._establish(self._client, self.lease)
                self._tell(True, "")
            except CniError as failure:
                # The lease may last for a while, but nobody here can know.
                self._tell(False, str(failure))
                if "lease not found" in failure.msg:
                    self.lease = 0  # etcd before 3.4.39 may confirm one that it has revoked
                pause_s = RETRY_S
            except Exception as failure:  # a bug must not end the keeping for ever, with `held` as it was
                traceback.print_exception(failure)
                self._tell(False, repr(failure))
                pause_s = RETRY_S
            self._stop.wait(pause_s)

    def _tell(self, held: bool, reason: str) -> None:
        self.reason = reason
        if held != self.held:
            self.held = held
            self._on_change(held, reason)
