"""What an ADD of the bridge plugin decides, as plans of operations."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.change import ops
from pycni.cni.conf import parse_conf
from pycni.cni.env import Call
from pycni.cni.errors import CniError
from pycni.cni.names import Attachment, host_link_name
from pycni.cni.result import IPConfig, Result, parse_result
from pycni.plugins.bridge import plan
from pycni.plugins.bridge.conf import BridgeConf

ATTACHMENT = Attachment("net", "c1", "eth0")
MAC, OTHER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
DUAL = {
    "cniVersion": "1.0.0",
    "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "fd00::5/64"}],
    "routes": [{"dst": "10.9.0.0/16"}],
}


def parse(**keys: Any) -> BridgeConf:
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": {"type": "x"}, **keys}
    call = Call(command="ADD", container_id="c1", netns="/n", ifname="eth0")
    return BridgeConf.parse(parse_conf(json.dumps(conf).encode(), "ADD"), call)


def facts(**changes: Any) -> plan.BridgeFacts:
    return plan.BridgeFacts(uplink_mtu=1400, bridge_mac=MAC).replace(**changes)


def planned(conf: BridgeConf, lease: dict[str, Any] | None = None, **changes: Any) -> tuple[ops.Op, ...]:
    want = plan.wanted(conf, parse_result(DUAL if lease is None else lease, "1.0.0").replace(mac=MAC))
    return plan.plan_add(conf, ATTACHMENT, want, facts(**changes))


def of(kind: type[Any], found: tuple[ops.Op, ...]) -> list[Any]:
    return [op for op in found if type(op) is kind]


def test_missing_gateway_is_the_first_address_of_the_subnet() -> None:
    """Only for a network that is a gateway; a given one stays."""
    want = plan.wanted(parse(isGateway=True), parse_result(DUAL, "1.0.0"))
    assert [str(ip.gateway) for ip in want.result.ips] == ["10.1.0.1", "fd00::1"]
    assert [str(g) for g in want.gateways] == ["10.1.0.1/24", "fd00::1/64"]
    plain = plan.wanted(parse(), parse_result(DUAL, "1.0.0"))
    assert [ip.gateway for ip in plain.result.ips][1] is None
    assert plain.gateways == ()


def test_default_gateway_adds_one_default_route_a_family() -> None:
    """Both families get theirs through their gateway."""
    want = plan.wanted(parse(isDefaultGateway=True), parse_result(DUAL, "1.0.0"))
    assert [(str(r.dst), str(r.gw)) for r in want.result.routes[1:]] == [("0.0.0.0/0", "10.1.0.1"), ("::/0", "fd00::1")]


def test_default_route_of_ipam_without_gateway_is_completed_not_doubled() -> None:
    """The reference adds a second default route there, and the ADD fails with EEXIST."""
    lease = {"ips": [{"address": "10.1.0.5/24"}], "routes": [{"dst": "0.0.0.0/0"}]}
    found = of(ops.AddRoute, planned(parse(isDefaultGateway=True), lease))
    assert [(str(op.route.dst), str(op.route.gw)) for op in found] == [("0.0.0.0/0", "10.1.0.1")]


def test_routes_without_gateway_take_the_first_of_their_family() -> None:
    """And stay on-link where there is none; mtu and metric of the route are kept."""
    lease = {**DUAL, "routes": [{"dst": "10.9.0.0/16", "mtu": 1300, "priority": 7}, {"dst": "fd01::/64"}]}
    first, second = of(ops.AddRoute, planned(parse(), lease))
    assert (str(first.route.gw), first.route.mtu, first.route.priority) == ("10.1.0.1", 1300, 7)
    assert second.route.gw is None


def test_mtu_is_the_configured_or_the_uplinks() -> None:
    """On the bridge, if it has to be made, and on both ends of the pair."""
    for conf, mtu in ((parse(mtu=9000), 9000), (parse(), 1400)):
        found = planned(conf)
        assert of(ops.EnsureBridge, found)[0].mtu == mtu
        assert of(ops.CreateVeth, found)[0].mtu == mtu


def test_forwarding_only_for_the_families_in_use() -> None:
    """An IPv4 network leaves IPv6 forwarding alone and the other way round."""
    four = planned(parse(isGateway=True), {"ips": [{"address": "10.1.0.5/24"}]})
    six = planned(parse(isGateway=True), {"ips": [{"address": "fd00::5/64"}]})
    keys = [{op.key for op in of(ops.EnsureSysctl, found)} for found in (four, six)]
    assert "net/ipv4/ip_forward" in keys[0] - keys[1]
    assert "net/ipv6/conf/all/forwarding" in keys[1] - keys[0]


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("empty", [True, False])
def test_other_address_on_the_bridge(force: bool, empty: bool) -> None:
    """It is replaced on request, and by itself where no attachment uses it any more; else the ADD is refused."""
    old = ip_interface("10.7.0.1/24")
    conf = parse(isGateway=True, forceAddress=force)
    if force or empty:
        found = planned(conf, gateway_addresses=(old,), replaceable=empty)
        assert of(ops.RemoveAddress, found) == [ops.RemoveAddress("cni0", old)]
    else:
        with pytest.raises(CniError, match="already has an IP address different from 10.1.0.1/24"):
            planned(conf, gateway_addresses=(old,), replaceable=empty)


def test_several_subnets_of_one_family_do_not_conflict_with_each_other() -> None:
    """Two IPv4 ranges give the bridge two gateways (the reference refuses its own second one)."""
    lease = {"ips": [{"address": "10.1.0.5/24"}, {"address": "10.2.0.5/24"}]}
    gateways = tuple(map(ip_interface, ("10.1.0.1/24", "10.2.0.1/24")))
    found = planned(parse(isGateway=True), lease, gateway_addresses=gateways[:1])
    assert of(ops.RemoveAddress, found) == []
    assert [op.address for op in of(ops.EnsureAddress, found)] == [gateways[1]]  # the other one is there


@pytest.mark.parametrize("force", [True, False])
def test_gateways_of_the_other_ranges_stay(force: bool) -> None:
    """A network whose first subnet is full: its containers there go on using their gateway, also with forceAddress."""
    other, foreign = map(ip_interface, ("10.2.0.1/24", "10.7.0.1/24"))
    conf = parse(isGateway=True, forceAddress=force)
    found = planned(conf, gateway_addresses=(other,), range_gateways=(other,))
    assert of(ops.RemoveAddress, found) == []
    assert [str(op.address) for op in of(ops.EnsureAddress, found)] == ["10.1.0.1/24", "fd00::1/64"]
    if force:
        found = planned(conf, gateway_addresses=(other, foreign), range_gateways=(other,))
        assert of(ops.RemoveAddress, found) == [ops.RemoveAddress("cni0", foreign)]


def test_ipv6_addresses_beside_each_other_unless_they_overlap() -> None:
    """Link-local and other prefixes stay; one inside the same prefix is a conflict."""
    conf = parse(isGateway=True)
    lease = {"ips": [{"address": "fd00::5/64"}]}
    other = (ip_interface("fe80::1/64"), ip_interface("fd01::1/64"))
    assert of(ops.RemoveAddress, planned(conf, lease, gateway_addresses=other)) == []
    with pytest.raises(CniError, match="already has an IP address"):
        planned(conf, lease, gateway_addresses=(ip_interface("fd00::9/64"),))
    lease = {"ips": [{"address": "fd00::5/64", "gateway": "fe80::1"}]}
    kernels = (ip_interface("fe80::ff:fe00:1/64"),)
    for force in (True, False):
        found = planned(parse(isGateway=True, forceAddress=force), lease, gateway_addresses=kernels)
        assert of(ops.RemoveAddress, found) == []


def test_layer_2_has_no_addresses_routes_or_firewall() -> None:
    """Without ipam the plan makes a bridge and a port, nothing else."""
    found = planned(parse(ipam={}), {})
    assert {type(op) for op in found} == {
        ops.EnsureBridge,
        ops.EnsureSysctl,
        ops.CreateVeth,
        ops.SetUp,
        ops.AwaitPort,
    }


def test_container_end_stays_down_when_asked() -> None:
    """Nothing is announced or waited for either."""
    found = planned(parse(ipam={}, disableContainerInterface=True), {})
    kinds = {type(op) for op in found}
    assert not kinds & {ops.AwaitPort, ops.Announce}
    assert [op.where for op in of(ops.SetUp, found)] == [ops.HOST]


def test_addresses_come_before_the_link_is_up_and_routes_after() -> None:
    """What uses the link finds it addressed; a route needs it up."""
    found = planned(parse(isGateway=True))
    (up,) = (at for at, op in enumerate(found) if isinstance(op, ops.SetUp) and op.where == ops.CONTAINER)
    kinds = [type(op) for op in found]
    last_address = max(i for i, kind in enumerate(kinds) if kind is ops.AddAddress)
    assert last_address < up < kinds.index(ops.AddRoute)


def test_announcement_comes_last() -> None:
    """When it is sent the port forwards and the firewall is in place."""
    found = planned(parse(isGateway=True, ipMasq=True))
    assert [type(op) for op in found[-4:]] == [ops.AwaitPort, ops.SetSysctl, ops.ForgetNeighbours, ops.Announce]
    assert found[-3] == ops.SetSysctl(ops.CONTAINER, "net/ipv6/conf/eth0/ndisc_notify", "1", optional=True)
    assert of(ops.ApplyFirewall, found)


def test_addresses_that_nobody_had_need_no_announcement() -> None:
    """It would be a broadcast to every container, for neighbours that cannot hold a stale entry."""
    conf = parse(isGateway=True)
    lease = parse_result(DUAL, "1.0.0").replace(former_macs=())
    found = plan.plan_add(conf, ATTACHMENT, plan.wanted(conf, lease), facts())
    assert of(ops.Announce, found) == []
    assert of(ops.ForgetNeighbours, found) == []


@pytest.mark.parametrize(
    ("former", "announced"),
    [((MAC,), False), ((MAC, MAC), False), ((OTHER_MAC,), True), ((MAC, OTHER_MAC), True), ((MAC, b""), True)],
)
def test_addresses_that_keep_their_mac_need_no_announcement(former: tuple[bytes, ...], announced: bool) -> None:
    """Nobody can remember another one. The host forgets what it knows in any case: it may be waiting for an answer."""
    conf = parse(isGateway=True)
    lease = parse_result(DUAL, "1.0.0").replace(mac=MAC, former_macs=former)
    found = plan.plan_add(conf, ATTACHMENT, plan.wanted(conf, lease), facts())
    assert bool(of(ops.Announce, found)) == announced
    assert len(of(ops.ForgetNeighbours, found)) == 1


def test_firewall_rules_name_subnets_and_addresses() -> None:
    """Masquerade by container address, exempt inside the own subnet, isolation by bridge."""
    (op,) = of(ops.ApplyFirewall, planned(parse(isGateway=True, ipMasq=True, macspoofchk=True)))
    assert op.network.subnets == ("10.1.0.0/24", "fd00::/64")
    assert op.network.bridges == ("cni0",)
    assert op.network.isolate
    assert op.attachment.masquerade == ("10.1.0.5", "fd00::5")
    assert op.attachment.macs == ((host_link_name(ATTACHMENT), "02:00:00:00:00:01"),)


def test_vlan_gateway_lives_on_an_interface_of_its_own() -> None:
    """And that is the one whose traffic the firewall sees."""
    found = planned(parse(isGateway=True, vlan=100, vlanTrunk=[{"minID": 200, "maxID": 210}]))
    assert of(ops.EnsureBridge, found)[0].vlan_filtering
    assert of(ops.EnsureVlanGateway, found)[0].name == "cni0.100"
    assert {op.link for op in of(ops.EnsureAddress, found)} == {"cni0.100"}
    assert of(ops.SetPortVlans, found)[0].trunk == ((200, 210),)
    assert of(ops.ApplyFirewall, found)[0].network.bridges == ("cni0.100",)


@given(st.lists(st.ip_addresses(), max_size=4), st.booleans(), st.booleans())
def test_every_plan_creates_one_link_and_owns_nothing_else(addresses: list[Any], gateway: bool, masq: bool) -> None:
    """Whatever the addresses: one CreateVeth, one AddAddress each, no operation that takes anything away."""
    lease = Result(
        ips=tuple(IPConfig(ip_interface((a, 24 if a.version == 4 else 64))) for a in dict.fromkeys(addresses))
    )
    conf = parse(isGateway=gateway, ipMasq=masq)
    found = plan.plan_add(conf, ATTACHMENT, plan.wanted(conf, lease), facts())
    assert len(of(ops.CreateVeth, found)) == 1
    assert len(of(ops.AddAddress, found)) == len(lease.ips)
    assert not of(ops.DeleteLink, found) and not of(ops.RemoveAddress, found)
