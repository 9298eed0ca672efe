"""The overlay plugin's keys: defaults, limits, contradictions, and the one `etcd` object that two plugins read."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.conf import NetConf, parse_conf
from pycni.cni.env import Call
from pycni.cni.errors import CniError, Code
from pycni.cni.macs import endpoint_mac, lease_mac, tunnel_mac
from pycni.ipam.etcd_conf import parse_etcd
from pycni.plugins.overlay.conf import OverlayConf, gateway_of, with_etcd

ETCD = {"endpoints": ["http://192.0.2.1:2379"], "prefix": "/lab"}
IPAM = {"type": "pycni-ipam", "subnet": "10.1.0.0/16"}
CALL = Call(command="ADD", container_id="c1", netns="/n", ifname="eth0")


def came(**keys: Any) -> NetConf:
    """The network config as it comes; None takes a key away."""
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "overlay", "etcd": ETCD, "ipam": IPAM, **keys}
    return parse_conf(json.dumps({key: value for key, value in conf.items() if value is not None}).encode(), "ADD")


def parse(args: str = "", /, **keys: Any) -> OverlayConf:
    return OverlayConf.parse(with_etcd(came(**keys), args), CALL.replace(args=args))


def test_defaults() -> None:
    """A subnet over all hosts with a gateway on each, on the standard port; the VNI is etcd's to give."""
    conf = parse()
    assert (conf.mode, conf.vni, conf.port, conf.mtu, conf.bridge, conf.offload) == ("l2", 0, 4789, 0, "", "auto")
    assert conf.is_default_gateway and conf.has_gateway and conf.isolate
    assert not conf.masquerade and not conf.require_agent
    assert conf.gateway is None


def test_a_gateway_bridge_takes_the_default_route() -> None:
    """Its interface is named after the other one; the name is cut to what the kernel takes."""
    conf = parse(gatewayBridge={"subnet": "172.30.0.0/24"})
    assert conf.gateway is not None
    assert (conf.gateway.bridge, conf.gateway.ifname) == ("pycni-gw", "gw-eth0")
    assert not conf.is_default_gateway and not conf.has_gateway
    long = OverlayConf.parse(with_etcd(came(gatewayBridge={"subnet": "172.30.0.0/24"})), CALL.replace(ifname="a" * 15))
    assert long.gateway is not None
    assert long.gateway.ifname == "gw-" + "a" * 12
    assert gateway_of(came(gatewayBridge={"subnet": 5}), CALL) is None, "DEL works with a broken one"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mode": "mesh"}, 'mode is "mesh", not one of l2, routed, multicast'),
        ({"vni": 1 << 24}, "not a whole number in 0..16777215"),
        ({"port": 0}, "not a whole number in 1..65535"),
        ({"mtu": 1000}, "mtu is 1000: IPv6 needs 1280 bytes"),
        ({"local": "127.0.0.1"}, "local is 127.0.0.1, which no other host can send to"),
        ({"group": "239.1.1.1"}, 'group is for "mode": "multicast" only'),
        ({"bridge": "a" * 16}, "interface name is too long"),
        ({"interface": "all"}, "sysctls and packet filters take all, default"),
        ({"checksumOffload": "maybe"}, "not one of auto, on, off"),
        ({"etcd": None}, "endpoints is missing"),
        ({"etcd": {"endpoints": []}}, "endpoints is missing"),
        ({"ipam": {**IPAM, "etcd": {**ETCD, "prefix": "/b"}}}, "ipam.etcd.prefix is /b, that of the network /lab"),
        ({"mode": "multicast", "etcd": None}, "vni is missing"),
        ({"mode": "multicast", "etcd": None, "vni": 5}, "group is "),
        ({"mode": "multicast", "etcd": None, "vni": 5, "group": "10.0.0.1"}, "give a multicast address"),
        ({"mode": "multicast", "etcd": None, "vni": 5, "group": "ff05::1", "local": "10.0.0.1"}, "not of the family"),
        ({"gatewayBridge": {"subnet": "172.30.0.0/24"}, "isDefaultGateway": True}, "two ways out"),
        ({"gatewayBridge": {"subnet": "172.30.0.0/24"}, "backend": "none"}, "has to be masqueraded"),
        ({"gatewayBridge": {"subnet": "172.30.0.0/24", "ifname": "eth0"}}, "the name of the interface on the overlay"),
        ({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, "not a unicast MAC address"),
    ],
)
def test_refusals_name_the_key(keys: dict[str, Any], message: str) -> None:
    """Code 7, with what is wrong and what would be right."""
    with pytest.raises(CniError) as refusal:
        parse(**keys)
    assert refusal.value.code == Code.INVALID_CONFIG
    assert message in str(refusal.value)


