"""A lab for the tests of faults and scenarios, brought up under a name of its own and taken down with everything."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

from netns_fixtures import needs
from pycni.lab.bringing_up import bring_up, take_down
from pycni.lab.checks import Verdict, check
from pycni.lab.parsing import parse_lab
from pycni.lab.progress import Progress
from pycni.lab.running import BASE, RunningLab
from pycni.lab.scenario import Expectation
from pycni.lab.scenario_run import wait_for

_numbers = itertools.count(1)

#: Two racks with a router between them: h1 and h2 in the first, h3 in the second; bridges on every host.
RACKS = """
underlay:
  rack1: {ipv4: 192.0.2.0/24, ipv6: "2001:db8:1::/64"}
  rack2: {ipv4: 198.51.100.0/24, ipv6: "2001:db8:2::/64"}
routers: {r1: {links: [rack1, rack2]}}
networks:
  blue: {ipv4: 10.88.0.0/24, ipv6: "fd00:88::/64"}
hosts:
  h[1-2]: {links: [rack1], agent: false, containers: {"c[1-2]": {}}}
  h3: {links: [rack2], agent: false, containers: {"c[1-2]": {}}}
"""


def fresh_name(what: str) -> str:
    """A lab's name that no other test run on this machine has."""
    return f"t-{what}-{os.getpid()}-{next(_numbers)}"


def address_of(lab: RunningLab, path: str, family: int = 4) -> str:
    """Of HOST/CONTAINER, without its length."""
    found = next(each for each in lab.containers if each.path == path)
    addresses = [text.partition("/")[0] for each in found.attachments for text in each.addresses]
    return next(text for text in addresses if (":" in text) == (family == 6))


@contextlib.contextmanager
def lab_of(text: str, what: str) -> Iterator[RunningLab]:
    """The lab of a file's *text*, up."""
    needs("root", "tool:ip", "tool:nft", "kernel:bridge", "kernel:veth", "python:yaml")
    name = fresh_name(what)
    want = parse_lab(text, f"{what}.yaml", default_name=name)
    try:
        bring_up(want, file=f"{what}.yaml", progress=Progress(quiet=True))
        yield RunningLab.load(name)
    finally:
        take_down(name)
        assert not os.path.exists(os.path.join(BASE, name))


def claim(kind: str, source: str = "*/*", target: str = "*/*", **more: object) -> Expectation:
    return Expectation(kind, 0, source=source, target=target, within_s=5.0, **more)  # type: ignore[arg-type]


def holds(lab: RunningLab, expected: Expectation) -> bool:
    """Whether it comes true within five seconds."""
    good, seen = wait_for(lab, expected)
    assert good, f"{expected.words}: {seen}"
    return good


def now(lab: RunningLab, expected: Expectation) -> Verdict:
    return check(lab, expected)
