"""The client: one request goes to one endpoint after the other until one answers or the time is over.

Which makes "no answer" ambiguous: the endpoint that was given up may have carried the request out, or may yet. So every
transaction sent here must be one that may arrive twice: a guard that its own success makes false, and an operation in
the other branch that reads back who it was. `pycni.etcd.claims` builds them.
"""

from __future__ import annotations

import time

from pycni.cni.errors import CniError, Code
from pycni.etcd.failure import (
    AUTH_FAILED,
    NO_USER,
    PERMISSION_DENIED,
    TOKEN_ENDED,
    UNAUTHENTICATED,
    NoGateway,
    Rejected,
    Unreachable,
)
from pycni.etcd.requests import PAGE, Answer, end_of, range_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol, Self

    from pycni.etcd.conf import Endpoint, EtcdConf
    from pycni.etcd.requests import KeyValue, Request

    class Caller(Protocol):
        """One endpoint, by whatever transport."""

        endpoint: Endpoint

        def call(self, method: str, body: Request, timeout_s: float) -> Answer: ...

        def authenticate(self, timeout_s: float) -> None: ...

        def close(self) -> None: ...


TRY_S = 0.8  # for one endpoint: an answer takes 1 to 20 ms, an election about a second
SHORTEST_TRY_S = 0.05  # below that a try would only replace the reason by "timed out"
PAUSE_S, LONGEST_PAUSE_S = 0.05, 0.4  # when all endpoints refused at once, as in an election; twice as long each time
LAST_TRY_S = 0.1  # before the time is over


class Client:
    """See the module. Raises CniError only: 11 (`Silent`) when no endpoint answers in time, 7 for what etcd refuses: a
    wrong password (`Denied`), a missing permission, a request too large. Thread-safe where its transport is.

    patience_s: how long a request may take over all endpoints, where it is not given as *timeout_s*.
    """

    patience_s = 1.7  # so that a call of an executable answers within 2 s

    def __init__(
        self,
        conf: EtcdConf,
        callers: Sequence[Caller],
        first: int = 0,
        others: Callable[[], Sequence[Caller]] | None = None,
    ) -> None:
        """*others* makes the callers to go on with where the first ones turn out to have no gateway."""
        self.conf = conf
        self._others = others
        self.callers = tuple(callers)
        self.current = first  # the endpoint that answered last
        self.reasons: dict[Endpoint, str] = {}  # of the last request that had to try several

    @property
    def caller(self) -> Caller:
        """The endpoint that answered last."""
        callers = self.callers
        return callers[self.current % len(callers)]

    def turn(self) -> None:
        """That endpoint gave no answer: the next one is to be asked."""
        self.current = (self.current + 1) % len(self.callers)

    def move(self, other: Client) -> None:
        """From now on ask as *other* does: the members or the password of the cluster have changed. For any thread."""
        self.conf, self.callers = other.conf, other.callers

    def txn(self, request: Request, timeout_s: float = 0.0) -> Answer:
        """A transaction of `requests.txn`; it may be carried out twice, see the module."""
        return self.call("txn", request, timeout_s)

    def get(self, key: str, timeout_s: float = 0.0) -> KeyValue | None:
        """One key, None where it is not there."""
        found = self.call("range", {"key": key.encode()}, timeout_s).found
        return found[0] if found else None

    def read(self, prefix: str, *, end: str = "", keys_only: bool = False, page_s: float = 0.0) -> Answer:
        """All that is below *prefix*, in order and at one revision, read in pages of which each may take *page_s*.

        With *end* it is a range: from *prefix* on to the last key before *end*.
        """
        first, end, revision = prefix, end or end_of(prefix), 0
        found: list[KeyValue] = []
        while True:
            body = range_request(first, end, keys_only=keys_only, limit=PAGE, revision=revision)
            page = self.call("range", body, page_s)
            revision = revision or page.revision
            found += page.found
            if len(page.found) < PAGE:
                return Answer(revision=revision, found=tuple(found), count=len(found))
            first = f"{page.found[-1].key}\0"

    def grant(self, ttl_s: int, timeout_s: float = 0.0) -> int:
        """A new lease; its id."""
        return self.call("grant", {"TTL": ttl_s}, timeout_s).lease

    def revoke(self, lease: int, timeout_s: float = 0.0) -> None:
        """End *lease*: all its keys go in one revision. One that has ended is no failure."""
        try:
            self.call("revoke", {"ID": lease}, timeout_s)
        except CniError as failure:
            if "lease not found" not in failure.msg:
                raise

    def keep_alive(self, lease: int, timeout_s: float = 0.0) -> int:
        """Seconds that *lease* lasts from now, 0 where it has ended."""
        return self.call("keepalive", {"ID": lease}, timeout_s).ttl_s

    def statuses(self) -> list[tuple[Endpoint, Answer | str]]:
        """Each endpoint's own status (version, revision), or why there is none."""
        found: list[tuple[Endpoint, Answer | str]] = []
        for caller in self.callers:
            try:
                found.append((caller.endpoint, _authenticated(caller, "status", {}, TRY_S)))
            except (Unreachable, Rejected, NoGateway) as failure:
                found.append((caller.endpoint, str(failure.args[-1])))
        return found

    def call(self, method: str, body: Request, timeout_s: float = 0.0) -> Answer:
        """The answer of the first endpoint that has one; *method* is of `requests.METHODS`."""
        end = time.monotonic() + (timeout_s or self.patience_s)
        reasons: dict[Endpoint, str] = {}
        tries, sent, wait_s = 0, False, PAUSE_S
        while True:
            caller = self.caller
            try:
                answer = _authenticated(caller, method, body, min(TRY_S, end - time.monotonic()))
                self.reasons = reasons
                return answer
            except NoGateway as failure:
                if self._others is None:
                    raise CniError(Code.TRY_AGAIN, f"etcd at {caller.endpoint}: {failure}") from None
                self.close()
                self.callers, self._others = tuple(self._others()), None
                continue
            except Rejected as refusal:
                raise _refused(caller.endpoint, refusal) from None
            except Unreachable as failure:
                reasons[caller.endpoint] = str(failure)
                sent |= failure.sent
            tries += 1
            self.turn()
            if tries % len(self.callers) == 0:
                time.sleep(max(0.0, pause(wait_s, end - time.monotonic())))
                wait_s = min(2 * wait_s, LONGEST_PAUSE_S)
            if end - time.monotonic() < SHORTEST_TRY_S:
                self.reasons = reasons
                raise Silent(reasons, sent=sent)

    def close(self) -> None:
        for caller in self.callers:
            caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pause(wanted_s: float, left_s: float) -> float:
    """How long to wait before the next try, seconds: *wanted_s*, but so that one is made shortly before *left_s* are
    over; what is *left_s* where there is no time for another. Pure."""
    if wanted_s + LAST_TRY_S <= left_s:
        return wanted_s
    return left_s - LAST_TRY_S if left_s >= LAST_TRY_S + PAUSE_S else left_s


