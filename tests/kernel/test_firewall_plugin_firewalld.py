"""The firewall plugin and a real firewalld, with a system bus of its own, on a host of its own."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import DEVNULL

import pytest

from netns_fixtures import Container, Host, Outside, can_ping, wait_until
from pycni.host.firewalld import Firewalld
from pycni.host.system_bus import PLACE
from tests.kernel.agent_lab import AgentHost
from tests.kernel.bridge_lab import words
from tests.kernel.firewall_plugin_lab import FAMILIES, Chain, reaches

pytestmark = pytest.mark.needs("root", "tool:nft", "tool:firewalld", "tool:dbus-daemon", "kernel:bridge", "kernel:veth")

BUS = f"""<busconfig><listen>unix:path={PLACE}</listen><auth>EXTERNAL</auth><policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
</policy></busconfig>"""
Chains = Callable[..., Chain]


class Daemon:
    """firewalld with the configuration it comes with, in the host's own /etc, and the bus."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.run(["mkdir", "-p", "/run/dbus"])
        host.file("/run/dbus/bus.conf").write_text(BUS)
        bus = host.popen(["dbus-daemon", "--config-file=/run/dbus/bus.conf", "--nofork", "--nopidfile"], stderr=DEVNULL)
        wait_until(lambda: host.file(PLACE).exists())
        self.processes = [bus]
        self.start()

    def start(self) -> None:
        argv = ["/usr/sbin/firewalld", "--nofork", "--nopid", "--log-file", "/run/firewalld.log"]
        self.processes.append(self.host.popen(argv, stdout=DEVNULL, stderr=DEVNULL))
        wait_until(self._answers, 20)

    def _answers(self) -> bool:
        try:
            self.host.in_namespace(lambda: Firewalld().close())
        except Exception:  # no bus yet, nobody there yet
            return False
        return "running" in self.command("--state")

    def command(self, *argv: str) -> str:
        done = self.host.run(["firewall-cmd", *argv], check=False)
        return done.stdout + done.stderr

    def sources(self, zone: str = "trusted") -> list[str]:
        return sorted(self.command(f"--zone={zone}", "--list-sources").split())

    def stop(self) -> None:
        """firewalld ends, and takes its rules along; the bus stays."""
        daemon = self.processes.pop()
        daemon.terminate()
        daemon.wait(20)


@pytest.fixture
def daemon(host: Host) -> Daemon:
    return Daemon(host)


SOURCES = ["10.1.0.2/32", "fd00:1::2/128"]


def test_where_firewalld_runs_it_is_told(daemon: Daemon, outside: Outside, firewalled: Chains, c1: Container) -> None:
    """It rejects what no zone lets pass; with the addresses in the trusted zone, as the reference puts them there,
    both families reach outside. CHECK, a reload, a second ADD, DEL, and DEL again."""
    made = firewalled()
    outside.ip("route", "add", "10.1.0.0/24", "via", outside.host_address())
    outside.ip("-6", "route", "add", "fd00:1::/64", "via", outside.host_address(6))
    previous = made.first("ADD", c1).result()
    assert not reaches(c1, outside.address(), outside.port, expected=False)
    conf = {**made.conf, "prevResult": previous}
    assert made.lab.add(conf, c1) == previous
    assert daemon.sources() == SOURCES
    for family in FAMILIES:
        assert reaches(c1, outside.address(family), outside.port, expected=True)
    assert made.lab.check(made.conf, c1, previous).ok
    assert daemon.command("--reload") == "success\n"
    answer = made.lab.check(made.conf, c1, previous)
    assert answer.error_code == 106
    assert "failed to find the address 10.1.0.2/32 in trusted zone" in answer.stdout
    daemon.command("--zone=trusted", "--add-source=10.1.0.2/32")
    made.lab.delete({**made.conf, "firewalldZone": "drop"}, "c1", netns="")
    made.lab.delete(made.conf, "c1", netns="")
    assert daemon.sources() == []
    daemon.command("--zone=trusted", "--add-source=10.1.0.2/32")
    assert made.lab.add(conf, c1) == previous
    assert daemon.sources() == SOURCES
    made.lab.delete(conf, c1)
    assert (daemon.sources(), made.lab.records()) == ([], {"net1/c1/eth0": "ready"})


