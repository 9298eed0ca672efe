"""The `ipam` object: every key of host-local and `exclude`."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from pycni.cni.errors import CniError, Code
from pycni.cni.result import Dns, Route
from pycni.ipam.conf import data_dir, parse_ipam, parse_resolv_conf
from tests.unit.ipam_calls import netconf


def refusal(ipam: dict[str, Any] | None, args: str = "", **top: Any) -> CniError:
    with pytest.raises(CniError) as caught:
        parse_ipam(netconf(ipam, **top), args)
    return caught.value


def test_sets_come_in_the_reference_s_order() -> None:
    """runtimeConfig.ipRanges, then the keys beside type, then ranges."""
    ipam = {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.9", "ranges": [[{"subnet": "10.3.0.0/24"}]]}
    runtime = {"ipRanges": [[{"subnet": "10.1.0.0/24"}]]}
    sets = parse_ipam(netconf(ipam, runtimeConfig=runtime)).sets
    assert [str(each) for each in sets] == ["10.1.0.1-10.1.0.254", "10.2.0.9-10.2.0.254", "10.3.0.1-10.3.0.254"]


def test_range_keys_beside_type_need_a_subnet() -> None:
    """Without one they are ignored, as by the reference."""
    ipam = {"rangeStart": "10.2.0.9", "gateway": "10.2.0.1", "ranges": [[{"subnet": "10.3.0.0/24"}]]}
    assert [str(each) for each in parse_ipam(netconf(ipam)).sets] == ["10.3.0.1-10.3.0.254"]


@pytest.mark.parametrize(
    ("ipam", "message"),
    [
        (None, "IPAM config missing 'ipam' key"),
        ({}, "no IP ranges specified"),
        ({"ranges": []}, "no IP ranges specified"),
        ({"ranges": [[]]}, "invalid range set 0: empty range set"),
        ({"ranges": [None]}, "invalid range set 0: empty range set"),
        (
            {"ranges": [[{"subnet": "10.9.0.0/31"}]]},
            "invalid range set 0: Network 10.9.0.0/31 too small to allocate from",
        ),
        (
            {"ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "10.9.0.0/25"}]]},
            "range set 0 overlaps with 1",
        ),
        (
            {"ranges": [[{"subnet": "10.9.0.0/24"}, {"subnet": "fd00::/64"}]]},
            "invalid range set 0: mixed address families",
        ),
        ({"ranges": [[{}]]}, 'ipam.ranges[0][0].subnet is missing: give a network as "10.1.0.0/24"'),
        ({"ranges": {"subnet": "x"}}, 'ipam.ranges is {"subnet": "x"}, not a list of lists of ranges'),
        (
            {"ranges": [{"subnet": "x"}]},
            'ipam.ranges[0] is {"subnet": "x"}, not a list of ranges: a range set has brackets of its own',
        ),
    ],
)
def test_refused_configs(ipam: dict[str, Any] | None, message: str) -> None:
    """Code 7 and the reference's sentence; wrong types name the key with its path."""
    error = refusal(ipam)
    assert (error.code, error.msg) == (Code.INVALID_CONFIG, message)


@pytest.mark.parametrize("key", ["subnet", "rangeStart", "rangeEnd", "gateway"])
def test_a_bad_address_names_its_key(key: str) -> None:
    """The path of the key and the value are in the message."""
    error = refusal({"ranges": [[{"subnet": "10.9.0.0/24", key: "10.9.0.x/24"}]]})
    assert error.code == Code.INVALID_CONFIG
    assert error.msg.startswith(f"ipam.ranges[0][0].{key} is wrong")
    assert "10.9.0.x" in error.msg


def test_two_addresses_of_a_family_need_a_newer_version() -> None:
    """Results before 0.3.0 hold one per family; one of each is fine."""
    two = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}
    assert refusal(two, version="0.2.0").msg == "CNI version 0.2.0 does not support more than 1 address per family"
    parse_ipam(netconf(two, version="0.3.0"))
    parse_ipam(netconf({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}, version="0.2.0"))