@pytest.mark.parametrize("where", ["own", "ipam", "both"])
def test_one_etcd_object_is_enough(where: str) -> None:
    """Wherever it stands both find it; in the text too, from which a record of the attachment is released."""
    keys: dict[str, Any] = {"etcd": None if where == "ipam" else ETCD}
    if where != "own":
        keys["ipam"] = {**IPAM, "etcd": {**ETCD, "endpoints": ["http://192.0.2.9:2379"]}}
    conf = with_etcd(came(**keys))
    ours = OverlayConf.parse(conf, CALL).etcd
    assert ours is not None
    assert (ours.prefix, parse_etcd(conf).connection.prefix) == ("/lab", "/lab")
    again = parse_conf(conf.raw, "DEL")
    assert (again.keys, again.ipam) == (conf.keys, conf.ipam)
    assert with_etcd(again).keys == conf.keys


def test_ipam_hears_what_the_mode_wants() -> None:
    """The MAC to record in l2, blocks in routed, nothing in multicast; a foreign plugin is handed nothing."""
    assert parse_etcd(with_etcd(came())).mac == "derived"
    assert parse_etcd(with_etcd(came(), "MAC=02:00:5E:10:00:01")).mac == "02:00:5e:10:00:01"
    asked = came(runtimeConfig={"mac": "02-00-00-00-00-07"})
    assert parse_etcd(with_etcd(asked, "IgnoreUnknown=1;MAC=02:00:5E:10:00:01")).mac == "02:00:00:00:00:07"
    routed = parse_etcd(with_etcd(came(mode="routed")))
    assert (routed.mac, dict(routed.blocks)) == ("", {4: 26, 6: 122})
    assert dict(parse_etcd(with_etcd(came(mode="routed", blocks={"ipv4": 24}))).blocks)[4] == 24
    assert "mac" not in with_etcd(came(mode="multicast", vni=5, group="239.1.1.1")).ipam.as_dict()["etcd"]
    assert not with_etcd(came(ipam={"type": "static"})).ipam.has("etcd")


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 1 << 25)
    | st.sampled_from(["", "l2", "routed", "10.1.0.0/16", "a", "::1"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*ETCD, *IPAM, "mac"]), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(
    "mode vni port mtu interface local group bridge isDefaultGateway ipMasq backend isolate gatewayBridge blocks"
    " checksumOffload etcd encrypted requireAgent runtimeConfig ETCD Mode".split()
)


@given(st.dictionaries(KEYS, ODD, max_size=4), st.none() | st.dictionaries(st.sampled_from([*IPAM, "etcd"]), ODD))
def test_whatever_a_configuration_says(keys: dict[str, Any], ipam: dict[str, Any] | None) -> None:
    """It is taken or refused with a code, by ADD and DEL alike; nothing else is ever raised."""
    try:
        conf = with_etcd(came(**{"ipam": ipam or IPAM, **keys}), "IgnoreUnknown=1")
        gateway_of(conf, CALL)
        OverlayConf.parse(conf, CALL)
        parse_etcd(conf)
    except CniError as refusal:
        assert refusal.code in (Code.INVALID_CONFIG, Code.ENVIRONMENT)


def test_the_example_is_a_configuration() -> None:
    """The list that is shipped, as a runtime hands its first plugin's part over."""
    conflist = json.loads((Path(__file__).parents[2] / "examples" / "overlay.conflist").read_text())
    first = {"name": conflist["name"], "cniVersion": conflist["cniVersion"], **conflist["plugins"][0]}
    conf = OverlayConf.parse(with_etcd(parse_conf(json.dumps(first).encode(), "ADD")), CALL)
    assert (conf.mode, conf.masquerade, conf.ipam) == ("l2", True, "pycni-ipam")
    assert conflist["plugins"][1]["type"] == "pycni-portmap"


@given(st.lists(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), min_size=1, max_size=4))
def test_macs_are_unicast_local_and_follow_from_the_first_ipv4_address(addresses: list[Any]) -> None:
    """The same address, the same MAC, whatever stands behind it; never a group's, never a vendor's."""
    mac = endpoint_mac(addresses)
    assert (len(mac), mac[0] & 3) == (6, 2)
    fours = [each for each in addresses if each.version == 4]
    assert mac == endpoint_mac((fours or addresses)[:1])
    if fours:
        assert mac == b"\x02\x42" + fours[0].packed


@given(st.ip_addresses(), st.ip_addresses(), st.sampled_from(["a", "b"]), st.sampled_from(["x", "y"]))
def test_macs_of_leases_are_told_apart(one: Any, other: Any, host: str, pool: str) -> None:
    """By address, pool and host; unicast and local, and none that an endpoint, a gateway or a tunnel has."""
    mac = lease_mac(host, pool, one)
    assert (len(mac), mac[0]) == (6, 0x12)
    assert mac[0] not in (endpoint_mac([one])[0], tunnel_mac(host, 1)[0])
    assert (mac == lease_mac("a", "x", other)) == ((host, pool, one) == ("a", "x", other))


def test_macs_by_example() -> None:
    """What is in etcd and in kernels of running hosts must not change with a release."""
    assert endpoint_mac([ip_address("10.1.0.5")]).hex(":") == "02:42:0a:01:00:05"
    assert endpoint_mac([ip_address("fd00::5")]).hex(":") == "06:67:cc:13:6b:da"
    assert tunnel_mac("0123456789abcdef0123456789abcdef", 4097).hex(":") == "0a:cf:57:8d:1a:74"
    assert endpoint_mac([]) == b""
