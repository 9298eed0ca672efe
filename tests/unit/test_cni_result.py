"""Results in every protocol version, both ways."""

from __future__ import annotations

import json
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.errors import CniError, Code
from pycni.cni.keys import Keys
from pycni.cni.result import (
    Dns,
    Interface,
    IPConfig,
    Result,
    Route,
    dump,
    parse_dns,
    parse_result,
    parse_route,
    render_result,
)
from pycni.cni.versions import SUPPORTED, at_least

OLD = ("0.1.0", "0.2.0")
MIDDLE = ("0.3.0", "0.3.1", "0.4.0")

FULL = Result(
    interfaces=(
        Interface("cni0", "02:00:00:00:00:01", mtu=1500),
        Interface("eth0", "02:00:00:00:00:02", 1450, "/run/netns/a", "/s", "0000:00:1f.6"),
    ),
    ips=(
        IPConfig(ip_interface("10.1.0.5/16"), ip_address("10.1.0.1"), 1),
        IPConfig(ip_interface("fd00::5/64"), None, 1),
        IPConfig(ip_interface("10.2.0.5/16")),
    ),
    routes=(
        Route(ip_network("0.0.0.0/0"), ip_address("10.1.0.1"), 1400, 1360, 10, 100, 0),
        Route(ip_network("::/0")),
    ),
    dns=Dns(("10.1.0.1",), "d.example", ("d.example",), ("ndots:2",)),
)

FULL_1_1_0 = """{
    "cniVersion": "1.1.0",
    "dns": {
        "domain": "d.example",
        "nameservers": [
            "10.1.0.1"
        ],
        "options": [
            "ndots:2"
        ],
        "search": [
            "d.example"
        ]
    },
    "interfaces": [
        {
            "mac": "02:00:00:00:00:01",
            "mtu": 1500,
            "name": "cni0"
        },
        {
            "mac": "02:00:00:00:00:02",
            "mtu": 1450,
            "name": "eth0",
            "pciID": "0000:00:1f.6",
            "sandbox": "/run/netns/a",
            "socketPath": "/s"
        }
    ],
    "ips": [
        {
            "address": "10.1.0.5/16",
            "gateway": "10.1.0.1",
            "interface": 1
        },
        {
            "address": "fd00::5/64",
            "interface": 1
        },
        {
            "address": "10.2.0.5/16"
        }
    ],
    "routes": [
        {
            "advmss": 1360,
            "dst": "0.0.0.0/0",
            "gw": "10.1.0.1",
            "mtu": 1400,
            "priority": 10,
            "scope": 0,
            "table": 100
        },
        {
            "dst": "::/0"
        }
    ]
}"""

FULL_0_4_0 = (
    '{"cniVersion": "0.4.0", "interfaces": [{"name": "cni0", "mac": "02:00:00:00:00:01"},'
    ' {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"}],'
    ' "ips": [{"version": "4", "interface": 1, "address": "10.1.0.5/16", "gateway": "10.1.0.1"},'
    ' {"version": "6", "interface": 1, "address": "fd00::5/64"}, {"version": "4", "address": "10.2.0.5/16"}],'
    ' "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1360, "priority": 10, "table": 100,'
    ' "scope": 0}, {"dst": "::/0"}],'
    ' "dns": {"nameservers": ["10.1.0.1"], "domain": "d.example", "search": ["d.example"], "options": ["ndots:2"]}}'
)

FULL_0_2_0 = (
    '{"cniVersion": "0.2.0",'
    ' "ip4": {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},'
    ' "ip6": {"ip": "fd00::5/64", "routes": [{"dst": "::/0"}]},'
    ' "dns": {"nameservers": ["10.1.0.1"], "domain": "d.example", "search": ["d.example"], "options": ["ndots:2"]}}'
)


def test_newest_form_is_the_reference_s_byte_for_byte() -> None:
    """From 1.0.0 keys are sorted at every level, with 4 spaces and no newline at the end."""
    assert dump(render_result(FULL, "1.1.0")) == FULL_1_1_0


@pytest.mark.parametrize("version", MIDDLE)
def test_middle_form_has_versions_of_addresses_and_its_own_key_order(version: str) -> None:
    """0.3.0 to 0.4.0: struct order; mtu, socketPath and pciID of interfaces are dropped, routes keep their fields."""
    assert json.dumps(render_result(FULL, version)) == FULL_0_4_0.replace("0.4.0", version)


@pytest.mark.parametrize("version", OLD)
def test_old_form_has_one_address_of_each_family_with_its_routes(version: str) -> None:
    """0.1.0 and 0.2.0: the first of each family, routes by family with dst and gw alone, no interfaces."""
    assert json.dumps(render_result(FULL, version)) == FULL_0_2_0.replace("0.2.0", version)


