"""What an ADD of the overlay plugin decides, as plans of operations, and what CHECK finds to be different."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pycni.change import ops, tunnels
from pycni.cni.conf import parse_conf
from pycni.cni.env import Call
from pycni.cni.names import Attachment, host_link_name
from pycni.cni.result import parse_result
from pycni.firewall.iptables_text import isolation_units
from pycni.firewall.rules import NetworkRules, shared_elements
from pycni.plugins.overlay import plan
from pycni.plugins.overlay.conf import OverlayConf, with_etcd
from pycni.plugins.overlay.site import Joined, overhead

ATTACHMENT = Attachment("net", "c1", "eth0")
LEASE = {
    "cniVersion": "1.0.0",
    "ips": [{"address": "10.1.0.69/26", "gateway": "10.1.0.65"}, {"address": "fd00::5/122", "gateway": "fd00::1"}],
    "routes": [{"dst": "10.9.0.0/16"}],
}
OUTSIDE = {"cniVersion": "1.0.0", "ips": [{"address": "172.30.0.2/24", "gateway": "172.30.0.1"}]}
GATEWAY = {"gatewayBridge": {"subnet": "172.30.0.0/24"}}


def parse(**keys: Any) -> OverlayConf:
    conf: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net", "type": "overlay", "ipMasq": True}
    conf |= {"etcd": {"endpoints": ["http://192.0.2.1:2379"]}, "ipam": {"type": "pycni-ipam", "subnet": "10.1.0.0/16"}}
    call = Call(command="ADD", container_id="c1", netns="/n", ifname="eth0")
    return OverlayConf.parse(with_etcd(parse_conf(json.dumps({**conf, **keys}).encode(), "ADD")), call)


def joined(**changes: Any) -> Joined:
    fields: dict[str, Any] = {"network": "net", "mode": "l2", "vni": 4097, "port": 4789, "mtu": 1450}
    fields |= {"vxlan": "vxlan4097", "bridge": "ovl4097", "uplink": "eth0", "local": "192.0.2.1"}
    fields |= {"node": "ab" * 16, "connection": "{}", "prefix": "/p", "subnets": ("10.1.0.0/16",)}
    return Joined(**{**fields, **changes})


def wanted(conf: OverlayConf, outside: dict[str, Any] | None = None) -> plan.Wanted:
    return plan.wanted(conf, joined(mode=conf.mode), parse_result(LEASE, "1.0.0"), parse_result(outside, "1.0.0"))


def of(kind: type[Any], found: tuple[ops.Op, ...]) -> list[Any]:
    return [op for op in found if type(op) is kind]


def test_l2_shares_the_gateway() -> None:
    """Its MAC follows from its address, so it is the same on every host; the device is a port that answers ARP."""
    found = plan.plan_network(joined(), wanted(parse()))
    (bridge,), (device,) = of(ops.EnsureBridge, found), of(tunnels.EnsureVxlan, found)
    assert (bridge.mac.hex(":"), bridge.mtu) == ("02:42:0a:01:00:41", 1450)
    assert (device.bridge, device.proxy, device.learning, device.group) == ("ovl4097", True, False, "")
    assert found.index(bridge) < found.index(device), "whose port it becomes"
    assert [(op.link, str(op.address)) for op in of(ops.EnsureAddress, found)] == [
        ("ovl4097", "10.1.0.65/26"),
        ("ovl4097", "fd00::1/122"),
    ]


def test_routed_device_has_the_address_of_the_block() -> None:
    """It is no port; what the host itself sends comes from an address that the other hosts have a route to."""
    addresses = plan.tunnel_addresses(joined(mode="routed"), parse_result(LEASE, "1.0.0"))
    assert addresses == ("10.1.0.64/32", "fd00::/128")
    site = joined(mode="routed", addresses=addresses)
    assert plan.tunnel_addresses(site, parse_result(LEASE, "1.0.0")) == addresses, "once"
    found = plan.plan_network(site, wanted(parse(mode="routed")))
    (device,) = of(tunnels.EnsureVxlan, found)
    assert (device.bridge, device.proxy) == ("", False)
    assert ("vxlan4097", "10.1.0.64/32") in [(op.link, str(op.address)) for op in of(ops.EnsureAddress, found)]
    assert plan.tunnel_addresses(joined(), parse_result(LEASE, "1.0.0")) == ()


def test_multicast_learns() -> None:
    """Nobody writes entries, so the device floods to its group and learns who answered."""
    (device,) = of(tunnels.EnsureVxlan, plan.device_ops(joined(mode="multicast", group="239.1.1.1")))
    assert (device.learning, device.proxy, device.group, device.bridge) == (True, False, "239.1.1.1", "ovl4097")


def test_without_gateway_the_bridge_has_a_mac_of_its_own() -> None:
    """One that no container has, and no other host."""
    conf = parse(**GATEWAY)
    want = wanted(conf, OUTSIDE)
    assert want.gateways == ()
    mine, other = (plan.bridge_mac(joined(node=node * 16), want) for node in ("ab", "cd"))
    assert mine != other
    assert mine[:1] == b"\x0a"


def test_container_gets_mac_addresses_and_default_routes() -> None:
    """The MAC of its IPv4 address unless another is asked for; routes without a gateway go by the first one."""
    conf = parse()
    found = plan.plan_attachment(conf, ATTACHMENT, joined(), wanted(conf), uplink_mtu=0)
    (pair,) = of(ops.CreateVeth, found)
    assert (pair.host, pair.bridge, pair.mac.hex(":")) == (host_link_name(ATTACHMENT), "ovl4097", "02:42:0a:01:00:45")
    routes = {str(op.route.dst): (op.link, str(op.route.gw)) for op in of(ops.AddRoute, found)}
    assert routes == {  # in l2 the network is on-link
        "10.9.0.0/16": ("eth0", "10.1.0.65"),
        "0.0.0.0/0": ("eth0", "10.1.0.65"),
        "::/0": ("eth0", "fd00::1"),
    }
    asked = parse(runtimeConfig={"mac": "02:00:5e:10:00:01"})
    assert plan.container_mac(asked, wanted(asked)).hex(":") == "02:00:5e:10:00:01"


def test_gateway_bridge_is_the_way_out() -> None:
    """A second pair on another bridge, apart from its neighbours, with the only default route; the packet filter is
    for that bridge, and lets the overlay's own frames pass."""
    conf = parse(**GATEWAY)
    want = wanted(conf, OUTSIDE)
    found = plan.plan_attachment(conf, ATTACHMENT, joined(), want, uplink_mtu=9000)
    inner, outer = of(ops.CreateVeth, found)
    assert (inner.bridge, inner.mtu, outer.bridge, outer.mtu, outer.ifname) == (
        *("ovl4097", 1450, "pycni-gw"),
        *(9000, "gw-eth0"),
    )
    assert of(ops.SetPort, found) == [ops.SetPort(outer.host, hairpin=None, isolated=True)]
    routes = {str(op.route.dst): (op.link, str(op.route.gw)) for op in of(ops.AddRoute, found)}
    assert routes["0.0.0.0/0"] == ("gw-eth0", "172.30.0.1")
    assert [ip.gateway for ip in want.addresses(plan.CONTAINER_END)] == [None, None], "no bridge of ours has them"
    rules = plan.network_rules(conf, joined(), want)
    assert (rules.bridges, rules.apart, rules.passing) == (("pycni-gw",), True, ("ovl4097",))
    assert plan.attachment_rules(conf, ATTACHMENT, want).masquerade == ("172.30.0.2",)


