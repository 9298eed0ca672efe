"""Every step of the firewall plugin failing, the process killed at each, and any values in its configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns_fixtures import Container, assert_unchanged
from tests.kernel.bridge_lab import Conf, Lab, network, words
from tests.kernel.firewall_plugin_lab import firewall
from tests.kernel.test_faults import Faulty
from tests.kernel.test_fuzz import Answers, fuzzed, texts, values

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

NET = network(backend="none", ipMasq=None)
NOISE = ["*dst=fe80*", "*neighbour*", "*/nft/ip*", "*/ip*tables-*"]


@pytest.fixture(params=["nftables alone", "nftables", "iptables"])
def target(request: pytest.FixtureRequest, lab: Lab, c1: Container, c2: Container) -> Faulty:
    """An isolated container on a host that drops what is forwarded, but for "alone" with a neighbour of its network."""
    backend, *alone = request.param.split()
    lab.host.run(["iptables", "-P", "FORWARD", "DROP"])
    conf = firewall(NET, backend=backend, ingressPolicy="isolated")
    results = [lab.add(NET, container) for container in (c1, c2)]
    if not alone:
        lab.add({**conf, "prevResult": results[1]}, c2)
    return Faulty(lab, {**conf, "prevResult": results[0]})


def test_every_failing_step_of_add_is_undone(target: Faulty, c1: Container, c2: Container) -> None:
    """Whichever step fails: an error that says so, and host and neighbour as before the ADD."""
    lab = target.lab
    events = target.events("ADD", c1)
    assert {"before do SetPort", "before do ApplyFirewall", "before commit"} <= set(events)
    lab.delete(target.conf, c1)
    before, glance = lab.traces(c1, c2), target.glance(c1, c2)
    for number, event in enumerate(events):
        if event.startswith("before"):
            answer = target.call("ADD", c1, "fail", number)
            assert answer.error_code is not None, event
            assert "planted" in words(answer.json), event
            assert "bug in pycni" not in answer.stdout, answer
            assert target.glance(c1, c2) == glance, event
    assert_unchanged(before, lab.traces(c1, c2), ignore=NOISE)


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_killed_at_any_step(target: Faulty, c1: Container, c2: Container, command: str) -> None:
    """SIGKILL in ADD or DEL: a DEL, an ADD (which works, to its CHECK) and a DEL, or a GC leave no trace."""
    lab = target.lab
    before, glance = lab.traces(c1, c2), target.glance(c1, c2)
    if command == "DEL":
        lab.add(target.conf, c1)
    events = target.events(command, c1)
    lab.delete(target.conf, c1)
    for number, event in enumerate(events):
        if command == "DEL":
            lab.add(target.conf, c1)
        elif event.startswith("after"):
            continue  # to the kernel and the state file the same as before the next
        target.kill(command, c1, number)
        if command == "ADD" and number % 4 == 0:
            result = lab.add(target.conf, c1)
            assert lab.check(target.conf, c1, result).ok, event
        if number % 3:
            lab.delete(target.conf, c1)
        else:
            assert lab.gc(target.conf, c2).ok, event
        assert target.glance(c1, c2) == glance, event
    assert_unchanged(before, lab.traces(c1, c2), ignore=NOISE)


@pytest.fixture
def answers(lab: Lab, c1: Container) -> Iterator[Answers]:
    lab.add(NET, c1)
    before = lab.traces(c1)
    asked = Answers(lab, c1, "firewall")
    yield asked
    asked.close()
    assert_unchanged(before, lab.traces(c1), ignore=NOISE)


interfaces = st.fixed_dictionaries(
    {"name": st.sampled_from(["cni1", "eth0", "lo", "", "gone", "cni1\n", 'a"b', "all", "é" * 8]) | values},
    optional={"sandbox": texts, "mac": texts, "mtu": values},
)
addresses = st.fixed_dictionaries(
    {"address": st.sampled_from(["10.1.0.2/24", "fd00:1::2/64", "0.0.0.0/0", "10.1.0.2", "::/0"]) | texts},
    optional={"interface": values, "gateway": texts},
)
results = st.fixed_dictionaries(
    {"cniVersion": st.just("1.1.0")},
    optional={"interfaces": st.lists(interfaces, max_size=3) | values, "ips": st.lists(addresses, max_size=3) | values},
)
keys = {
    "cniVersion": st.sampled_from(["0.4.0", "1.0.0", "1.1.0", "0.3.1"]) | values,
    "name": st.sampled_from(["net", "a.b", "/"]) | values,
    "backend": st.sampled_from(["", "nftables", "none", "firewalld", "IPTABLES"]) | values,
    "ingressPolicy": st.sampled_from(["", "open", "same-bridge", "isolated", "Open"]) | values,
    "firewalldZone": texts | values,
    "iptablesAdminChainName": st.sampled_from(["-j", "FORWARD", "a b", 'x"y', "é", "x" * 29, "PYCNI-X"]) | values,
    "ipam": values,
    "cni.dev/valid-attachments": values,
}


@fuzzed(150)
@given(changed=st.fixed_dictionaries({"prevResult": results | values}, optional=keys))
def test_any_values_of_known_keys(answers: Answers, changed: Conf) -> None:
    """The result passed on, or an error with its code; nothing stays either way."""
    answers.judge(answers.environ, json.dumps({**firewall(NET), **changed}).encode())
