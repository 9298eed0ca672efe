"""Intentions → elements, texts and bytes: tables and properties, no kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.errors import CniError, Code
from pycni.firewall.choose import Available, choose_backend
from pycni.firewall.elements import attribute, decode_elements, encode_element
from pycni.firewall.nft_text import GUARD, MAIN, SetType, render_marker, render_rebuild
from pycni.firewall.rules import (
    AttachmentRules,
    Element,
    NetworkRules,
    comment_of,
    guard_elements,
    odd_elements,
    own_elements,
    shared_elements,
    unused_elements,
)

NET = NetworkRules("net1", ("br0",), True, ("10.1.0.0/24", "fd00:1::/64"))
ONE = AttachmentRules("net1/c1/eth0", ("10.1.0.5", "fd00:1::5"), (("veth1", "02:00:00:00:00:AB"),))


def test_the_table_as_text() -> None:
    """A constant number of rules; elements stand below, each in its own command, with their owner."""
    text = render_rebuild(MAIN, (*shared_elements(NET), *own_elements(ONE)))
    assert (
        text
        == """\
add table inet pycni
delete table inet pycni
table inet pycni {
    set masq4 { type ipv4_addr; }
    set masq6 { type ipv6_addr; }
    set local4 { type ipv4_addr . ipv4_addr; flags interval; }
    set local6 { type ipv6_addr . ipv6_addr; flags interval; }
    set odd4 { type ipv4_addr; }
    set odd6 { type ipv6_addr; }
    set own4 { type ipv4_addr . ipv4_addr; flags interval; }
    set own6 { type ipv6_addr . ipv6_addr; flags interval; }
    set bridges { type ifname; }
    set isolated { type ifname; }
    set same { type ifname . ifname; }
    set apart { type ifname . ifname; }
    map cond4 { type inet_proto . ipv4_addr . inet_service : verdict; flags interval; }
    map hp4ip { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; }
    map hs4 { type inet_proto . ipv4_addr . inet_service . ipv4_addr : ipv4_addr . inet_service; flags interval; }
    map hsr4 { type inet_proto . ipv4_addr . inet_service . ipv4_addr : ipv4_addr; flags interval; }
    map hp4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
    map hr4 { type inet_proto . inet_service : ipv4_addr; flags interval; }
    map published4 { type ipv4_addr : verdict; }
    set direct4 { type ipv4_addr; }
    map cond6 { type inet_proto . ipv6_addr . inet_service : verdict; flags interval; }
    map hp6ip { type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service; }
    map hs6 { type inet_proto . ipv6_addr . inet_service . ipv6_addr : ipv6_addr . inet_service; flags interval; }
    map hsr6 { type inet_proto . ipv6_addr . inet_service . ipv6_addr : ipv6_addr; flags interval; }
    map hp6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
    map hr6 { type inet_proto . inet_service : ipv6_addr; flags interval; }
    map published6 { type ipv6_addr : verdict; }
    set direct6 { type ipv6_addr; }
    set loopback { type ifname; }
    set trusted { type ifname; }
    chain admin {
    }
    chain early {
        type filter hook prerouting priority raw; policy accept;
        ip daddr 127.0.0.0/8 iifname @loopback drop
        ip saddr 127.0.0.0/8 iifname @loopback drop
    }
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        ip daddr 127.0.0.0/8 return
        fib daddr type local meta nfproto vmap { ipv4 : jump ports4, ipv6 : jump ports6 }
    }
    chain output {
        type nat hook output priority -100; policy accept;
        fib daddr type local meta nfproto vmap { ipv4 : jump ports4, ipv6 : jump ports6 }
    }
    chain ports4 {
        meta l4proto . ip daddr . th dport vmap @cond4
        dnat ip to meta l4proto . ip daddr . th dport map @hp4ip
        meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . ip daddr . th dport . ip saddr map @hs4
        meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . ip daddr . th dport . ip saddr map @hsr4
        meta nfproto ipv4 dnat ip to meta l4proto . th dport map @hp4
        meta nfproto ipv4 dnat ip to meta l4proto . th dport map @hr4
    }
    chain ports6 {
        ip6 saddr fe80::/10 return
        meta l4proto . ip6 daddr . th dport vmap @cond6
        dnat ip6 to meta l4proto . ip6 daddr . th dport map @hp6ip
        meta l4proto { tcp, udp, sctp } dnat ip6 to meta l4proto . ip6 daddr . th dport . ip6 saddr map @hs6
        meta l4proto { tcp, udp, sctp } dnat ip6 to meta l4proto . ip6 daddr . th dport . ip6 saddr map @hsr6
        meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @hp6
        meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @hr6
    }
    chain hairpin {
        ip saddr 127.0.0.0/8 masquerade
        ip6 saddr ::1 masquerade
        fib saddr type local return
        ip saddr . ip daddr @local4 masquerade
        ip6 saddr . ip6 daddr @local6 masquerade
        ip daddr . ip saddr @own4 masquerade
        ip6 daddr . ip6 saddr @own6 masquerade
    }
    chain everybody {
        masquerade
    }
    chain as_it_is {
        return
    }
    chain postrouting {
        type nat hook postrouting priority srcnat + 10; policy accept;
        ip daddr 224.0.0.0/4 return
        ip6 daddr ff00::/8 return
        ct status dnat ip daddr vmap @published4
        ct status dnat ip6 daddr vmap @published6
        ip saddr @masq4 ip saddr . ip daddr != @local4 masquerade
        ip6 saddr @masq6 ip6 saddr . ip6 daddr != @local6 masquerade
        ip saddr @odd4 ip saddr . ip daddr != @own4 masquerade
        ip6 saddr @odd6 ip6 saddr . ip6 daddr != @own6 masquerade
    }
    chain forward {
        type filter hook forward priority filter - 5; policy accept;
        jump admin
        ct status dnat accept
        iifname . oifname @apart drop
        iifname . oifname @same accept
        iifname @bridges oifname @isolated drop
        iifname @isolated oifname @bridges drop
        ip daddr @direct4 ct state != { established, related } iifname != @trusted drop
        ip6 daddr @direct6 ct state != { established, related } iifname != @trusted drop
    }
}
add element inet pycni bridges { "br0" }
add element inet pycni same { "br0" . "br0" }
add element inet pycni isolated { "br0" }
add element inet pycni local4 { 10.1.0.0/24 . 10.1.0.0/24 }
add element inet pycni local6 { fd00:1::/64 . fd00:1::/64 }
add element inet pycni masq4 { 10.1.0.5 comment "net1/c1/eth0" }
add element inet pycni masq6 { fd00:1::5 comment "net1/c1/eth0" }
"""
    )


def test_the_guard_table_as_text() -> None:
    """macspoofchk: one rule; the port and its MAC address are elements."""
    assert (
        render_rebuild(GUARD, guard_elements(ONE))
        == """\
