"""What `pycni doctor` says of a network over several hosts, by what the kernel has."""

from __future__ import annotations

from typing import Any

import pytest

from pycni.cli.doctor.overlay import NetworkFacts, judge
from pycni.host.link_facts import Link
from pycni.host.vxlan import VxlanFacts
from pycni.plugins.overlay.site import Joined

JOINED = Joined(
    *("net", "l2", 7, 4789, "vxlan7", "ovl7", "eth0", "192.0.2.1", 1450, "n1"),
    connection="{}",
    prefix="/pycni",
)
DEVICE = VxlanFacts(20, "vxlan7", 7, 4789, "192.0.2.1", mtu=1450, up=True)
WHOLE = NetworkFacts(JOINED, DEVICE, Link(10, "ovl7"), Link(2, "eth0", mtu=1500), guarded=True, followed=True)


def test_nothing_to_say() -> None:
    assert list(judge(WHOLE)) == []


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({"followed": False}, "WARN", "no agent follows"),
        ({"guarded": False}, "WARN", "no guard"),
        ({"device": None}, "FAIL", "vxlan7 is gone"),
        ({"device": DEVICE.replace(up=False)}, "FAIL", "vxlan7 is down"),
        ({"device": DEVICE.replace(local="192.0.2.9")}, "FAIL", "address 192.0.2.9"),
        ({"bridge": None}, "FAIL", "ovl7 is gone"),
        ({"uplink": None}, "FAIL", "192.0.2.1 is on no link"),
        ({"uplink": Link(2, "eth0", mtu=1499)}, "FAIL", "more than the 1499 of eth0"),
    ],
)
def test_each_fault_is_one_finding(changes: dict[str, Any], level: str, said: str) -> None:
    """What is wrong is said once, with what it means and what to do."""
    (finding,) = judge(WHOLE.replace(**changes))
    assert finding.level == level and said in finding.found
    assert finding.meaning and finding.action


@pytest.mark.parametrize(
    ("subnet", "uplink", "action"),
    [
        ("10.1.0.0/16", 1329, "ip link set vxlan7 mtu 1279"),
        ("fd00:1::/64", 1330, "ip link set vxlan7 mtu 1280"),
        ("fd00:1::/64", 1329, "raise the MTU of eth0"),
    ],
)
def test_a_remedy_for_the_mtu_leaves_ipv6_alone(subnet: str, uplink: int, action: str) -> None:
    """Below 1280 the kernel would take the addresses away."""
    joined = JOINED.replace(subnets=(subnet,))
    (finding,) = judge(WHOLE.replace(joined=joined, uplink=Link(2, "eth0", mtu=uplink)))
    assert finding.action == action
