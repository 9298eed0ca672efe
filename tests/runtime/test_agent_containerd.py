"""A real containerd through the agent, and with the agent stopped in the middle."""

from __future__ import annotations

import signal
from contextlib import ExitStack

import pytest

from netns_fixtures import Outside, can_ping, wait_until
from tests.runtime.agent import Agent
from tests.runtime.containerd import PAUSE_IMAGE, Containerd
from tests.runtime.isolated import leases, nothing_attached
from tests.runtime.lists import read_list
from tests.runtime.published import Published
from tests.runtime.test_containerd import CTR_RUN, DEFAULT_LIST, GATEWAYS, PORTS, ready_client, sandbox

pytestmark = [
    pytest.mark.needs("root", "tool:containerd", "tool:ctr", "tool:runc", "tool:busybox", "tool:nft", "tool:cc"),
    pytest.mark.needs("kernel:bridge", "kernel:veth"),
]


@pytest.fixture
def native(containerd: Containerd) -> Containerd:
    """A containerd whose plugins are native launchers."""
    containerd.install("c")
    return containerd


@pytest.fixture
def agent(native: Containerd) -> Agent:
    """An agent that runs; it ends with the containerd."""
    started = Agent(native)
    started.start()
    return started


def test_ctr_run_through_the_agent(agent: Agent, containerd: Containerd, outside: Outside) -> None:
    """`ctr run --rm --cni`: the same as without an agent, and it was the agent who answered."""
    containerd.write_list(read_list(DEFAULT_LIST))
    targets = (*GATEWAYS, outside.address(4), outside.address(6))
    pings = " && ".join(f"ping -c 1 -W 10 {target} >/dev/null" for target in targets)
    ran = containerd.ctr(*CTR_RUN, "--rm", PAUSE_IMAGE, "web", "/bin/sh", "-c", f"{pings} && echo reached")
    assert ran.stdout.endswith("reached\n"), ran.stdout
    assert (agent.counts()["ADD"], agent.counts()["DEL"]) == (1, 1)
    assert nothing_attached(containerd)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.needs("python:grpc")
def test_pods_outlive_their_agent(agent: Agent, containerd: Containerd, outside: Outside, how: signal.Signals) -> None:
    """A pod by the agent, the agent ends, a pod without it, another agent: all pods work and can be stopped by
    whichever way there is at that moment."""
    with ready_client(containerd, read_list(DEFAULT_LIST)) as cri:
        first = cri.run_pod("first", uid="uid-1")
        third = cri.run_pod("third", uid="uid-3")
        assert agent.counts()["ADD"] == 2
        agent.stop(how)
        second = cri.run_pod("second", uid="uid-2")
        shown = {pod: cri.pod_ready_and_addresses(pod) for pod in (first, second, third)}
        assert shown == {pod: (True, addresses) for pod, addresses in leases(containerd).items()}
        for _, addresses in shown.values():
            assert can_ping(containerd.host, addresses[0], deadline_s=10)
        cri.stop_pod(first)
        agent.start()
        assert can_ping(containerd.host, shown[second][1][0], deadline_s=10)
        cri.stop_pod(second)
        cri.stop_pod(third)
        assert agent.counts()["DEL"] >= 2
        assert nothing_attached(containerd)
        for pod in (first, second, third):
            cri.remove_pod(pod)


@pytest.mark.needs("python:grpc")
def test_host_ports_of_pods_outlive_their_agent(
    agent: Agent, containerd: Containerd, outside: Outside, closing: ExitStack
) -> None:
    """Ports published through the agent: reached while it lives, after it was killed, and after another one came,
    which still knows them as taken; and its pods' ports can be had again once they have stopped."""
    from tests.runtime.cri_client import RpcError  # not above: the mark skips where grpc is missing

    with ready_client(containerd, read_list(DEFAULT_LIST)) as cri:
        web = cri.run_pod("web", uid="uid-1", ports=PORTS)
        published = Published.serve(sandbox(containerd, web), outside, closing)
        assert agent.counts("portmap")["ADD"] == 1
        reached_by_outside_and_host(published)
        agent.stop(signal.SIGKILL)
        reached_by_outside_and_host(published)
        agent.start()
        reached_by_outside_and_host(published)
        with pytest.raises(RpcError, match=web):
            cri.run_pod("late", uid="uid-2", ports=PORTS[:1])
        cri.stop_pod(web)
        assert not published.reachable(outside, 8080)
        late = cri.run_pod("late", uid="uid-3", ports=PORTS[:1])
        assert Published.serve(sandbox(containerd, late), outside, closing).seen(outside, 8080)
        cri.stop_pod(late)
        assert nothing_attached(containerd)


def reached_by_outside_and_host(published: Published) -> None:
    outside = published.outside
    for family in (4, 6):
        assert published.seen(outside, 8080, family=family).address == outside.address(family)
        assert published.seen(outside, 8053, family=family, proto="udp").address == outside.address(family)
    published.seen(outside.host, 8081, "127.0.0.1")


def test_container_started_by_the_agent_is_collected_without_it(
    agent: Agent, containerd: Containerd, outside: Outside
) -> None:
    """`ctr run -d --cni` never calls DEL: the agent gone, `pycni gc` frees what it gave."""
    conf = read_list(DEFAULT_LIST)
    containerd.write_list(conf)
    containerd.ctr(*CTR_RUN, "--detach", PAUSE_IMAGE, "web")
    assert leases(containerd) == {"default-web": ["10.88.0.2", "2001:4860:4860::2"]}
    agent.stop(signal.SIGKILL)
    containerd.ctr("tasks", "kill", "--signal", "SIGKILL", "web")
    wait_until(lambda: "STOPPED" in containerd.ctr("tasks", "list").stdout, 30)
    containerd.ctr("tasks", "delete", "web")
    containerd.pycni("gc", conf["name"])
    assert nothing_attached(containerd)
