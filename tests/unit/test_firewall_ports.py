"""Port mappings → elements, texts and iptables rules: tables, no kernel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni import json_text
from pycni.firewall.foreign import can_accept
from pycni.firewall.iptables_ports import entry_unit, expanded, port_units
from pycni.firewall.nft_text import MAIN, render_elements, with_admin
from pycni.firewall.ports import conditional_elements, port_elements, render_conditional, sources_of
from pycni.firewall.rules import (
    AttachmentRules,
    NetworkRules,
    PortMapping,
    has_own_chain,
    own_elements,
    shared_elements,
)
from pycni.store.attachments import _from_json, _plain

NET = NetworkRules("net1", (), True, ("10.1.0.0/24", "fd00:1::/64"), loopback=("br0",), trusted=("vx0",))
OWNER = "net1/c1/eth0/portmap"
PROTOCOLS = ["tcp", "udp", "tcp"]
PORT = PortMapping("tcp", "", 8080, 8080, "10.1.0.5", 80)


def elements_of(*ports: PortMapping) -> list[str]:
    text = render_elements(MAIN, port_elements(AttachmentRules(OWNER, ports=ports)))
    return [
        line.removeprefix("add element inet pycni ").replace(f' comment "{OWNER}"', "")
        for line in text.splitlines()
        if " published" not in line
    ]


@pytest.mark.parametrize(
    ("mapping", "elements"),
    [
        (PORT, ["hp4 { tcp . 8080 : 10.1.0.5 . 80 }"]),
        (PORT.replace(port=8080), ["hp4 { tcp . 8080 : 10.1.0.5 . 8080 }"]),
        (PORT.replace(host_ip="192.0.2.1"), ["hp4ip { tcp . 192.0.2.1 . 8080 : 10.1.0.5 . 80 }"]),
        (PORT.replace(high=8081), ["hp4 { tcp . 8080 : 10.1.0.5 . 80 }", "hp4 { tcp . 8081 : 10.1.0.5 . 81 }"]),
        (PORT.replace(high=9999, port=8080), ["hr4 { tcp . 8080-9999 : 10.1.0.5 }"]),
        (
            PORT.replace(high=9999, port=8080, host_ip="192.0.2.1"),
            ["hsr4 { tcp . 192.0.2.1 . 8080-9999 . 0.0.0.0/0 : 10.1.0.5 }"],
        ),
        (
            PORT.replace(sources=("10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32")),
            [
                "hs4 { tcp . 0.0.0.0/0 . 8080 . 10.0.0.0/8 : 10.1.0.5 . 80 }",
                "hs4 { tcp . 0.0.0.0/0 . 8080 . 192.0.2.7 : 10.1.0.5 . 80 }",
            ],
        ),
        (
            PortMapping("udp", "2001:DB8::0001", 53, 53, "FD00:1::0005", 53, sources=("2001:db8:9::/48",)),
            ["hsr6 { udp . 2001:db8::1 . 53 . 2001:db8:9::/48 : fd00:1::5 }"],
        ),
        (
            PortMapping("sctp", "2001:db8::1", 1, 1, "fd00:1::5", 2),
            ["hp6ip { sctp . 2001:db8::1 . 1 : fd00:1::5 . 2 }"],
        ),
    ],
)
def test_a_mapping_as_elements(mapping: PortMapping, elements: list[str]) -> None:
    """One element where the kernel can, in the map with a key as narrow as the mapping; addresses as nft has them."""
    assert elements_of(mapping) == elements


@pytest.mark.parametrize(
    ("flags", "chain"),
    [
        ([{}], "hairpin"),
        ([{"snat": False}], "as_it_is"),
        ([{"snat": False}, {}], "hairpin"),
        ([{"snat": False, "masq_all": True}, {}], "everybody"),
    ],
)
def test_an_address_has_one_answer_for_masquerading(flags: list[dict[str, bool]], chain: str) -> None:
    """One element for each container address, of the mapping that masquerades most."""
    ports = tuple(PORT.replace(low=low, high=low, **one) for low, one in enumerate(flags, 1))
    published = [one for one in port_elements(AttachmentRules(OWNER, ports=ports)) if one.set == "published4"]
    assert [one.data for one in published] == [(f"goto {chain}",)]


def test_what_a_network_and_a_container_have_besides() -> None:
    """Links with route_localnet and trusted ones are the network's, guarded addresses the attachment's."""
    assert [(one.set, one.key) for one in shared_elements(NET)][-2:] == [("loopback", ("br0",)), ("trusted", ("vx0",))]
    guarded = AttachmentRules(OWNER, direct_guard=("10.1.0.5", "fd00:1::0005"))
    assert [(one.set, one.key[0]) for one in own_elements(guarded)] == [
        ("direct4", "10.1.0.5"),
        ("direct6", "fd00:1::5"),
    ]


def test_conditions_stand_in_a_chain_of_the_attachment() -> None:
    """Before the translation alone; the other family's mappings stay elements."""
    ports = (PORT.replace(high=8081, sources=("192.0.2.0/24",)), PORT.replace(address="fd00:1::5"))
    one = AttachmentRules(OWNER, ports=ports, conditions4=("ip", "dscp", "8"))
    (element,) = conditional_elements(one)
    chain = element.data[0].removeprefix("jump ")
    assert (element.set, element.key) == ("cond4", ("tcp", "0.0.0.0/0", "8080-8081"))
    assert render_conditional("inet pycni", one).splitlines() == [
        f"add chain inet pycni {chain}",
        f"flush chain inet pycni {chain}",
        f"add rule inet pycni {chain} meta l4proto tcp th dport 8080-8081 ip saddr {{ 192.0.2.0/24 }} ip dscp 8 "
        "dnat ip to 10.1.0.5 : th dport map { 8080 : 80, 8081 : 81 }",
    ]
    assert {element.set for element in port_elements(one)} == {"published4", "published6", "hp6"}


