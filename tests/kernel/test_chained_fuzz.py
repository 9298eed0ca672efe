"""Whatever comes to tuning, bandwidth and ptp: a result or an error of the protocol, and a failure changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns_fixtures import Container, assert_unchanged
from tests.kernel.bridge_lab import Conf, Lab, network
from tests.kernel.chain_lab import Chain
from tests.kernel.test_fuzz import Answers, fuzzed, ipams, numbers, texts, values

pytestmark = [
    pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth"),
    pytest.mark.needs("kernel:ifb", "kernel:tbf"),
]

NOISE = ["*/file/run/cni*", "*dst=fe80*", "*neighbour*", "c1/sysctl/*"]
sysctls = st.dictionaries(
    st.sampled_from(
        ["net.core.somaxconn", "net/core/somaxconn", "net.ipv4.conf.IFNAME.arp_filter", "net.ipv4.route.flush",
         "net/../kernel/panic", "net", "net.ipv4.ip_local_reserved_ports", "net.no.such", "net.ipv4", "kernel.panic"]
    )
    | texts,
    st.sampled_from(["1", "0", "-1", "0x10", "1-3", "x", "999999999999", " ", "\n"]) | values,
    max_size=3,
)  # fmt: skip
tuning = {
    "sysctl": sysctls | values,
    "mac": st.sampled_from(["02:00:00:00:00:09", "02-00-00-00-00-09", "01:00:00:00:00:00", "", "ff"]) | values,
    "mtu": st.sampled_from([0, 67, 68, 1280, 1500, 65535, 65536]) | values,
    "promisc": st.booleans() | values,
    "allmulti": st.booleans() | values,
    "txQLen": st.sampled_from([0, 1, 2**31 - 1, 2**31]) | values,
    # no other absolute path: only /run and /var/lib are the host's own
    "dataDir": st.sampled_from(["/run/cni/tuning", "/run/a/b", "", "relative", "/proc/x", "/dev/null/x", "/run/../x"])
    | values.filter(lambda value: not str(value).startswith("/")),
}
rates = st.sampled_from([0, 1, 7, 8, 10**6, 2**32, 2**35, 2**63, 2**64]) | numbers
limits = st.dictionaries(
    st.sampled_from(["ingressRate", "ingressBurst", "egressRate", "egressBurst", "EgressRate", "shapedSubnets"]),
    rates | st.lists(texts, max_size=1) | values,
    max_size=4,
)
cap = st.fixed_dictionaries({}, optional={"bandwidth": limits | values, "mac": texts})
names = {
    "name": st.sampled_from(["net", "n" * 200, "", "/"]) | values,
    "cniVersion": st.sampled_from(["0.2.0", "0.3.0", "0.4.0", "1.0.0", "1.1.0", ""]) | values,
    "prevResult": values,
    "runtimeConfig": cap | values,
}
masquerade = {
    "ipMasq": st.booleans() | values,
    "mtu": st.sampled_from([0, 67, 68, 1279, 1280, 65535]) | values,
    "ipMasqBackend": st.sampled_from(["nftables", "", "foo"]) | values,
    "backend": st.sampled_from(["none", "nftables", ""]) | values,
    "ipam": ipams | values,
    "dns": values,
}
given_args = st.fixed_dictionaries({"cni": st.fixed_dictionaries({}, optional=tuning) | values})
CONFIGS = {
    "tuning": st.fixed_dictionaries({}, optional={**tuning, **names, "args": given_args}),
    "bandwidth": st.builds(lambda one, two: {**one, **two}, limits, st.fixed_dictionaries({}, optional=names)),
    "ptp": st.fixed_dictionaries({}, optional={**masquerade, **names}),
}


@pytest.fixture(params=CONFIGS)
def target(request: pytest.FixtureRequest, lab: Lab, c1: Container) -> Iterator[tuple[str, Conf, Answers]]:
    """A plugin, a configuration of it that works, and a process that answers for it."""
    for switch in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        lab.host.sysctl(switch, "1")
    conf: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net", "type": request.param}
    if request.param == "ptp":
        lab.host.run(["sh", "-c", "ip link add spare type veth && ip link del spare"])  # see test_ptp.py
        conf["ipam"] = network()["ipam"]
    else:
        conf["prevResult"] = Chain(lab, [network(ipMasq=False)], version="1.1.0").add(c1)
    before = lab.traces(c1)
    answers = Answers(lab, c1, request.param)
    yield request.param, conf, answers
    answers.close()
    assert_unchanged(before, lab.traces(c1), ignore=NOISE)


@fuzzed(120)
@given(data=st.data())
def test_any_values_of_known_keys(target: tuple[str, Conf, Answers], data: st.DataObject) -> None:
    """A config with some keys odd or wrong: it works and can be taken away, or an error with its code and no trace."""
    plugin, conf, answers = target
    changed = data.draw(CONFIGS[plugin])
    answers.judge(answers.environ, json.dumps({**conf, **changed}).encode())


@fuzzed(40)
@given(data=st.data(), command=st.sampled_from(["DEL", "CHECK", "GC", "STATUS"]))
def test_any_values_in_other_commands(target: tuple[str, Conf, Answers], data: st.DataObject, command: str) -> None:
    """Without any ADD: success or an error, and nothing appears or goes."""
    plugin, conf, answers = target
    changed = data.draw(CONFIGS[plugin])
    answers.judge({**answers.environ, "CNI_COMMAND": command}, json.dumps({**conf, **changed}).encode())
