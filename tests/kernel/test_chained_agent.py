"""ptp, tuning and bandwidth by way of the agent: one resident process, other threads, other namespaces."""

from __future__ import annotations

import pytest

from netns_fixtures import wait_until
from tests.kernel.agent_lab import DEADLINE_S, AgentHost
from tests.kernel.bridge_lab import Conf, network

pytestmark = [
    pytest.mark.needs("root", "tool:nft", "kernel:veth"),
    pytest.mark.needs("kernel:ifb", "kernel:tbf"),
]

PLUGINS: list[Conf] = [
    {"type": "pycni-ptp", "ipMasq": True, "ipam": network()["ipam"] | {"type": "pycni-ipam"}},
    {"type": "pycni-tuning", "mtu": 1400, "sysctl": {"net.core.somaxconn": "99"}},
    {"type": "pycni-bandwidth", "egressRate": 80_000, "egressBurst": 80_000},
]


def test_a_life_by_way_of_the_agent(agents: AgentHost) -> None:
    """ADD, CHECK and DEL of a list, twice; then a container that vanishes is released by the agent, its device too."""
    agents.install("python")
    agents.start(config="grace_s = 0\nreconcile_s = 1\n")
    for number in range(2):
        container = agents.host.container(f"c{number}")
        somaxconn = container.sysctl("net/core/somaxconn")
        result: Conf = {}
        for plugin in PLUGINS:
            result = agents.call("ADD", _conf(plugin, result), container).result()
        assert [interface.get("mtu") for interface in result["interfaces"]][1] == 1400
        assert result["interfaces"][2]["name"].startswith("bwp")
        assert container.sysctl("net/core/somaxconn") == "99"
        for plugin in PLUGINS:
            assert agents.call("CHECK", _conf(plugin, result), container).ok
        if number == 0:
            for plugin in reversed(PLUGINS):
                assert agents.call("DEL", _conf(plugin, result), container).ok
            assert container.sysctl("net/core/somaxconn") == somaxconn
            assert agents.host.links() == ["lo"]
    assert sum(call["count"] for call in agents.ask("status")["calls"] if call["code"] == 0) == 15
    container.delete()
    wait_until(lambda: agents.host.links() == ["lo"] and agents.json("list") == [], DEADLINE_S)
    assert agents.json("ipam") == []
    agents.stop()


def test_status_by_way_of_the_agent(agents: AgentHost) -> None:
    """However often it is asked: the state file that the agent keeps open stays so for the calls that follow."""
    agents.install("python")
    agents.start()
    container = agents.host.container("c1")
    for _ in range(3):
        for plugin in PLUGINS:
            answer = agents.call("STATUS", _conf(plugin, {}), container)
            assert answer.ok, answer
    agents.stop()


def _conf(plugin: Conf, result: Conf) -> Conf:
    conf = {**plugin, "cniVersion": "1.1.0", "name": "net"}
    return {**conf, "prevResult": result} if result else conf