@pytest.mark.parametrize(("count", "port", "conditional"), [(64, 80, False), (65, 80, True), (9999, 8080, False)])
def test_a_long_run_for_some_clients_is_one_rule(count: int, port: int, conditional: bool) -> None:
    """Where the numbers in the container are others: of the same ones, and of few, elements are less."""
    mapping = PORT.replace(high=8080 + count - 1, port=port, sources=("192.0.2.0/24",))
    one = AttachmentRules(OWNER, ports=(mapping, PORT.replace(low=1, high=1)))
    assert has_own_chain(one) is conditional
    assert len(conditional_elements(one)) == conditional
    assert {element.set for element in port_elements(one)} == {
        *("published4", "hp4"),
        *(() if conditional else ("hsr4",) if port == 8080 else ("hs4",)),
    }
    if conditional:
        (rule,) = [line for line in render_conditional("inet pycni", one).splitlines() if line.startswith("add rule")]
        assert (
            "tcp th dport 8080-8144 ip saddr { 192.0.2.0/24 } dnat ip to 10.1.0.5 : th dport map { 8080 : 80," in rule
        )


def test_the_administrators_rules_are_part_of_the_version() -> None:
    """Another text is another marker; comments and blank lines are no rules, and ask for none in the kernel."""
    assert with_admin(MAIN, "\n# nothing yet\n") == MAIN
    table = with_admin(MAIN, "# one\nip saddr 192.0.2.1 drop\n")
    assert table.marker() != MAIN.marker()
    assert table.chains["admin"] == ("", "ip saddr 192.0.2.1 drop")
    assert (MAIN.least_use("admin"), table.least_use("admin")) == (1, 2)


def test_a_mapping_as_iptables_rules() -> None:
    """Marks for those who are masqueraded, then the translation; a range with the same numbers is one rule."""
    ports = (
        PORT.replace(host_ip="192.0.2.1", sources=("198.51.100.0/24",)),
        PORT.replace(proto="udp", high=9000, port=8080, snat=False),
        PORT.replace(low=1, high=2, masq_all=True),
    )
    narrow, wide, masquerade = port_units(NET, AttachmentRules(OWNER, ports=ports, mark_masq_bit=0), 4)
    mark = "-j MARK --set-xmark 0x1/0x1"
    assert narrow.rules == (
        f"-p tcp -d 192.0.2.1 --dport 8080 -s 10.1.0.0/24 -m addrtype ! --src-type LOCAL {mark}",
        f"-p tcp -d 192.0.2.1 --dport 8080 -s 127.0.0.0/8 {mark}",
        "-p tcp -s 198.51.100.0/24 -d 192.0.2.1 --dport 8080 -j DNAT --to-destination 10.1.0.5:80",
    )
    assert wide.rules == (
        "-p udp --dport 8080:9000 -j DNAT --to-destination 10.1.0.5",
        f"-p tcp --dport 1:2 {mark}",
        "-p tcp --dport 1 -j DNAT --to-destination 10.1.0.5:80",
        "-p tcp --dport 2 -j DNAT --to-destination 10.1.0.5:81",
    )
    assert masquerade.rules == ("-m mark --mark 0x1/0x1 -j MASQUERADE", "-j ACCEPT")
    assert [narrow.hooks[0].first, wide.hooks[0].first] == [True, False]
    assert all(unit.chain.startswith("PYCNI-") and len(unit.chain) <= 28 for unit in (narrow, wide, masquerade))


