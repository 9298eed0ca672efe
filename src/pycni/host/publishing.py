"""The operations of pycni.change.publishing carried out."""

from __future__ import annotations

import errno
from ipaddress import IPv6Network

from pycni.change import ops, publishing
from pycni.host import inet_messages, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pycni.change.ops import Op
    from pycni.host.apply import Kernel
    from pycni.host.rtnl import Netlink

LOOPBACK = IPv6Network("::1/128")
# More than that of the route by lo (0), so that what the host itself sends to ::1 goes on leaving by lo.
METRIC = 4096


def has_loopback_route(socket: Netlink, index: int) -> bool:
    """Whether ::1 is delivered when it comes in by link *index*."""
    table, kind = inet_messages.RT_TABLE_LOCAL, inet_messages.RTN_LOCAL
    found = socket.routes(oif=index, table=table, family=inet_messages.AF_INET6)
    return any(route.dst == LOOPBACK and route.kind == kind for route in found)


def _ensure_loopback_route(kernel: Kernel, op: publishing.EnsureLoopbackRoute) -> Op | None:
    index = kernel.link(ops.HOST, op.link).index
    route = inet_messages.new_route(
        LOOPBACK,
        oif=index,
        metric=METRIC,
        table=inet_messages.RT_TABLE_LOCAL,
        kind=inet_messages.RTN_LOCAL,
        prepend=True,  # beside those of other links
    )
    try:
        kernel.host.request(route)
    except FileExistsError:
        return None
    return publishing.RemoveLoopbackRoute(op.link)


def _remove_loopback_route(kernel: Kernel, op: publishing.RemoveLoopbackRoute) -> None:
    link = kernel.host.link(op.link)
    if link is None:
        return
    route = inet_messages.delete_route(
        LOOPBACK,
        oif=link.index,
        metric=METRIC,
        table=inet_messages.RT_TABLE_LOCAL,
        kind=inet_messages.RTN_LOCAL,
    )
    try:
        kernel.host.request(route)
    except OSError as failure:
        if failure.errno not in (errno.ESRCH, errno.ENODEV):
            raise


def _ensure_hairpin(kernel: Kernel, op: publishing.EnsureHairpin) -> Op | None:
    link = kernel.host.link(op.link)
    if link is None or link.hairpin in (None, op.on):
        return None
    kernel.host.request(messages.bridge_port(link.index, hairpin=op.on))
    return publishing.EnsureHairpin(op.link, not op.on)


ACTS: dict[type[Op], Any] = {
    publishing.EnsureLoopbackRoute: _ensure_loopback_route,
    publishing.RemoveLoopbackRoute: _remove_loopback_route,
    publishing.EnsureHairpin: _ensure_hairpin,
}
