"""What etcd's errors mean: try another member, or give up."""

from __future__ import annotations

import pytest

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
