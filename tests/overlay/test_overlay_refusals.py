"""What an overlay network cannot be: each refusal has its code, names what is wrong, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.kernel.bridge_lab import words
from tests.overlay.overlay_lab import Conf, OverlayLab

OUT = {"subnet": "172.30.0.0/24"}
OUTSIDE_GATEWAY = {"type": "pycni-ipam", "subnet": "10.4.0.0/16", "gateway": "10.2.0.1"}


def test_refusals(overlay: Callable[..., OverlayLab]) -> None:
    """Subnets and VNIs of other networks, another configuration than that of the other hosts, an MTU that does not fit,
    links and devices of others, encryption, foreign IPAM plugins, one name in two clusters; and nothing is left."""
    lab = overlay()
    one, two = lab.hosts
    conf = lab.conf(vni=70)
    lab.settle(lab.conf(name="mtu", number=8, mtu=1300))
    _, result = lab.add(two, "far", conf)
    one.ip("link", "add", "ovl71", "type", "bridge")
    one.ip("link", "add", "alien", "type", "vxlan", "id", "72", "dstport", "4789", "local", lab.segment.address(one))
    other = lab.conf(name="other", number=3, vni=73)
    lab.add(one, "mate", other)
    box = one.container("box")
    before = lab.traces()
    far = {**lab.connection(), "prefix": "/pycni/elsewhere"}
    for code, said, asked in (
        (102, "overlaps with 10.1.0.0/16 of network net", lab.conf(name="two")),
        (102, "VNI 70 is taken by network net", lab.conf(name="two", number=2, vni=70)),
        (7, "mode routed here, l2 there", lab.conf("routed", vni=70)),
        (7, "port 4790 here, 4789 there", lab.conf(vni=70, port=4790)),
        (7, "VNI 71 here, 70 there", lab.conf(vni=71)),
        (7, "subnets 10.1.0.0/16 here, 10.1.0.0/16, fd00:1::/64 there", lab.conf(vni=70, families=(4,))),
        (7, "mtu is 1460: eth0 has 1500, of which the tunnel takes 50", lab.conf(vni=70, mtu=1460)),
        (7, "link ovl71 exists", lab.conf(name="two", number=2, vni=71)),
        (102, "VNI 72 of network two is another tunnel's on this host", lab.conf(name="two", number=2, vni=72)),
        (7, "nothing is sent in clear text instead", lab.conf(encrypted=True)),
        (7, "other hosts learn of an address from etcd", lab.conf(vni=70, ipam={"type": "static"})),
        (7, "endpoints is missing", lab.conf(etcd=None)),
        (7, "interface nowhere does not exist", lab.conf(vni=70, interface="nowhere")),
        (7, "no link of this host has the address 192.0.2.99", lab.conf(vni=70, local="192.0.2.99")),
        (7, "two ways out", lab.conf(vni=70, gatewayBridge={"subnet": "172.30.0.0/24"}, isDefaultGateway=True)),
        (7, "gatewayBridge.subnet is missing", lab.conf(vni=70, gatewayBridge={})),
        (7, "the bridge of the network itself", lab.conf(bridge="zz", gatewayBridge={**OUT, "bridge": "zz"})),
        (7, "link ovl73 exists and is not network ovl73's", lab.conf(vni=70, gatewayBridge={**OUT, "bridge": "ovl73"})),
        (7, "overlaps with 10.1.0.0/16 of network net", lab.conf(vni=70, gatewayBridge={"subnet": "10.1.9.0/24"})),
        (7, "contains 192.0.2.1, from which", lab.conf(vni=70, gatewayBridge={"subnet": "192.0.2.0/24"})),
        (
            7,
            "contains 192.0.2.1, from which",
            lab.conf(name="n", ipam={"type": "pycni-ipam", "subnet": "192.0.2.0/24"}),
        ),
        (7, "is of a network of containers", lab.conf(vni=70, interface="ovl73")),
        (7, "gateway 10.2.0.1 is outside of 10.4.0.0/16", lab.conf(name="o", ipam=OUTSIDE_GATEWAY, number=1, vni=75)),
        (7, "at most 200", lab.conf(name="n" * 201)),
        (7, "blocks are for mode routed only", lab.conf(vni=70, blocks={})),
        (7, "vni is missing", lab.conf("multicast", etcd=None, group="239.1.1.1")),
        (7, "not one of l2, routed, multicast", lab.conf("flat")),
        (7, "the tunnels of network net end at", lab.conf(vni=70, local=lab.segment.address(one, 6))),
    ):
        error = lab.refused(one, box, asked)
        assert error["code"] == code, (said, error)
        assert said in words(error), (said, error)
    assert lab.traces() == before
    lab.add(one, "box", conf)
    error = lab.refused(one, one.container("second"), lab.conf(number=5, etcd=far))
    assert "already" in words(error), error
    assert result["interfaces"][0]["name"] == "ovl70"


@pytest.mark.parametrize("mode", ["l2", "routed"])
def test_a_changed_configuration_is_taken_when_nobody_is_left(overlay: Callable[..., OverlayLab], mode: str) -> None:
    """While a container of the network is anywhere the old configuration counts; then the new one, on all hosts."""
    lab = overlay()
    one, two = lab.hosts
    old, new = lab.conf(mode), lab.conf(number=6, vni=66)
    far, _ = lab.add(two, "far", old)
    error = lab.refused(one, one.container("first"), new)
    assert "VNI 66 here" in words(error)
    lab.delete(two, far, old)
    _, result = lab.add(one, "first", new)
    assert result["interfaces"][3]["name"] == "vxlan66"
    assert addresses(result)[0].startswith("10.6.")
    lab.add(two, "far", new)
    lab.delete_all(new)
    assert lab.devices(one) == lab.devices(two) == []


def addresses(result: Conf) -> list[str]:
    return [ip["address"] for ip in result["ips"]]
