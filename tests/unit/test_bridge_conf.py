"""The bridge plugin's keys: defaults, limits, contradictions, and the messages users know from the reference."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.conf import parse_conf
from pycni.cni.env import Call
from pycni.cni.errors import CniError, Code
from pycni.plugins.bridge.conf import BridgeConf


def parse(args: str = "", /, **keys: Any) -> BridgeConf:
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", **keys}
    call = Call(command="ADD", container_id="c1", netns="/n", ifname="eth0", args=args)
    return BridgeConf.parse(parse_conf(json.dumps(conf).encode(), "ADD"), call)


def test_defaults_are_those_of_the_reference() -> None:
    """An empty configuration is a layer 2 bridge called cni0 whose MTU follows the uplink."""
    conf = parse()
    assert (conf.bridge, conf.mtu, conf.ipam, conf.vlan, conf.trunk) == ("cni0", 0, "", 0, ())
    assert not (conf.is_gateway or conf.masquerade or conf.hairpin or conf.promiscuous or conf.dad)
    assert conf.container_up and conf.isolate


def test_default_gateway_implies_gateway() -> None:
    """isDefaultGateway alone is enough."""
    assert parse(isDefaultGateway=True).is_gateway


def test_masquerade_needs_addresses() -> None:
    """ipMasq without ipam does nothing, as in the reference."""
    assert not parse(ipMasq=True).masquerade
    assert parse(ipMasq=True, ipam={"type": "x"}).masquerade


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hairpinMode": True, "promiscMode": True}, "cannot set hairpin mode and promiscuous mode at the same time"),
        (
            {"disableContainerInterface": True, "ipam": {"type": "x"}},
            "cannot use IPAM when DisableContainerInterface flag is set",
        ),
        ({"vlan": 4095}, "invalid VLAN ID 4095 (must be between 0 and 4094)"),
        ({"vlan": -1}, "invalid VLAN ID -1 (must be between 0 and 4094)"),
        ({"vlan": "5"}, 'vlan is "5", not a whole number in 0..4094'),
        ({"vlanTrunk": [{"minID": 0, "maxID": 3}]}, "incorrect trunk minID parameter"),
        ({"vlanTrunk": [{"minID": 1, "maxID": 4095}]}, "incorrect trunk maxID parameter"),
        ({"vlanTrunk": [{"id": 4095}]}, "incorrect trunk id parameter"),
        ({"vlanTrunk": [{"minID": 9, "maxID": 3}]}, "minID is greater than maxID in trunk parameter"),
        (
            {"vlanTrunk": [{"maxID": 3}]},
            "minID and maxID should be configured simultaneously, minID is missing",
        ),
        (
            {"vlanTrunk": [{"minID": 3}]},
            "minID and maxID should be configured simultaneously, maxID is missing",
        ),
        ({"ipMasqBackend": "foo"}, 'unknown ipmasq backend "foo"'),
        ({"ipMasqBackend": "none"}, 'unknown ipmasq backend "none"'),
        ({"bridge": "a-name-far-too-long"}, "an interface name has 1 to 15 bytes"),
        ({"bridge": "a/b"}, "an interface name has 1 to 15 bytes"),
        ({"bridge": "longbridge12", "vlan": 100, "isGateway": True}, "longer than 15 bytes"),
        ({"mtu": 65536}, "mtu"),
        ({"mtu": True}, "mtu"),
        ({"isGateway": "yes"}, "isGateway"),
        ({"runtimeConfig": {"mac": "zz"}}, "address zz: invalid MAC address"),
        ({"runtimeConfig": {"mac": "02:00:00:00:00"}}, "invalid MAC address"),
        ({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, "not a unicast MAC address"),
    ],
)
def test_refused_in_words_that_users_know(keys: dict[str, Any], message: str) -> None:
    """Every refusal is code 7 and says what is wrong."""
    with pytest.raises(CniError) as caught:
        parse(**keys)
    assert caught.value.code == Code.INVALID_CONFIG
    assert message in caught.value.msg


def test_trunk_is_a_sorted_set_of_ranges() -> None:
    """minID with maxID and id in one entry are two ranges; duplicates count once."""
    trunk = [{"minID": 100, "maxID": 200}, {"id": 7}, {"id": 7, "minID": 1, "maxID": 1}]
    assert parse(vlanTrunk=trunk).trunk == ((1, 1), (7, 7), (100, 200))


@pytest.mark.parametrize(
    ("keys", "args", "mac"),
    [
        ({}, "", ""),
        ({}, "MAC=02:00:00:00:00:01", "02:00:00:00:00:01"),
        ({"args": {"cni": {"mac": "02:00:00:00:00:02"}}}, "MAC=02:00:00:00:00:01", "02:00:00:00:00:02"),
        (
            {"args": {"cni": {"mac": "02:00:00:00:00:02"}}, "runtimeConfig": {"mac": "02-00-00-00-00-AA"}},
            "MAC=02:00:00:00:00:01",
            "02:00:00:00:00:aa",
        ),
    ],
)
def test_mac_precedence(keys: dict[str, Any], args: str, mac: str) -> None:
    """CNI_ARGS is overruled by args.cni, that by the runtime's capability."""
    assert parse(args, **keys).mac.hex(":") == mac


@pytest.mark.parametrize("text", ["02:00:5e:10:00:0A", "02-00-5e-10-00-0a", "0200.5e10.000a"])
def test_mac_notations(text: str) -> None:
    """All that Go's net.ParseMAC reads of six bytes, as configurations in use were written against it."""
    assert parse(runtimeConfig={"mac": text}).mac.hex(":") == "02:00:5e:10:00:0a"


@pytest.mark.parametrize("text", ["02:00:5e:10:00", "0200:5e10:000a", "02.00.5e.10.00.0a", "02:00:5e:10:00:+a", "zz"])
def test_what_is_no_mac(text: str) -> None:
    """Wrong lengths, groups and digits."""
    with pytest.raises(CniError, match="invalid MAC address"):
        parse(runtimeConfig={"mac": text})


def test_backend_none_switches_the_firewall_off() -> None:
    """`backend` is pycni's own key and goes before the reference's ipMasqBackend; an empty one counts as absent."""
    assert parse(backend="none", ipMasqBackend="iptables").backend == "none"
    assert parse(backend="", ipMasqBackend="iptables").backend == "iptables"


def test_keys_match_in_any_case() -> None:
    """Go's JSON decoder ignores case, and configurations in the wild rely on it."""
    assert parse(MTU=1400, IsGateway=True).mtu == 1400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
key_names = st.sampled_from(
    "bridge mtu isGateway isDefaultGateway forceAddress ipMasq ipMasqBackend backend isolate hairpinMode promiscMode "
    "vlan vlanTrunk preserveDefaultVlan portIsolation macspoofchk enabledad disableContainerInterface ipam dns "
    "runtimeConfig args".split()
)


@given(st.dictionaries(key_names, json_values, max_size=5), st.text(max_size=30))
def test_any_configuration_is_parsed_or_refused(keys: dict[str, Any], args: str) -> None:
    """Nothing but a CniError comes out of a bad value, whatever its type."""
    try:
        conf = parse(args, **keys)
    except CniError as refused:
        assert refused.code in (Code.INVALID_CONFIG, Code.ENVIRONMENT, Code.DECODE)
    else:
        assert len(conf.gateway_link.encode()) <= 15
