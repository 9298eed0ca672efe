"""Ranges: the reference's checks, and arithmetic that never walks addresses."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.addresses import parse_cidr
from pycni.ipam.ranges import Range, make_range, make_set, make_subnet, without


def range_of(subnet: str, start: str = "", end: str = "", gateway: str = "") -> Range:
    start_ip, end_ip, gateway_ip = (ip_address(each) if each else None for each in (start, end, gateway))
    return make_range(make_subnet(parse_cidr(subnet)), start=start_ip, end=end_ip, gateway=gateway_ip)


@pytest.mark.parametrize(
    ("subnet", "shown", "gateway"),
    [
        ("10.9.0.0/24", "10.9.0.1-10.9.0.254", "10.9.0.1"),
        ("10.9.0.0/30", "10.9.0.1-10.9.0.2", "10.9.0.1"),
        ("fd00::/64", "fd00::1-fd00::ffff:ffff:ffff:ffff", "fd00::1"),
        ("fd00::/126", "fd00::1-fd00::3", "fd00::1"),
    ],
)
def test_defaults_are_those_of_the_reference(subnet: str, shown: str, gateway: str) -> None:
    """First to last address, IPv4 without broadcast; the gateway is the first."""
    made = range_of(subnet)
    assert (str(made), str(made.gateway)) == (shown, gateway)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"subnet": "10.9.0.5/24"},
            "Network has host bits set. For a subnet mask of length 24 the network address is 10.9.0.0",
        ),
        ({"subnet": "10.9.0.0/31"}, "Network 10.9.0.0/31 too small to allocate from"),
        ({"subnet": "10.9.0.0/32"}, "Network 10.9.0.0/32 too small to allocate from"),
        ({"subnet": "fd00::/127"}, "Network fd00::/127 too small to allocate from"),
        ({"subnet": "10.9.0.0/24", "start": "10.8.0.1"}, "RangeStart 10.8.0.1 not in network 10.9.0.0/24"),
        ({"subnet": "10.9.0.0/24", "start": "fd00::1"}, "RangeStart fd00::1 not in network 10.9.0.0/24"),
        ({"subnet": "10.9.0.0/24", "end": "10.9.1.5"}, "RangeEnd 10.9.1.5 not in network 10.9.0.0/24"),
        (
            {"subnet": "10.9.0.0/24", "start": "10.9.0.9", "end": "10.9.0.3"},
            "RangeStart 10.9.0.9 not in network 10.9.0.0/24",
        ),
        ({"subnet": "10.9.0.0/24", "end": "10.9.0.0"}, "RangeEnd 10.9.0.0 not in network 10.9.0.0/24"),
    ],
)
def test_refusals_have_the_reference_s_sentences(keys: dict[str, str], message: str) -> None:
    """Every sentence of the reference's Range.Canonicalize."""
    with pytest.raises(ValueError, match=f"^{message.replace('(', '[(]')}$"):
        range_of(**keys)


def test_a_set_is_refused_as_by_the_reference() -> None:
    """Empty, of two families, or with ranges that overlap."""
    with pytest.raises(ValueError, match=r"^empty range set$"):
        make_set([])
    with pytest.raises(ValueError, match=r"^mixed address families$"):
        make_set([range_of("10.9.0.0/24"), range_of("fd00::/64")])
    with pytest.raises(ValueError, match=r"^subnets 10.9.0.1-10.9.0.254 and 10.9.0.1-10.9.0.126 overlap$"):
        make_set([range_of("10.9.0.0/24"), range_of("10.9.0.0/25")])


def test_gateways_network_and_broadcast_are_never_given_out() -> None:
    """A gateway of one range is none of another's addresses; .0 and .255 are not, even where the range names them."""
    parts = [
        range_of("10.9.0.0/24", "10.9.0.0", "10.9.0.99", "10.9.0.200"),
        range_of("10.9.0.0/24", "10.9.0.100", "10.9.0.255"),
    ]
    made = make_set(parts)
    refused = {last for last in range(256) if not made.allows(int(ip_address("10.9.0.0")) + last)}
    assert refused == {0, 1, 200, 255}
    assert made.size == 252


def test_a_gateway_outside_the_subnet_leaves_the_first_address_free() -> None:
    """The reference does not check where the gateway is, and then hands out .1."""
    assert make_set([range_of("10.9.0.0/24", gateway="10.8.0.1")]).allows(int(ip_address("10.9.0.1")))


def test_a_huge_exclude_of_a_huge_range_is_two_numbers() -> None:
    """Half of a /48 excluded: nothing is walked, the size is exact."""
    made = make_set([range_of("fd00::/48")], [IPv6Network("fd00::/49"), IPv4Network("10.0.0.0/8")])
    assert made.pieces == (
        (0, int(ip_address("fd00:0:0:8000::")), int(ip_address("fd00:0:0:ffff:ffff:ffff:ffff:ffff"))),
    )
    assert made.size == 2**79


def test_an_exclude_may_leave_nothing() -> None:
    """Then the set is full from the start, which ADD says; it is no error of the config."""
    assert make_set([range_of("10.9.0.0/24")], [ip_network("10.9.0.0/16")]).size == 0


@given(
    first=st.integers(0, 40),
    length=st.integers(0, 40),
    holes=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 20)), max_size=6),
)
def test_without_is_set_difference(first: int, length: int, holes: list[tuple[int, int]]) -> None:
    """Intervals left over hold exactly the numbers in no hole, in order and apart from one another."""
    cut = sorted((start, start + size) for start, size in holes)
    left = without((first, first + length), cut)
    kept = [number for a, b in left for number in range(a, b + 1)]
    assert kept == [n for n in range(first, first + length + 1) if not any(a <= n <= b for a, b in cut)]
