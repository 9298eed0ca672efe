"""Addresses as text: Go's reading, which is not quite that of `ipaddress`."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pycni.cni.addresses import parse_address, parse_cidr, parse_prefix


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.1.0.5", "10.1.0.5"),
        ("FD00::0:1", "fd00::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("::ffff:102:304", "1.2.3.4"),
        ("::1.2.3.4", "::102:304"),
        ("0.0.0.0", "0.0.0.0"),
        ("::", "::"),
    ],
)
def test_addresses_are_read_as_go_reads_them(text: str, canonical: str) -> None:
    """IPv4-mapped IPv6 is IPv4; everything else is itself."""
    assert str(parse_address(text)) == canonical


@pytest.mark.parametrize(
    "text", ["", "10.1.0", "10.01.0.5", "10.1.0.5/16", " 10.1.0.5", "10.1.0.5\n", "fe80::1%eth0", "x", "256.0.0.1", "1"]
)
def test_what_is_no_address(text: str) -> None:
    """Leading zeros (octal to some), zones, lengths and spaces are refused."""
    with pytest.raises(ValueError, match="is not an IP address"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "interface", "network"),
    [
        ("10.1.2.5/16", "10.1.2.5/16", "10.1.0.0/16"),
        ("10.1.0.0/16", "10.1.0.0/16", "10.1.0.0/16"),
        ("fd00::5/64", "fd00::5/64", "fd00::/64"),
        ("::ffff:10.1.2.5/112", "10.1.2.5/16", "10.1.0.0/16"),
        ("0.0.0.0/0", "0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0", "::/0"),
        ("10.0.0.1/032", "10.0.0.1/32", "10.0.0.1/32"),
    ],
)
def test_cidr_keeps_host_bits_and_prefix_clears_them(text: str, interface: str, network: str) -> None:
    """An address config keeps the host's part, a route's destination loses it."""
    assert parse_cidr(text) == ip_interface(interface)
    assert parse_prefix(text) == ip_network(network)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "10.0.0.1",
        "10.0.0.1/",
        "/24",
        "10.0.0.1/33",
        "10.0.0.1/-1",
        "10.0.0.1/+8",
        "10.0.0.1/255.0.0.0",
        "10.0.0.1/0.0.0.255",
        "10.0.0.1/٣",
        "10.0.0.1/²",
        "10.0.0.1/24/8",
        "10.0.0.1/" + "0" * 5000,
        "fd00::1/129",
        "fe80::1%eth0/64",
        "::ffff:10.0.0.1/95",
        "010.0.0.1/8",
    ],
)
def test_what_is_no_cidr(text: str) -> None:
    """A missing length, a netmask in place of one and a length out of range are refused."""
    for parse in (parse_cidr, parse_prefix):
        with pytest.raises(ValueError, match=r"^invalid CIDR address: "):
            parse(text)


@given(st.ip_addresses(), st.integers(0, 128))
def test_text_of_every_address_and_interface_reads_back(address: object, length: int) -> None:
    """What we write in a result is what we read from it."""
    plain = parse_address(str(address))
    assert str(parse_address(str(plain))) == str(plain)
    interface = ip_interface((str(plain), min(length, plain.max_prefixlen)))
    assert parse_cidr(str(interface)) == interface
    assert parse_prefix(str(interface)) == interface.network


@example("::ffff:0:0/96")
@given(st.one_of(st.text(), st.text(alphabet="0123456789./:af%")))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    """Nothing else escapes, and what passes is an address to `ipaddress` too."""
    for parse in (parse_address, parse_cidr, parse_prefix):
        try:
            parse(text)
        except ValueError:
            continue
        ip_address(text.partition("/")[0])
