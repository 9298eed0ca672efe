"""The nftables backend's elements from ADD to DEL and GC: idempotence, damage, upgrades, concurrency."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from typing import Any, NoReturn

import pytest

from netns_fixtures import Host, netns_snapshot
from pycni.firewall.nft_text import GUARD, MAIN, Table, render_elements
from pycni.firewall.rules import Element
from tests.kernel.firewall_calls import NET1, NET2, act, add, attachment, elements, environment, listed

pytestmark = pytest.mark.needs("root", "tool:nft")


def test_add_is_idempotent_and_delete_takes_exactly_its_own(host: Host) -> None:
    """ADD twice is one element; DEL of one leaves the other's and the shared ones; the last takes the tables."""
    one, two = attachment(5, guarded=True), attachment(6)
    act(host, lambda f: f.apply_add(NET1, one))
    act(host, lambda f: f.apply_add(NET1, one))
    act(host, lambda f: f.apply_add(NET1, two))
    assert act(host, lambda f: f.missing(NET1, one)) == ()
    act(host, lambda f: f.apply_delete(one))
    assert act(host, lambda f: f.owners()) == {two.owner}
    assert act(host, lambda f: f.missing(NET1, two)) == ()
    act(host, lambda f: f.apply_delete(two, NET1))
    assert elements(host) == set()
    act(host, lambda f: f.remove_all())
    assert listed(host) == ""


def test_a_whole_life_leaves_the_host_as_it_was(host: Host) -> None:
    """Snapshot before the first ADD == snapshot after the last DEL."""
    before = netns_snapshot(host.ns)
    act(host, lambda f: f.apply_add(NET1, attachment(5, guarded=True)))
    act(host, lambda f: f.apply_delete(attachment(5, guarded=True), NET1))
    act(host, lambda f: f.remove_all())
    assert netns_snapshot(host.ns) == before


@pytest.mark.parametrize(
    "damage", ["", "nft flush ruleset", "nft flush set inet pycni masq4", "nft delete table inet pycni"]
)
def test_delete_succeeds_whatever_is_gone(host: Host, damage: str) -> None:
    """DEL twice, DEL after somebody flushed everything, the set or the table: success, nothing of its own is left."""
    one = attachment(5, guarded=True)
    act(host, lambda f: f.apply_add(NET1, one))
    if damage:
        host.run(damage.split())
    for _ in range(2):
        act(host, lambda f: f.apply_delete(one, NET1))
    assert elements(host) == set()
    for _ in range(2):
        act(host, lambda f: f.remove_all())
    assert listed(host) == ""


def test_shared_elements_stay_as_long_as_another_network_needs_them(host: Host) -> None:
    """Two networks on one bridge and subnet: the first's last DEL takes nothing away from the second."""
    twin = NET1.replace(network="twin", isolate=False)
    act(host, lambda f: f.apply_add(NET1, attachment(5)))
    act(host, lambda f: f.apply_add(twin, attachment(6, twin)))
    act(host, lambda f: f.apply_delete(attachment(5), NET1, [twin]))
    assert act(host, lambda f: f.missing(twin, attachment(6, twin))) == ()
    assert {name for name, *_ in elements(host) if name == "isolated"} == set()


def test_a_flushed_ruleset_comes_back_for_everyone(host: Host) -> None:
    """After `nft flush ruleset` the next ADD also restores what the caller says that the others need."""
    old = [(NET1, attachment(number, guarded=True)) for number in (5, 6)] + [(NET2, attachment(7, NET2))]
    for network, one in old:
        add(host, network, one)
    before = elements(host)
    host.run(["nft", "flush", "ruleset"])
    assert act(host, lambda f: f.missing(NET1, attachment(5)))[0] == "table inet pycni of this version"
    act(host, lambda f: f.apply_add(NET1, attachment(8, guarded=True), nullcontext(old)))
    own = {row for row in elements(host) if row[-1] == "net1/c8/eth0"}
    assert elements(host) - own == before


def test_everyone_is_not_asked_while_the_table_stands(host: Host) -> None:
    """The list of all attachments, which grows with them, is only read where the table is made."""

    class Refusing(nullcontext[Any]):
        def __enter__(self) -> NoReturn:
            raise AssertionError("asked")

    act(host, lambda f: f.apply_add(NET1, attachment(5)))
    act(host, lambda f: f.apply_add(NET1, attachment(6), Refusing()))


def other_version(table: Table) -> Table:
    """As a release before this one might have had it: fewer sets, other rules."""
    return table.replace(sets=table.sets[:3], chains={"postrouting": table.chains["postrouting"][:3]})


