"""What a tunnel becomes when its uplink is another, and who was this host before."""

from __future__ import annotations

import pytest

from pycni.agent.standing import is_former
from pycni.agent.uplink import Uplink, new_tunnel
from pycni.etcd.records import Node
from pycni.plugins.overlay.site import Joined
from pycni.store.boot import boot_id, own_process

JOINED = Joined(
    network="blue",
    mode="l2",
    vni=5000,
    port=4789,
    vxlan="vxlan5000",
    bridge="ovl5000",
    uplink="eth0",
    local="192.0.2.1",
    mtu=1450,
    node="me",
    connection="{}",
    prefix="/pycni",
    uplink_mtu=1500,
)


def link(mtu: int, *addresses: str) -> Uplink:
    return Uplink(2, mtu, addresses)


BEFORE = link(1500, "192.0.2.1")


@pytest.mark.parametrize(
    ("addresses", "local"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["192.0.2.9", "192.0.2.1"], "192.0.2.1"),
        (["2001:db8::1", "192.0.2.9", "192.0.2.10"], "192.0.2.9"),
        (["2001:db8::1"], "192.0.2.1"),
        ([], "192.0.2.1"),
    ],
)
def test_address(addresses: list[str], local: str) -> None:
    """The tunnel's address stays as long as it is there, or there is no other of its family; else the first."""
    assert new_tunnel(JOINED, BEFORE, link(1500, *addresses), lambda: 0) == JOINED.replace(local=local)


@pytest.mark.parametrize(
    ("before", "now", "others", "uplink_mtu", "mtu"),
    [
        (1500, 1500, 0, 1500, 1450),
        (1500, 1400, 0, 1400, 1350),
        (1500, 9000, 0, 9000, 8950),
        (1500, 9000, 1500, 9000, 1450),
        (1500, 1400, 9000, 1400, 1350),
        (None, 9000, 0, 1500, 1450),  # a smaller one than the link's was given to it when it joined
        (None, 1400, 0, 1400, 1350),  # but not a larger
    ],
)
def test_mtu(before: int | None, now: int, others: int, uplink_mtu: int, mtu: int) -> None:
    """The uplink's, or the smallest of the other hosts', less the overhead, whenever the uplink's changes."""
    former = None if before is None else link(before, "192.0.2.1")
    found = new_tunnel(JOINED, former, link(now, "192.0.2.1"), lambda: others)
    assert (found.uplink_mtu, found.mtu) == (uplink_mtu, mtu)


@pytest.mark.parametrize(
    ("subnets", "now", "mtu"),
    [
        (("10.1.0.0/16", "fd00:1::/64"), 1330, 1280),
        (("10.1.0.0/16", "fd00:1::/64"), 1329, 1450),
        (("10.1.0.0/16",), 1329, 1279),
        (("10.1.0.0/16",), 118, 68),
        (("10.1.0.0/16",), 117, 1450),
    ],
)
def test_too_little_is_not_followed(subnets: tuple[str, ...], now: int, mtu: int) -> None:
    """Below what IPv6, or IPv4, needs the kernel would take the addresses away: the MTU stays until there is more."""
    dual = JOINED.replace(subnets=subnets)
    found = new_tunnel(dual, BEFORE, link(now, "192.0.2.1"), lambda: 0)
    assert (found.uplink_mtu, found.mtu) == (now, mtu)
    assert new_tunnel(found, link(now), link(1500, "192.0.2.1"), lambda: 0).mtu == 1450


def test_fixed_mtu() -> None:
    """One that is configured stays, as long as the uplink takes it."""
    fixed = JOINED.replace(mtu=1300, fixed_mtu=True)
    assert new_tunnel(fixed, BEFORE, link(9000, "192.0.2.1"), lambda: 0).mtu == 1300
    assert new_tunnel(fixed, BEFORE, link(1320, "192.0.2.1"), lambda: 0).mtu == 1270


def test_overhead_of_ipv6() -> None:
    """Its header is 20 bytes longer."""
    six = JOINED.replace(local="2001:db8::1", mtu=1430)
    assert new_tunnel(six, link(1500, "2001:db8::1"), link(1400, "2001:db8::1"), lambda: 0).mtu == 1330


def test_former_process() -> None:
    """A record of this boot is a former one's if its process has ended, one of another boot if it has this address."""
    pid, started = own_process()
    mine = Node(name="a", boot=boot_id(), pid=pid, started=started, vtep4="192.0.2.1")
    assert not is_former(mine, mine.replace(vtep4=""))
    assert is_former(mine, mine.replace(started=started + 1))
    assert is_former(mine, mine.replace(boot="other"))
    assert not is_former(mine, mine.replace(boot="other", vtep4="192.0.2.2"))
    assert not is_former(mine.replace(vtep4=""), mine.replace(boot="other", vtep4=""))
