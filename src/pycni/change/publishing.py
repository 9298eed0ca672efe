"""Operations that let clients on the host and in the container itself reach published ports (see ops)."""

from __future__ import annotations

from pycni.change.ops import Op


class EnsureLoopbackRoute(Op):
    """What comes in by a link of the host with ::1 for its target is delivered: answers to the host's own clients,
    whose translation is taken back only after routing. Opens nothing, since IPv6 drops packets that arrive with ::1 in
    them (ip6_rcv_core)."""

    link: str


class RemoveLoopbackRoute(Op):
    """Takes back EnsureLoopbackRoute; without the link, or the route, there is nothing to do."""

    link: str


class EnsureHairpin(Op):
    """Whether a bridge port may get back what came in by it."""

    link: str
    on: bool = True
