"""The portmap plugin's configuration: the reference's keys and words, ours beside them, everything refused up front."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.conf import parse_conf
from pycni.cni.errors import CniError
from pycni.portmap.conf import Mapping, PortmapConf


def parse(mappings: Any = (), **keys: Any) -> PortmapConf:
    base = {"cniVersion": "1.0.0", "name": "net", "type": "portmap", "runtimeConfig": {"portMappings": mappings}}
    return PortmapConf.parse(parse_conf(json.dumps({**base, **keys}).encode(), "ADD"))


def mapping(**keys: Any) -> Mapping:
    (one,) = parse([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", **keys}]).mappings
    return one


def refusal(mappings: Any = (), **keys: Any) -> str:
    with pytest.raises(CniError) as caught:
        parse(mappings, **keys)
    assert caught.value.code == 7
    return str(caught.value)


def test_defaults_are_those_of_the_reference() -> None:
    """No key but the mappings: snat, mark bit 13, everything else off; the backend is whatever the host has."""
    conf = parse([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}])
    assert conf.mappings == (Mapping("tcp", 8080, 8080, 80),)
    assert (conf.snat, conf.masq_all, conf.mark_masq_bit, conf.external_set_mark_chain) == (True, False, 13, "")
    assert (conf.backend, conf.proxy, conf.conditions4, conf.conditions6) == ("", "auto", (), ())
    assert conf.direct_access and not conf.asks_nothing


@pytest.mark.parametrize("given_mappings", [None, []])
def test_nothing_is_asked_without_mappings(given_mappings: Any) -> None:
    """A pod without ports costs nothing, unless its container is to be guarded."""
    assert parse(given_mappings).asks_nothing
    assert not parse(given_mappings, directAccess=False).asks_nothing


def test_keys_match_in_any_case() -> None:
    """containerd sends the field names of its Go type."""
    one = parse([{"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": "127.0.0.1"}]).mappings[0]
    assert one == Mapping("tcp", 8080, 8080, 80, 4, "127.0.0.1")


@pytest.mark.parametrize(
    ("text", "family", "address"),
    [
        ("", 0, ""),
        ("0.0.0.0", 4, ""),
        ("::", 6, ""),
        ("[::]", 6, ""),
        ("127.0.0.1", 4, "127.0.0.1"),
        ("::1", 6, "::1"),
        ("[::1]", 6, "::1"),
        ("FD00::0005", 6, "fd00::5"),
        ("::ffff:192.0.2.1", 4, "192.0.2.1"),
    ],
)
def test_host_ip(text: str, family: int, address: str) -> None:
    """An unspecified address is every address of its family; none at all is every address."""
    one = mapping(hostIP=text)
    assert (one.family, one.host_ip) == (family, address)


def test_default_host_ip_is_for_mappings_that_have_none() -> None:
    """hostIP of the network is the address of mappings without one, also of those with an empty one."""
    ports = [{"hostPort": 1, "containerPort": 1}, {"hostPort": 2, "containerPort": 2, "hostIP": "::1"}]
    first, second = parse(ports, hostIP="127.0.0.1").mappings
    assert (first.host_ip, second.host_ip) == ("127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"hostPort": None}, "Invalid host port number: 0"),
        ({"hostPort": -1}, "Invalid host port number: -1"),
        ({"hostPort": 65536}, "Invalid host port number: 65536"),
        ({"containerPort": 0}, "Invalid container port number: 0"),
        ({"containerPort": None}, "Invalid container port number: 0"),
        ({"containerPort": 70000}, "Invalid container port number: 70000"),
        ({"hostPort": 2**70}, f"Invalid host port number: {2**70}"),
        ({"hostPort": "80"}, 'hostPort is "80", not a whole number in 0..65535'),
        ({"hostPort": True}, "hostPort is true, not a whole number in 0..65535"),
        ({"containerPort": "80"}, 'containerPort is "80", not a whole number in 1..65535'),
        ({"protocol": "icmp"}, "not one of tcp, udp, sctp"),
        ({"hostIP": "bogus"}, "hostIP is wrong"),
        ({"hostIP": "[127.0.0.1]"}, "hostIP is wrong"),
        ({"hostIP": "fe80::1%eth0"}, "hostIP is wrong"),
        ({"hostIP": "10.0.0.0/8"}, "hostIP is wrong"),
        ({"hostIP": "fe80::1"}, "hostIP is fe80::1, which holds for one link alone"),
        ({"hostIP": "[ff02::1]"}, "hostIP is ff02::1, the address of a group"),
        ({"hostIP": "224.0.0.1"}, "hostIP is 224.0.0.1, the address of a group"),
        ({"hostPortEnd": 8079}, "hostPortEnd"),
        ({"hostPortEnd": 65536}, "hostPortEnd"),
        ({"hostPort": 0, "hostPortEnd": 90}, "a range needs its first port"),
        ({"hostPortEnd": 8180, "containerPort": 65500}, "go beyond 65535"),
        ({"sources": []}, "sources is empty"),
        ({"sources": ["10.0.0.0/33"]}, "sources is wrong"),
        ({"proxyProtocol": True, "protocol": "udp"}, "proxyProtocol"),
    ],
)
def test_wrong_mappings_are_refused_before_anything_is_done(keys: dict[str, Any], said: str) -> None:
    """With the reference's words where it has any."""
    text = refusal([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", **keys}])
    assert said in text


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"backend": "foo"}, 'unrecognized backend "foo"'),
        ({"markMasqBit": 32}, "MasqMarkBit must be between 0 and 31"),
        ({"markMasqBit": -1}, "MasqMarkBit must be between 0 and 31"),
        ({"markMasqBit": "13"}, 'markMasqBit is "13", not a whole number in 0..31'),
        ({"markMasqBit": 5, "externalSetMarkChain": "X"}, "Cannot specify externalSetMarkChain and markMasqBit"),
        (
            {"backend": "nftables", "externalSetMarkChain": "X"},
            "nftables backend was requested but configuration contains iptables-specific options"
            " [externalSetMarkChain]",
        ),
        (
            {"backend": "iptables", "conditionsV4": ["ip", "daddr", "192.0.2.0/24"]},
            "iptables backend was requested but configuration contains nftables-specific options [conditionsV4]",
        ),
        (
            {"conditionsV4": ["!", "-d", "192.0.2.0/24"], "conditionsV6": ["ip6", "daddr", "::/0"]},
            "iptables backend was requested but configuration contains nftables-specific options [conditionsV6]",
        ),
        ({"conditionsV4": ["-d", "x; drop"]}, "no word of a condition"),
        ({"conditionsV4": ["ip", "saddr", "{ 192.0.2.1; drop }"]}, "no word of a condition"),
        ({"conditionsV6": ["ip6", "saddr", "{ fc00::/8,\nfd00::/8 }"]}, "no word of a condition"),
        ({"externalSetMarkChain": "-F"}, "externalSetMarkChain"),
        ({"externalSetMarkChain": "a b"}, "externalSetMarkChain"),
        ({"proxy": "sometimes"}, "not one of auto, always, never"),
        ({"trustedInterfaces": ["a/b"]}, "trustedInterfaces"),
        ({"hostIP": "x"}, "hostIP is wrong"),
        ({"snat": "yes"}, "snat"),
    ],
)
def test_wrong_keys_are_refused(keys: dict[str, Any], said: str) -> None:
    """In the reference's words, so that who searches for them finds something."""
    assert said in refusal(**keys)


