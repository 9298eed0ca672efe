"""Options become capability arguments in the shapes the CNI conventions give, or a usage error."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycni.cli import capabilities
from pycni.cli.parser import build_parser

ADD = ["add", "net", "web"]


def args_of(*options: str) -> dict[str, Any]:
    return capabilities.capability_args(build_parser().parse_args([*ADD, *options]))


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ("8080:80", {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}),
        ("53:53/UDP", {"hostPort": 53, "containerPort": 53, "protocol": "udp"}),
        ("127.0.0.1:1:2/sctp", {"hostPort": 1, "containerPort": 2, "protocol": "sctp", "hostIP": "127.0.0.1"}),
        ("[::1]:1:2", {"hostPort": 1, "containerPort": 2, "protocol": "tcp", "hostIP": "::1"}),
        ("2001:DB8::1:80:81", {"hostPort": 80, "containerPort": 81, "protocol": "tcp", "hostIP": "2001:db8::1"}),
    ],
)
def test_a_port_becomes_a_mapping(text: str, mapping: dict[str, Any]) -> None:
    """[IP:]HOST:CONTAINER[/PROTOCOL], the address with or without brackets."""
    assert capabilities.parse_port(text) == [mapping]


def test_a_port_range_becomes_a_mapping_for_each_port() -> None:
    """Ranges of equal length, port by port."""
    found = capabilities.parse_port("8000-8002:80-82")
    assert [(one["hostPort"], one["containerPort"]) for one in found] == [(8000, 80), (8001, 81), (8002, 82)]


@pytest.mark.parametrize(
    "text", ["80", "80:", ":80", "0:80", "80:65536", "90-80:90-80", "1-3:1-2", "1:2/icmp", "1:2/", "x:1:2", "²:2"]
)
def test_a_wrong_port_is_refused(text: str) -> None:
    """Every mistake is an argument error, not a half-way failure in a plugin."""
    with pytest.raises(argparse.ArgumentTypeError):
        capabilities.parse_port(text)


PARSERS: list[Callable[[str], object]] = [
    capabilities.parse_port,
    capabilities.parse_mac,
    capabilities.parse_ip_range,
    capabilities.parse_requested_address,
    capabilities.parse_pair,
    capabilities.parse_object,
]


@pytest.mark.parametrize("parse", PARSERS)
@settings(deadline=None)  # a busy machine is no failure
@given(text=st.text())
def test_no_text_breaks_a_parser(parse: Callable[[str], object], text: str) -> None:
    """Anything is taken or refused with an argument error."""
    try:
        parse(text)
    except argparse.ArgumentTypeError:
        pass


def test_all_options_together() -> None:
    """Every capability in its shape; special options win over --capability-args."""
    assert args_of(
        *("--capability-args", '{"bandwidth": {"ingressRate": 1}, "mac": "x"}', "--mac", "02-00-00-00-00-0A"),
        *("--ip", "10.1.0.5/24", "--ip", "fd00::5", "--ip-range", "10.1.0.0/24,10.1.0.9-10.1.0.20,gateway=10.1.0.1"),
        *("--dns", "10.1.0.1", "--dns-search", "example.org", "--port", "1:2", "--port", "3:4"),
    ) == {
        "bandwidth": {"ingressRate": 1},
        "mac": "02:00:00:00:00:0a",
        "ips": ["10.1.0.5/24", "fd00::5"],
        "ipRanges": [
            [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.20", "gateway": "10.1.0.1"}]
        ],
        "dns": {"servers": ["10.1.0.1"], "searches": ["example.org"]},
        "portMappings": [
            {"hostPort": 1, "containerPort": 2, "protocol": "tcp"},
            {"hostPort": 3, "containerPort": 4, "protocol": "tcp"},
        ],
    }


def test_without_options_there_are_no_arguments() -> None:
    """Nothing given is nothing sent, and one command line's lists are not another's."""
    assert args_of("--port", "1:2")
    assert args_of() == {}


@pytest.mark.parametrize("text", ["IP", "=x", "A=1=2", "A=1;B=2"])
def test_an_argument_pair_that_plugins_would_refuse_is_refused_first(text: str) -> None:
    """CNI_ARGS allows one equals sign for each pair, and the semicolon separates pairs."""
    with pytest.raises(argparse.ArgumentTypeError):
        capabilities.parse_pair(text)


def test_pairs_are_joined_for_the_environment() -> None:
    """An empty value is legal."""
    assert capabilities.render_args([("IgnoreUnknown", "1"), ("A", "")]) == "IgnoreUnknown=1;A="


@pytest.mark.parametrize("text", ["01:00:00:00:00:00", "02:00", "02:00:00:00:00:0g", "02:00:00:00:00:000"])
def test_a_mac_that_no_link_can_have_is_refused(text: str) -> None:
    """Group addresses and wrong lengths."""
    with pytest.raises(argparse.ArgumentTypeError):
        capabilities.parse_mac(text)
