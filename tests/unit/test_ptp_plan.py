"""What an ADD of the ptp plugin decides, and what its CHECK compares."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.change import ops
from pycni.cni.conf import parse_conf
from pycni.cni.env import Call
from pycni.cni.errors import CniError
from pycni.cni.names import Attachment, host_link_name
from pycni.cni.result import Interface, IPConfig, Result, Route, parse_result
from pycni.host.link_facts import Link, RouteFacts
from pycni.plugins.ptp import plan
from pycni.plugins.ptp.compare import CheckFacts, differences
from pycni.plugins.ptp.conf import PtpConf

ATTACHMENT = Attachment("net", "c1", "eth0")
HOST = host_link_name(ATTACHMENT)
DUAL = {
    "cniVersion": "1.0.0",
    "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "fd00::5/64"}],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.9"}],
}


def parse(**keys: Any) -> PtpConf:
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "ptp", "ipam": {"type": "x"}, **keys}
    return PtpConf.parse(parse_conf(json.dumps(conf).encode(), "ADD"))


def planned(lease: Any, **keys: Any) -> tuple[Result, tuple[ops.Op, ...]]:
    result = plan.wanted(parse_result(lease, "1.0.0"))
    return result, plan.plan_add(parse(**keys), ATTACHMENT, result, 1400)


def test_both_families_in_order() -> None:
    """Container first, then the host's side of it, then forwarding and rules; the wait for the link comes last."""
    result, made = planned(DUAL, ipMasq=True)
    assert [str(ip.gateway) for ip in result.ips] == ["10.1.0.1", "fd00::1"]
    assert {ip.interface for ip in result.ips} == {1}
    routes = [
        (op.where, str(op.route.dst), str(op.route.gw), str(op.src)) for op in made if isinstance(op, ops.AddRoute)
    ]
    assert routes == [
        ("container", "10.1.0.1/32", "None", "10.1.0.5"),
        ("container", "10.1.0.0/24", "10.1.0.1", "10.1.0.5"),
        ("container", "fd00::1/128", "None", "fd00::5"),
        ("container", "fd00::/64", "fd00::1", "fd00::5"),
        ("container", "0.0.0.0/0", "10.1.0.1", "None"),
        ("container", "10.9.0.0/16", "10.1.0.9", "None"),
        ("host", "10.1.0.5/32", "None", "None"),
        ("host", "fd00::5/128", "None", "None"),
    ]
    addresses = [(op.where, op.link, str(op.address), op.on_link) for op in made if isinstance(op, ops.AddAddress)]
    assert addresses == [
        ("container", "eth0", "10.1.0.5/24", False),
        ("container", "eth0", "fd00::5/64", False),
        ("host", HOST, "10.1.0.1/32", True),
        ("host", HOST, "fd00::1/128", True),
        ("host", HOST, "fe80::1/64", True),
    ]
    assert isinstance(made[0], ops.CreateVeth) and made[0].bridge == "" and made[0].mtu == 1400
    assert made[-1] == ops.AwaitUp(HOST)
    rules = next(op for op in made if isinstance(op, ops.ApplyFirewall))
    assert rules.network.bridges == (HOST,) and not rules.network.isolate
    assert rules.network.subnets == ("10.1.0.0/24", "fd00::/64")
    assert rules.attachment.masquerade == ("10.1.0.5", "fd00::5")


def test_only_what_is_asked_for() -> None:
    """One family switches that family only; no masquerade, no subnets; backend none leaves the firewall alone."""
    _, made = planned({"ips": [{"address": "10.1.0.5/24"}]}, mtu=1300)
    sysctls = [op.key for op in made if isinstance(op, ops.EnsureSysctl)]
    assert sysctls == [f"net/ipv6/conf/{HOST}/accept_ra", "net/ipv4/ip_forward"]
    assert not [op for op in made if isinstance(op, ops.SetSysctl)]
    rules = next(op for op in made if isinstance(op, ops.ApplyFirewall))
    assert (rules.network.subnets, rules.attachment.masquerade) == ((), ())
    assert isinstance(made[0], ops.CreateVeth) and made[0].mtu == 1300
    _, made = planned({"ips": [{"address": "10.1.0.5/24"}]}, backend="none")
    assert not [op for op in made if isinstance(op, ops.ApplyFirewall)]


hosts = st.integers(2, 250)