add table bridge pycni
delete table bridge pycni
table bridge pycni {
    set macs { type ifname . ether_addr; }
    set guarded { type ifname; }
    chain prerouting {
        type filter hook prerouting priority -300; policy accept;
        iifname @guarded iifname . ether saddr != @macs drop
    }
}
add element bridge pycni macs { "veth1" . 02:00:00:00:00:ab comment "net1/c1/eth0" }
add element bridge pycni guarded { "veth1" comment "net1/c1/eth0" }
"""
    )


def test_the_documentation_shows_these_rules() -> None:
    """docs/firewall.md has every rule and the markers of this version."""
    shown = (Path(__file__).parents[2] / "docs" / "firewall.md").read_text()
    for table in (MAIN, GUARD):
        assert f"chain {table.marker()} {{ }}" in shown
        for _, *rules in table.chains.values():
            assert "".join(f"        {rule}\n" for rule in rules) in shown


def test_the_marker_follows_the_text() -> None:
    """Any change of rules or sets is another marker, so an upgrade is noticed; elements do not matter."""
    changed = MAIN.replace(chains={**MAIN.chains, "forward": MAIN.chains["forward"][:-1]})
    assert render_marker(MAIN) == f"add chain inet pycni {MAIN.marker()}\n"
    assert len({MAIN.marker(), changed.marker(), MAIN.replace(sets=MAIN.sets[1:]).marker(), GUARD.marker()}) == 4


def test_an_open_network_is_not_in_the_isolated_set() -> None:
    """`"isolate": false` keeps the bridge known, so that isolated ones are closed to it."""
    sets = {element.set for element in shared_elements(NET.replace(isolate=False))}
    assert sets == {"bridges", "same", "local4", "local6"}


def test_nested_subnets_are_told_address_by_address() -> None:
    """An address belongs to the smallest subnet that holds it."""
    network = NET.replace(subnets=("10.0.0.0/8", "10.1.0.0/24"))
    assert odd_elements(network, ONE, "10.0.0.0/8") == ()
    assert [(one.set, one.key) for one in odd_elements(network, ONE, "10.1.0.0/24")] == [
        ("odd4", ("10.1.0.5",)),
        ("own4", ("10.1.0.5", "10.1.0.0/24")),
    ]


def test_a_subnet_of_one_address_is_that_address() -> None:
    """So it reads back from the kernel, which knows only first and last addresses, as it went in."""
    single = NetworkRules("net", (), True, ("10.1.0.5/32", "fd00::5/128"))
    assert [one.key for one in shared_elements(single)] == [("10.1.0.5", "10.1.0.5"), ("fd00::5", "fd00::5")]
    assert odd_elements(single, ONE, "10.1.0.5/32")[1].key == ("10.1.0.5", "10.1.0.5")


def test_shared_elements_go_with_the_last_network_that_needs_them() -> None:
    """Whatever one of the others has stays, element by element."""
    other = NetworkRules("net2", ("br0", "br0.7"), False, ("10.1.0.0/24",))
    gone = unused_elements(NET, [other])
    assert [(one.set, one.key[0]) for one in gone] == [("isolated", "br0"), ("local6", "fd00:1::/64")]
    assert unused_elements(NET, [NET.replace(network="net3")]) == ()
    assert unused_elements(NET, []) == shared_elements(NET)


@pytest.mark.parametrize("name", ["", "br*", 'b"r', "b r", "br+", "b\nr", "b\\r", "a-name-too-long-", "a/b"])
def test_a_link_name_that_would_be_a_pattern_is_refused(name: str) -> None:
    """nft and iptables take `*` and `+` at the end for a wildcard; quotes and blanks break the text."""
    with pytest.raises(CniError, match="cannot be named in a firewall rule") as failure:
        shared_elements(NET.replace(bridges=(name,)))
    assert failure.value.code == Code.INVALID_CONFIG


@given(st.text(min_size=1, max_size=400).filter(lambda text: "\0" not in text), st.text(min_size=1, max_size=400))
def test_comments_fit_and_tell_owners_apart(one: str, two: str) -> None:
    """At most 128 bytes, equal only for equal owners, and the owner itself where that fits."""
    assert len(comment_of(one).encode()) <= 128
    assert (comment_of(one) == comment_of(two)) == (one == two)
    assert comment_of("net/c/eth0") == "net/c/eth0"


keys = {
    "ipv4_addr": st.ip_addresses(v=4).map(str),
    "ipv6_addr": st.ip_addresses(v=6).map(str),
    "ifname": st.from_regex(r"\A[a-z0-9._@-]{1,15}\Z"),
    "ether_addr": st.binary(min_size=6, max_size=6).map(lambda packed: packed.hex(":")),
    "inet_proto": st.sampled_from(["tcp", "udp", "sctp"]),
    "inet_service": st.integers(0, 65535).map(str),
    "verdict": st.sampled_from(["goto hairpin", "jump cond_0123456789abcdef01234567"]),
}
port_ranges = st.lists(st.integers(0, 65535), min_size=2, max_size=2, unique=True).map(
    lambda ports: f"{min(ports)}-{max(ports)}"
)


@given(
    st.data(),
    st.sampled_from([*MAIN.sets, *GUARD.sets]),
    st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=128),
)
def test_bytes_and_back(data: st.DataObject, spec: SetType, comment: str) -> None:
    """Every element comes back from its encoding as it went in."""
    of_interval = {**keys, "inet_service": keys["inet_service"] | port_ranges}
    key = tuple(data.draw((of_interval if spec.interval else keys)[field]) for field in spec.fields)
    element = Element(spec.name, key, comment, tuple(data.draw(keys[field]) for field in spec.data))
    encoded = attribute(1 | 0x8000, encode_element(spec, element, comment=True))
    assert list(decode_elements(spec, encoded)) == [element]


@pytest.mark.parametrize(
    ("key", "encoded"),
    [
        (("10.1.0.0/24", "10.1.0.0/24"), "0a010000 0a010000 0a0100ff 0a0100ff"),
        (("10.1.0.7", "10.1.0.0/16"), "0a010007 0a010000 0a010007 0a01ffff"),
    ],
)
def test_a_prefix_is_its_first_and_last_address(key: tuple[str, str], encoded: str) -> None:
    """KEY holds all first addresses, KEY_END all last ones."""
    spec = MAIN.set_named("own4")
    assert spec is not None
    packed = encode_element(spec, Element("own4", key), comment=False)
    assert packed.count(bytes.fromhex(encoded)[:8]) == 1
    assert packed.count(bytes.fromhex(encoded)[8:]) == 1
    assert list(decode_elements(spec, attribute(1, packed))) == [Element("own4", key)]


@given(st.binary(max_size=200))
def test_foreign_bytes_are_no_traceback(data: bytes) -> None:
    """Whatever user data or attributes others put there: decoding ends, and only complains about addresses."""
    spec = SetType("s", ("ifname",))
    for element in decode_elements(spec, attribute(1, data)):
        assert element.set == "s"


BOTH, NFT, IPT, NEITHER = (Available(nftables=a, iptables=b) for a in (True, False) for b in (True, False))


@pytest.mark.parametrize(
    ("asked", "available", "chosen"),
    [
        ("", BOTH, "nftables"),
        ("", IPT, "iptables"),
        ("nftables", NFT, "nftables"),
        ("iptables", BOTH, "iptables"),
        ("none", NEITHER, "none"),
    ],
)
def test_choice(asked: str, available: Available, chosen: str) -> None:
    """What was asked for, else nftables before iptables."""
    assert choose_backend(asked, available) == chosen


@pytest.mark.parametrize(
    ("asked", "available", "code", "words"),
    [
        ("foo", BOTH, Code.INVALID_CONFIG, 'unknown ipmasq backend "foo"'),
        ("nftables", IPT, Code.FIREWALL, "install libnftables1"),
        ("iptables", NFT, Code.FIREWALL, "install iptables"),
        ("", NEITHER, Code.FIREWALL, "install libnftables1"),
    ],
)
def test_refusal(asked: str, available: Available, code: int, words: str) -> None:
    """An unknown name is the configuration's fault; a missing tool is named with what to install."""
    with pytest.raises(CniError) as failure:
        choose_backend(asked, available)
    assert failure.value.code == code
    assert words in str(failure.value)