@pytest.mark.parametrize(
    "words",
    [
        ["ip", "saddr", "!=", "{ 203.0.113.0/24, 203.0.114.0/24 }"],
        ["ip", "saddr", "{", "203.0.113.1", ",", "203.0.113.2", "}"],
        ["iifname", '{ "br0", "br1" }', "tcp", "sport", "{1024-65535}"],
        ["ip", "saddr", "vmap", "{ 203.0.113.1 : drop }", "comment", '"a # b"'],
    ],
)
def test_conditions_may_have_sets(words: list[str]) -> None:
    """In one word, as a reader would write them, or in several: the reference joins them."""
    assert parse(conditionsV4=words, conditionsV6=words).conditions4 == tuple(words)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "}",
        "{ 203.0.113.1",
        "203.0.113.1 }",
        "} {",
        "{ { 203.0.113.1 } }",
        "{ 203.0.113.1 } }",
        "{ 203.0.113.1 # }",
        '{ "br0 }',
        '" { } "',
        '{ "}" }',
        '{ br0 } "',
    ],
)
def test_conditions_do_not_reach_beyond_their_rule(text: str) -> None:
    """A set that nft finds open takes in what comes behind the rule, in one word or in many, of either family."""
    for words in ([text], text.split(" "), ["-s", text]):
        for key in ("conditionsV4", "conditionsV6"):
            assert "braces stand around a set" in refusal(**{key: words})


def test_language_of_the_options_chooses_the_backend() -> None:
    """Where nothing is asked for, iptables' words want iptables, nft's words nftables."""
    assert parse(externalSetMarkChain="KUBE-MARK-MASQ").backend == "iptables"
    assert parse(conditionsV4=["-d", "192.0.2.0/24"]).backend == "iptables"
    assert parse(conditionsV6=["ip6", "daddr", "fd00::/8"]).backend == "nftables"
    assert parse(conditionsV4=[]).backend == ""


def test_mappings_sent_twice_count_once() -> None:
    """Runtimes merge the ports of the image with those of the command line."""
    one = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    assert len(parse([one, {**one, "protocol": "TCP"}, {**one, "hostIP": ""}]).mappings) == 1


def test_range_and_choice_and_sources() -> None:
    """Our own keys: hostPortEnd, hostPort 0, sources of both families."""
    assert mapping(hostPortEnd=8089) == Mapping("tcp", 8080, 8089, 80)
    assert mapping(hostPort=0) == Mapping("tcp", 0, 0, 80)
    assert mapping(sources=["192.0.2.7/24", "fd00::1"]).sources == ("192.0.2.0/24", "fd00::1/128")
    assert mapping(proxyProtocol=True).proxy_protocol


values = st.none() | st.booleans() | st.integers(-10, 70000) | st.text(max_size=8) | st.lists(st.text(max_size=4))
names = st.sampled_from(
    "hostPort containerPort protocol hostIP hostPortEnd sources proxyProtocol snat masqAll markMasqBit proxy backend"
    " externalSetMarkChain conditionsV4 conditionsV6 directAccess trustedInterfaces".split()
)


@given(st.lists(st.dictionaries(names, values), max_size=3), st.dictionaries(names, values))
def test_whatever_comes_is_parsed_or_refused_with_code_7(given_mappings: list[Any], keys: dict[str, Any]) -> None:
    """Never another exception; what is accepted is within its limits."""
    try:
        conf = parse(given_mappings, **keys)
    except CniError as failure:
        assert failure.code == 7
        return
    for one in conf.mappings:
        assert 0 <= one.low <= one.high <= 65535 and 1 <= one.port <= 65535 - (one.high - one.low)
