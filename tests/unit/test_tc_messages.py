"""Requests of traffic control, read back by the functions that read the kernel's answers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.change.shaping import TokenBucket
from pycni.host import tc_messages
from pycni.host.netlink import HEADER, attributes
from pycni.host.tc_messages import Qdisc

UINT32 = 2**32 - 1
buckets = st.builds(TokenBucket, st.integers(1, 2**40), st.integers(1, UINT32), st.integers(0, UINT32))


def payload(message: bytes) -> bytes:
    size, *_ = HEADER.unpack_from(message)
    assert size == len(message)
    return message[HEADER.size :]


@given(bucket=buckets)
def test_a_token_bucket_says_rate_and_burst(bucket: TokenBucket) -> None:
    """A rate beyond 32 bits in an attribute of its own; a burst in bytes where its time would be cut short, or where
    its rounding to microseconds would take more than a tenth of it; else in time, as the reference gives it."""
    body = payload(tc_messages.new_tbf(7, bucket))
    qdisc = tc_messages.read_qdisc(body)
    ticks = tc_messages.burst_ticks(bucket)
    assert qdisc == Qdisc(7, "tbf", 0x10000, UINT32, bucket.rate, bucket.limit, min(ticks, UINT32))
    found = dict(attributes(body, tc_messages.TCMSG.size))
    options = dict(attributes(found[tc_messages.TCA_OPTIONS]))
    in_bytes = options.get(tc_messages.TCA_TBF_BURST)
    earned = ticks * 64 * bucket.rate // 1_000_000_000
    if in_bytes is None:
        assert ticks * 64 < 2**32
        assert 0.9 * bucket.burst <= earned + 1 <= bucket.burst + 1
    else:
        assert struct.unpack("=I", in_bytes)[0] == bucket.burst
        assert ticks * 64 >= 2**32 or earned <= 0.9 * bucket.burst


@given(index=st.integers(1, 2**31 - 1), to=st.integers(1, 2**31 - 1))
def test_a_redirection_leads_everything_to_one_link(index: int, to: int) -> None:
    """Of every protocol, whatever is in it."""
    body = payload(tc_messages.redirect_all(index, to))
    assert (tc_messages.index_of(body), tc_messages.read_redirection(body)) == (index, to)


def test_a_filter_that_takes_a_part_is_no_redirection_of_everything() -> None:
    """Nor is one for one protocol, or with another action."""
    body = payload(tc_messages.redirect_all(7, 9))
    protocol = bytearray(body)
    struct.pack_into("=I", protocol, 16, 1 << 16 | 0x0008)  # ETH_P_IP in network byte order
    assert tc_messages.read_redirection(bytes(protocol)) == 0
    masked = body.replace(struct.pack("=IIii", 0, 0, 0, 0), struct.pack("=IIii", 255, 0, 0, 0), 1)
    assert tc_messages.read_redirection(masked) in (0, 9)
    assert tc_messages.read_redirection(body.replace(b"mirred\0", b"police\0")) == 0
    assert tc_messages.read_redirection(body.replace(b"u32\0", b"bpf\0")) == 0
    assert tc_messages.read_redirection(body[: tc_messages.TCMSG.size]) == 0


@pytest.mark.parametrize("kind", ["ingress", "noqueue"])
def test_other_disciplines_have_no_rate(kind: str) -> None:
    """Kind, handle and parent are all that is read of them."""
    body = payload(tc_messages.new_ingress(7)).replace(b"ingress\0", kind.encode() + b"\0")
    qdisc = tc_messages.read_qdisc(body)
    assert (qdisc.kind, qdisc.handle, qdisc.parent, qdisc.rate) == (kind, 0xFFFF0000, 0xFFFFFFF1, 0)