def test_iptables_chains_are_found_without_the_network() -> None:
    """DEL knows the attachment's rules alone: chains and hooks are the same whatever network they were made with."""
    one = AttachmentRules(OWNER, ports=(PORT, PORT.replace(host_ip="192.0.2.1")), direct_guard=("10.1.0.5",))
    made, found = (
        [(unit.table, unit.chain, unit.hooks) for unit in port_units(network, one, 4)]
        for network in (NET, NetworkRules(""))
    )
    assert made == found
    assert len({chain for _, chain, _ in made}) == 4


def test_a_chain_of_the_users_sets_the_mark() -> None:
    """externalSetMarkChain: it is jumped to, and masquerading is left to whoever made it."""
    units = port_units(NET, AttachmentRules(OWNER, ports=(PORT,), external_set_mark_chain="KUBE-MARK-MASQ"), 4)
    assert [unit.kind for unit in units] == ["P"]
    assert sum(rule.endswith("-j KUBE-MARK-MASQ") for rule in units[0].rules) == 2


@pytest.mark.parametrize(
    ("words", "rules"),
    [
        ((), [""]),
        (("!", "-s", "10.0.0.0/8"), ["! -s 10.0.0.0/8"]),
        (("-s", "a,b", "-d", "c,d"), ["-s a -d c", "-s a -d d", "-s b -d c", "-s b -d d"]),
        (("-m", "comment", "--comment", 'a "b"'), ['-m comment --comment "a \\"b\\""']),
    ],
)
def test_conditions_as_iptables_expands_them(words: tuple[str, ...], rules: list[str]) -> None:
    """One text for each rule that iptables makes of them, so that the rules in the kernel can be counted."""
    assert expanded(words) == rules


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("words", "matches"),
    [
        ((), [""]),
        (
            ("-m", "multiport", "--sports", "1:9"),
            ["-p tcp -m multiport --sports 1:9 ", "-p udp -m multiport --sports 1:9 "],
        ),
        (("-s", "a,b"), ["-p tcp -s a ", "-p tcp -s b ", "-p udp -s a ", "-p udp -s b "]),
        (("-p", "tcp", "--sport", "1:9"), ["-p tcp --sport 1:9 "]),
    ],
)
def test_conditions_are_asked_by_protocol(version: int, words: tuple[str, ...], matches: list[str]) -> None:
    """Of which there may be some that want to know it; unless they name one themselves."""
    address = "10.1.0.5" if version == 4 else "fd00:1::5"
    ports = [PORT.replace(address=address, low=low, high=low, proto=proto) for low, proto in enumerate(PROTOCOLS, 1)]
    one = AttachmentRules(OWNER, ports=tuple(ports), conditions4=words, conditions6=words)
    unit = next(unit for unit in port_units(NET, one, version) if unit.kind == "P")
    owner = f'-m comment --comment "pycni {OWNER}"'
    assert [hook.match for hook in unit.hooks] == [f"{match}{owner}" for match in matches]


def test_loopback_is_entered_by_the_host_alone() -> None:
    """Neither forged packets to 127.0.0.0/8 nor link-local clients are translated on their way in."""
    assert [entry_unit(version).hooks[0].match[:17] for version in (4, 6)] == ["! -d 127.0.0.0/8 ", "! -s fe80::/10 -m"]
    assert not any("!" in entry_unit(version).hooks[1].match for version in (4, 6))


@given(st.lists(st.builds(PORT.replace, sources=st.lists(st.just("10.0.0.0/8")).map(tuple)), max_size=3), st.booleans())
def test_records_bring_mappings_back(ports: list[PortMapping], snat: bool) -> None:
    """Rules that were written into a record as JSON come back as they were; those of older records have no ports."""
    one = AttachmentRules(OWNER, ports=tuple(ports), conditions4=("ip", "dscp", "8"), direct_guard=("10.1.0.5",))
    one = one.replace(ports=tuple(each.replace(snat=snat) for each in one.ports))
    assert _from_json(AttachmentRules, json_text.dumps(_plain(one))) == one
    assert _from_json(AttachmentRules, '{"owner": "a", "masquerade": [], "macs": []}') == AttachmentRules("a")
    assert _from_json(NetworkRules, json_text.dumps(_plain(NET))) == NET


def test_sources_do_not_overlap() -> None:
    """An interval map refuses elements of which one holds another."""
    mapping = PORT.replace(sources=("10.0.0.0/9", "10.128.0.0/9", "10.1.2.3"))
    assert sources_of(mapping, 4) == ["10.0.0.0/8"]
    assert sources_of(PORT, 4) == ["0.0.0.0/0"]


def test_rules_that_say_nothing_accept_nothing() -> None:
    """Towards a link as from it: no verdict, no way."""
    assert not can_accept(b"", "br0")
    assert not can_accept(b"", "br0", towards=True)
