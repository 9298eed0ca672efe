"""What tuning keeps, and what it does with that: the kept file as text, operations, comparison."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.change.tuning import TuneLink, TuneSysctl, same_value
from pycni.cni.result import Interface, Result
from pycni.host.link_facts import Link
from pycni.plugins.tuning import plan
from pycni.plugins.tuning.compare import differences
from pycni.plugins.tuning.conf import Sysctl, TuningConf

MAC = bytes.fromhex("020000000007")
NOTHING = TuningConf((), b"", 0, False, None, None, "/run/cni/tuning")
LINK = Link(index=2, name="eth0", kind="veth", mtu=1500, mac=bytes(6), tx_queue=1000)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
pairs = st.dictionaries(texts, texts, max_size=3).map(lambda found: tuple(found.items()))
keeps = st.builds(
    plan.Kept,
    owner=texts,
    netns_id=texts,
    boot_id=texts,
    mac=st.just(b"") | st.binary(min_size=6, max_size=6),
    mtu=st.integers(0, 65535),
    promiscuous=st.none() | st.booleans(),
    all_multicast=st.none() | st.booleans(),
    tx_queue=st.none() | st.integers(0, 2**31 - 1),
    sysctls=pairs,
    became=pairs,
)


@given(kept=keeps)
def test_a_kept_file_says_what_was_kept(kept: plan.Kept) -> None:
    """To us all of it, to the reference's plugin what it looks for, under its names."""
    text = kept.render()
    assert plan.parse_kept(text) == kept
    decoded = json.loads(text)
    assert decoded.get("mac", "") == kept.mac.hex(":")
    assert (decoded.get("mtu", 0), decoded.get("promisc"), decoded.get("allmulti"), decoded.get("txQLen")) == (
        kept.mtu,
        kept.promiscuous,
        kept.all_multicast,
        kept.tx_queue,
    )


@given(text=st.none() | texts | st.recursive(st.none() | st.integers() | texts, st.lists).map(json.dumps))
def test_a_broken_file_is_none(text: str | None) -> None:
    """Never an exception: what a crash left may be anything."""
    kept = plan.parse_kept(text)
    assert kept is None or kept == plan.Kept()


def test_the_references_file_is_understood() -> None:
    """One that names no owner is its."""
    kept = plan.parse_kept('{\n "mac": "02:00:00:00:00:07",\n "promisc": false,\n "mtu": 1500\n}')
    assert kept == plan.Kept(mac=MAC, promiscuous=False, mtu=1500)


@given(first=keeps, second=keeps)
def test_the_oldest_value_is_kept(first: plan.Kept, second: plan.Kept) -> None:
    """Of the same attachment in the same namespace; a file of any other is replaced as a whole."""
    later = second.replace(owner=first.owner, netns_id=first.netns_id)
    merged = plan.merge(later, first)
    assert dict(first.sysctls).items() <= dict(merged.sysctls).items()
    assert dict(later.sysctls).keys() <= dict(merged.sysctls).keys()
    assert merged.mac == (first.mac or later.mac)
    assert merged.promiscuous == (later.promiscuous if first.promiscuous is None else first.promiscuous)
    assert plan.merge(second.replace(owner=first.owner + "x"), first) == second.replace(owner=first.owner + "x")


def test_restoring_takes_back_each_setting_on_its_own() -> None:
    """Sysctls newest first, each operation independent of the others."""
    kept = plan.Kept(mac=MAC, mtu=1500, promiscuous=False, tx_queue=0, sysctls=(("net/a", "1"), ("net/b", "2")))
    assert plan.plan_restore("eth0", kept) == (
        TuneLink("eth0", mac=MAC),
        TuneLink("eth0", promiscuous=False),
        TuneLink("eth0", mtu=1500),
        TuneLink("eth0", tx_queue=0),
        TuneSysctl("net/b", "2"),
        TuneSysctl("net/a", "1"),
    )


def test_the_result_says_what_the_interface_has_now() -> None:
    """MAC and MTU of the container's interface, not of one of that name in the host; no MTU where none was said."""
    host, inside = Interface("eth0", "aa", 1500), Interface("eth0", "bb", 1500, "/n")
    silent = Interface("eth0", "cc", 0, "/n")
    conf = NOTHING.replace(mac=MAC, mtu=1400)
    changed = plan.changed_result(conf, "eth0", Result(interfaces=(host, inside, silent)))
    text = MAC.hex(":")
    assert changed.interfaces == (host, inside.replace(mac=text, mtu=1400), silent.replace(mac=text))
    assert plan.changed_result(NOTHING.replace(tx_queue=1), "eth0", changed) == changed


@pytest.mark.parametrize(
    ("wanted", "have", "same"),
    [
        ("1", "1", True),
        ("0x10", "16", True),
        ("010", "8", True),
        ("-1", "-1", True),
        ("4096 87380 6291456", "4096\t87380\t6291456", True),
        ("1-3", "1-3", True),
        ("1", "2", False),
        ("1 2", "1", False),
        ("cubic", "reno", False),
        ("1", None, False),
        ("09", "9", False),
    ],
)
def test_values_that_say_the_same(wanted: str, have: str | None, same: bool) -> None:
    """As the kernel reads numbers; 09 is none, neither here nor there."""
    assert same_value(wanted, have) is same


@given(value=texts)
def test_every_value_is_itself(value: str) -> None:
    """Whatever the text."""
    assert same_value(value, value)


def test_check_compares_only_what_is_configured() -> None:
    """A promiscuous link is somebody with tcpdump; a value that the kernel wrote in its own way is as ADD left it."""
    assert differences(NOTHING, "eth0", LINK.replace(flags=0x300, mtu=9), {}, {}) == ()
    conf = NOTHING.replace(sysctls=(Sysctl("net.a", "net/a", "1,2"), Sysctl("net.b", "net/b", "1")))
    assert differences(conf, "eth0", LINK, {"net/a": "1-2"}, {"net/a": "1-2"}) == ()
    (said,) = differences(conf, "eth0", LINK, {"net/a": "1-2", "net/b": None}, {"net/a": "1-2"})
    assert said == "sysctl net/b is missing instead of 1"
    assert len(differences(conf, "eth0", None, {"net/a": "7", "net/b": "0"}, {"net/a": "1-2"})) == 3


def _settings(**given_: Any) -> TuningConf:
    return NOTHING.replace(**given_)


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        (_settings(mac=MAC), "eth0 has MAC 00:00:00:00:00:00 instead of 02:00:00:00:00:07"),
        (_settings(mtu=1400), "eth0 has an MTU of 1500 instead of 1400"),
        (_settings(promiscuous=True), "eth0 is not promiscuous"),
        (_settings(all_multicast=True), "eth0 has all-multicast mode off"),
        (_settings(tx_queue=0), "eth0 has a queue of 1000 packets instead of 0"),
    ],
)
def test_each_setting_is_compared(conf: TuningConf, said: str) -> None:
    """One difference, in words."""
    assert differences(conf, "eth0", LINK, {}, {}) == (said,)
