"""A real containerd with pycni's executables as its only plugins: `ctr run --cni`, and pods through CRI."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from netns_fixtures import Outside, can_ping, wait_until
from tests.runtime.containerd import PAUSE_IMAGE, SOCKET, Containerd
from tests.runtime.isolated import leases, nothing_attached
from tests.runtime.lists import DIRECTORY, Port, read_list
from tests.runtime.published import Published, without_bridge_filtering
from tests.runtime.sandbox import Sandbox

pytestmark = [
    pytest.mark.needs("root", "tool:containerd", "tool:ctr", "tool:runc", "tool:busybox", "tool:nft"),
    pytest.mark.needs("kernel:bridge", "kernel:veth"),
]

DEFAULT_LIST = DIRECTORY / "10-containerd-net.conflist"
PORTS = (Port(8080, 7777), Port(8053, 7777, "udp"), Port(8081, 7777, "tcp", "127.0.0.1"))
GATEWAYS = ("10.88.0.1", "2001:4860:4860::1")
CTR_RUN = ("run", "--cni", "--snapshotter", "native")


def test_ctr_run_reaches_gateway_and_outside_and_leaves_nothing(containerd: Containerd, outside: Outside) -> None:
    """`ctr run --rm --cni` with containerd's default list: addresses, gateways and outside over both families."""
    containerd.write_list(read_list(DEFAULT_LIST))
    targets = (*GATEWAYS, outside.address(4), outside.address(6))
    pings = " && ".join(f"ping -c 1 -W 10 {target} >/dev/null" for target in targets)
    command = f"ip addr show dev eth0 && {pings} && echo reached"
    ran = containerd.ctr(*CTR_RUN, "--rm", PAUSE_IMAGE, "web", "/bin/sh", "-c", command)
    assert "inet 10.88.0.2/16" in ran.stdout
    assert "inet6 2001:4860:4860::2/64" in ran.stdout
    assert ran.stdout.endswith("reached\n"), ran.stdout
    assert nothing_attached(containerd)


def test_detached_container_is_collected(containerd: Containerd, outside: Outside) -> None:
    """`ctr run -d --cni` never calls DEL: GC frees what the container had once it is dead, and nothing before."""
    conf = read_list(DEFAULT_LIST)
    containerd.write_list(conf)
    containerd.ctr(*CTR_RUN, "--detach", PAUSE_IMAGE, "web")
    containerd.pycni("gc", conf["name"])
    assert leases(containerd) == {"default-web": ["10.88.0.2", "2001:4860:4860::2"]}
    assert can_ping(containerd.host, "10.88.0.2", deadline_s=10)
    containerd.ctr("tasks", "kill", "--signal", "SIGKILL", "web")
    wait_until(lambda: "STOPPED" in containerd.ctr("tasks", "list").stdout, 30)
    containerd.ctr("tasks", "delete", "web")
    containerd.pycni("gc", conf["name"])
    assert nothing_attached(containerd)


