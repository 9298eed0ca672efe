"""What the firewall plugin decides: keys, links, rules, the operations of an ADD, the differences of a CHECK."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.change.ops import ApplyFirewall, SetPort
from pycni.change.zones import TrustSources
from pycni.cni.conf import parse_conf
from pycni.cni.errors import CniError
from pycni.cni.names import Attachment
from pycni.cni.result import Interface, IPConfig, Result
from pycni.firewall.iptables_text import admin_chains, render_install, units_of, unused_chains
from pycni.firewall.rules import AttachmentRules, NetworkRules, shared_elements
from pycni.host.link_facts import Link
from pycni.plugins.firewall import plan
from pycni.plugins.firewall.compare import CheckFacts, differences
from pycni.plugins.firewall.conf import FirewallConf

ONE = Attachment("net", "c1", "eth0", "firewall")
BRIDGE = Link(index=2, name="cni0", kind="bridge")
PORT = Link(index=3, name="veth1", kind="veth", master=2, isolated=False)
CLOSED = PORT.replace(name="veth2", isolated=True)
ROUTED = Link(index=4, name="veth9", kind="veth")
PHYSICAL = Link(index=5, name="ens3")
SHAPED = Link(index=6, name="bwp623e1c388032", kind="ifb")
DUAL = Result(ips=tuple(IPConfig(address=ip_interface(text)) for text in ("10.1.0.5/24", "fd00::5/64")))


def conf(**keys: Any) -> FirewallConf:
    config = {"cniVersion": "1.1.0", "name": "net", "type": "firewall", **keys}
    return FirewallConf.parse(parse_conf(json.dumps(config).encode(), "ADD"))


def test_defaults() -> None:
    """As the reference's, but that the packet filter is the host's choice; empty strings are what podman writes."""
    default = FirewallConf(backend="", policy="open", zone="trusted", admin_chain="")
    assert conf() == default
    assert conf(backend="", ingressPolicy="", firewalldZone="", iptablesAdminChainName="") == default


@pytest.mark.parametrize(
    ("keys", "backend"),
    [
        ({}, ""),
        ({"backend": "firewalld"}, ""),
        ({"backend": "nftables"}, "nftables"),
        ({"iptablesAdminChainName": "MY"}, "iptables"),
        ({"iptablesAdminChainName": "_MY"}, "iptables"),
        ({"iptablesAdminChainName": "MY", "backend": "nftables"}, "nftables"),
        ({"iptablesAdminChainName": "MY", "backend": "firewalld"}, ""),
    ],
)
def test_which_packet_filter(keys: dict[str, str], backend: str) -> None:
    """Whoever names a chain of iptables and no backend means iptables; firewalld has whichever there is beside it."""
    assert conf(**keys).rules_backend == backend


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"backend": "ufw"}, 'unknown firewall backend "ufw"'),
        ({"ingressPolicy": "closed"}, 'unknown ingress policy: "closed"'),
        ({"ingressPolicy": "Isolated"}, 'unknown ingress policy: "Isolated"'),
        ({"firewalldZone": "a b"}, "firewalldZone"),
        ({"iptablesAdminChainName": "x" * 29}, "at most 28 bytes"),
        ({"iptablesAdminChainName": "-A"}, "iptablesAdminChainName"),
        ({"iptablesAdminChainName": "FORWARD"}, "iptablesAdminChainName"),
        ({"iptablesAdminChainName": "PYCNI-X"}, "iptablesAdminChainName"),
    ],
)
def test_refused_values(keys: dict[str, str], said: str) -> None:
    """Code 7, with the key or the reference's words."""
    with pytest.raises(CniError) as failure:
        conf(**keys)
    assert failure.value.code == 7
    assert said in str(failure.value)


@given(st.text(max_size=40))
def test_a_chain_name_is_one_word_of_iptables(text: str) -> None:
    """Whatever is accepted can stand in a line of iptables-restore without meaning anything else."""
    try:
        name = conf(iptablesAdminChainName=text.replace("\0", "")).admin_chain
    except CniError:
        return
    assert len(name.split()) <= 1
    assert not set(name) & set("\"'\\#:-!") or name[0] not in "-!:#"
    assert name.isascii()


def test_links_that_route() -> None:
    """The bridge or a container's own link; never a port, which only bridges, nor a device of the machine, nor the
    bandwidth plugin's, of which each container has one."""
    assert plan.routing_links((BRIDGE, PORT, ROUTED, SHAPED, PHYSICAL)) == ("cni0", "veth9")
    interfaces = (
        Interface("cni0"),
        Interface("veth1"),
        Interface("cni0"),
        Interface("eth0", sandbox="/n"),
        Interface(""),
    )
    assert plan.host_links(Result(interfaces=interfaces)) == ("cni0", "veth1")


def test_ports_are_closed_once() -> None:
    """Only for "isolated", and not one that the bridge plugin had isolated: its flag is not ours to take off."""
    assert plan.ports_to_close(conf(ingressPolicy="isolated"), (BRIDGE, PORT, CLOSED, ROUTED)) == ("veth1",)
    assert plan.ports_to_close(conf(ingressPolicy="same-bridge"), (BRIDGE, PORT)) == ()


