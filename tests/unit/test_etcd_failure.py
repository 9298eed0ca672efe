"""What etcd's errors mean: try another member, or give up."""

from __future__ import annotations

import pytest

from pycni.etcd.client import LAST_TRY_S, LONGEST_PAUSE_S, PAUSE_S, SHORTEST_TRY_S, pause
from pycni.etcd.failure import Rejected, Unreachable, sort_out


@pytest.mark.parametrize(
    ("code", "text", "sent"),
    [
        (2, "context deadline exceeded", True),
        (2, "context canceled", True),
        (2, "etcdserver: leader changed", True),
        (2, "etcdserver: request timed out", True),
        (14, "etcdserver: no leader", True),
        (14, "failed to connect to all addresses", False),
        (14, "connection reset by peer", True),
        (4, "Deadline Exceeded", True),
        (1, "CANCELLED", True),
        (8, "etcdserver: too many requests", False),
    ],
)
def test_passing_failures(code: int, text: str, sent: bool) -> None:
    """A member that is busy, elects a leader or gives up inside gave no answer: the next one is asked, and whether the
    request may have been carried out is known."""
    failure = sort_out(code, text)
    assert isinstance(failure, Unreachable)
    assert failure.sent is sent


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (8, "etcdserver: mvcc: database space exceeded"),
        (7, "etcdserver: permission denied"),
        (5, "etcdserver: requested lease not found"),
        (3, "etcdserver: duplicate key given in txn request"),
        (11, "etcdserver: mvcc: required revision has been compacted"),
        (2, "something else"),
    ],
)
def test_refusals(code: int, text: str) -> None:
    """What every member would say again is an answer."""
    failure = sort_out(code, text)
    assert isinstance(failure, Rejected)
    assert (failure.code, failure.text) == (code, text)


@pytest.mark.parametrize(("patience_s", "most"), [(1.7, 7), (2.5, 10), (0.8, 5), (0.2, 3), (0.06, 1)])
def test_tries_of_what_is_refused_at_once(patience_s: float, most: int) -> None:
    """Soon at first, as for an election, then ever fewer, so that an outage costs next to nothing; and one more shortly
    before the time is over."""
    tries, left_s, wait_s = [0.0], patience_s, PAUSE_S
    while True:
        waited_s = pause(wait_s, left_s)
        assert 0 <= waited_s <= max(LONGEST_PAUSE_S, PAUSE_S + LAST_TRY_S)
        left_s, wait_s = left_s - waited_s, min(2 * wait_s, LONGEST_PAUSE_S)
        if left_s < SHORTEST_TRY_S:
            break
        tries.append(patience_s - left_s)
    assert len(tries) <= most
    assert tries[1:2] == pytest.approx([PAUSE_S] if most > 1 else [])
    assert patience_s - tries[-1] <= LAST_TRY_S + PAUSE_S + 1e-9