def test_interface_fields_of_1_1_0_are_dropped_in_1_0_0() -> None:
    """1.0.0 knows name, mac and sandbox."""
    rendered = render_result(FULL, "1.0.0")
    assert rendered["interfaces"][1] == {"mac": "02:00:00:00:00:02", "name": "eth0", "sandbox": "/run/netns/a"}


@pytest.mark.parametrize(
    ("version", "rendered"),
    [(each, {"cniVersion": each, "dns": {}}) for each in MIDDLE]
    + [(each, {"cniVersion": each}) for each in ("1.0.0", "1.1.0")],
)
def test_empty_result(version: str, rendered: dict[str, Any]) -> None:
    """Empty lists are left out; empty dns only from 1.0.0."""
    assert render_result(Result(), version) == rendered


@pytest.mark.parametrize("version", OLD)
def test_old_form_without_address_cannot_be_given(version: str) -> None:
    """The reference's refusal, and what to do about it."""
    with pytest.raises(CniError, match=r"^cannot convert: no valid IP addresses") as refused:
        render_result(Result(routes=FULL.routes), version)
    assert "ipam" in refused.value.details


def test_old_form_loses_routes_of_a_family_without_address() -> None:
    """There is no place for them."""
    rendered = render_result(Result(ips=FULL.ips[:1], routes=FULL.routes), "0.2.0")
    assert set(rendered) == {"cniVersion", "ip4", "dns"}


@pytest.mark.parametrize("version", SUPPORTED)
def test_result_without_version_is_of_the_config_s(version: str) -> None:
    """A delegate or prevResult that says none counts as the config's version."""
    rendered = render_result(FULL, version)
    del rendered["cniVersion"]
    assert parse_result(rendered, version) == parse_result({**rendered, "cniVersion": version}, "1.1.0")


def test_version_of_the_result_goes_before_the_config_s() -> None:
    """An IPAM plugin may answer in an older version than it was asked in."""
    got = parse_result(json.loads(FULL_0_2_0), "1.1.0")
    assert [each.address for each in got.ips] == [each.address for each in FULL.ips[:2]]


def test_null_is_the_empty_result() -> None:
    """A plugin that prints `null` made nothing."""
    assert parse_result(None, "1.0.0") == Result()


def test_keys_of_a_result_match_in_any_case() -> None:
    """As everywhere: libcni writes CNIVersion beside cniVersion."""
    obj = {"CNIVersion": "1.0.0", "IPs": [{"Address": "10.0.0.2/24", "GateWay": "10.0.0.1"}], "DNS": {"Domain": "d"}}
    expected = Result(ips=(IPConfig(ip_interface("10.0.0.2/24"), ip_address("10.0.0.1")),), dns=Dns(domain="d"))
    assert parse_result(obj, "0.1.0") == expected


def test_interface_index_may_point_beyond_the_interfaces() -> None:
    """Foreign results do so; such an address counts as without interface later, it is no error here."""
    assert parse_result({"ips": [{"address": "10.0.0.2/24", "interface": 7}]}, "1.0.0").ips[0].interface == 7


def test_host_bits_of_a_route_are_cleared() -> None:
    """The kernel refuses a destination with host bits, so a route never has some."""
    assert parse_route(Keys({"dst": "10.1.2.3/16"})) == Route(ip_network("10.1.0.0/16"))


def test_dns_is_read_with_its_path_in_messages() -> None:
    """`dns` of a config or of an IPAM."""
    with pytest.raises(CniError, match=r"^ipam\.dns\.search\[0\] is 1, not a string"):
        parse_dns(Keys({"search": [1]}, "ipam.dns"))


IP = {"address": "10.0.0.2/24"}


