"""The tables of the packet filter between a host's last container and its next one."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import Container, Host, Outside, assert_unchanged, wait_until
from tests.kernel.agent_lab import DEADLINE_S, AgentHost
from tests.kernel.bridge_lab import Lab, network

pytestmark = pytest.mark.needs("root", "tool:nft", "tool:cc", "kernel:bridge", "kernel:veth")

LONG, SHORT = "keep_rules_s = 3600\nreconcile_s = 0\n", "keep_rules_s = 0.2\nreconcile_s = 0\n"


@pytest.fixture
def lab(host: Host, asking: Path) -> Lab:
    """A host whose plugins ask the agent."""
    return Lab(host, asking)


def tables(host: Host) -> dict[str, int]:
    """Family and handle of each table of ours; one that was made anew has another handle."""
    listed = json.loads(host.run(["nft", "-j", "list", "tables"]).stdout)["nftables"]
    return {
        one["table"]["family"]: one["table"]["handle"] for one in listed if one.get("table", {}).get("name") == "pycni"
    }


def live(lab: Lab, container: Container, **conf: Any) -> None:
    lab.add(network(**conf), container)
    lab.delete(network(**conf), container)


@pytest.mark.parametrize("more", [{}, {"macspoofchk": True}])
def test_next_container_finds_the_tables(
    lab: Lab, agents: AgentHost, outside: Outside, c1: Container, c2: Container, *, more: dict[str, Any]
) -> None:
    """Nothing of the first is in them, and they do for the second what they did for the first, over both families."""
    agents.start(config=LONG)
    live(lab, c1, **more)
    found = tables(lab.host)
    assert set(found) == ({"inet", "bridge"} if more else {"inet"})
    assert "elements" not in lab.ruleset()
    lab.add(network(**more), c2)
    assert tables(lab.host) == found
    for family in (4, 6):
        assert outside.seen_from(c2, family).address == outside.host_address(family)


def test_they_go_in_time(lab: Lab, agents: AgentHost, c1: Container) -> None:
    """Some time after the last container, and the host is as it was before the first."""
    agents.start(config=SHORT)
    live(lab, c1)
    wait_until(lambda: not tables(lab.host), DEADLINE_S)
    before = lab.traces(c1)
    live(lab, c1)
    wait_until(lambda: not tables(lab.host), DEADLINE_S)
    assert_unchanged(before, lab.traces(c1))


def test_they_go_with_the_agent(lab: Lab, agents: AgentHost, c1: Container) -> None:
    """An agent that is told to stop leaves none."""
    agents.start(config=LONG)
    live(lab, c1)
    assert tables(lab.host)
    agents.stop()
    assert not tables(lab.host)


def test_they_stay_for_who_needs_them(
    lab: Lab, agents: AgentHost, outside: Outside, c1: Container, c2: Container
) -> None:
    """A container that came before the time was over keeps them, beyond the agent's end."""
    agents.start(config=LONG)
    live(lab, c1)
    lab.add(network(), c2)
    before = lab.ruleset()
    agents.stop()
    assert lab.ruleset() == before
    assert outside.seen_from(c2, 4).address == outside.host_address(4)


def test_next_agent_removes_what_a_killed_one_left(lab: Lab, agents: AgentHost, c1: Container) -> None:
    """With its own patience."""
    agents.start(config=LONG)
    live(lab, c1)
    agents.stop(signal.SIGKILL)
    assert tables(lab.host)
    agents.start(config=SHORT)
    wait_until(lambda: not tables(lab.host), DEADLINE_S)


@pytest.mark.parametrize("harm", ["flush table inet pycni", "delete chain inet pycni as_it_is", "flush ruleset"])
def test_tables_that_somebody_changed_are_not_relied_on(
    lab: Lab, agents: AgentHost, outside: Outside, c1: Container, c2: Container, *, harm: str
) -> None:
    """They go at once, and the next container has all of its rules."""
    agents.start(config=LONG)
    live(lab, c1)
    lab.host.run(["nft", harm])
    wait_until(lambda: not tables(lab.host), DEADLINE_S)
    lab.add(network(), c2)
    for family in (4, 6):
        assert outside.seen_from(c2, family).address == outside.host_address(family)


def test_zero_leaves_it_to_the_del(lab: Lab, agents: AgentHost, c1: Container) -> None:
    """The tables go with the last container."""
    agents.start(config="keep_rules_s = 0\n")
    live(lab, c1)
    assert not tables(lab.host)
