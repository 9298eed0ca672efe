"""What CHECK, and who cleans up after an ADD, compare: the limits asked for against what the kernel has. Pure."""

from __future__ import annotations

from pycni.cni.value import Value
from pycni.plugins.bandwidth.conf import BandwidthConf
from pycni.plugins.bandwidth.plan import bucket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.host.link_facts import Link
    from pycni.host.tc_messages import Qdisc
    from pycni.plugins.bandwidth.conf import Limit

NS_A_TICK = 64  # see pycni.host.tc_messages, which this pure file cannot ask
ROUNDING_TICKS = 64  # microseconds of the one, the kernel's division of the other


class CheckFacts(Value):
    """What the kernel has; None or () for what is missing."""

    host: Link  # the host's end of the pair
    host_qdiscs: tuple[Qdisc, ...]
    redirected: tuple[int, ...]  # of each filter on what comes in there the link to which it leads all, or 0
    ifb_name: str
    ifb: Link | None
    ifb_qdiscs: tuple[Qdisc, ...]


def differences(conf: BandwidthConf, facts: CheckFacts) -> tuple[str, ...]:
    """Everything that is not as ADD left it, in words."""
    wrong: list[str] = []
    if conf.ingress is not None:
        wrong += _limit(conf.ingress, facts.host, facts.host.mtu, facts.host_qdiscs)
    if conf.egress is not None:
        if facts.ifb is None:
            return (*wrong, f"device {facts.ifb_name} is missing")
        if not facts.ifb.up:
            wrong.append(f"device {facts.ifb_name} is down: it drops what is led there")
        wrong += _limit(conf.egress, facts.ifb, facts.ifb.mtu, facts.ifb_qdiscs)
        if facts.ifb.index not in facts.redirected:
            wrong.append(f"what comes in by {facts.host.name} is not led through {facts.ifb_name}")
    return tuple(wrong)


def begun(conf: BandwidthConf, facts: CheckFacts) -> BandwidthConf:
    """What of *conf* an ADD that did not end has done to the host's end: a discipline that is not like its own was
    there before. *facts*: with the attachment's own device."""
    limited = conf.ingress is not None and not _limit(conf.ingress, facts.host, facts.host.mtu, facts.host_qdiscs)
    # Its device comes first, its filter last: killed in between, it leaves room for filters.
    led = facts.ifb is not None and (not facts.redirected or facts.ifb.index in facts.redirected)
    return BandwidthConf(conf.ingress if limited else None, conf.egress if led else None)


def _limit(limit: Limit, link: Link, mtu: int, qdiscs: tuple[Qdisc, ...]) -> list[str]:
    found = next((qdisc for qdisc in qdiscs if qdisc.kind == "tbf"), None)
    if found is None:
        return [f"{link.name} has no rate limit"]
    wanted = bucket(limit, mtu)
    wrong = []
    if found.rate != wanted.rate:
        wrong.append(f"{link.name} is limited to {8 * found.rate} bits a second instead of {8 * wanted.rate}")
    elif not _same_burst(wanted.burst, wanted.rate, found.buffer):
        wrong.append(f"{link.name} does not have a burst of {8 * wanted.burst} bits")
    return wrong


def _same_burst(burst: int, rate: int, buffer: int) -> bool:
    """The kernel tells the time in which the burst is earned, the lowest 32 bits of its ticks."""
    expected = burst * 1_000_000_000 // rate // NS_A_TICK
    distance = (buffer - expected) % 2**32
    return min(distance, 2**32 - distance) <= expected // 1000 + ROUNDING_TICKS
