"""What follows from a list of faults: rules, qdiscs, words; no kernel needed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.lab.faults import (
    Fault,
    Impairment,
    faults_in,
    impairment,
    nft_text,
    note,
    parse_delay,
    parse_mtu,
    parse_percent,
    parse_rate,
    qdisc_lines,
    shown_rate,
    told,
    with_fault,
)
from pycni.lab.running import RunningLink


def link(host: str, segment: str = "lan", number: int = 1, ifname: str = "eth0") -> RunningLink:
    addresses = f"192.0.2.{number}", f"2001:db8::{number}"
    return RunningLink(host, segment, ifname, f"{host}.0", f"br-{segment}", *addresses, 1500)


LINKS = (link("h1", number=1), link("h2", number=2), link("h3", "far", 3), link("r1", number=4))


def test_no_faults_leave_no_table() -> None:
    """The last fault's rules go with it."""
    assert nft_text((), LINKS) == "table bridge pycni_faults {}\ndelete table bridge pycni_faults\n"


def test_cut_and_loss_hit_both_directions_of_the_port() -> None:
    """What comes from the host, and what goes to it; 20 % are 2000 of 10000."""
    text = nft_text((Fault("cut", "h1", "eth0"), Fault("loss", "h2", "eth0", 20.0)), LINKS)
    assert text.splitlines()[5:-2] == [
        '    iifname { "h1.0" } drop',
        '    oifname { "h1.0" } drop',
        '    iifname "h2.0" numgen random mod 10000 < 2000 drop',
        '    oifname "h2.0" numgen random mod 10000 < 2000 drop',
    ]


def test_split_is_by_port_on_a_segment_and_by_address_across() -> None:
    """h1 and h2 share a switch; h3 is behind a router, whose own traffic goes on."""
    text = nft_text((Fault("split", parties=(("h1",), ("h2", "h3"))),), LINKS)
    assert 'iifname . oifname { "h1.0" . "h2.0", "h2.0" . "h1.0" } drop' in text
    assert "192.0.2.1 . 192.0.2.3" in text and "192.0.2.3 . 192.0.2.1" in text
    assert "ip6 saddr . ip6 daddr { 2001:db8::1 . 2001:db8::2" in text
    assert "192.0.2.2 . 192.0.2.3" not in text  # one party
    assert "r1" not in text and "192.0.2.4" not in text


def test_a_fault_of_a_link_that_is_gone_is_no_rule() -> None:
    """The lab's file may have lost a host since."""
    assert nft_text((Fault("cut", "h9", "eth0"),), LINKS) == nft_text((), LINKS)


def test_a_fault_replaces_the_one_at_its_place() -> None:
    """A second rate of a link is the rate; another link, and another kind, stay."""
    first, other = Fault("rate", "h1", "eth0", 1e6), Fault("rate", "h2", "eth0", 1e6)
    loss, second = Fault("loss", "h1", "eth0", 5.0), Fault("rate", "h1", "eth0", 2e6)
    assert with_fault(with_fault(with_fault((first,), other), loss), second) == (other, loss, second)
    split = Fault("split", parties=(("h1",), ("h2",)))
    assert with_fault((split,), Fault("split", parties=(("h1",), ("h3",))))[0].parties == (("h1",), ("h3",))


def test_impairment_of_a_link() -> None:
    """Kinds of one link come together; a cut with carrier changes nothing about the link itself."""
    faults = (
        Fault("rate", "h1", "eth0", 1e7),
        Fault("mtu", "h1", "eth0", 1400.0),
        Fault("cut", "h1", "eth0"),
        Fault("delay", "h2", "eth0", 20.0),
    )
    assert impairment(faults, LINKS[0]) == Impairment(rate_bps=10_000_000, mtu=1400)
    assert impairment(faults, LINKS[1]) == Impairment(delay_ms=20.0, mtu=1500)
    assert impairment((Fault("cut", "h3", "eth0", carrier=False),), LINKS[2]).down


