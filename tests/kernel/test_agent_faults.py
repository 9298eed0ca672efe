"""The agent killed at random moments under load: every caller is told something definite, and nothing stays behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netns_fixtures import Host, assert_unchanged, wait_until
from tests.kernel.agent_lab import DEADLINE_S, AgentHost
from tests.kernel.agent_load import HASTY, Load
from tests.kernel.bridge_lab import Lab, network

pytestmark = pytest.mark.needs("root", "tool:nft", "tool:cc", "kernel:bridge", "kernel:veth")

KILLS = int(os.environ.get("PYCNI_TEST_KILLS", "25"))
SEED = int(os.environ.get("PYCNI_TEST_SEED", "20"))
CONTAINERS = 16


@pytest.fixture
def load(host: Host, asking: Path, tmp_path: Path) -> Load:
    """Sixteen containers on a host without an agent yet, which already forwards."""
    host.sysctl("net/ipv4/ip_forward", "1")
    host.sysctl("net/ipv6/conf/all/forwarding", "1")
    agents = AgentHost(host, tmp_path / "agent.log")
    agents.configure(HASTY + "keep_rules_s = 10\n")  # tables of a killed agent may wait for their removal
    return Load(Lab(host, asking), agents, CONTAINERS, network())


def test_killed_under_load(load: Load, asking: Path) -> None:
    """Eight runtimes ADD, CHECK and DEL while the agent is killed again and again: a result or an error each time, no
    address twice; what a runtime takes for attached is and works, the rest is gone after one more DEL."""
    before = load.lab.traces()
    with load.runtimes([asking], seed=SEED):
        load.kill_again_and_again(KILLS, seed=SEED)
    told = load.told[-1]
    told.assert_sound()
    assert told.counts.get("ADD 11", 0) + told.counts.get("DEL 11", 0) > 0, "no kill hit a call"
    load.agents.start()  # what the dead left half-made is settled without a call as well
    wait_until(lambda: load.agents.ask("status")["reconciled"], DEADLINE_S)
    for name in load.containers.keys() - told.attached.keys():
        assert load.call("DEL", name).ok
    load.assert_exactly(told.attached)
    again = {}
    for name, result in told.attached.items():
        assert load.call("DEL", name, {**load.conf, "prevResult": result}).ok
        again[name] = load.call("ADD", name).result()
    load.assert_exactly(again)
    load.delete_all()
    assert load.agents.stop() == 0
    assert_unchanged(before, load.lab.traces(), ignore=["*/file/run/pycni*", "*dst=fe80*"])
