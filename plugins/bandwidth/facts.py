"""Reads what the kernel has of a container's limits: for CHECK, and for who cleans up after an ADD that was killed."""

from __future__ import annotations

from pycni.host import traffic_control
from pycni.plugins.bandwidth.compare import CheckFacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.host import rtnl
    from pycni.host.link_facts import Link


def read_facts(host: rtnl.Netlink, link: Link, ifb_name: str, ifb: Link | None) -> CheckFacts:
    """Of *link*, the host's end of the pair, and *ifb*, the device with that name where it is there."""
    found = traffic_control.qdiscs(host, link.index, *([ifb.index] if ifb else ()))
    return CheckFacts(
        host=link,
        host_qdiscs=found[link.index],
        redirected=traffic_control.redirections(host, link.index),
        ifb_name=ifb_name,
        ifb=ifb,
        ifb_qdiscs=found[ifb.index] if ifb else (),
    )
