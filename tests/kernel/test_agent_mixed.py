"""Calls through the agent and calls without it, at once and on one network."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from netns_fixtures import Container, Host, assert_unchanged, can_ping
from tests.kernel.agent_lab import DEADLINE_S, AgentHost
from tests.kernel.agent_load import HASTY, Load
from tests.kernel.bridge_lab import Lab, network

pytestmark = pytest.mark.needs("root", "tool:nft", "tool:cc", "kernel:bridge", "kernel:veth")

SEED = 11
LEAST_PAIRS = 60  # of ADD and DEL in each of the tests under load


@pytest.fixture
def agents(host: Host, tmp_path: Path) -> AgentHost:
    """No agent yet; the host forwards already."""
    host.sysctl("net/ipv4/ip_forward", "1")
    host.sysctl("net/ipv6/conf/all/forwarding", "1")
    found = AgentHost(host, tmp_path / "agent.log")
    found.configure(HASTY)
    return found


def test_both_ways_at_once(host: Host, agents: AgentHost, asking: Path, plugins: Path) -> None:
    """Eight runtimes, each call by whichever way: no address twice, no record lost, all of it works; DEL leaves
    nothing."""
    load = Load(Lab(host, asking), agents, 16, network())
    before = load.lab.traces()
    agents.start()
    with load.runtimes([asking, plugins], seed=SEED, pairs=2 * LEAST_PAIRS) as crowd:
        crowd.wait(2 * DEADLINE_S)
    told = load.told[-1]
    told.assert_sound()
    assert set(told.counts) <= {"ADD 0", "CHECK 0", "DEL 0"}, "nobody died, so nobody has to try again"
    load.assert_exactly(told.attached)
    assert agents.stop() == 0
    load.assert_exactly(told.attached)
    load.delete_all()
    assert_unchanged(before, load.lab.traces(), ignore=["*/file/run/pycni*", "*dst=fe80*"])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_agent_comes_and_goes_meanwhile(
    host: Host, agents: AgentHost, asking: Path, plugins: Path, how: signal.Signals
) -> None:
    """The same while the agent is stopped and started, politely or not: after SIGTERM no call is lost."""
    load = Load(Lab(host, asking), agents, 16, network())
    before = load.lab.traces()
    with load.runtimes([asking, asking, plugins], seed=SEED, pairs=LEAST_PAIRS) as crowd:
        while True:
            agents.start()
            try:
                crowd.wait(0.3)
                break
            except subprocess.TimeoutExpired:
                agents.stop(how)
    told = load.told[-1]
    told.assert_sound()
    if how == signal.SIGTERM:
        assert set(told.counts) <= {"ADD 0", "CHECK 0", "DEL 0"}
    load.assert_exactly(told.attached)
    load.delete_all()
    agents.stop()
    assert_unchanged(before, load.lab.traces(), ignore=["*/file/run/pycni*", "*dst=fe80*"])


@pytest.mark.parametrize("added_by", ["agent", "executable"])
def test_one_adds_the_other_deletes(
    agents: AgentHost, asking: Path, plugins: Path, c1: Container, added_by: str
) -> None:
    """Either way knows what the other did: CHECK agrees, a second ADD is refused, DEL takes it all."""
    with_agent, without = Lab(agents.host, asking), Lab(agents.host, plugins)
    adding, other = (with_agent, without) if added_by == "agent" else (without, with_agent)
    agents.start()
    conf = network()
    before = without.traces(c1)
    result = adding.add(conf, c1)
    assert can_ping(c1, "10.1.0.1")
    assert other.check(conf, c1, result).ok
    assert other.refused(conf, c1)["code"] == 105
    other.delete(conf, c1, cni_path=str(other.plugins))
    assert other.gc(conf).ok
    assert_unchanged(before, without.traces(c1))
    assert agents.counts() == ({"ADD": 1} if added_by == "agent" else {"CHECK": 1, "DEL": 1, "GC": 1})


def test_gc_by_either_keeps_what_the_other_made(
    agents: AgentHost, asking: Path, plugins: Path, c1: Container, c2: Container
) -> None:
    """A GC with the valid attachments, and one without a list, leave both."""
    with_agent, without = Lab(agents.host, asking), Lab(agents.host, plugins)
    agents.start()
    conf = network()
    first, second = with_agent.add(conf, c1), without.add(conf, c2)
    for lab in (with_agent, without):
        assert lab.gc(conf, c1, c2).ok
        assert lab.call("GC", conf).ok
        assert lab.check(conf, c1, first).ok
        assert lab.check(conf, c2, second).ok
    assert without.gc(conf, c2).ok
    assert set(without.records()) == {"net/c2/eth0"}
    assert "eth0" not in c1.links()
