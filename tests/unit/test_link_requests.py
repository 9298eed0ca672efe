"""Which operations of a plan are sent together."""

from __future__ import annotations

import itertools
from ipaddress import ip_interface

from hypothesis import given
from hypothesis import strategies as st

from pycni.change import ops
from pycni.cni.addresses import parse_cidr
from pycni.cni.result import Route
from pycni.host.link_requests import KINDS, grouped

WHERE = st.sampled_from([ops.HOST, ops.CONTAINER])
REQUESTS = st.one_of(
    st.builds(ops.SetUp, WHERE, st.just("eth0"), st.booleans()),
    st.builds(lambda where: ops.AddAddress("eth0", ip_interface("10.1.0.5/24"), where=where), WHERE),
    st.builds(lambda where: ops.AddRoute("eth0", Route(dst=parse_cidr("0.0.0.0/0").network), where=where), WHERE),
)
OTHERS = st.sampled_from([ops.AwaitPort("veth1"), ops.SetSysctl(ops.CONTAINER, "net/x", "1"), ops.DeleteLink("veth1")])


@given(st.lists(st.one_of(REQUESTS, OTHERS), max_size=12))
def test_every_operation_once_in_order(plan: list[ops.Op]) -> None:
    """What is sent together is of one namespace; neighbours that could be are; everything else stands alone."""
    groups = list(grouped(plan))
    assert [op for group in groups for op in group] == plan
    for group in groups:
        assert len(group) == 1 or len({op.where for op in group if isinstance(op, KINDS)}) == 1
        assert len(group) == 1 or all(isinstance(op, KINDS) for op in group)
    for before, after in itertools.pairwise(groups):
        last, first = before[-1], after[0]
        assert not (isinstance(last, KINDS) and isinstance(first, KINDS) and last.where == first.where)