@pytest.mark.parametrize(
    ("obj", "code", "problem"),
    [
        ("x", Code.DECODE, "prevResult is"),
        ([], Code.DECODE, "prevResult is"),
        ({"cniVersion": "9.9.9"}, Code.VERSION, "incompatible"),
        ({"cniVersion": 1}, Code.INVALID_CONFIG, "prevResult.cniVersion is 1"),
        ({"ips": {}}, Code.INVALID_CONFIG, "prevResult.ips is"),
        ({"ips": [None]}, Code.INVALID_CONFIG, "prevResult.ips[0] is null"),
        ({"ips": [{}]}, Code.INVALID_CONFIG, "prevResult.ips[0].address is missing"),
        ({"ips": [{"address": ""}]}, Code.INVALID_CONFIG, "prevResult.ips[0].address is missing"),
        ({"ips": [{"address": "10.0.0.2"}]}, Code.INVALID_CONFIG, "prevResult.ips[0].address is wrong"),
        ({"ips": [{**IP, "gateway": "x"}]}, Code.INVALID_CONFIG, "prevResult.ips[0].gateway is wrong"),
        ({"ips": [{**IP, "interface": -1}]}, Code.INVALID_CONFIG, "prevResult.ips[0].interface is -1"),
        ({"ips": [{**IP, "interface": True}]}, Code.INVALID_CONFIG, "prevResult.ips[0].interface is true"),
        ({"interfaces": [{"mtu": "1"}]}, Code.INVALID_CONFIG, "prevResult.interfaces[0].mtu is"),
        ({"routes": [{}]}, Code.INVALID_CONFIG, "prevResult.routes[0].dst is missing"),
        ({"routes": [{"dst": "::/0", "scope": 256}]}, Code.INVALID_CONFIG, "prevResult.routes[0].scope is 256"),
        ({"cniVersion": "0.2.0", "ip4": 1}, Code.INVALID_CONFIG, "prevResult.ip4 is 1"),
        ({"cniVersion": "0.2.0", "ip6": {}}, Code.INVALID_CONFIG, "prevResult.ip6.ip is missing"),
        ({"dns": {"nameservers": "x"}}, Code.INVALID_CONFIG, "prevResult.dns.nameservers is"),
    ],
)
def test_broken_results_are_refused_with_the_path(obj: Any, code: int, problem: str) -> None:
    """The message starts with what is wrong, below the name that the caller gave the result."""
    with pytest.raises(CniError) as refused:
        parse_result(obj, "1.1.0", where="prevResult")
    assert refused.value.code == code
    assert refused.value.msg.startswith(problem)


def test_dump_repeats_text_and_replaces_what_is_no_unicode() -> None:
    """Text stays readable; bytes that were no UTF-8 become U+FFFD, so that the output can always be written."""
    assert dump({"é": "😀\udc80"}) == '{\n    "é": "😀\ufffd"\n}'
    assert dump({"a": "\udc80"}).encode().decode() == '{\n    "a": "\ufffd"\n}'
    assert dump({}) == "{}"


uint32 = st.integers(0, 2**32 - 1)
maybe = st.none()
words = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
addresses = st.ip_addresses().filter(lambda address: getattr(address, "ipv4_mapped", None) is None)


def _with_length(address: Any, length: int) -> IPv4Interface | IPv6Interface:
    return ip_interface((address, min(length, address.max_prefixlen)))


cidrs = st.builds(_with_length, addresses, st.integers(0, 128))
networks = cidrs.map(lambda cidr: cidr.network).filter(
    lambda net: getattr(net.network_address, "ipv4_mapped", None) is None
)
results = st.builds(
    Result,
    interfaces=st.lists(st.builds(Interface, words, words, uint32, words, words, words), max_size=3).map(tuple),
    ips=st.lists(st.builds(IPConfig, cidrs, maybe | addresses, maybe | st.integers(0, 9)), max_size=4).map(tuple),
    routes=st.lists(
        st.builds(
            Route, networks, maybe | addresses, uint32, uint32, uint32, maybe | uint32, maybe | st.integers(0, 255)
        ),
        max_size=3,
    ).map(tuple),
    dns=st.builds(Dns, *[st.lists(words, max_size=2).map(tuple), words] + [st.lists(words, max_size=2).map(tuple)] * 2),
)


def representable(result: Result, version: str) -> Result:
    """What of *result* the form of *version* can say."""
    if at_least(version, "1.1.0"):
        return result
    if at_least(version, "0.3.0"):
        bare = tuple(each.replace(mtu=0, socket_path="", pci_id="") for each in result.interfaces)
        return result.replace(interfaces=bare)
    firsts = [next((ip for ip in result.ips if ip.address.version == family), None) for family in (4, 6)]
    ips = tuple(ip.replace(interface=None) for ip in firsts if ip is not None)
    families = [ip.address.version for ip in ips]
    routes = [Route(each.dst, each.gw) for each in result.routes if each.dst.version in families]
    return Result((), ips, tuple(sorted(routes, key=lambda each: each.dst.version)), result.dns)


@pytest.mark.parametrize("version", SUPPORTED)
@given(result=results)
def test_written_results_read_back(version: str, result: Result) -> None:
    """Reading what was written gives all that the version can say, in every version."""
    expected = representable(result, version)
    if version in OLD and not expected.ips:
        return
    assert parse_result(json.loads(dump(render_result(result, version))), version) == expected


@given(result=results, versions=st.tuples(*[st.sampled_from(SUPPORTED)] * 2))
def test_conversion_by_way_of_another_version_loses_only_what_that_lacks(
    result: Result, versions: tuple[str, str]
) -> None:
    """From any version to any other: what both can say arrives."""
    first, second = versions
    common = representable(representable(result, first), second)
    if not common.ips:
        return
    between = parse_result(render_result(result, first), first)
    assert parse_result(render_result(between, second), second) == common
