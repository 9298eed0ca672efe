"""What others changed of an attachment's links, by what the kernel has."""

from __future__ import annotations

import pytest

from pycni.agent.changed import changes
from pycni.cni.names import Attachment
from pycni.host.link_facts import Link
from pycni.host.messages import IFF_UP
from pycni.store import Record

BRIDGE = Link(10, "br", "bridge", flags=IFF_UP)
PORT = Link(11, "veth1", "veth", flags=IFF_UP, master=10)
SECOND = Link(12, "veth2", "veth", flags=IFF_UP, master=20)  # on the gateway bridge of an overlay
RECORD = Record(Attachment("net", "c1", "eth0"), "overlay", bridge="br", host_links=("veth1", "veth2"))


def said(*links: Link, record: Record = RECORD) -> list[tuple[str, str]]:
    return [(each.state, str(each)) for each in changes(record, {link.name: link for link in links})]


def test_nothing_to_say() -> None:
    """The second link is on a bridge that the record does not name; a routed pair is on none."""
    assert said(BRIDGE, PORT, SECOND) == []
    for bridge in ("", "veth1"):  # the latter is what portmap records of it
        assert said(PORT.replace(master=0), record=RECORD.replace(bridge=bridge, host_links=("veth1",))) == []


@pytest.mark.parametrize(
    ("links", "state", "words"),
    [
        ((BRIDGE, SECOND), "link gone", "host link veth1 is gone"),
        ((BRIDGE, PORT), "link gone", "host link veth2 is gone"),
        ((BRIDGE, PORT.replace(flags=0), SECOND), "link down", "host link veth1 is down"),
        ((BRIDGE, PORT, SECOND.replace(flags=0)), "link down", "host link veth2 is down"),
        ((BRIDGE, PORT.replace(master=0), SECOND), "off bridge", "host link veth1 is not on bridge br"),
        ((BRIDGE, PORT.replace(master=20), SECOND), "off bridge", "host link veth1 is not on bridge br"),
        ((BRIDGE.replace(flags=0), PORT, SECOND), "bridge down", "bridge br is down"),
        ((PORT.replace(master=0), SECOND), "bridge gone", "bridge br is gone"),
    ],
)
def test_each_change_is_said_once(links: tuple[Link, ...], state: str, words: str) -> None:
    assert said(*links) == [(state, words)]


def test_the_worst_comes_first() -> None:
    """The state of an attachment is the change that takes most to mend."""
    down = BRIDGE.replace(flags=0), PORT.replace(flags=0, master=0)
    assert [state for state, _ in said(*down)] == ["link gone", "off bridge", "bridge down", "link down"]
