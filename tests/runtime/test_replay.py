"""What real clients said to the reference plugins, said to ours."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from netns_fixtures import EchoServer, Host, Namespace, can_ping, can_tcp, can_udp, wait_until
from pycni.portmap.holding import listens_itself
from tests.kernel.agent_lab import BIN, AgentHost
from tests.runtime.recorded import RecordedCall, Replay, clients, recorded_calls
from tests.runtime.shapes import actual, expected

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")


CHAIN = ("bridge", "loopback", "portmap", "firewall", "tuning")


@pytest.mark.parametrize("client", clients())
def test_chain_answers_as_recorded(host: Host, bin_dir: Path, closing: ExitStack, client: str) -> None:
    """Every call of the client's chain, in its order, ends as the reference's did, with a result of the same shape,
    and it works: gateways answer, and published ports until their DEL."""
    play_chain(Replay(host, bin_dir, closing.callback), client)


@pytest.mark.needs("tool:cc")
@pytest.mark.parametrize("client", ["containerd-2", "cri-o", "podman"])
def test_chain_answers_as_recorded_through_the_agent(
    host: Host, closing: ExitStack, tmp_path: Path, client: str
) -> None:
    """So do native launchers and the agent, which carried out all of it."""
    agent = AgentHost(host, tmp_path / "agent.log")
    agent.pycni("install", "--bin-dir", BIN, "--replace", "--no-conf", "--launcher", "c")
    agent.start()
    play_chain(Replay(host, Path(BIN), closing.callback), client)
    counts = agent.counts()
    assert counts["ADD"] and counts["DEL"] and counts["GC"]


@pytest.mark.parametrize("client", clients())
def test_ipam_plugin_answers_as_recorded(host: Host, bin_dir: Path, closing: ExitStack, client: str) -> None:
    """So does every call of host-local that a bridge (or macvlan) of the reference made for that client."""
    replay = Replay(host, bin_dir, closing.callback)
    calls = recorded_calls(client, ("host-local",))
    assert calls
    for call in calls:
        answers_as_recorded(replay, call)


def test_renamed_executables_answer_as_recorded(host: Host, buildkit_bin_dir: Path, closing: ExitStack) -> None:
    """BuildKit's calls with executables and types that are all called buildkit-cni-NAME."""
    play_chain(Replay(host, buildkit_bin_dir, closing.callback, prefix="buildkit-cni-"), "buildkit")


@pytest.mark.parametrize("client", clients())
def test_runtime_that_listens_itself_is_known_by_its_arguments(client: str) -> None:
    """podman's CNI_ARGS, and buildah's, which is of its kind and publishes nothing; no other client's."""
    args = {call.env["CNI_ARGS"] for call in recorded_calls(client, ("portmap",)) if call.command == "ADD"}
    assert {listens_itself(each) for each in args} <= {client in ("podman", "buildah")}


def play_chain(replay: Replay, client: str) -> None:
    calls = recorded_calls(client, CHAIN)
    assert calls
    for call in calls:
        answers_as_recorded(replay, call)
    collected_wholly(replay, calls)


def answers_as_recorded(replay: Replay, call: RecordedCall) -> None:
    run = replay.play(call)
    netns = call.env.get("CNI_NETNS", "")
    assert actual(run, replay.path(netns), call.plugin) == expected(call), f"{call}\n{run}"
    if call.command == "ADD" and call.plugin == "bridge" and run.ok:
        container = replay.containers[netns]
        for ip in run.json["ips"]:
            assert can_ping(container, ip["gateway"], deadline_s=10), f"{call}: {ip}"
    if call.plugin == "portmap" and call.attachment in replay.results:
        container = replay.containers[replay.sandboxes[call.attachment]]
        if container.exists():
            published_or_not(replay.host, container, call)


def published_or_not(host: Host, container: Namespace, call: RecordedCall) -> None:
    """After an ADD every mapping answers on the host's loopback, after a DEL none."""
    published = [
        (each["protocol"], each["containerport"], each["hostport"])
        for mapping in call.stdin.get("runtimeConfig", {}).get("portMappings", ())
        for each in [{key.lower(): value for key, value in mapping.items()}]
    ]
    with ExitStack() as closing:
        for port in {inside for _, inside, _ in published}:
            closing.callback(EchoServer(container, port).close)
        for proto, _, port in published:
            ask = {"tcp": can_tcp, "udp": can_udp}[proto]
            wait_s = 10 if call.command == "ADD" else 0.2
            assert ask(host, "127.0.0.1", port, deadline_s=wait_s) == (call.command == "ADD"), f"{call}: {port}"


def collected_wholly(replay: Replay, calls: list[RecordedCall]) -> None:
    """What the recording leaves attached goes with a GC of each network by each plugin; then the host is as empty as
    before."""
    networks = {(call.plugin, call.stdin["name"]): call for call in calls if "name" in call.stdin}
    for call in networks.values():
        replay.collect(call)
    wait_until(lambda: replay.host.links() == ["lo"], 10, f"only lo is left of {replay.host.links()}")
    assert replay.host.run(["nft", "list", "ruleset"]).stdout == ""