def test_routed_needs_its_gateway_beside_a_gateway_bridge() -> None:
    """The blocks of other hosts are behind it, whoever has the default route: there is a route to the whole network.
    Only the gateway bridge keeps its containers apart, and nothing passes from it to the overlay."""
    conf = parse(mode="routed", **GATEWAY)
    want = wanted(conf, OUTSIDE)
    assert [str(each) for each in want.gateways] == ["10.1.0.65/26", "fd00::1/122"]
    found = plan.plan_attachment(conf, ATTACHMENT, joined(mode="routed"), want, uplink_mtu=0)
    routes = {str(op.route.dst): (op.link, str(op.route.gw)) for op in of(ops.AddRoute, found)}
    assert routes["10.1.0.0/16"] == ("eth0", "10.1.0.65")
    assert routes["0.0.0.0/0"] == routes["10.9.0.0/16"] == ("gw-eth0", "172.30.0.1"), "as one without a gateway"
    rules = plan.network_rules(conf, joined(mode="routed"), want)
    elements = shared_elements(rules)
    assert {each.key for each in elements if each.set == "apart"} == {("pycni-gw", "pycni-gw")}
    pairs = {each.key for each in elements if each.set == "same"}
    assert ("ovl4097", "vxlan4097") in pairs
    assert not {("pycni-gw", "ovl4097"), ("ovl4097", "pycni-gw")} & pairs
    apart = [unit.hooks[0].match for unit in isolation_units(rules) if unit.kind == "A"]
    assert len(apart) == 1
    assert apart[0].startswith("-i pycni-gw -o pycni-gw")


@pytest.mark.parametrize("mode", ["l2", "routed"])
def test_rules_cover_the_whole_network(mode: str) -> None:
    """Containers of other hosts keep their addresses though a routed one's own subnet is a block; bridge and device of
    a routed network are one to the packet filter, and both apart from other networks."""
    conf = parse(mode=mode)
    rules = plan.network_rules(conf, joined(mode=mode), wanted(conf))
    assert rules.subnets == ("10.1.0.0/16",)
    assert rules.together == (mode == "routed")
    pairs = {element.key for element in shared_elements(rules) if element.set == "same"}
    links = ("ovl4097", "vxlan4097") if mode == "routed" else ("ovl4097",)
    assert pairs == {(one, other) for one in links for other in links}
    assert {element.key[0] for element in shared_elements(rules) if element.set == "isolated"} == set(links)


def test_iptables_lets_a_network_pass_between_its_own_links() -> None:
    """And only there: the jump to what isolates comes behind."""
    apart, (first, second) = ("a", "b"), ("-o b -j RETURN", "-o a -j RETURN")
    units = [unit for unit in isolation_units(NetworkRules("net", apart, together=True)) if unit.kind == "S"]
    assert [unit.rules[1:-1] for unit in units] == [(first,), (second,)]
    assert [unit.rules[1:-1] for unit in isolation_units(NetworkRules("net", apart)) if unit.kind == "S"] == [(), ()]


def test_overhead_is_that_of_the_outer_addresses() -> None:
    """Outer IP, UDP, VXLAN, inner Ethernet."""
    assert (overhead("192.0.2.1"), overhead("2001:db8::1")) == (50, 70)