class Unavailable(CniError):
    """Nothing is to be heard of etcd now, with this configuration: what it is owed is to be remembered."""


class Silent(Unavailable):
    """CniError 11: no endpoint gave an answer. *sent*: the request may have been carried out, or may yet be."""

    def __init__(self, reasons: dict[Endpoint, str], *, sent: bool) -> None:
        told = "; ".join(f"{endpoint}: {reason}" for endpoint, reason in reasons.items())
        super().__init__(Code.TRY_AGAIN, f"etcd does not answer: {told}", "the next call tries again")
        self.sent = sent


class Denied(Unavailable):
    """CniError 7: etcd does not believe who we are. The password is another by now, say."""


def _authenticated(caller: Caller, method: str, body: Request, timeout_s: float) -> Answer:
    """The answer; with a new token if the one in use has ended."""
    if timeout_s <= 0:
        raise Unreachable("no time left")
    try:
        return caller.call(method, body, timeout_s)
    except Rejected as refusal:
        if refusal.code != UNAUTHENTICATED and TOKEN_ENDED not in refusal.text:
            raise
    caller.authenticate(timeout_s)
    return caller.call(method, body, timeout_s)


def _refused(endpoint: Endpoint, refusal: Rejected) -> CniError:
    text = f"etcd at {endpoint} refuses: {refusal.text}"
    if refusal.code == PERMISSION_DENIED:
        return CniError(Code.INVALID_CONFIG, text, "the roles that a host needs are in docs/etcd-schema.md")
    if "space exceeded" in refusal.text:
        return CniError(Code.TRY_AGAIN, text, "compact and defragment it, then disarm its alarm")
    if refusal.code == UNAUTHENTICATED or any(one in refusal.text for one in (AUTH_FAILED, TOKEN_ENDED, NO_USER)):
        return Denied(Code.INVALID_CONFIG, text, "see user and password of the `etcd` object")
    return CniError(Code.INVALID_CONFIG, text)
