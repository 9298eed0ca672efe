"""The firewall plugin with real traffic: FORWARD policies, ingress policies, published ports, both packet filters."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netns_fixtures import Container, Outside, can_ping, needs
from tests.kernel.agent_lab import AgentHost
from tests.kernel.bridge_lab import Lab, gateway_of
from tests.kernel.firewall_plugin_lab import FAMILIES, PORT, Chain, reaches, wrong_paths

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

BACKENDS = ["nftables", "iptables"]
Chains = Callable[..., Chain]
Boxes = Callable[[int], list[Container]]


def drop_forward(lab: Lab, variant: str = "nft") -> None:
    for tool in ("iptables", "ip6tables"):
        lab.host.run([f"{tool}-{variant}", "-P", "FORWARD", "DROP"])


def listing(lab: Lab, variant: str) -> list[str]:
    return [lab.host.run([f"{tool}-{variant}", "-S"]).stdout for tool in ("iptables", "ip6tables")]


def route_back(outside: Outside, number: int = 1) -> None:
    """Outside knows the way to the containers: nothing is masqueraded here."""
    for family, prefix in ((4, f"10.{number}.0.0/24"), (6, f"fd00:{number}::/64")):
        outside.ip(f"-{family}", "route", "add", prefix, "via", outside.host_address(family))


@pytest.mark.parametrize(
    "case",
    [
        *("pycni nftables nft", "pycni nftables legacy", "pycni iptables nft", "pycni iptables legacy"),
        *("reference nftables nft", "reference iptables nft"),
    ],
)
def test_a_forward_policy_of_drop_is_passed_out_and_back(
    outside: Outside, firewalled: Chains, c1: Container, case: str
) -> None:
    """Behind either bridge plugin: connections out with their answers, nothing unasked in; after DEL closed again."""
    bridge, backend, variant = case.split()
    needs("tool:/usr/lib/cni/bridge", f"tool:iptables-{variant}")
    made = firewalled(backend=backend, reference=bridge == "reference")
    drop_forward(made.lab, variant)
    route_back(outside)
    before = listing(made.lab, variant)
    box = made.attach(c1)
    for family in FAMILIES:
        assert reaches(c1, outside.address(family), outside.port, expected=True)
        assert not reaches(outside, box.address(family), PORT, expected=False)
    assert made.check(box).ok
    made.delete(box)
    assert not reaches(c1, outside.address(), outside.port, expected=False)
    assert listing(made.lab, variant) == before
    assert "pycni" not in made.lab.ruleset()


@pytest.mark.parametrize("rule", ["-j REJECT", "-i cni1 -j DROP"])
def test_the_iptables_backend_passes_rules_that_stand_in_the_way(
    outside: Outside, firewalled: Chains, c1: Container, rule: str
) -> None:
    """As with the reference what is accepted comes first: a final REJECT of a distribution's rules does not matter."""
    made = firewalled(backend="iptables")
    route_back(outside)
    for tool in ("iptables", "ip6tables"):
        made.lab.host.run([tool, "-A", "FORWARD", *rule.split()])
    box = made.attach(c1)
    for family in FAMILIES:
        assert reaches(c1, outside.address(family), outside.port, expected=True)
    made.lab.host.run(["iptables", "-F", "FORWARD"])
    answer = made.check(box)
    assert answer.error_code == 106
    assert "PYCNI-W-" in answer.stdout


POLICIES: dict[str, Callable[[str, str], bool]] = {
    "open": lambda one, other: True,
    "same-bridge": lambda one, other: one[0] == other[0],
    "isolated": lambda one, other: False,
}


@pytest.mark.parametrize(
    "case",
    [
        *("open nftables 0", "same-bridge nftables 0", "same-bridge iptables 1"),
        *("isolated nftables 0", "isolated nftables 1", "isolated iptables 0", "isolated iptables 1"),
    ],
)
def test_who_reaches_whom(outside: Outside, firewalled: Chains, boxes: Boxes, case: str) -> None:
    """Two bridges with two containers each, whether or not iptables sees bridged frames. All of them reach outside and
    their gateway, and a published port is reached by everybody; but where br_netfilter translates the frame of an
    isolated neighbour while it is still on the bridge."""
    needs("kernel:br_netfilter")
    policy, backend, bridge_nf = case.split()
    one, two = (firewalled(number, backend=backend, ingressPolicy=policy) for number in (1, 2))
    one.lab.host.sysctl("net/bridge/bridge-nf-call-iptables", bridge_nf)
    one.lab.host.sysctl("net/bridge/bridge-nf-call-ip6tables", bridge_nf)
    made = boxes(4)
    attached = {name: net.attach(made.pop()) for name, net in (("1a", one), ("1b", one), ("2a", two), ("2b", two))}
    for number in (1, 2):
        route_back(outside, number)
    publish(one.lab, {family: attached["1a"].address(family) for family in FAMILIES})
    assert wrong_paths(attached, POLICIES[policy]) == []
    for family in FAMILIES:
        for box in attached.values():
            assert reaches(box.ns, outside.address(family), outside.port, expected=True)
            assert can_ping(box.ns, gateway_of(box.result, family))
        stays_on_bridge = (policy, bridge_nf) == ("isolated", "1")
        for client, works in ((outside, True), (attached["1b"].ns, not stays_on_bridge), (attached["2a"].ns, True)):
            assert reaches(client, outside.host_address(family), 8080, expected=works) is works, (client, family)
    assert all(box.chain.check(box).ok for box in attached.values())


def publish(lab: Lab, addresses: dict[int, str]) -> None:
    """Port 8080 of the host leads to these addresses, whoever asks; neighbours are masqueraded."""
    lab.host.run(
        ["nft", "-f", "-"],
        input=f"""table inet mapping {{
            chain translate {{
                type nat hook prerouting priority dstnat
                ip daddr 198.51.100.2 tcp dport 8080 dnat ip to {addresses[4]}:{PORT}
                ip6 daddr 2001:db8:ffff::2 tcp dport 8080 dnat ip6 to [{addresses[6]}]:{PORT}
            }}
            chain masquerade_neighbours {{
                type nat hook postrouting priority srcnat
                ct status dnat iifname "cni1" oifname "cni1" masquerade
            }}
        }}""",
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_agent_opens_again_what_somebody_flushed(
    outside: Outside, firewalled: Chains, c1: Container, agents: AgentHost, backend: str
) -> None:
    """ufw and others empty FORWARD at will; the next comparison sees it and puts the answer to its policy back."""
    made = firewalled(backend=backend)
    drop_forward(made.lab)
    route_back(outside)
    box = made.attach(c1)
    agents.start(config="reconcile_s = 0\n")
    assert agents.ask("reconcile")["restored"] == []  # and the one at its start is over
    for tool in ("iptables", "ip6tables"):
        made.lab.host.run([tool, "-F", "FORWARD"])
    assert not reaches(c1, outside.address(), outside.port, expected=False)
    assert any("PYCNI-" in what for what in agents.ask("reconcile")["restored"])
    for family in FAMILIES:
        assert reaches(c1, outside.address(family), outside.port, expected=True)
    assert agents.ask("reconcile")["restored"] == []
    assert made.check(box).ok
    agents.stop()
