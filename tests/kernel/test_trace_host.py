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
from tests.kernel.portmap_lab import Town, is_silent, port, seen

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth", "kernel:nft_nat")

TCP = 8080
NAMES = {"itself": "c1", "neighbour": "c2", "stranger": "c3"}
GATEWAY = {4: "10.1.0.1", 6: "fd00:1::1"}
FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}


@pytest.fixture(scope="module")
def town(plugins: Path) -> Iterator[Town]:
    """c1 and c2 on one network, c3 on another; c1 has published a port."""
    with ExitStack() as stack:
        made = Town.built(plugins, stack, bridged=False)
        made.ports.publish(made.server, port(TCP))
        yield made


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


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", [*NAMES, "host"])
def test_a_published_port_is_reached_as_the_trace_says(town: Town, traces: Traces, name: str, family: int) -> None:
    """By the host's uplink address and its gateway's, from the container itself, its neighbour, another network and the
    host: nothing is missing, and who is masqueraded is seen as the gateway."""
    for address in (town.own_address("host", family), GATEWAY[family]):
        answer = seen(town.client(name), address, TCP)
        assert answer is not None and answer.server == "c1"
        told = traces.told(NAMES.get(name, town.own_address("host", family)), address, "--port", str(TCP))
        assert (told["target"]["container"], told["port"], told["missing"]) == ("c1", 7777, None)
        assert "published port" in whats(told)
        assert ("masquerade" in whats(told)) == (name in ("itself", "neighbour"))


@pytest.mark.parametrize("family", [4, 6])
def test_a_published_port_without_forwarding_or_rules(town: Town, traces: Traces, family: int) -> None:
    """The container's own request is forwarded back to it, by rules; what it lacks is named, and nobody answers."""
    address, client = town.own_address("host", family), town.server.ns
    given = ("c1", address, "--port", str(TCP))
    town.host.run(["sysctl", "-qw", f"{FORWARDING[family]}=0"])
    assert is_silent(client, address, TCP)
    assert traces.named(*given) == "forwarding"
    town.host.run(["sysctl", "-qw", f"{FORWARDING[family]}=1"])
    town.host.run(["nft", "delete", "element", "inet", "pycni", f"hp{family}", f"{{ tcp . {TCP} }}"])
    assert is_silent(client, address, TCP)
    assert traces.named(*given) == "published port"
    town.ports.withdraw(town.server)
    assert "has published" in traces.refused(*given, rc=3)
    town.ports.publish(town.server, port(TCP))
    assert traces.named(*given) == ""


@pytest.mark.parametrize("family", [4, 6])
def test_what_a_container_sends_to_itself_stays_there(town: Town, traces: Traces, family: int) -> None:
    """By name, by its own address and by loopback, whose ports are not the host's; without lo nothing passes."""
    loopback, own, inside = {4: "127.0.0.1", 6: "::1"}[family], town.server.address(family), town.server.ns
    given = [(loopback,), (own,), (loopback, "--port", str(TCP)), (own, "--port", "7777")]
    assert not can_ping(inside, own, deadline_s=0.3)  # a runtime would have called the loopback plugin
    assert {traces.named("c1", *target) for target in given} == {"interface"}
    inside.ip("link", "set", "lo", "up")
    assert can_ping(inside, own) and can_ping(inside, loopback)
    for target in given:
        told = traces.told("c1", *target)
        assert (told["target"]["container"], told["missing"], len(told["steps"])) == ("c1", None, 1)
    assert traces.named("c1", "c1") == ""
    inside.ip("link", "set", "lo", "down")


def test_the_hosts_loopback_leads_to_the_port(town: Town, traces: Traces) -> None:
    """As seen from the host, where the container sees the gateway."""
    for loopback in ("127.0.0.1", "::1"):
        answer = seen(town.host, loopback, TCP)
        assert answer is not None and answer.address in GATEWAY.values()
        told = traces.told(loopback, loopback, "--port", str(TCP))
        assert told["missing"] is None and {"published port", "masquerade"} <= whats(told)


@pytest.mark.parametrize("family", [4, 6])
def test_only_the_sources_of_a_mapping_are_let_in(town: Town, traces: Traces, family: int) -> None:
    """The stranger is named, another container and the host by their own addresses are not; conditions are a note."""
    address, name = town.own_address("host", family), "c3"
    let_in = f"{town.stranger.address(family)}/{32 if family == 4 else 128}"
    condition = {f"conditionsV{family}": ["meta", "l4proto", "tcp"]}
    town.ports.publish(town.neighbour, port(9091, sources=[let_in]), **condition)
    assert seen(town.stranger.ns, address, 9091)
    told = traces.told(name, address, "--port", "9091")
    assert told["missing"] is None and {"published port", "conditions"} <= whats(told)
    assert is_silent(town.server.ns, address, 9091) and is_silent(town.host, address, 9091)
    for client in ("c1", address, town.own_address("outside", family)):
        missing = traces.told(client, address, "--port", "9091")["missing"]
        assert missing["what"] == "sources" and f"lets in {let_in}" in missing["found"]
    town.ports.withdraw(town.neighbour)


def test_without_snat_nobody_is_served_who_would_be_answered_directly(town: Town, traces: Traces) -> None:
    """The neighbour is not, one of another network is."""
    address = town.own_address("host", 4)
    town.ports.publish(town.neighbour, port(9090), snat=False)
    for client, name, what in ((town.server, "c1", "masquerade"), (town.neighbour, "c2", "masquerade")):
        assert is_silent(client.ns, address, 9090)
        assert traces.named(name, address, "--port", "9090") == what
    assert seen(town.stranger.ns, address, 9090)
    assert traces.named("c3", address, "--port", "9090") == ""
    town.ports.withdraw(town.neighbour)
