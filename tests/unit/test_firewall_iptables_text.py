"""iptables rules as text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pycni.firewall.iptables_text import (
    Unit,
    count_uses,
    forward_units,
    masquerade_units,
    render_install,
    render_purge,
    render_remnant,
    render_remove,
    units_of,
)
from pycni.firewall.rules import NetworkRules

NET = NetworkRules("net1", ("br0",), True, ("10.1.0.0/24", "fd00:1::/64"))


def named(text: str, units: tuple[Unit, ...]) -> str:
    """*text* with the chains' hashes replaced by their kinds."""
    for unit in units:
        text = text.replace(unit.chain, f"PYCNI-{unit.kind}")
    return text


def test_a_network_as_text() -> None:
    """One transaction; masquerade by subnet, isolation by bridge; nothing per container."""
    units = units_of(NET, 4)
    assert (
        named(render_install(units, ["PYCNI-ISOLATED", "PYCNI-OPEN"]), units)
        == """\
*filter
:PYCNI-D - [0:0]
:PYCNI-S - [0:0]
-N PYCNI-ISOLATED
-N PYCNI-OPEN
-A PYCNI-D -j DROP
-A PYCNI-ISOLATED -o br0 -j PYCNI-D
-A PYCNI-OPEN -o br0 -j PYCNI-D
-A PYCNI-S -m conntrack --ctstate DNAT -j RETURN
-A PYCNI-S -j PYCNI-ISOLATED
-I FORWARD -i br0 ! -o br0 -m comment --comment "pycni net1" -j PYCNI-S
COMMIT
*nat
:PYCNI-M - [0:0]
-A PYCNI-M -d 10.1.0.0/24 -j RETURN
-A PYCNI-M -d 224.0.0.0/4 -j RETURN
-A PYCNI-M -m addrtype --src-type LOCAL -j RETURN
-A PYCNI-M -j MASQUERADE
-A POSTROUTING -s 10.1.0.0/24 -m comment --comment "pycni net1" -j PYCNI-M
COMMIT
"""
    )


def test_its_removal_as_text() -> None:
    """First what jumps there, then the chain."""
    units = masquerade_units(NET, 6)
    assert (
        named(render_remove(units), units)
        == """\
*nat
-D POSTROUTING -s fd00:1::/64 -m comment --comment "pycni net1" -j PYCNI-M
-F PYCNI-M
-X PYCNI-M
COMMIT
"""
    )


def test_the_removal_of_what_somebody_left() -> None:
    """Jumps as the listing has them, whichever are there; the chain, if only to be sure."""
    (unit,) = masquerade_units(NET, 4)
    jump = f'POSTROUTING -s 10.1.0.0/24 -m comment --comment "pycni net1" -j {unit.chain}'
    for lines, deletion in (((f"-A {jump}", "-A POSTROUTING -j OTHER"), f"-D {jump}\n"), ((), "")):
        assert render_remnant(unit, lines) == f"*nat\n:{unit.chain} - [0:0]\n{deletion}-X {unit.chain}\nCOMMIT\n"


def test_what_answers_a_forward_policy_of_drop() -> None:
    """From the bridge everything, to it answers and what was translated; appended, so others' drops come first."""
    units = forward_units(NET)
    assert (
        named(render_install(units), units)
        == """\
*filter
:PYCNI-F - [0:0]
-A PYCNI-F -i br0 -j ACCEPT
-A PYCNI-F -o br0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A FORWARD -m comment --comment "pycni br0" -j PYCNI-F
COMMIT
"""
    )


def test_an_open_network_is_dropped_only_from_isolated_ones() -> None:
    """It stands in one list, not in both, and is judged by the other."""
    units = units_of(NET.replace(isolate=False), 4)
    text = render_install(units)
    assert "-A PYCNI-OPEN" not in text
    assert f"-A PYCNI-ISOLATED -o br0 -j {units[-2].chain}" in text
    assert f"-A {units[-1].chain} -j PYCNI-OPEN" in text


names = st.from_regex(r"\A[a-z][a-z0-9.-]{0,14}\Z")
networks = st.builds(
    NetworkRules, network=names, bridges=st.tuples(names), isolate=st.booleans(), subnets=st.just(NET.subnets)
)


@given(networks, networks)
def test_different_rules_are_different_chains(one: NetworkRules, two: NetworkRules) -> None:
    """A chain's name says its content, in at most 28 characters (XT_EXTENSION_MAXNAMELEN - 1)."""
    units = {*units_of(one, 4), *forward_units(one), *units_of(two, 4), *forward_units(two)}
    assert len({unit.chain for unit in units}) == len(units)
    assert all(len(unit.chain) <= 28 for unit in units)


LISTING = """\
-P FORWARD ACCEPT
-N PYCNI-F-00000001
-N PYCNI-F-00000002
-N PYCNI-ISOLATED
-N OTHER
-A FORWARD -j OTHER
-A FORWARD -m comment --comment "pycni br0" -j PYCNI-F-00000001
-A FORWARD -m comment --comment "pycni br1" -j PYCNI-F-00000002
-A PYCNI-F-00000001 -i br0 -j ACCEPT
-A PYCNI-F-00000002 -i br1 -j ACCEPT
""".splitlines()


def test_purge_as_text() -> None:
    """All chains of ours are emptied, unhooked and deleted; those of others stay."""
    text, chains = render_purge("filter", LISTING)
    assert chains == ["PYCNI-F-00000001", "PYCNI-F-00000002", "PYCNI-ISOLATED"]
    assert (
        text
        == """\
*filter
:PYCNI-F-00000001 - [0:0]
:PYCNI-F-00000002 - [0:0]
:PYCNI-ISOLATED - [0:0]
-D FORWARD -m comment --comment "pycni br0" -j PYCNI-F-00000001
-D FORWARD -m comment --comment "pycni br1" -j PYCNI-F-00000002
-X PYCNI-F-00000001
-X PYCNI-F-00000002
-X PYCNI-ISOLATED
COMMIT
"""
    )


def test_purge_keeps_what_it_is_told_to() -> None:
    """A kept chain keeps its hook, and the shared chains stay with it."""
    text, chains = render_purge("filter", LISTING, {"PYCNI-F-00000002"})
    assert chains == ["PYCNI-F-00000001"]
    assert "00000002" not in text
    assert render_purge("filter", ["-P FORWARD ACCEPT"]) == ("", [])


def test_uses_are_rules_and_jumps() -> None:
    """As nf_tables counts a chain's users."""
    assert count_uses(LISTING, "PYCNI-F-00000001") == 2
    assert count_uses(LISTING, "PYCNI-F-00000003") == 0