@pytest.mark.needs("python:grpc")
class TestPods:
    """What a kubelet does, through the Container Runtime Interface."""

    def test_pods_have_the_addresses_that_status_shows(self, containerd: Containerd, outside: Outside) -> None:
        """RunPodSandbox, PodSandboxStatus, StopPodSandbox: the network is ready only with a list, a pod's addresses
        are those leased to it, it reaches the gateway, outside and another pod, and stopping frees everything."""
        with ready_client(containerd, read_list(DEFAULT_LIST)) as cri:
            first, second = cri.run_pod("web", uid="uid-1"), cri.run_pod("db", uid="uid-2")
            shown = {pod: cri.pod_ready_and_addresses(pod) for pod in (first, second)}
            assert shown == {pod: (True, addresses) for pod, addresses in leases(containerd).items()}
            records = containerd.pycni_json("list")
            netns = {record["containerID"]: record["netns"] for record in records}
            for target in (*GATEWAYS, *shown[second][1], outside.address(4), outside.address(6)):
                containerd.run(["nsenter", f"--net={netns[first]}", "ping", "-c", "1", "-W", "10", target])
            for pod in (first, second):
                cri.stop_pod(pod)
                assert cri.pod_ready_and_addresses(pod) == (False, [])
            assert nothing_attached(containerd)
            for pod in (first, second):
                cri.remove_pod(pod)

    def test_host_ports_of_pods_are_reached(self, containerd: Containerd, outside: Outside, closing: ExitStack) -> None:
        """hostPort in the sandbox's configuration, of both protocols and on one address of the host: reached from
        outside with the client's address, from the host and from another pod, over both families; a port that is
        taken fails the pod with the name of its owner; stopping frees the port for the next one."""
        from tests.runtime.cri_client import RpcError  # not above: the mark skips where grpc is missing

        without_bridge_filtering(containerd.host)
        with ready_client(containerd, read_list(DEFAULT_LIST)) as cri:
            web = cri.run_pod("web", uid="uid-1", ports=PORTS)
            other = cri.run_pod("other", uid="uid-2")
            published = Published.serve(sandbox(containerd, web), outside, closing)
            near = sandbox(containerd, other)
            for family in (4, 6):
                assert published.seen(outside, 8080, family=family).address == outside.address(family)
                assert published.seen(outside, 8053, family=family, proto="udp").address == outside.address(family)
                for client in (containerd.host, near, published.inside):
                    published.seen(client, 8080, family=family)
            for loopback, port in (("127.0.0.1", 8080), ("::1", 8080), ("127.0.0.1", 8081)):
                published.seen(containerd.host, port, loopback)
            assert not published.reachable(outside, 8081)
            with pytest.raises(RpcError, match=web):
                cri.run_pod("late", uid="uid-3", ports=PORTS[:1])
            cri.stop_pod(web)
            assert not published.reachable(outside, 8080)
            late = cri.run_pod("late", uid="uid-4", ports=PORTS[:1])
            assert Published.serve(sandbox(containerd, late), outside, closing).seen(outside, 8080)
            for pod in (late, other):
                cri.stop_pod(pod)
            assert nothing_attached(containerd)

    def test_pod_that_gets_no_address_fails_and_leaves_nothing(self, containerd: Containerd) -> None:
        """With one address in the range the second pod's start fails with our message; the first goes on."""
        from tests.runtime.cri_client import RpcError  # not above: the mark skips where grpc is missing

        conf = read_list(DEFAULT_LIST)
        conf["plugins"][0]["ipam"]["ranges"] = [[{"subnet": "10.88.0.0/30"}]]
        with ready_client(containerd, conf) as cri:
            first = cri.run_pod("web", uid="uid-1")
            with pytest.raises(RpcError, match="no IP addresses available in range set"):
                cri.run_pod("db", uid="uid-2")
            assert leases(containerd) == {first: ["10.88.0.2"]}
            assert can_ping(containerd.host, "10.88.0.2", deadline_s=10)
            cri.stop_pod(first)
            assert nothing_attached(containerd)


def sandbox(containerd: Containerd, pod: str) -> Sandbox:
    """The namespace of *pod*, as the plugins were told it."""
    (netns,) = {record["netns"] for record in containerd.pycni_json("list") if record["containerID"] == pod}
    return Sandbox(pod, containerd.file(netns))


def ready_client(containerd: Containerd, conf: dict[str, Any]) -> Any:
    """A CRI client of *containerd*, whose network is *conf* and ready."""
    from tests.runtime.cri_client import CriClient  # not above: the mark skips where grpc is missing

    cri = CriClient(containerd.file(SOCKET))
    assert cri.conditions() == {"RuntimeReady": True, "NetworkReady": False}
    containerd.write_list(conf)
    wait_until(lambda: cri.conditions()["NetworkReady"], 30, "NetworkReady")
    cri.await_image(PAUSE_IMAGE)
    return cri
