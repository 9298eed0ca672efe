"""`pycni trace` on one host says what happens: between containers, the host itself, and the ports that it publishes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import can_ping
from tests.kernel.agent_lab import AgentHost
from tests.kernel.portmap_lab import Town

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth", "kernel:nft_nat")

GATEWAY = {4: "10.1.0.1", 6: "fd00:1::1"}
FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}


@pytest.fixture(scope="module")
def town(plugins: Path) -> Iterator[Town]:
    with ExitStack() as stack:
        yield Town.built(plugins, stack, bridged=False)


class Traces:
    """Traces on the host of *town*."""

    def __init__(self, town: Town, logs: Path) -> None:
        self._place = AgentHost(town.host, logs)

    def told(self, *argv: str) -> Any:
        """What a trace says; its exit code says the same."""
        done = self._place.pycni("trace", *argv, "--json", rc=None)
        said = json.loads(done.stdout)
        assert "steps" in said, done.stdout
        assert done.returncode == (1 if said["missing"] else 0), done
        return said

    def named(self, *argv: str) -> str:
        """What is missing, "" for nothing."""
        missing = self.told(*argv)["missing"]
        return missing["what"] if missing else ""

    def refused(self, *argv: str, rc: int) -> str:
        return self._place.pycni("trace", *argv, rc=rc).stderr


@pytest.fixture
def traces(town: Town, tmp_path: Path) -> Traces:
    return Traces(town, tmp_path / "agent.log")


@pytest.fixture
def no_router(town: Town) -> Iterator[None]:
    """The host does not forward."""
    for key in FORWARDING.values():
        town.host.run(["sysctl", "-qw", f"{key}=0"])
    yield
    for key in FORWARDING.values():
        town.host.run(["sysctl", "-qw", f"{key}=1"])


def whats(told: Any) -> set[str]:
    return {step["what"] for step in told["steps"]}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.usefixtures("no_router")
def test_the_host_itself_is_reached_without_forwarding(town: Town, traces: Traces, family: int) -> None:
    """By its address on the uplink and by the gateway's, and it reaches its containers: no packet is forwarded."""
    uplink, box = town.own_address("host", family), town.server.address(family)
    for address in (uplink, GATEWAY[family]):
        assert can_ping(town.server.ns, address)
        told = traces.told("c1", address)
        assert (told["target"]["place"], told["missing"]) == ("host", None)
        assert whats(told) & {"forwarding", "masquerade"} == set()
        assert traces.named(address, "c1") == ""
    assert can_ping(town.host, box)
    assert traces.told(uplink, box)["source"]["place"] == "host"
    assert traces.named("c1", town.own_address("outside", family)) == "forwarding"


@pytest.mark.parametrize("family", [4, 6])
def test_a_way_to_or_from_the_host_that_is_broken(town: Town, traces: Traces, family: int) -> None:
    """The container's default route for the one, the host's route to the subnet for the other."""
    version, uplink = f"-{family}", town.own_address("host", family)
    inside, subnet = town.neighbour.ns, {4: "10.1.0.0/24", 6: "fd00:1::/64"}[family]
    inside.ip(version, "route", "del", "default")
    assert not can_ping(inside, uplink, deadline_s=0.3)
    assert traces.named("c2", uplink) == "route"
    inside.ip(version, "route", "add", "default", "via", GATEWAY[family])
    assert traces.named("c2", uplink) == ""
    town.host.ip(version, "route", "del", subnet, "dev", "cni1")
    assert traces.named(uplink, town.neighbour.address(family)) == "route"
    town.host.ip(version, "route", "add", subnet, "dev", "cni1")
    assert traces.named(uplink, town.neighbour.address(family)) == ""


def test_the_host_and_the_world_are_no_pair_of_ends(town: Town, traces: Traces) -> None:
    """One end must be a container of this host, and the refusal says what each is."""
    said = traces.refused(town.own_address("host", 4), town.own_address("outside", 4), rc=3)
    assert "this host itself" in said and "no container that is known" in said
