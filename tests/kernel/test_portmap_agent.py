"""Published ports where an agent runs: what NAT cannot serve is served too."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from netns_fixtures import Host, wait_until
from tests.kernel.agent_lab import DEADLINE_S, AgentHost
from tests.kernel.bridge_lab import Lab, network
from tests.kernel.portmap_lab import BRIDGED, PortLab, is_silent, port, portmap, seen

pytestmark = pytest.mark.needs("root", "tool:nft", "tool:cc", "kernel:bridge", "kernel:veth", "kernel:nft_nat")


@pytest.fixture
def ports(host: Host, asking: Path, agents: AgentHost, closing: ExitStack) -> PortLab:
    """A host whose bridged frames the rules see, so that ::1 is the proxy's."""
    for key in BRIDGED:
        host.sysctl(key, "1")
    agents.start(config="reconcile_s = 0\n")
    return PortLab(Lab(host, asking), closing.callback)


def test_every_address_of_the_host_serves(ports: PortLab) -> None:
    """IPv6 and ::1 of an IPv4 container, ::1 of one with both, everything by the proxy; and nothing after the DEL."""
    only4, both, by_proxy = ports.server("c1", network(families=[4])), ports.server("c2"), ports.server("c3")
    ports.publish(only4, port(8080))
    ports.publish(both, port(8081))
    ports.publish(by_proxy, port(8082), proxy="always")
    for number, server in enumerate((only4, both, by_proxy)):
        for address in ("127.0.0.1", "::1", "10.1.0.1", "fd00:1::1"):
            answer = seen(ports.host, address, 8080 + number)
            assert answer is not None and answer.server == server.ns.name, (server.ns.name, address)
    for number, server in enumerate((only4, both, by_proxy)):
        ports.withdraw(server)
        assert all(is_silent(ports.host, address, 8080 + number) for address in ("127.0.0.1", "::1"))


@pytest.mark.parametrize("harm", ["ip link del cni1", "nft flush ruleset; ip link del cni1"])
def test_a_bridge_that_comes_back_serves_the_hosts_own_clients(ports: PortLab, agents: AgentHost, harm: str) -> None:
    """route_localnet and hairpin went with it: 127.0.0.1 and the container itself reach the port again, CHECK is
    content, and DEL leaves nothing on. What somebody switches off of a bridge that was not deleted stays off."""
    server, late = ports.server("c1", network(families=[4])), ports.server("c2", network(families=[4]))
    ports.publish(server, port(8080))
    ports.publish(late, port(8081))
    assert ports.check(server, port(8080)).ok
    ports.host.run(["sh", "-c", harm])
    wait_until(lambda: ports.check(server, port(8080)).ok, DEADLINE_S)
    for client, address in ((ports.host, "127.0.0.1"), (server.ns, "10.1.0.1")):
        answer = seen(client, address, 8080)
        assert answer is not None and answer.server == "c1"
    ports.withdraw(server)
    ports.withdraw(late)
    assert ports.host.sysctl("net/ipv4/conf/cni1/route_localnet") == "0"
    newest = ports.server("c3", network(families=[4]))
    ports.publish(newest, port(8082))
    ports.host.sysctl("net/ipv4/conf/cni1/route_localnet", "0")
    agents.ask("reconcile")
    assert ports.host.sysctl("net/ipv4/conf/cni1/route_localnet") == "0"


def test_what_needs_the_agent_is_not_refused_where_one_runs(ports: PortLab) -> None:
    """By STATUS, ADD and CHECK."""
    server = ports.server("c1", network(families=[4]))
    assert ports.lab.call("STATUS", portmap(proxy="always")).ok
    asked = port(8080, hostIP="::1"), port(8081, hostIP="::")
    ports.publish(server, *asked)
    assert seen(ports.host, "::1", 8080) and seen(ports.host, "::1", 8081)
    assert ports.check(server, *asked).ok
