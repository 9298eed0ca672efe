"""Follow what changes below a prefix, from a revision on, without a gap, whatever happens to the stream.

The etcd3 package's own watcher is not used: after its member died it spins on a processor and never resumes. What this
one holds to (each was seen to go wrong somewhere):

- it resumes at the revision behind the last one seen, at another endpoint after a failure;
- all events of one revision come together, whatever their size: a lease that ends takes all its keys in one;
- a member without a majority ends the stream (`hasleader`), and one that is stopped, whose connection stays open for
  hours, is noticed because it leaves a question unanswered;
- history that was compacted away is no error to go on from but a `Compacted`: the caller reads everything again;
- an empty answer to the question is a sign of life and no more: etcd before 3.4.25 may send it ahead of events;
- what comes a second time is dropped: etcd before 3.4.24 repeats events;
- a member that does not know the revision to go on from is left: it lags, or its data was replaced by older ones, and
  would wait in silence until it gets there.
"""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import grpc

from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value
from pycni.etcd.client import TRY_S, Client
from pycni.etcd.failure import NoGateway, Rejected, Unreachable
from pycni.etcd.grpc_endpoint import GrpcEndpoint, failure_of, key_value
from pycni.etcd.requests import KeyValue, end_of

ASK_S = 2.0  # between questions whether the member still answers; as long may the answer take
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0


class Event(Value):
    """A key that was written at *revision*, or deleted, then value is None."""

    key: str
    revision: int
    value: KeyValue | None


class Batch(Value):
    """All events of one revision."""

    revision: int
    events: tuple[Event, ...]


class Compacted(Exception):
    """The history from where the watch was to go on is gone: read everything again."""


class Watch:
    """One watch on *prefix*, or on the keys from it to *end*. `stop` and `renew` are for any thread, all else is for
    one."""

    def __init__(self, client: Client, prefix: str, end: str = "") -> None:
        self._client = client
        self._prefix = prefix
        self._end = end or end_of(prefix)
        self._stopped = threading.Event()
        self._stream: Any = None
        self._unanswered = False  # the last stream was ended because a question was not answered
        self.reconnects = 0
        self.reason = ""  # why the last stream ended
        self.silent_since = 0.0  # since when no member answers (time.time()), 0.0 while one does
        self.gone_back = ""  # in words: etcd is at an older revision than it was, so its data was replaced

    def batches(self, revision: int, until: float = float("inf")) -> Iterator[Batch]:
        """Everything after *revision*, in order, nothing twice; until `stop`, or *until* (time.monotonic()).

        Raises Compacted, and CniError 7 for what another attempt cannot mend (a missing permission).
        """
        pause_s = SHORTEST_PAUSE_S
        while not self._stopped.is_set() and time.monotonic() < until:
            caller = self._client.caller
            assert isinstance(caller, GrpcEndpoint), "a watch needs connect.keep_open()"
            try:
                for batch in self._stream_of(caller, revision, until):
                    pause_s = SHORTEST_PAUSE_S
                    if batch.revision > revision:
                        revision = batch.revision
                        yield batch
                continue  # it was stopped, or the time is over
            except Rejected as refusal:
                if refusal.text == _CANCELLED:
                    self.reason = refusal.text
                else:
                    self._mend(caller, refusal)
            except (Unreachable, NoGateway) as failure:
                self.reason = str(failure)
                if self._unanswered:
                    caller.note_silence()
                else:
                    caller.note_failure()
            self.reconnects += 1
            self.silent_since = self.silent_since or time.time()
            self._client.turn()
            self._stopped.wait(pause_s * random.uniform(0.5, 1.5))  # not all hosts at once
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def stop(self) -> None:
        self._stopped.set()
        self.renew()

    def renew(self) -> None:
        """Go on over another stream: the client has moved. For any thread."""
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def _mend(self, caller: GrpcEndpoint, refusal: Rejected) -> None:
        """A token that has ended is fetched anew; what cannot be mended is CniError 7."""
        self.reason = refusal.text
        if "token" not in refusal.text and "user" not in refusal.text:
            raise CniError(Code.INVALID_CONFIG, f"etcd at {caller.endpoint} refuses: {refusal.text}")
        try:
            caller.authenticate(TRY_S)
        except (Unreachable, Rejected) as failure:
            self.reason = str(failure.args[-1])

    def _stream_of(self, caller: GrpcEndpoint, revision: int, until: float) -> Iterator[Batch]:
        """One stream until it ends."""
        heard = threading.Event()
        end: queue.SimpleQueue[None] = queue.SimpleQueue()
        first = caller.watch_request(self._prefix, self._end, revision + 1)
        questions = self._questions(caller, first, heard=heard, end=end, until=until)
        self._unanswered = False
        self._stream = stream = caller.watch(questions, TRY_S)
        if self._stopped.is_set() or caller not in self._client.callers:
            stream.cancel()  # stop(), or renew(), did not see it
        try:
            for answer in stream:
                heard.set()
                if not answer.events and not answer.canceled and answer.header.revision < revision:
                    self.gone_back = f"it is at revision {answer.header.revision}, before {revision}"
                    raise Unreachable(self.gone_back)
                self.silent_since = 0.0
                self.gone_back = ""
                if answer.canceled:
                    if answer.compact_revision:
                        raise Compacted(answer.compact_revision)
                    raise Rejected(0, answer.cancel_reason or _CANCELLED)
                yield from _by_revision(map(_event, answer.events))
        except grpc.RpcError as exc:
            if not self._stopped.is_set() and time.monotonic() < until:
                raise failure_of(exc, with_user=bool(self._client.conf.user)) from None
        finally:
            end.put(None)
            stream.cancel()
            self._stream = None

    def _questions(
        self,
        caller: GrpcEndpoint,
        first: Any,
        *,
        heard: threading.Event,
        end: queue.SimpleQueue[None],
        until: float,
    ) -> Iterator[Any]:
        """What is sent, by a thread of gRPC: the watch, then from time to time whether somebody is there."""
        yield first
        while True:
            try:
                end.get(timeout=min(ASK_S, max(0.0, until - time.monotonic())))
                return
            except queue.Empty:
                pass
            stream = self._stream
            if stream is not None and (not heard.is_set() or time.monotonic() >= until):
                self._unanswered = not heard.is_set()
                stream.cancel()
                return
            heard.clear()
            yield caller.progress_request()


_CANCELLED = "the watch was cancelled without a reason"


def _event(raw: Any) -> Event:
    kv = key_value(raw.kv)
    return Event(kv.key, kv.mod_revision, None if raw.type else kv)  # type: 0 PUT, 1 DELETE


def _by_revision(events: Iterable[Event]) -> Iterator[Batch]:
    """A watch that catches up gets many revisions in one answer, but each of them whole."""
    for revision, group in itertools.groupby(events, lambda event: event.revision):
        yield Batch(revision, tuple(group))
