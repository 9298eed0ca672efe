"""A real containerd through the agent, and with the agent stopped in the middle."""

from __future__ import annotations

import signal

import pytest

from netns_fixtures import Outside, can_ping, wait_until
from tests.kernel.agent_lab import DEADLINE_S
from tests.runtime.command_line import ARGV
from tests.runtime.containerd import PAUSE_IMAGE, Containerd
from tests.runtime.lists import read_list
from tests.runtime.test_containerd import CTR_RUN, DEFAULT_LIST, GATEWAYS, leases, nothing_attached, ready_client

pytestmark = [
    pytest.mark.needs("root", "tool:containerd", "tool:ctr", "tool:runc", "tool:busybox", "tool:nft", "tool:cc"),
    pytest.mark.needs("kernel:bridge", "kernel:veth"),
]


class Agent:
    """The agent beside a containerd, in all of its namespaces, as on a host that has only these."""

    def __init__(self, containerd: Containerd) -> None:
        self.containerd = containerd

    def start(self) -> None:
        self.containerd.run(["sh", "-c", '"$@" </dev/null >/run/agent.log 2>&1 &', "sh", *ARGV, "agent"])
        wait_until(self._answers, DEADLINE_S, "the agent answers")

    def _answers(self) -> bool:
        return self.containerd.run([*ARGV, "agent", "status"], check=False).returncode == 0

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        pid = str(self.containerd.pycni_json("agent", "status")["pid"])
        self.containerd.run(["kill", f"-{how.name.removeprefix('SIG')}", pid])
        wait_until(lambda: not self._answers(), DEADLINE_S)

    def counts(self) -> dict[str, int]:
        """Calls without error since its start, by command."""
        calls = self.containerd.pycni_json("agent", "status")["calls"]
        return {call["command"]: call["count"] for call in calls if (call["plugin"], call["code"]) == ("bridge", 0)}


@pytest.fixture
def native(containerd: Containerd) -> Containerd:
    """A containerd whose plugins are native launchers."""
    containerd.run([*ARGV, "install", "--replace", "--no-conf", "--launcher", "c"])
    return containerd


@pytest.fixture
def agent(native: Containerd) -> Agent:
    """An agent that runs; it ends with the containerd."""
    started = Agent(native)
    started.start()
    return started


def test_ctr_run_through_the_agent(agent: Agent, outside: Outside) -> None:
    """`ctr run --rm --cni`: the same as without an agent, and it was the agent who answered."""
    agent.containerd.write_list(read_list(DEFAULT_LIST))
    targets = (*GATEWAYS, outside.address(4), outside.address(6))
    pings = " && ".join(f"ping -c 1 -W 10 {target} >/dev/null" for target in targets)
    ran = agent.containerd.ctr(*CTR_RUN, "--rm", PAUSE_IMAGE, "web", "/bin/sh", "-c", f"{pings} && echo reached")
    assert ran.stdout.endswith("reached\n"), ran.stdout
    assert (agent.counts()["ADD"], agent.counts()["DEL"]) == (1, 1)
    assert nothing_attached(agent.containerd)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.needs("python:grpc")
def test_pods_outlive_their_agent(agent: Agent, outside: Outside, how: signal.Signals) -> None:
    """A pod by the agent, the agent ends, a pod without it, another agent: all pods work and can be stopped by
    whichever way there is at that moment."""
    containerd = agent.containerd
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


def test_container_started_by_the_agent_is_collected_without_it(agent: Agent, outside: Outside) -> None:
    """`ctr run -d --cni` never calls DEL: the agent gone, `pycni gc` frees what it gave."""
    containerd = agent.containerd
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
