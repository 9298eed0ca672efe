"""The firewall plugin's commands: what ADD leaves on a failure, what DEL, GC and CHECK do, and its errors."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from netns_fixtures import Container, assert_unchanged
from tests.kernel.agent_lab import AgentHost
from tests.kernel.bridge_lab import Conf, Lab
from tests.kernel.firewall_plugin_lab import EMPTY_TABLES, LINK_LOCAL, Chain, wrong_paths

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

BACKENDS = ["nftables", "iptables"]
Chains = Callable[..., Chain]
Boxes = Callable[[int], list[Container]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("policy", ["open", "isolated"])
def test_del_needs_nothing_but_the_names(
    firewalled: Chains, c1: Container, c2: Container, backend: str, policy: str
) -> None:
    """Reference: without prevResult nothing is removed, and isolation never. Here a DEL without namespace, prevResult
    and the rest of the configuration leaves what was there before; the neighbour keeps its own until its DEL."""
    made = firewalled(backend=backend, ingressPolicy=policy, net={"isDefaultGateway": None, "isGateway": True})
    first = {container: made.first("ADD", container).result() for container in (c1, c2)}
    before = made.lab.traces(c1, c2)
    results = {}
    for container in (c1, c2):
        results[container] = made.lab.add({**made.conf, "prevResult": first[container]}, container)
    bare = {"cniVersion": "1.1.0", "name": "net1", "type": "firewall"}
    made.lab.delete(bare, "c1", netns="")
    assert made.lab.check(made.conf, c2, results[c2]).ok
    made.lab.delete(bare, "c1", netns="/nonexistent")
    made.lab.delete(bare, "c2", netns="")
    assert_unchanged(before, made.lab.traces(c1, c2), ignore=EMPTY_TABLES if backend == "iptables" else [LINK_LOCAL])


def test_del_of_the_unknown_is_a_success(firewalled: Chains, c1: Container) -> None:
    """Without an ADD, with a configuration that an ADD would refuse, and twice."""
    made = firewalled(ingressPolicy="?", backend="?")
    before = made.lab.traces(c1)
    made.lab.delete(made.conf, c1)
    made.lab.delete(made.conf, c1)
    assert_unchanged(before, made.lab.traces(c1), ignore=["*/file/run/pycni*", "*/file/var/lib/pycni*"])


@pytest.mark.parametrize("policy", ["same-bridge", "isolated"])
def test_who_goes_takes_no_neighbours_isolation_along(firewalled: Chains, boxes: Boxes, policy: str) -> None:
    """Two networks: with the last container of one only its bridge's elements go."""
    one, two = firewalled(1, ingressPolicy=policy), firewalled(2, ingressPolicy=policy)
    made = boxes(4)
    attached = {name: net.attach(made.pop()) for name, net in (("1a", one), ("1b", one), ("2a", two), ("2b", two))}
    one.detach(attached.pop("1a"))
    assert wrong_paths(attached, lambda a, b: policy == "same-bridge" and a[0] == b[0]) == []
    one.detach(attached.pop("1b"))
    assert '"cni1"' not in one.lab.ruleset()
    assert '"cni2"' in one.lab.ruleset()
    for box in attached.values():
        assert two.check(box).ok
        two.detach(box)
    assert "pycni" not in one.lab.ruleset()


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_at_once(firewalled: Chains, boxes: Boxes, backend: str) -> None:
    """Reference: parallel calls fail with "No chain/target/match". Six ADDs, then six DELs of two networks at a time:
    all work, whoever is last takes the rules along, and nothing stays."""
    nets = [firewalled(number, backend=backend, ingressPolicy="isolated") for number in (1, 2)]
    lab, six = nets[0].lab, boxes(6)
    results = {one.name: nets[number % 2].first("ADD", one).result() for number, one in enumerate(six)}
    before = lab.traces(*six)

    def both(number: int) -> None:
        made, one = nets[number % 2], six[number]
        made.lab.add({**made.conf, "prevResult": results[one.name]}, one)
        assert made.lab.check(made.conf, one, results[one.name]).ok
        made.lab.delete(made.conf, one)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(both, range(6)))
    assert_unchanged(before, lab.traces(*six), ignore=EMPTY_TABLES if backend == "iptables" else [LINK_LOCAL])


