"""The second interface: out of the host by a bridge of its own, apart from every other container."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netns_fixtures import Outside, can_ping
from tests.kernel.bridge_lab import address_of
from tests.overlay.overlay_lab import Conf, OverlayLab, query

GATEWAY = {"subnet": "172.30.0.0/24", "ranges": [{"subnet": "fd30::/64"}]}


def second_end(result: Conf) -> list[str]:
    """The addresses of the second interface."""
    return [ip["address"].partition("/")[0] for ip in result["ips"] if ip["interface"] == 6]


@pytest.mark.parametrize("mode", ["l2", "routed"])
def test_gateway_bridge(overlay: Callable[..., OverlayLab], make_outside: Callable[..., Outside], mode: str) -> None:
    """Two interfaces, both in the result: the overlay between the hosts, the default route and MASQUERADE by the other.
    Containers of one or of two networks do not reach each other there. CHECK is content; DEL gives the second address
    back, and the bridge goes with the last container on it."""
    lab = overlay()
    one, two = lab.hosts
    world = make_outside(one)
    conf = lab.conf(mode, gatewayBridge=GATEWAY, interface="eth0")
    other = lab.conf(mode, name="other", number=2, gatewayBridge={**GATEWAY, "ifname": "out0"}, interface="eth0")
    before = lab.settle(conf)
    _, of_far = lab.add(two, "far", conf)
    first, of_first = lab.add(one, "first", conf)
    lab.add(two, "last", conf)
    alien, of_alien = lab.add(one, "alien", other)
    _, of_mate = lab.add(one, "mate", conf)
    lab.ping(first, of_far)
    lab.ping(first, of_mate)
    names = [link["name"] for link in of_first["interfaces"]]
    assert names[2:5] + names[6:] == ["eth0", "vxlan" + names[0].removeprefix("ovl"), "pycni-gw", "gw-eth0"]
    assert "out0" in alien.links()
    for box in (first, alien):
        for family in (4, 6):
            assert world.seen_from(box, family).address == world.host_address(family)
    for result in (of_mate, of_alien):
        for address in second_end(result):
            assert not can_ping(first, address, deadline_s=0.3)
    assert not can_ping(first, address_of(of_alien, 4), deadline_s=0.3)
    assert lab.check(one, first, conf, of_first).ok
    first.ip("addr", "del", f"{second_end(of_first)[0]}/24", "dev", "gw-eth0")
    said = lab.check(one, first, conf, of_first)
    assert said.error_code == 106
    assert second_end(of_first)[0] in said.stdout
    lab.delete(one, alien, other)
    one.containers.pop("alien").delete()
    assert "pycni-gw" in one.links()
    lab.delete_all(conf)
    assert "pycni-gw" not in one.links()
    assert query(one, "SELECT count(*) FROM leases WHERE released IS NULL") == [(0,)]
    assert lab.traces() == before
