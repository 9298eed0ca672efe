"""The `static` IPAM: sentences and precedence of the reference."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from pycni.cni.conf import parse_conf
from pycni.cni.errors import CniError, Code
from pycni.cni.result import Dns, IPConfig, Route
from pycni.ipam import static
from tests.unit.ipam_calls import call, netconf


def ips(addresses: list[dict[str, str]], cni_args: str = "", **top: Any) -> list[tuple[str, str]]:
    result = static.add(call("c", args=cni_args), netconf({"addresses": addresses}, **top), None)
    return [(str(each.address), str(each.gateway or "")) for each in result.ips]


def test_addresses_routes_and_dns_are_handed_through() -> None:
    """As the config has them, host bits included."""
    ipam = {
        "addresses": [{"address": "10.10.0.7/24", "gateway": "10.10.0.254"}, {"address": "fd00::7/64"}],
        "routes": [{"dst": "0.0.0.0/0", "mtu": 1400}],
        "dns": {"nameservers": ["1.1.1.1"], "search": ["x"]},
    }
    result = static.add(call("c"), netconf(ipam), None)
    assert result.ips == (
        IPConfig(ip_interface("10.10.0.7/24"), ip_address("10.10.0.254")),
        IPConfig(ip_interface("fd00::7/64")),
    )
    assert result.routes == (Route(ip_network("0.0.0.0/0"), mtu=1400),)
    assert result.dns == Dns(nameservers=("1.1.1.1",), search=("x",))


def test_arguments_add_and_their_gateways_go_to_the_subnets_they_lie_in() -> None:
    """IP appends; GATEWAY is given to every address whose subnet holds it, those of the config included."""
    found = ips([{"address": "10.1.0.5/24"}], "IP=10.2.0.5/24,fd00::5/64;GATEWAY=10.2.0.1,10.1.0.1,10.3.0.1")
    assert found == [("10.1.0.5/24", "10.1.0.1"), ("10.2.0.5/24", "10.2.0.1"), ("fd00::5/64", "")]
    spaced = ips([{"address": "10.1.0.5/24"}], "IP=10.2.0.5/24, fd00::5/64;GATEWAY=10.2.0.1 ,10.1.0.1, 10.3.0.1")
    assert spaced == found, "blanks around the commas, as in the reference"


def test_args_cni_replaces_and_runtime_config_replaces_that() -> None:
    """And what replaces has no gateway."""
    configured = [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}]
    args = {"cni": {"ips": ["10.2.0.5/24"]}}
    assert ips(configured, "IP=10.9.0.1/24", args=args) == [("10.2.0.5/24", "")]
    assert ips(configured, args=args, runtimeConfig={"ips": ["10.3.0.5/24"]}) == [("10.3.0.5/24", "")]


@pytest.mark.parametrize(
    ("address", "args", "top", "code", "message"),
    [
        ("x", "", {}, 7, "the 'address' field is expected to be in CIDR notation, got: 'x'"),
        ("10.1.0.1", "", {}, 7, "the 'address' field is expected to be in CIDR notation, got: '10.1.0.1'"),
        ("10.1.0.1/24", "IP=10.1.0.9", {}, 4, "the 'ip' field is expected to be in CIDR notation, got: '10.1.0.9'"),
        ("10.1.0.1/24", "GATEWAY=x", {}, 4, "invalid gateway address: x"),
        (
            "10.1.0.1/24",
            "",
            {"runtimeConfig": {"ips": ["x"]}},
            7,
            "an entry in the 'ips' field is NOT in CIDR notation, got: 'x'",
        ),
        (
            "10.1.0.1/24",
            "",
            {"args": {"cni": {"ips": ["y"]}}},
            7,
            "an entry in the 'ips' field is NOT in CIDR notation, got: 'y'",
        ),
        (
            "10.1.0.1/24",
            "IP=10.2.0.1/24",
            {"version": "0.2.0"},
            7,
            "CNI version 0.2.0 does not support more than 1 address per family",
        ),
    ],
)
def test_refusals(address: str, args: str, top: dict[str, Any], code: int, message: str) -> None:
    """The reference's sentences; code 4 where CNI_ARGS is at fault, else 7."""
    with pytest.raises(CniError) as caught:
        ips([{"address": address}], args, **top)
    assert (caught.value.code, caught.value.msg) == (code, message)


def test_no_ipam() -> None:
    """The reference's sentence; DEL does not care."""
    with pytest.raises(CniError, match="IPAM config missing 'ipam' key"):
        static.add(call("c"), netconf(None), None)
    static.delete(call("c"), netconf(None), None)


def check(prev_ips: list[dict[str, str]] | None) -> None:
    config: dict[str, Any] = {"cniVersion": "1.0.0", "name": "n", "type": "bridge"}
    config["ipam"] = {"type": "static", "addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}]}
    if prev_ips is not None:
        config["prevResult"] = {"cniVersion": "1.0.0", "ips": prev_ips}
    static.check(call("c", command="CHECK"), parse_conf(json.dumps(config).encode(), "CHECK"), None)


def test_check_compares_with_prev_result() -> None:
    """It must be there and hold every address, with its gateway."""
    check([{"address": "10.9.9.9/24"}, {"address": "10.1.0.5/24", "gateway": "10.1.0.1"}])
    for prev_ips, code in (
        (None, Code.INVALID_CONFIG),
        ([], Code.BROKEN),
        ([{"address": "10.1.0.5/24", "gateway": "10.1.0.2"}], Code.BROKEN),
    ):
        with pytest.raises(CniError) as caught:
            check(prev_ips)
        assert caught.value.code == code
