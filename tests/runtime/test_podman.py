"""A real podman with pycni's executables as its only plugins: published ports as users publish them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from netns_fixtures import Outside, can_ping, wait_until
from tests.runtime.agent import Agent
from tests.runtime.isolated import nothing_attached
from tests.runtime.podman import IMAGE, Podman
from tests.runtime.published import Published, without_bridge_filtering
from tests.runtime.sandbox import Sandbox

pytestmark = [
    pytest.mark.needs("root", "tool:podman", "tool:runc", "tool:busybox", "tool:nft"),
    pytest.mark.needs("kernel:bridge", "kernel:veth"),
]

PORTS = ("8080:7777", "127.0.0.1:8081:7777", "8053:7777/udp", "9000-9002:7775-7777")
PORT_SHOWS = {
    "7775/tcp -> 0.0.0.0:9000",
    "7776/tcp -> 0.0.0.0:9001",
    "7777/tcp -> 0.0.0.0:9002",
    "7777/tcp -> 0.0.0.0:8080",
    "7777/tcp -> 127.0.0.1:8081",
    "7777/udp -> 0.0.0.0:8053",
}
PS_SHOWS = {
    "0.0.0.0:8080->7777/tcp",
    "127.0.0.1:8081->7777/tcp",
    "0.0.0.0:9000-9002->7775-7777/tcp",
    "0.0.0.0:8053->7777/udp",
}

Run = Callable[..., Published]


@pytest.fixture
def run(podman: Podman, outside: Outside, closing: ExitStack) -> Run:
    """Starts a container that sleeps and serves: `run("web", "8080:7777", network="blue")`."""

    def start(name: str, *ports: str, network: str = "podman") -> Published:
        publish = [word for port in ports for word in ("--publish", port)]
        podman.podman("run", "--detach", "--name", name, "--network", network, *publish, IMAGE)
        return Published.serve(sandbox(podman, name), outside, closing)

    return start


def sandbox(podman: Podman, name: str) -> Sandbox:
    return Sandbox(name, podman.file(podman.inspect(name)["NetworkSettings"]["SandboxKey"]))


def shown_network(podman: Podman, name: str, network: str = "podman") -> dict[str, Any]:
    shown: dict[str, Any] = podman.inspect(name)["NetworkSettings"]["Networks"][network]
    return shown


def reached_by_all(web: Published, podman: Podman, *others: Sandbox) -> None:
    """Every published port answers where it was published, and only there."""
    outside = web.outside
    assert web.seen(outside, 8080).address == outside.address(4)
    assert web.seen(outside, 9002).address == outside.address(4)
    assert web.seen(outside, 8053, proto="udp").address == outside.address(4)
    assert not web.reachable(outside, 8081)
    for address, port in (("", 8080), ("127.0.0.1", 8080), ("127.0.0.1", 8081)):
        web.seen(podman.host, port, address)
    web.seen(podman.host, 8053, "127.0.0.1", proto="udp")
    for client in (web.inside, *others):
        web.seen(client, 8080)
        web.seen(client, 8053, proto="udp")


def reached_by_proxy(web: Published, podman: Podman) -> None:
    """By what no rule can translate: IPv6 to a container that has none."""
    web.seen(web.outside, 8080, family=6)
    web.seen(web.outside, 8053, family=6, proto="udp")
    web.seen(podman.host, 9002, "::1")


def test_published_ports_are_reached_and_go_with_the_container(podman: Podman, run: Run) -> None:
    """`run -p`: from outside with the client's own address, from the host by its address and by loopback, from the
    container itself, its neighbour and one on another network; ps, port and inspect tell the truth; stop closes the
    ports, start opens them again, rm leaves nothing."""
    podman.podman("network", "create", "other")
    web = run("web", *PORTS)
    near, far = run("near"), run("far", network="other")
    assert set(podman.podman("port", "web").splitlines()) == PORT_SHOWS
    ps = podman.podman("ps", "--filter", "name=web", "--format", "{{.Ports}}")
    assert set(ps.strip().split(", ")) == PS_SHOWS
    shown = shown_network(podman, "web")
    (link,) = web.inside.ip_json("link", "show", "dev", "eth0")
    assert [f"{shown['IPAddress']}/{shown['IPPrefixLen']}"] == web.inside.addresses("eth0")
    assert shown["MacAddress"] == link["address"]
    assert can_ping(web.inside, shown["Gateway"], deadline_s=10)
    reached_by_all(web, podman, near.inside, far.inside)

    podman.podman("stop", "--time", "0", "web")
    assert not web.reachable(web.outside, 8080)
    podman.podman("start", "web")
    again = Sandbox("web", podman.file(podman.inspect("web")["NetworkSettings"]["SandboxKey"]))
    with ExitStack() as closing:
        reached_by_all(Published.serve(again, web.outside, closing), podman)
    podman.podman("rm", "--force", "--time", "0", "web", "near", "far")
    podman.podman("network", "rm", "other")
    assert nothing_attached(podman)


def test_dual_stack_network_publishes_both_families(podman: Podman, run: Run) -> None:
    """`network create --ipv6`, `run -p` on every address, on ::1 and on one IPv6 address of the host; `network rm`."""
    without_bridge_filtering(podman.host)
    subnets = ("--subnet", "10.77.0.0/24", "--subnet", "fd77::/64")
    podman.podman("network", "create", "--ipv6", *subnets, "dual")
    host_address = "2001:db8:ffff::2"
    web = run("web", "8080:7777", "8053:7777/udp", "[::1]:8081:7777", f"[{host_address}]:8082:7777", network="dual")
    near = run("near", network="dual")
    shown = shown_network(podman, "web", "dual")
    addresses = (shown["IPAddress"], shown["IPPrefixLen"]), (shown["GlobalIPv6Address"], shown["GlobalIPv6PrefixLen"])
    assert [f"{address}/{length}" for address, length in addresses] == web.inside.addresses("eth0")
    for family in (4, 6):
        assert web.seen(web.outside, 8080, family=family).address == web.outside.address(family)
        assert web.seen(web.outside, 8053, proto="udp", family=family).address == web.outside.address(family)
        for client in (podman.host, web.inside, near.inside):
            web.seen(client, 8080, family=family)
    web.seen(web.outside, 8082, family=6)
    assert not web.reachable(web.outside, 8081, family=6)
    for loopback, port in (("127.0.0.1", 8080), ("::1", 8080), ("::1", 8081)):
        web.seen(podman.host, port, loopback)
    podman.podman("rm", "--force", "--time", "0", "web", "near")
    podman.podman("network", "rm", "dual")
    assert nothing_attached(podman)


def test_network_reload_restores_what_a_flush_took(podman: Podman, run: Run) -> None:
    """`network reload` after somebody flushed the packet filter: DEL and ADD while podman itself listens on the ports
    give the same address, MAC and ports again."""
    web = run("web", *PORTS)
    before = shown_network(podman, "web")
    podman.host.run(["nft", "flush", "ruleset"])
    assert not web.reachable(web.outside, 8080)
    podman.podman("network", "reload", "web")
    assert shown_network(podman, "web") == before
    reached_by_all(web, podman)
    podman.podman("rm", "--force", "--time", "0", "web")
    assert nothing_attached(podman)


@pytest.mark.parametrize("victims", [["container"], ["conmon", "container"]], ids="-".join)
def test_killed_container_is_cleaned_up(podman: Podman, run: Run, victims: list[str]) -> None:
    """SIGKILL for the container: its monitor calls DEL. For the monitor too: `podman rm` does."""
    web = run("web", *PORTS)
    state = podman.inspect("web")["State"]
    pids = {"container": state["Pid"], "conmon": state["ConmonPid"]}
    podman.run(["kill", "-KILL", *(str(pids[victim]) for victim in victims)])
    if victims == ["container"]:
        wait_until(lambda: not podman.pycni_json("list"), 10, "the container is detached")
        assert not web.reachable(web.outside, 8080)
    podman.podman("rm", "--force", "--time", "0", "web")
    assert nothing_attached(podman)


def test_taken_port_is_refused_with_its_owner(podman: Podman, run: Run) -> None:
    """The second container and the port of a program on the host: podman shows our message, and nothing is left of
    the attempt."""
    web = run("web", "8080:7777")
    identity = podman.inspect("web")["Id"]
    publish = ("run", "--detach", "--name", "late", "--publish")
    assert identity in podman.refused(*publish, "8080:7777", IMAGE)
    podman.run(["sh", "-c", "busybox nc -l -p 8090 </dev/null >/dev/null 2>&1 &"])
    wait_until(lambda: ":8090" in podman.run(["ss", "-Hltn"]).stdout)
    podman.podman("rm", "--force", "late")
    assert "busybox" in podman.refused(*publish, "8090:7777", IMAGE)
    assert [record["containerID"] for record in podman.pycni_json("list")] == [identity]
    web.seen(web.outside, 8080)
    podman.podman("rm", "--force", "--time", "0", "web", "late")
    assert nothing_attached(podman)


@pytest.mark.needs("tool:cc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_ports_outlive_the_agent(podman: Podman, run: Run, how: signal.Signals) -> None:
    """A container by the agent, one after it ended, and an agent again: all ports work all the time, over the host's
    IPv6 address too although the network has none, and every container goes by whichever way there is."""
    podman.install("c")
    agent = Agent(podman)
    agent.start()
    first, second = run("first", *PORTS), run("second", "8090:7777")
    assert agent.counts("portmap")["ADD"] == 2
    reached_by_all(first, podman, second.inside)
    reached_by_proxy(first, podman)
    agent.stop(how)
    third = run("third", "8091:7777")
    reached_by_all(first, podman, second.inside, third.inside)
    reached_by_proxy(first, podman)
    podman.podman("rm", "--force", "--time", "0", "second")
    agent.start()
    reached_by_all(first, podman, third.inside)
    reached_by_proxy(first, podman)
    third.seen(third.outside, 8091)
    podman.podman("network", "reload", "first")
    reached_by_all(first, podman)
    podman.podman("rm", "--force", "--time", "0", "first", "third")
    assert agent.counts("portmap")["DEL"] >= 2
    assert nothing_attached(podman)
