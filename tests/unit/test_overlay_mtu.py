"""The MTU that a network gets on a host, as its uplink and those of the others have it."""

from __future__ import annotations

import pytest

from pycni.cni.addresses import parse_address
from pycni.cni.errors import CniError, Code
from pycni.plugins.overlay.underlay import Way

FOUR, SIX = ("10.1.0.0/16",), ("10.1.0.0/16", "fd00:1::/64")


@pytest.mark.parametrize(
    ("local", "uplink", "subnets", "others", "mtu"),
    [
        ("192.0.2.1", 1500, SIX, (), 1450),
        ("2001:db8::1", 1500, SIX, (), 1430),
        ("192.0.2.1", 9000, SIX, (1500, 9000), 1450),
        ("192.0.2.1", 1330, SIX, (), 1280),
        ("192.0.2.1", 1500, SIX, (1329, 1400), 1350),
        ("192.0.2.1", 1500, FOUR, (1329, 1400), 1279),
        ("192.0.2.1", 1500, FOUR, (100,), 1450),
    ],
)
def test_smallest_uplink_counts(
    local: str, uplink: int, subnets: tuple[str, ...], others: tuple[int, ...], mtu: int
) -> None:
    """Less the overhead; one that leaves too little for the addresses is not followed by all other hosts."""
    assert Way(local=parse_address(local), uplink="eth0", mtu=uplink).tunnel_mtu(0, subnets, others) == mtu


@pytest.mark.parametrize(
    ("uplink", "asked", "subnets", "said"),
    [
        (1329, 0, SIX, "eth0 has MTU 1329, of which the tunnel takes 50: the network needs 1280"),
        (117, 0, FOUR, "the network needs 68"),
        (1500, 1451, FOUR, "mtu is 1451: eth0 has 1500"),
    ],
)
def test_what_does_not_fit_is_refused(uplink: int, asked: int, subnets: tuple[str, ...], said: str) -> None:
    """With the numbers."""
    with pytest.raises(CniError, match=said) as refused:
        Way(local=parse_address("192.0.2.1"), uplink="eth0", mtu=uplink).tunnel_mtu(asked, subnets)
    assert refused.value.code == Code.INVALID_CONFIG