def test_repeated_add_is_refused_and_harms_nothing(firewalled: Chains, c1: Container) -> None:
    """Code 105, and what the first made stays whole; after a DEL it works again."""
    made = firewalled(ingressPolicy="isolated")
    box = made.attach(c1)
    before = made.lab.traces(c1)
    assert made.add(box).error_code == 105
    assert made.add(box, ingressPolicy="open").error_code == 105
    assert_unchanged(before, made.lab.traces(c1), ignore=[LINK_LOCAL])
    made.delete(box)
    assert made.add(box).ok
    assert made.check(box).ok


def test_a_policy_changes_with_the_next_add(firewalled: Chains, c1: Container, c2: Container) -> None:
    """DEL and ADD with another policy, the interface standing: nothing of the old one stays."""
    made = firewalled(ingressPolicy="isolated")
    attached = {"a": made.attach(c1), "b": made.attach(c2)}
    assert wrong_paths(attached, lambda one, other: False) == []
    for box in attached.values():
        made.delete(box)
    assert wrong_paths(attached, lambda one, other: True) == []
    for box in attached.values():
        assert made.add(box, ingressPolicy="same-bridge").ok
    assert wrong_paths(attached, lambda one, other: True) == []


def test_open_leaves_the_bridge_plugins_isolation_alone(firewalled: Chains, boxes: Boxes) -> None:
    """Networks of pycni's bridge plugin are isolated by its own key: "open" does not touch that, nor does its DEL."""
    isolating = {"backend": None}
    one, two = firewalled(1, isolating), firewalled(2, isolating)
    made = boxes(2)
    attached = {"1": one.attach(made[0]), "2": two.attach(made[1])}
    assert wrong_paths(attached, lambda a, b: False) == []
    one.delete(attached["1"])
    assert wrong_paths(attached, lambda a, b: False) == []
    assert one.first("CHECK", made[0], **{}).error_code == 7  # no prevResult; with it:
    assert one.lab.check(one.net, made[0], attached["1"].result).ok


def test_through_the_agent(firewalled: Chains, agents: AgentHost, asking: Path, boxes: Boxes) -> None:
    """ADD, CHECK, DEL and GC that the agent answers do the same; one that ends without a DEL is released by it."""
    made = firewalled(ingressPolicy="isolated")
    made.lab = Lab(made.lab.host, asking)
    agents.start(config="grace_s = 0\nreconcile_s = 0\n")
    before = made.lab.traces()
    one, two, three = (made.attach(container) for container in boxes(3))
    assert wrong_paths({"a": one, "b": two}, lambda a, b: False) == []
    assert made.check(one).ok
    made.detach(one)
    three.ns.delete()
    assert "net1/c3/eth0/firewall" in agents.ask("reconcile")["released"]
    assert made.lab.gc(made.conf).ok
    assert not [owner for owner in made.lab.records() if owner.endswith("/firewall")]
    assert made.first("DEL", two.ns).ok
    assert made.lab.gc(made.net).ok
    assert_unchanged(before, made.lab.traces(), ignore=["*/sysctl/*", "*/file/run/*", "*/process/*", LINK_LOCAL])
    agents.stop()


@pytest.mark.parametrize("backend", BACKENDS)
def test_neighbours_are_not_reached_by_way_of_the_gateway(
    firewalled: Chains, c1: Container, c2: Container, backend: str
) -> None:
    """The bridge keeps isolated ports apart; a route through the host must not lead around it."""
    made = firewalled(backend=backend, ingressPolicy="isolated")
    one, two = made.attach(c1), made.attach(c2)
    for client, server in ((one, two), (two, one)):
        for family, length in ((4, 32), (6, 128)):
            via = "10.1.0.1" if family == 4 else "fd00:1::1"
            client.ns.ip(f"-{family}", "route", "add", f"{server.address(family)}/{length}", "via", via)
    assert wrong_paths({"a": one, "b": two}, lambda a, b: False) == []
    for box in (one, two):
        made.delete(box)
    assert wrong_paths({"a": one, "b": two}, lambda a, b: True) == []


