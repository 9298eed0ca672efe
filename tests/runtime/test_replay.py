"""What real clients said to the reference plugins, said to ours."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from netns_fixtures import Host, can_ping, wait_until
from tests.runtime.recorded import RecordedCall, Replay, clients, recorded_calls
from tests.runtime.shapes import actual, expected

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")


@pytest.mark.parametrize("client", clients())
def test_interface_plugins_answer_as_recorded(host: Host, bin_dir: Path, closing: ExitStack, client: str) -> None:
    """Every call of bridge and loopback ends as the reference's did, with a result of the same shape, and it works."""
    replay = Replay(host, bin_dir, closing.callback)
    calls = recorded_calls(client, ("bridge", "loopback"))
    assert calls
    for call in calls:
        answers_as_recorded(replay, call)
    collected_wholly(replay, calls)


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
    replay = Replay(host, buildkit_bin_dir, closing.callback, prefix="buildkit-cni-")
    calls = recorded_calls("buildkit", ("bridge", "loopback"))
    for call in calls:
        answers_as_recorded(replay, call)
    collected_wholly(replay, calls)


def answers_as_recorded(replay: Replay, call: RecordedCall) -> None:
    run = replay.play(call)
    netns = call.env.get("CNI_NETNS", "")
    assert actual(run, replay.path(netns)) == expected(call), f"{call}\n{run}"
    if call.command == "ADD" and call.plugin == "bridge" and run.ok:
        container = replay.containers[netns]
        for ip in run.json["ips"]:
            assert can_ping(container, ip["gateway"], deadline_s=10), f"{call}: {ip}"


def collected_wholly(replay: Replay, calls: list[RecordedCall]) -> None:
    """What the recording leaves attached goes with a GC of each network; then the host is as empty as before."""
    networks = {call.stdin["name"]: call for call in calls if call.plugin == "bridge" and "name" in call.stdin}
    for call in networks.values():
        replay.collect(call)
    wait_until(lambda: replay.host.links() == ["lo"], 10, f"only lo is left of {replay.host.links()}")
    assert replay.host.run(["nft", "list", "ruleset"]).stdout == ""
