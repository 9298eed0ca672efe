"""One step of a trace, and the words that all of them share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pycni.cli.trace.facts import HostFacts, Packet
from pycni.cni.value import Value

OK, NOTE, MISSING = "ok", "note", "MISSING"
AGAIN = "`pycni del`, then `pycni add`: attach the container anew"


class Step(Value):
    """One thing that a packet needs on its way. where: the container or host; what: the thing; found: what there is.

    result: "ok"; "note", which may matter; "MISSING", which no packet passes, with what to do about it in *action*.
    """

    where: str
    what: str
    result: str
    found: str
    action: str = ""


class Place:
    """Makes the steps of one place."""

    def __init__(self, where: str) -> None:
        self.where = where

    def ok(self, what: str, found: str) -> Step:
        return Step(self.where, what, OK, found)

    def note(self, what: str, found: str, action: str = "") -> Step:
        return Step(self.where, what, NOTE, found, action)

    def missing(self, what: str, found: str, action: str) -> Step:
        return Step(self.where, what, MISSING, found, action)


def until_missing(steps: Iterable[Step]) -> Iterator[Step]:
    """*steps* up to the first that no packet passes, that one included: behind it nothing can be said."""
    for step in steps:
        yield step
        if step.result == MISSING:
            return


def first_missing(steps: Iterable[Step]) -> Step | None:
    return next((step for step in steps if step.result == MISSING), None)


def put_back(host: HostFacts) -> str:
    """What puts back a rule or a bridge that a container's ADD made."""
    if host.agent:
        return "`pycni reconcile`, or attach the container anew"
    return f"{AGAIN}; an agent would put it back, and none runs on this host: `pycni agent`"


def forwarding(here: Place, host: HostFacts, packet: Packet) -> Iterator[Step]:
    """Whether the host forwards packets of that family at all."""
    version = packet.target.version
    key = "net.ipv4.ip_forward" if version == 4 else "net.ipv6.conf.all.forwarding"
    if not host.forwards:
        yield here.missing("forwarding", f"IPv{version} forwarding is off", f"sysctl -w {key}=1")
    yield here.ok("forwarding", f"IPv{version} is on")