ELEMENTS = {
    "open": {"same"},
    "same-bridge": {"bridges", "same", "isolated"},
    "isolated": {"bridges", "same", "isolated", "apart"},
}


@pytest.mark.parametrize("policy", ELEMENTS)
def test_policies_as_rules(policy: str) -> None:
    """Each lets the link pass; "open" stands in no set that something is dropped for, and ends no isolation."""
    rules = plan.network_rules(conf(ingressPolicy=policy), ONE, "nftables", ("cni0",))
    assert rules.passing == ("cni0",)
    assert {element.set for element in shared_elements(rules)} == ELEMENTS[policy]
    assert rules.admin_chain == ""


def test_only_iptables_has_an_admin_chain() -> None:
    assert plan.network_rules(conf(), ONE, "iptables", ()).admin_chain == "CNI-ADMIN"
    assert plan.network_rules(conf(iptablesAdminChainName="MY"), ONE, "iptables", ()).admin_chain == "MY"


@pytest.mark.parametrize("policy", ["same-bridge", "isolated"])
def test_a_policy_needs_a_link(policy: str) -> None:
    with pytest.raises(CniError, match=f'interface needs to be set for ingress policy "{policy}"'):
        plan.network_rules(conf(ingressPolicy=policy), ONE, "nftables", ())


def test_what_closes_comes_before_what_opens() -> None:
    """Ports, rules, zone; firewalld only where it is to be told."""
    network = NetworkRules("net")
    rules = plan.attachment_rules(conf(), ONE, DUAL, ("veth1",), firewalld=True)
    assert rules.sources == ("10.1.0.5", "fd00::5")
    assert plan.plan_add(network, rules) == (
        SetPort("veth1", hairpin=None, isolated=True),
        ApplyFirewall(network, rules),
        TrustSources("trusted", ("10.1.0.5", "fd00::5")),
    )
    untold = plan.attachment_rules(conf(), ONE, DUAL, (), firewalld=False)
    assert plan.plan_add(network, untold) == (ApplyFirewall(network, untold),)


def test_differences() -> None:
    """No record, another address, a port that was opened, and what the packet filters lack."""
    facts = CheckFacts(links=(BRIDGE, PORT), rules=("a",), forward=("b",), zone=("c",))
    recorded = AttachmentRules(ONE.owner, sources=("10.1.0.5",))
    wrong = differences(conf(ingressPolicy="isolated"), recorded, DUAL, facts)
    assert wrong == ("address fd00::5 is not among those of ADD", "port isolation is off on veth1", "a", "b", "c")
    fine = recorded.replace(sources=("10.1.0.5", "fd00::5"))
    assert differences(conf(), fine, DUAL, CheckFacts(links=(BRIDGE, PORT))) == ()
    assert len(differences(conf(), None, DUAL, facts)) == 1


LISTED = """-P FORWARD ACCEPT
-N CNI-ADMIN
-N PYCNI-J-00000001
-A FORWARD -m comment --comment "pycni CNI-ADMIN" -j PYCNI-J-00000001
-A FORWARD -i br9 ! -o br9 -m comment --comment "pycni other" -j PYCNI-S-00000002
-A FORWARD -m comment --comment "pycni br9" -j PYCNI-W-00000003
-A FORWARD -j REJECT
-A FORWARD -m comment --comment "pycni br9" -j PYCNI-F-00000004
-A PYCNI-J-00000001 -j CNI-ADMIN""".splitlines()


def test_order_in_the_forward_chain() -> None:
    """The user's chains, then what isolates, then what accepts, then the rules of others."""
    rules = NetworkRules("net", ("br0",), apart=True, passing=("br0",), opens=True)
    text = render_install(units_of(rules, 4), (), LISTED)
    placed = [line for line in text.splitlines() if line[:2] in ("-I", "-D", "-A") and " FORWARD " in line]
    kinds = [line[line.index("PYCNI-") + 6] for line in placed]
    assert kinds == ["W", "S", "A", "J", "J"]
    assert placed[0].startswith("-I FORWARD 3 ")  # behind two that were there
    assert all(line.startswith("-I FORWARD -i br0") for line in placed[1:3])
    assert placed[3:] == ["-D" + LISTED[3][2:], "-I" + LISTED[3][2:]]


def test_a_users_chain_is_dropped_only_when_nobody_uses_it() -> None:
    """Neither with rules in it, nor where anything jumps to it."""
    assert admin_chains(LISTED) == {"CNI-ADMIN"}
    assert unused_chains(LISTED, {"CNI-ADMIN", "NOT-THERE"}) == []
    assert unused_chains(LISTED[:2], {"CNI-ADMIN", "NOT-THERE"}) == ["CNI-ADMIN"]
    assert unused_chains([*LISTED[:2], "-A CNI-ADMIN -j DROP"], {"CNI-ADMIN"}) == []