def test_an_address_that_two_have_stays(daemon: Daemon, outside: Outside, firewalled: Chains, c1: Container) -> None:
    """One whose DEL comes late, and the next, which the IPAM plugin gave the same address: that one is not cut off.
    And the cheaper way: a zone by interface, with a backend that does not tell firewalld of addresses."""
    made = firewalled()
    outside.ip("route", "add", "10.1.0.0/24", "via", outside.host_address())
    previous = made.first("ADD", c1).result()
    conf = {**made.conf, "prevResult": previous}
    made.lab.add(conf, c1)
    made.lab.add(conf, c1, container_id="late")
    made.lab.delete(conf, "late", netns="")
    assert daemon.sources() == SOURCES
    made.lab.delete(conf, c1)
    daemon.command("--zone=trusted", "--add-interface=cni1")
    made.lab.add({**conf, "backend": "nftables"}, c1)
    assert daemon.sources() == []
    assert reaches(c1, outside.address(), outside.port, expected=True)


def test_what_firewalld_refuses(daemon: Daemon, firewalled: Chains, c1: Container, c2: Container) -> None:
    """No such zone, an address that is another zone's: code 103 in its words, and everything is taken back. Without
    firewalld: told so where it was asked for, passed over where it was not; DEL always works."""
    made = firewalled(ingressPolicy="isolated")
    previous = made.first("ADD", c1).result()
    before = made.lab.traces(c1)
    conf = {**made.conf, "prevResult": previous}
    error = made.lab.refused({**conf, "firewalldZone": "nowhere"}, c1)
    assert error["code"] == 103
    assert "failed to add the address 10.1.0.2/32 to nowhere zone: INVALID_ZONE" in words(error)
    daemon.command("--zone=home", f"--add-source={SOURCES[1]}")
    error = made.lab.refused(conf, c1)
    assert "ZONE_CONFLICT" in words(error)
    assert (daemon.sources(), daemon.sources("home")) == ([], SOURCES[1:])
    daemon.command("--zone=home", f"--remove-source={SOURCES[1]}")
    after = made.lab.traces(c1)
    assert {key for key in before if "/nft/inet pycni" in key} == {key for key in after if "/nft/inet pycni" in key}
    assert made.lab.call("STATUS", {**made.conf, "backend": "firewalld"}).ok
    box = made.attach(c2)
    assert len(daemon.sources()) == 2
    daemon.stop()
    assert made.check(box).ok
    made.detach(box)
    assert made.lab.refused({**conf, "backend": "firewalld"}, c1)["code"] == 103
    assert made.lab.call("STATUS", {**made.conf, "backend": "firewalld"}).error_code == 50
    assert made.lab.add(conf, c1) == previous


def test_the_agent_tells_it_again_after_a_reload(
    daemon: Daemon, firewalled: Chains, c1: Container, agents: AgentHost
) -> None:
    """firewalld forgets with each reload; the agent sees its table go and puts the sources back."""
    made = firewalled()
    box = made.attach(c1)
    assert can_ping(c1, "10.1.0.1")
    agents.start()
    assert daemon.command("--reload") == "success\n"
    wait_until(lambda: daemon.sources() == SOURCES, 10)
    assert made.check(box).ok
    agents.stop()


def test_the_agent_tells_it_again_after_a_restart(
    daemon: Daemon, firewalled: Chains, c1: Container, agents: AgentHost
) -> None:
    """`systemctl restart firewalld` stops it first: while its table goes nobody can be told; its coming counts."""
    made = firewalled()
    box = made.attach(c1)
    agents.start()
    daemon.stop()
    daemon.start()
    wait_until(lambda: daemon.sources() == SOURCES, 10)
    assert made.check(box).ok
    agents.stop()