def test_qdisc_lines() -> None:
    """A delayed and limited link is netem with tbf below; a bucket holds 5 ms, at least a few packets."""
    assert qdisc_lines("eth0", Impairment()) == []
    assert qdisc_lines("eth0", Impairment(rate_bps=8_000_000_000)) == [
        "qdisc replace dev eth0 root handle 10: tbf rate 8000000000bit burst 5000000 latency 50ms"
    ]
    assert qdisc_lines("p", Impairment(rate_bps=10_000, delay_ms=2.5)) == [
        "qdisc replace dev p root handle 1: netem delay 2.5ms limit 10000",
        "qdisc replace dev p parent 1:1 handle 10: tbf rate 10000bit burst 5000 latency 50ms",
    ]


names = st.sampled_from(["h1", "h2", "h3"])
faults = st.one_of(
    st.builds(Fault, st.just("cut"), names, st.just("eth0"), carrier=st.booleans()),
    st.builds(Fault, st.sampled_from(["loss", "mtu", "rate", "delay"]), names, st.just("eth0"), st.floats(1, 100)),
    st.builds(Fault, st.just("kill"), names, what=st.sampled_from(["agent", "etcd", "host"])),
    st.builds(Fault, st.just("split"), parties=st.just((("h1",), ("h2", "h3")))),
)


@given(st.lists(faults, max_size=8))
def test_state_keeps_faults_as_they_are(several: list[Fault]) -> None:
    """Written as JSON and read again, a fault is the same, 1 % and 1.0 included; each has words."""
    import json

    state = json.loads(json.dumps({"faults": [each.as_json() for each in several]}))
    assert list(faults_in(state)) == several
    assert all(map(told, several))


@given(st.lists(faults, max_size=6), st.randoms())
def test_order_of_faults_does_not_matter_for_what_passes(several: list[Fault], random: object) -> None:
    """One fault at each place: any order gives the same impairments and the same rules."""
    unique: tuple[Fault, ...] = ()
    for each in several:
        unique = with_fault(unique, each)
    shuffled = list(unique)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert [impairment(unique, each) for each in LINKS] == [impairment(shuffled, each) for each in LINKS]
    assert sorted(nft_text(unique, LINKS).splitlines()) == sorted(nft_text(shuffled, LINKS).splitlines())


def test_words_of_faults() -> None:
    """As `ps`, the picture and the verbs show them."""
    assert told(Fault("cut", "h1", "eth0", carrier=False)) == "h1:eth0 is cut and has no carrier"
    assert told(Fault("split", parties=(("h1", "h2"), ("h3",)))) == "{h1, h2} and {h3} do not hear each other"
    assert told(Fault("kill", "etcd1", what="etcd")) == "etcd etcd1 is killed"
    assert told(Fault("kill", "h1", what="host")) == "host h1 is off"
    assert note(Fault("rate", "h1", "eth0", 2_500_000.0)) == "rate 2.5mbit"
    assert note(Fault("cut", "h1", "eth0")) == ""


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_rate, "500kbit", 500_000),
        (parse_rate, "1.5Gbit", 1_500_000_000),
        (parse_percent, "0.5%", 0.5),
        (parse_percent, "20", 20.0),
        (parse_delay, "0.2s", 200.0),
        (parse_delay, "50ms", 50.0),
        (parse_mtu, "1400", 1400),
    ],
)
def test_values_as_people_write_them(parse: object, text: str, value: float) -> None:
    """With units."""
    assert parse(text) == value  # type: ignore[operator]


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_rate, "10"),
        (parse_rate, "1bit"),
        (parse_rate, "fast"),
        (parse_percent, "0"),
        (parse_percent, "101%"),
        (parse_percent, "nan"),
        (parse_delay, "50"),
        (parse_delay, "0ms"),
        (parse_delay, "2000s"),
        (parse_mtu, "67"),
        (parse_mtu, "1400.5"),
        (parse_mtu, "70000"),
    ],
)
def test_values_that_are_none_are_named(parse: object, text: str) -> None:
    """The message has the text and an example or the limits."""
    with pytest.raises(ValueError, match=text):
        parse(text)  # type: ignore[operator]


@given(st.integers(8000, 10**11))
def test_a_rate_that_is_shown_can_be_read(bits: int) -> None:
    """To within the digits that are shown."""
    assert parse_rate(shown_rate(bits)) == pytest.approx(bits, rel=1e-4)