@pytest.mark.parametrize("type", ["ptp", "bridge"])
def test_containers_on_links_of_their_own(lab: Lab, closing: ExitStack, boxes: Boxes, type: str) -> None:
    """Behind ptp each container has a link: those of an isolated network do not reach each other, and with a container
    goes what was its link's. Behind a bridge the same policy, for comparison."""
    ranges = [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}]]
    ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
    net: Conf = {"cniVersion": "1.0.0", "name": "net7", "type": type, "ipam": ipam}
    if type == "bridge":
        net |= {"bridge": "cni7", "isGateway": True}
    made = Chain(lab, closing, net, {"ingressPolicy": "isolated"})
    three = boxes(3)
    attached = {container.name: made.attach(container) for container in three}
    assert wrong_paths(attached, lambda a, b: False) == []
    gone = attached.pop(three[0].name)
    made.detach(gone)
    assert gone.result["interfaces"][0 if type == "ptp" else 1]["name"] not in lab.ruleset()
    assert wrong_paths(attached, lambda a, b: False) == []
    for box in attached.values():
        assert made.check(box).ok
        made.delete(box)
    assert wrong_paths(attached, lambda a, b: True) == []


def test_check_makes_nothing(firewalled: Chains, c1: Container) -> None:
    """Reference: CHECK makes the chains that it misses. Here it says that there was no ADD, and all stays as it was."""
    made = firewalled(backend="iptables", ingressPolicy="isolated")
    previous = made.first("ADD", c1).result()
    before = made.lab.traces(c1)
    answer = made.lab.check(made.conf, c1, previous)
    assert answer.error_code == 106
    assert "no ADD of this plugin is on record" in answer.stdout
    assert_unchanged(before, made.lab.traces(c1), ignore=EMPTY_TABLES)


DAMAGE = {
    'nft delete element inet pycni apart \'{ "cni1" . "cni1" }\'': "apart cni1 . cni1 in table inet pycni",
    "nft delete table inet pycni": "table inet pycni of this version",
    "iptables -F": "PYCNI-F-",
    "bridge link set dev $(ls /sys/class/net | grep veth) isolated off": "port isolation is off on veth",
}


def test_check_names_what_is_missing(firewalled: Chains, c1: Container) -> None:
    """Elements, the whole table, the answer to a FORWARD policy, the flag of the port."""
    made = firewalled(ingressPolicy="isolated")
    made.lab.host.run(["iptables", "-P", "FORWARD", "DROP"])
    box = made.attach(c1)
    for damage, said in DAMAGE.items():
        assert made.check(box).ok
        made.lab.host.run(["sh", "-c", damage])
        answer = made.check(box)
        assert (answer.error_code, said in answer.stdout) == (106, True), answer
        made.delete(box)
        assert made.add(box).ok


@pytest.mark.parametrize("backend", BACKENDS)
def test_gc_collects(firewalled: Chains, boxes: Boxes, backend: str) -> None:
    """Reference: does nothing. Here who is not on the list goes, and without a list who is dead for certain."""
    made = firewalled(backend=backend, ingressPolicy="isolated")
    one, two, three = (made.attach(container) for container in boxes(3))
    for box in (two, three):
        assert made.first("DEL", box.ns).ok
    assert made.lab.gc(made.conf, one.ns, two.ns).ok
    assert set(made.lab.records()) == {"net1/c1/eth0", "net1/c1/eth0/firewall", "net1/c2/eth0/firewall"}
    two.ns.delete()
    assert made.lab.call("GC", made.conf).ok
    assert set(made.lab.records()) == {"net1/c1/eth0", "net1/c1/eth0/firewall"}
    assert made.check(one).ok
    assert made.lab.gc(made.conf).ok
    assert set(made.lab.records()) == {"net1/c1/eth0"}
    assert '"cni1"' not in made.lab.ruleset()
