"""Operations that are a request to rtnetlink and nothing else: neighbours in a plan are sent together. Pure.

They have no inverse: what they do goes with the attachment's links.
"""

from __future__ import annotations

from pycni.change.ops import AddAddress, AddRoute, SetUp
from pycni.host import inet_messages, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycni.change.ops import Op

    LinkRequest = AddAddress | SetUp | AddRoute

KINDS = AddAddress, SetUp, AddRoute


def grouped(plan: Iterable[Op]) -> Iterator[list[Op]]:
    """The operations of *plan* in order, one by one, but neighbours of KINDS in one namespace together."""
    group: list[Op] = []
    before = ""
    for op in plan:
        where = op.where if isinstance(op, KINDS) else ""
        if group and (not where or where != before):
            yield group
            group = []
        group.append(op)
        before = where
    if group:
        yield group


def request_of(op: LinkRequest, link: int | str) -> bytes:
    """The messages of *op*; *link* is the index of its link, for SetUp also the name."""
    if isinstance(op, SetUp):
        # Up first: what arp_notify announces in coming up is a broadcast, 6 ms next to 1000 ports.
        notify = messages.set_link(link, arp_notify=True) if op.arp_notify else b""
        return messages.set_link(link, up=True) + notify
    assert isinstance(link, int), "addresses and routes are of an index"
    if isinstance(op, AddAddress):
        return inet_messages.new_address(link, op.address, nodad=not op.dad, prefix_route=op.on_link)
    route = op.route
    return inet_messages.new_route(
        route.dst,
        gw=route.gw,
        oif=link,
        metric=route.priority,
        table=route.table if route.table is not None else inet_messages.RT_TABLE_MAIN,
        scope=route.scope,
        mtu=route.mtu,
        advmss=route.advmss,
        src=op.src,
        # A container on two networks has two default routes; the newest is used, as with the reference.
        prepend=True,
    )