@pytest.mark.parametrize("also_rules_of_nobody", [False, True])
def test_another_versions_table_is_replaced_and_keeps_its_elements(host: Host, also_rules_of_nobody: bool) -> None:
    """An upgrade finds the table under another hash: new rules, one marker, all elements still there."""
    old = other_version(MAIN)
    saved = [Element("masq4", (f"10.1.0.{n}",), f"net1/c{n}/eth0") for n in range(2, 200)]
    saved.append(Element("local4", ("10.1.0.0/24", "10.1.0.0/24")))
    text = old.render() + render_elements(old, saved) + f"add chain inet pycni {old.marker()}\n"
    if also_rules_of_nobody:
        text += "add rule inet pycni postrouting accept\n"
    host.run(["nft", "-f", "-"], input=text)
    act(host, lambda f: f.apply_add(NET1, attachment(200)))
    fresh = MAIN.render()
    assert {("masq4", "10.1.0.2", "net1/c2/eth0"), ("masq4", "10.1.0.200", "net1/c200/eth0")} <= elements(host)
    assert len([row for row in elements(host) if row[0] == "masq4"]) == 199
    shown = listed(host)
    assert old.marker() not in shown
    assert MAIN.marker() in shown
    assert shown.count("masquerade") == fresh.count("masquerade")


def test_flushed_rules_are_missed(host: Host) -> None:
    """`nft flush table` leaves sets and chains: CHECK still says that the rules are gone."""
    act(host, lambda f: f.apply_add(NET1, attachment(5, guarded=True)))
    host.run(["nft", "flush", "table", "inet", "pycni"])
    host.run(["nft", "delete", "element", "bridge", "pycni", "guarded", '{ "veth5" }'])
    missing = act(host, lambda f: f.missing(NET1, attachment(5, guarded=True)))
    assert {"rules of chain postrouting", "rules of chain forward", "rules of chain ports4"} <= set(missing)
    assert missing[-1] == "guarded veth5 in table bridge pycni"


def test_an_address_that_has_gone_to_somebody_else_stays_his(host: Host) -> None:
    """The late DEL of a former owner leaves the element of the one who has the address now."""
    act(host, lambda f: f.apply_add(NET1, attachment(5)))
    heir = attachment(5).replace(owner="net1/heir/eth0")
    act(host, lambda f: f.apply_add(NET1, heir))
    act(host, lambda f: f.apply_delete(attachment(5)))
    assert act(host, lambda f: f.owners()) == {"net1/heir/eth0"}
    assert act(host, lambda f: f.missing(NET1, heir)) == ()


def test_collect_removes_what_nobody_needs(host: Host) -> None:
    """GC: own and shared elements of the dead go, in both tables; with nobody left the tables go too."""
    act(host, lambda f: f.apply_add(NET1, attachment(5)))
    before = elements(host)
    act(host, lambda f: f.apply_add(NET1, attachment(6, guarded=True)))
    act(host, lambda f: f.apply_add(NET2, attachment(7, NET2)))
    removed = act(host, lambda f: f.collect([(NET1, attachment(5))]))
    assert "inet pycni: masq4 10.1.0.6 net1/c6/eth0" in removed
    assert "bridge pycni: guarded veth6 net1/c6/eth0" in removed
    assert "inet pycni: bridges br1" in removed
    assert elements(host) == before
    assert act(host, lambda f: f.collect([(NET1, attachment(5))])) == ()
    act(host, lambda f: f.collect([]))
    assert listed(host) == ""


ADDER = """
import sys
from pycni.firewall.rules import AttachmentRules, NetworkRules
from pycni.host.firewall import open_firewall
worker = int(sys.argv[1])
network = NetworkRules("net1", ("br0",), True, ("10.1.0.0/16",))
firewall = open_firewall("nftables")
for number in range(25):
    mac = (f"v{worker}n{number}", "02:00:00:00:00:01")
    one = AttachmentRules(f"net1/w{worker}n{number}/eth0", (f"10.1.{worker}.{number}",), (mac,))
    firewall.apply_add(network, one)
    if number % 2:
        firewall.apply_delete(one)
firewall.close()
"""


def test_eight_processes_at_once(host: Host) -> None:
    """Started together on an empty host: one table, every element that should be there, none that should not."""
    workers = [
        host.popen([sys.executable, "-c", ADDER, str(number)], stderr=subprocess.PIPE, env=environment())
        for number in range(8)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors
    expected = {f"net1/w{worker}n{number}/eth0" for worker in range(8) for number in range(0, 25, 2)}
    assert act(host, lambda f: f.owners()) == expected
    shown = listed(host)
    assert shown.count("chain base_") == 2
    assert shown.count("masquerade\n") == MAIN.render().count("masquerade\n")


def test_eight_processes_while_the_ruleset_is_flushed(host: Host) -> None:
    """Nobody fails, and what is there at the end is one whole table."""
    workers = [
        host.popen([sys.executable, "-c", ADDER, str(number)], stderr=subprocess.PIPE, env=environment())
        for number in range(8)
    ]
    for _ in range(10):
        host.run(["nft", "flush", "ruleset"])
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors
    act(host, lambda f: f.apply_add(NET1.replace(subnets=("10.1.0.0/16",)), attachment(5, guarded=True)))
    rules = [rule for table in (MAIN, GUARD) for _, *chain in table.chains.values() for rule in chain if rule]
    shown = listed(host)
    assert [shown.count(f"\t\t{rule}\n") for rule in rules] == [rules.count(rule) for rule in rules]