def test_requested_addresses_add_up() -> None:
    """CNI_ARGS, args.cni.ips and runtimeConfig.ips together, without prefix length and doubles."""
    top: dict[str, Any] = {
        "args": {"cni": {"ips": ["10.1.0.6", "fd00::6/64"]}},
        "runtimeConfig": {"ips": ["10.1.0.7/16", "10.1.0.5"]},
    }
    args = "IP=10.1.0.5/24;IgnoreUnknown=1;K8S_POD_NAME=a"
    found = parse_ipam(netconf({"subnet": "10.1.0.0/24"}, **top), args).requested
    assert found == tuple(map(ip_address, ("10.1.0.5", "10.1.0.6", "fd00::6", "10.1.0.7")))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("IP=foo", 'ARGS: error parsing value of pair "IP=foo"'),
        ("GATEWAY=10.1.0.1", 'ARGS: unknown args ["GATEWAY=10.1.0.1"]'),
        ("IP", 'ARGS: invalid pair "IP"'),
    ],
)
def test_bad_arguments(args: str, message: str) -> None:
    """Code 4: the fault is in the environment."""
    error = refusal({"subnet": "10.1.0.0/24"}, args)
    assert error.code == Code.ENVIRONMENT
    assert error.msg.startswith(message)


def test_bad_requested_address_names_its_key() -> None:
    """runtimeConfig.ips[1] here."""
    error = refusal({"subnet": "10.1.0.0/24"}, runtimeConfig={"ips": ["10.1.0.4", "10.1.0"]})
    assert error.msg.startswith("runtimeConfig.ips[1] is wrong")


def test_exclude_takes_addresses_and_networks() -> None:
    """Of either family; they are cut out of every range."""
    ipam = {"subnet": "10.1.0.0/29", "exclude": ["10.1.0.2", "10.1.0.4/31", "fd00::/64"]}
    (only,) = parse_ipam(netconf(ipam)).sets
    assert [number - int(ip_address("10.1.0.0")) for _, a, b in only.pieces for number in range(a, b + 1)] == [3, 6]


@pytest.mark.parametrize("text", ["10.1.0", "10.1.0.1/24", "", "10.1.0.1-10.1.0.5"])
def test_bad_exclude_names_its_place(text: str) -> None:
    """Host bits included: whether the address or the network is meant cannot be told."""
    error = refusal({"subnet": "10.1.0.0/24", "exclude": ["10.1.0.9", text]})
    assert error.msg.startswith("ipam.exclude[1] is wrong")


def test_routes_are_kept_whole() -> None:
    """All of destination, gateway, mtu, advmss, priority, table and scope."""
    full = {
        "dst": "10.0.0.0/8",
        "gw": "10.1.0.9",
        "mtu": 1400,
        "advmss": 1360,
        "priority": 7,
        "table": 100,
        "scope": 253,
    }
    routes = parse_ipam(netconf({"subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0"}, full]})).routes
    gateway = ip_address("10.1.0.9")
    assert routes == (
        Route(ip_network("0.0.0.0/0")),
        Route(ip_network("10.0.0.0/8"), gateway, mtu=1400, advmss=1360, priority=7, table=100, scope=253),
    )


def test_resolv_conf_is_read_as_by_the_reference() -> None:
    """Comments and lines without value skipped; the last domain counts; searches and options add up."""
    text = """# x\n;y
nameserver 1.1.1.1\nnameserver ::1\ndomain a\ndomain b c
search x y\nsearch z\noptions ndots:2\nnameserver\n"""
    assert parse_resolv_conf(text) == Dns(("1.1.1.1", "::1"), "b", ("x", "y", "z"), ("ndots:2",))


@pytest.mark.parametrize(
    ("value", "used"),
    [("/x", "/x"), ("", "/var/lib/cni/networks"), (None, "/var/lib/cni/networks"), (7, "/var/lib/cni/networks")],
)
def test_data_dir_never_refuses(value: object, used: str) -> None:
    """DEL needs it, so a wrong one is the default one."""
    assert data_dir(netconf({"dataDir": value})) == used


@pytest.mark.parametrize(
    ("written", "used"),
    [("/run/x/", "/run/x"), ("//run//x", "/run/x"), ("/a/../b", "/a/../b"), ("x/", "x"), ("/", "/"), ("//", "/")],
)
def test_a_data_dir_is_one_pool_however_it_is_written(written: str, used: str) -> None:
    """Else two configurations of a network, with and without a slash at the end, give an address out twice."""
    assert data_dir(netconf({"dataDir": written})) == used
