"""Whose rules those are that no record names: decided from names alone, no kernel."""

from __future__ import annotations

import pytest

from pycni.attach.reclaim import are_strays
from pycni.cni.names import Attachment
from pycni.firewall.rules import comment_of

LENGTHS = [3, 94, 95, 96, 128, 200]  # a comment has 128 bytes, and of a longer owner the first 95


@pytest.mark.parametrize("part", ["", "firewall", "portmap"])
@pytest.mark.parametrize("letters", LENGTHS)
def test_rules_of_a_valid_attachment_are_no_strays(letters: int, part: str) -> None:
    """Nor those of what chained plugins added to it, however long the names are; of anybody else they are."""
    valid = Attachment("n" * letters, "c" * 32, "eth0")
    owner = comment_of(valid.replace(part=part).owner)
    assert not are_strays({owner}, valid.network, (valid,))
    assert are_strays({owner}, valid.network, (valid.replace(container_id="d" * 32),))
    assert are_strays({owner}, valid.network, ())


@pytest.mark.parametrize("letters", LENGTHS)
def test_rules_of_another_network_are_not_judged(letters: int) -> None:
    """Only its own GC knows who is valid there; one such owner keeps all of them."""
    ours, theirs = Attachment("n" * letters, "c" * 32, "eth0"), Attachment("m" * letters, "c" * 32, "eth0")
    owners = {comment_of(one.owner) for one in (ours, theirs)}
    assert not are_strays(owners, ours.network, ())


def test_a_networks_own_rules_stay_with_anybody_valid() -> None:
    """Those of iptables are the network's: which attachments they are for is not said."""
    assert not are_strays({"net"}, "net", (Attachment("net", "c1", "eth0"),))
    assert are_strays({"net"}, "net", ())
    assert not are_strays({"network"}, "net", ())


def test_where_there_are_no_rules_there_are_no_strays() -> None:
    """Nor is anything collected then."""
    assert not are_strays(set(), "net", ())