@given(numbers=st.lists(hosts, min_size=1, max_size=4, unique=True), gateways=st.lists(hosts | st.none(), min_size=4))
def test_no_route_is_added_twice(numbers: list[int], gateways: list[int | None]) -> None:
    """However many addresses share a subnet and gateways: each destination once on each side, all of them reached."""
    ips = []
    for number, gateway in zip(numbers, gateways, strict=False):
        ip: dict[str, Any] = {"address": f"10.1.0.{number}/24"}
        if gateway is not None and gateway not in numbers:
            ip["gateway"] = f"10.1.0.{gateway}"
        ips.append(ip)
    result, made = planned({"ips": ips})
    routes = [op for op in made if isinstance(op, ops.AddRoute)]
    assert len({(op.where, op.route.dst) for op in routes}) == len(routes)
    assert {op.route.dst for op in routes if op.where == ops.HOST} == {ip_network(ip.address.ip) for ip in result.ips}
    wanted = {ip_network(ip.gateway) for ip in result.ips if ip.gateway} | {ip_network("10.1.0.0/24")}
    assert {op.route.dst for op in routes if op.where == ops.CONTAINER} == wanted


@pytest.mark.parametrize(
    ("ips", "said"),
    [
        ([], "IPAM plugin returned missing IP config"),
        ([{"address": "10.1.0.5/32"}], "no address for a gateway"),
        ([{"address": "10.1.0.5/24", "gateway": "fd00::1"}], "not of one family"),
        ([{"address": "10.1.0.5/24", "gateway": "10.1.0.5"}], "own address"),
        ([{"address": "10.1.0.1/24"}], "own address"),
    ],
)
def test_leases_that_cannot_be_routed(ips: list[Any], said: str) -> None:
    """Code 7 before anything is done."""
    with pytest.raises(CniError, match=said) as refused:
        plan.wanted(parse_result({"ips": ips}, "1.0.0"))
    assert refused.value.code == 7


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"ipam": {}}, "ipam.type is missing"),
        ({"mtu": -1}, "mtu is -1"),
        ({"ipMasq": "yes"}, "ipMasq"),
        ({"ipMasqBackend": "pf"}, "pf"),
        ({"ipMasqBackend": "none"}, "none"),
    ],
)
def test_wrong_keys(keys: dict[str, Any], said: str) -> None:
    """Code 7, the key and its value; `none` is a word of our own key `backend` only."""
    with pytest.raises(CniError, match=said) as refused:
        parse(**keys)
    assert refused.value.code == 7


def test_check_compares_both_ends() -> None:
    """Each thing that is gone is one difference; what others added is none."""
    call = Call(command="CHECK", container_id="c1", netns="/n", ifname="eth0")
    address, gateway = ip_interface("10.1.0.5/24"), ip_address("10.1.0.1")
    previous = Result(
        interfaces=(Interface(HOST), Interface("eth0", "02:00:00:00:00:07", 0, "/n")),
        ips=(IPConfig(address, gateway, 1), IPConfig(ip_interface("10.7.0.5/24"), None, 0)),
        routes=(Route(ip_network("0.0.0.0/0")),),
    )
    inside = Link(index=2, name="eth0", kind="veth", flags=1, mac=bytes.fromhex("020000000007"))
    good = CheckFacts(
        container=inside,
        addresses=(address, ip_interface("10.99.0.1/24")),
        routes=(RouteFacts(dst=ip_network("0.0.0.0/0"), gw=gateway),),
        host=Link(index=9, name=HOST, kind="veth", flags=1),
        host_addresses=(ip_interface("10.1.0.1/32"),),
        host_routes=(RouteFacts(dst=ip_network("10.1.0.5/32")),),
        rules=(),
    )
    assert differences(call, previous, good) == ()
    for change, said in (
        ({"container": None}, "eth0 is missing"),
        ({"container": inside.replace(flags=0)}, "eth0 is down"),
        ({"addresses": ()}, "address 10.1.0.5/24 is missing"),
        ({"routes": ()}, "route 0.0.0.0/0 is missing"),
        ({"host": None}, "the host's end of eth0 is missing"),
        ({"host_addresses": ()}, "gateway address 10.1.0.1 is missing"),
        ({"host_routes": ()}, "no route to 10.1.0.5"),
        ({"rules": ("an element",)}, "an element"),
    ):
        (found,) = differences(call, previous, good.replace(**change))
        assert said in found
