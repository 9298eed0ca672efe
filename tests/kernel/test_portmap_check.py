"""CHECK where agents come and go: what ADD left to the proxy is what the record says."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from netns_fixtures import Host, wait_until
from tests.kernel.agent_lab import DEADLINE_S, AgentHost
from tests.kernel.bridge_lab import Lab, network
from tests.kernel.portmap_lab import BRIDGED, PortLab, is_silent, port, seen

pytestmark = pytest.mark.needs("root", "tool:nft", "tool:cc", "kernel:bridge", "kernel:veth", "kernel:nft_nat")

QUIET = "reconcile_s = 0\n"


@pytest.fixture
def ports(host: Host, asking: Path, closing: ExitStack) -> PortLab:
    """A host whose plugins ask the agent, where one runs; NAT can do ::1."""
    for key in BRIDGED:
        host.sysctl(key, "0")
    return PortLab(Lab(host, asking), closing.callback)


@pytest.mark.parametrize("family", [4, 6])
def test_an_agent_that_came_later_is_no_fault(ports: PortLab, agents: AgentHost, family: int) -> None:
    """Added without one, the other family was never promised; what was, is missed all the same."""
    server = ports.server("c1", network(families=[family]))
    ports.publish(server, port(8080), port(0))
    agents.start(config=QUIET)
    answer = ports.check(server, port(8080), port(0))
    assert answer.ok, answer
    answer = ports.check(server, port(8080), port(9090))
    assert answer.error_code == 106 and "9090/tcp is not published" in answer.json["msg"]


@pytest.mark.parametrize("family", [4, 6])
def test_an_agent_that_went_is_no_fault_while_the_proxy_serves(ports: PortLab, agents: AgentHost, family: int) -> None:
    """Named by hostIP, or all left to the proxy; when that is gone as well, CHECK says what is not served."""
    agents.start(config=QUIET)
    named, always = ports.server("c1", network(families=[family])), ports.server("c2")
    other = port(8080, hostIP="::" if family == 4 else "0.0.0.0")
    ports.publish(named, other, port(8081))
    ports.publish(always, port(8082), proxy="always")
    pid = agents.ask("status")["proxy"]["pid"]
    agents.stop()
    loopback = "::1" if family == 4 else "127.0.0.1"
    assert all(seen(ports.host, loopback, number) for number in (8080, 8081, 8082))
    for answer in (ports.check(named, other, port(8081)), ports.check(always, port(8082), proxy="always")):
        assert answer.ok, answer
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_silent(ports.host, loopback, 8080), DEADLINE_S)
    answer = ports.check(named, other, port(8081))
    assert answer.error_code == 106 and "left to the userland proxy, and none runs" in answer.json["msg"], answer
