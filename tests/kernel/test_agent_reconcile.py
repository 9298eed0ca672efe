"""What the agent puts back, releases, reports, and leaves alone."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from netns_fixtures import Container, Host, Outside, assert_unchanged, can_ping, diff, netns_snapshot, wait_until
from tests.kernel.agent_lab import DEADLINE_S, AgentHost
from tests.kernel.agent_load import Load, seconds_until
from tests.kernel.bridge_lab import Lab, address_of, network
from tests.kernel.test_faults import Faulty

pytestmark = pytest.mark.needs("root", "tool:nft", "tool:cc", "kernel:bridge", "kernel:veth")

ON_NOTICE = "reconcile_s = 0\n"  # no timer: what is put back is so because of a notification
RESTORED_WITHIN_S = 1.0
WAITING_ON_DEL = """#!/bin/sh
cat >/dev/null
[ "$CNI_COMMAND" = DEL ] && [ -e /run/wait ] && echo asked >/run/asked && read -r _ </run/go
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24"}]}'
"""
BROKEN_ON_DEL = """#!/bin/sh
cat >/dev/null
[ "$CNI_COMMAND" = DEL ] && [ -e /run/broken ] && echo '{"code": 117, "msg": "out of order"}' && exit 1
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24"}]}'
"""


@pytest.fixture
def lab(host: Host, asking: Path) -> Lab:
    """A host whose plugins ask the agent."""
    return Lab(host, asking)


# -- the packet filter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "harm",
    [
        "flush ruleset",
        "delete table inet pycni",
        "flush table inet pycni",
        "flush chain inet pycni postrouting",
        "flush set inet pycni masq4",
    ],
)
def test_lost_rules_are_back_within_a_second(
    lab: Lab, agents: AgentHost, outside: Outside, boxes: Callable[[int], list[Container]], harm: str
) -> None:
    """Whatever of the table somebody removes is put back as it was, by a notification; masquerading works again."""
    agents.start(config=ON_NOTICE)
    containers = boxes(3)
    conf = network()
    for container in containers:
        lab.add(conf, container)
    before = lab.ruleset()
    assert len(before.splitlines()) > 20
    lab.host.run(["nft", harm])
    took_s = seconds_until(lambda: lab.ruleset() == before, RESTORED_WITHIN_S)
    print(f"\nafter `nft {harm}`: {took_s * 1000:.0f} ms")
    for container in containers:
        for family in (4, 6):
            assert outside.seen_from(container, family).address == outside.host_address(family)
    (logged,) = wait_until(lambda: agents.logged("reconciled"), DEADLINE_S)
    assert logged["restored"], "the log names what was missing"
    assert logged["failures"] == []


def test_flush_again_and_again_under_load(host: Host, asking: Path, agents: AgentHost) -> None:
    """While eight runtimes come and go: in the end there are the rules of who is attached, and no others. What a DEL
    takes away meanwhile is no change by others."""
    agents.start(config=ON_NOTICE + 'log_level = "warning"\n')
    load = Load(Lab(host, asking), agents, 16, network())
    foreign: list[str] = []
    with load.runtimes([asking], seed=3, check=False):
        for _ in range(20):
            host.run(["nft", "flush ruleset"])
            foreign += agents.ask("reconcile")["foreign"]
    assert foreign == []
    told = load.told[-1]
    told.assert_sound()
    agents.ask("reconcile")
    load.assert_exactly(told.attached)
    load.delete_all()
    assert load.lab.ruleset() == ""


def test_foreign_tables_are_left_alone(lab: Lab, agents: AgentHost, c1: Container) -> None:
    """Tables of others, and what others deleted of theirs, are not the agent's business, whatever it restores."""
    lab.host.run(["nft", "add table ip theirs; add chain ip theirs c; add rule ip theirs c counter; add table inet b"])
    agents.start(config=ON_NOTICE)
    lab.add(network(), c1)
    before = netns_snapshot(lab.host)
    lab.host.run(["nft", "delete table inet pycni; delete table inet b"])
    wait_until(lambda: "table inet pycni" in lab.ruleset(), RESTORED_WITHIN_S)
    agents.ask("reconcile")
    assert diff(before, netns_snapshot(lab.host)) == [f"- h1/nft/inet b{_tail(before)}"]


def _tail(before: dict[str, object]) -> str:
    value = before["h1/nft/inet b"]
    assert isinstance(value, str)
    return ":\n" + "\n".join(f"    {line}" for line in value.splitlines()) if "\n" in value else f": {value}"


# -- links and namespaces ----------------------------------------------------------------------------------------------


def test_deleted_host_link_is_reported_not_remade(lab: Lab, agents: AgentHost, c1: Container, c2: Container) -> None:
    """Who deletes a container's link had a reason: it is named, with its owner, until the runtime DELs it."""
    agents.start(config=ON_NOTICE)
    link = lab.add(network(), c1)["interfaces"][1]["name"]
    lab.add(network(), c2)
    lab.host.ip("link", "delete", link)
    assert agents.ask("reconcile")["foreign"] == [f"net/c1/eth0: host link {link} is gone"]
    assert agents.ask("status")["reconciled"]["foreign"] == [f"net/c1/eth0: host link {link} is gone"]
    assert link not in lab.host.links()
    assert set(lab.records()) == {"net/c1/eth0", "net/c2/eth0"}
    lab.delete(network(), c1)
    assert agents.ask("reconcile")["foreign"] == []


def test_link_taken_off_its_bridge_is_reported(lab: Lab, agents: AgentHost, c1: Container) -> None:
    """The same for a link that somebody moved."""
    agents.start(config=ON_NOTICE)
    link = lab.add(network(), c1)["interfaces"][1]["name"]
    lab.host.ip("link", "set", link, "nomaster")
    assert agents.ask("reconcile")["foreign"] == [f"net/c1/eth0: host link {link} is not on bridge cni1"]


def test_link_that_is_down_is_reported(lab: Lab, agents: AgentHost, c1: Container) -> None:
    """And is not brought up."""
    agents.start(config=ON_NOTICE)
    link = lab.add(network(), c1)["interfaces"][1]["name"]
    lab.host.ip("link", "set", link, "down")
    assert agents.ask("reconcile")["foreign"] == [f"net/c1/eth0: host link {link} is down"]
    assert "UP" not in lab.link(link)["flags"]


def test_bridge_that_is_down_is_reported(lab: Lab, agents: AgentHost, c1: Container, c2: Container) -> None:
    """Once for all its containers, and is not brought up; what goes with it comes back when somebody does."""
    agents.start(config=ON_NOTICE)
    for each in (c1, c2):
        lab.add(network(), each)
    lab.host.ip("link", "set", "cni1", "down")
    assert agents.ask("reconcile")["foreign"] == ["network net: bridge cni1 is down"]
    (shown,) = lab.host.ip_json("addr", "show", "dev", "cni1")
    assert "UP" not in shown["flags"]
    assert [each["family"] for each in shown["addr_info"]] == ["inet"], "the kernel takes those of IPv6"
    lab.host.ip("link", "set", "cni1", "up")
    wait_until(lambda: can_ping(c1, "fd00:1::1"), RESTORED_WITHIN_S)


def test_dead_attachment_is_released_after_the_grace(lab: Lab, agents: AgentHost, c1: Container, c2: Container) -> None:
    """Its namespace is gone and no DEL came: left alone during the grace, then released like by a DEL; others stay."""
    agents.start(config=ON_NOTICE + "grace_s = 3600\n")
    conf = network()
    lab.add(conf, c1)
    result = lab.add(conf, c2)
    c1.delete()
    assert agents.ask("reconcile")["released"] == []
    assert agents.ask("reconcile")["released"] == []
    assert set(lab.records()) == {"net/c1/eth0", "net/c2/eth0"}
    wait_until(lambda: len(lab.ports()) == 1, DEADLINE_S, "the kernel took the pair away")
    agents.configure(ON_NOTICE + "grace_s = 0\n")
    agents.agents[-1].send_signal(signal.SIGHUP)
    wait_until(lambda: set(lab.records()) == {"net/c2/eth0"}, DEADLINE_S)
    assert sorted(lab.leases()) == sorted(ip["address"].split("/")[0] for ip in result["ips"])
    assert lab.check(conf, c2, result).ok


def test_grace_begins_anew_for_a_new_attachment_of_the_same_id(
    lab: Lab, agents: AgentHost, boxes: Callable[[int], list[Container]]
) -> None:
    """A container that was seen dead, then deleted: a later one of its id has the whole grace again."""
    first, second = boxes(2)
    agents.start(config=ON_NOTICE + "grace_s = 0.5\n")
    conf = network()
    lab.add(conf, first, container_id="web")
    first.delete()
    began = time.monotonic()
    assert agents.ask("reconcile")["released"] == []
    assert lab.call("DEL", conf, "web").ok
    lab.add(conf, second, container_id="web")
    wait_until(lambda: time.monotonic() > began + 0.6, DEADLINE_S)
    second.delete()
    assert agents.ask("reconcile")["released"] == []
    assert set(lab.records()) == {"net/web/eth0"}


def test_namespace_that_only_the_runtime_sees_is_alive(lab: Lab, agents: AgentHost, c1: Container) -> None:
    """Its path is valid in the runtime's mount namespace alone: the agent must not take the container for dead."""
    agents.start(config=ON_NOTICE + "grace_s = 0\n")
    conf = network()
    script = f"mount --bind /proc/{c1.pid}/ns/net /run/private && exec {lab.plugins}/bridge"
    lab.host.run(["touch", "/run/private"])
    environ = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/private",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(lab.plugins),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    added = lab.host.run(["unshare", "--mount", "sh", "-c", script], input=json.dumps(conf), env=environ)
    assert json.loads(added.stdout)["interfaces"][2]["sandbox"] == "/run/private"
    assert can_ping(c1, "10.1.0.1")
    assert agents.ask("reconcile")["released"] == []
    assert can_ping(c1, "10.1.0.1")


# -- what a dead process left ------------------------------------------------------------------------------------------


def test_half_made_attachment_is_finished_at_start(
    lab: Lab, agents: AgentHost, plugins: Path, c1: Container, c2: Container
) -> None:
    """A standalone ADD that was killed: gone when the agent has started, whatever the grace is."""
    faulty = Faulty(Lab(lab.host, plugins), network())
    lab.add(network(), c2)
    events = faulty.events("ADD", c1)
    lab.delete(network(), c1)
    before = lab.traces(c1)
    faulty.kill("ADD", c1, events.index("before commit"))
    assert lab.records()["net/c1/eth0"] == "adding"
    agents.start(config=ON_NOTICE)
    wait_until(lambda: set(lab.records()) == {"net/c2/eth0"}, DEADLINE_S)
    wait_until(lambda: agents.ask("status")["reconciled"], DEADLINE_S)
    assert_unchanged(before, lab.traces(c1), ignore=["*/file/*", "*/process/*", "*dst=fe80*"])


def test_release_does_not_hit_the_next_attachment_of_the_same_id(
    lab: Lab, agents: AgentHost, asking: Path, boxes: Callable[[int], list[Container]]
) -> None:
    """Two dead attachments; while the first is being released, the runtime uses the id of the second again."""
    first, second, third = boxes(3)
    foreign = lab.host.file("/run/foreign")
    foreign.mkdir()
    (foreign / "waiting").write_text(WAITING_ON_DEL)
    (foreign / "waiting").chmod(0o755)
    lab.host.run(["mkfifo", "/run/go", "/run/asked"])
    slow = network("a", 9, ipam={"type": "waiting"}, isDefaultGateway=None, ipMasq=None)
    conf = network("b", 1)
    path = f"{asking}:/run/foreign"
    lab.add(slow, first, cni_path=path)
    lab.add(conf, second, container_id="web")
    for each in (first, second):
        each.delete()
    lab.host.run(["touch", "/run/wait"])
    agents.start(config=ON_NOTICE + "grace_s = 0\n")
    lab.host.run(["sh", "-c", "read -r _ </run/asked"])  # it releases the first now
    result = lab.add(conf, third, container_id="web")
    lab.host.run(["sh", "-c", "rm /run/wait; echo >/run/go"])
    wait_until(lambda: "a/c1/eth0" not in lab.records(), DEADLINE_S)
    agents.ask("reconcile")
    assert lab.records() == {"b/web/eth0": "ready"}
    assert lab.check(conf, third, result, container_id="web").ok
    assert can_ping(third, "10.1.0.1")


@contextmanager
def delete_in_progress(lab: Lab, agents: AgentHost, plugins: Path, container: Container, config: str) -> Iterator[None]:
    """An agent beside a standalone DEL of what a process that has ended added: links and rules are gone, the record is
    not, and the DEL goes on afterwards, which ends well."""
    foreign = lab.host.file("/run/foreign")
    foreign.mkdir()
    (foreign / "waiting").write_text(WAITING_ON_DEL)
    (foreign / "waiting").chmod(0o755)
    lab.host.run(["mkfifo", "/run/go", "/run/asked"])
    standalone = Lab(lab.host, plugins)
    conf = network(ipam={"type": "waiting"}, isDefaultGateway=None)
    path = f"{plugins}:/run/foreign"
    standalone.add(conf, container, cni_path=path)
    agents.start(config=config)
    lab.host.run(["touch", "/run/wait"])
    with ThreadPoolExecutor(1) as pool:
        deleting = pool.submit(standalone.delete, conf, container, cni_path=path)
        lab.host.run(["sh", "-c", "read -r _ </run/asked"])
        lab.host.run(["rm", "/run/wait"])
        yield
        lab.host.run(["sh", "-c", "echo >/run/go"])
        deleting.result(DEADLINE_S)


def test_a_delete_in_progress_is_left_to_its_process(
    lab: Lab, agents: AgentHost, plugins: Path, boxes: Callable[[int], list[Container]]
) -> None:
    """A standalone DEL, of what a process that has ended added: nothing is released beside it, it ends well."""
    (first,) = boxes(1)
    with delete_in_progress(lab, agents, plugins, first, ON_NOTICE + "grace_s = 0\n"):
        assert lab.records() == {"net/c1/eth0": "deleting"}
        assert agents.ask("reconcile")["released"] == []
        assert lab.records() == {"net/c1/eth0": "deleting"}
    assert lab.records() == {}


def test_release_that_failed_is_tried_again(
    lab: Lab, agents: AgentHost, asking: Path, boxes: Callable[[int], list[Container]]
) -> None:
    """The foreign IPAM plugin is out of order for a while: the failure is told, the record stays, then it is done."""
    (first,) = boxes(1)
    foreign = lab.host.file("/run/foreign")
    foreign.mkdir()
    (foreign / "broken").write_text(BROKEN_ON_DEL)
    (foreign / "broken").chmod(0o755)
    conf = network(ipam={"type": "broken"}, isDefaultGateway=None, ipMasq=None)
    lab.add(conf, first, cni_path=f"{asking}:/run/foreign")
    agents.start(config=ON_NOTICE + "grace_s = 0\n")
    lab.host.run(["touch", "/run/broken"])
    first.delete()
    wait_until(lambda: agents.ask("reconcile")["failures"], DEADLINE_S)
    assert "out of order" in agents.ask("status")["reconciled"]["failures"][0]
    assert set(lab.records()) == {"net/c1/eth0"}
    lab.host.run(["rm", "/run/broken"])
    assert agents.ask("reconcile")["released"] == ["net/c1/eth0"]
    assert lab.records() == {}


# -- restart -----------------------------------------------------------------------------------------------------------


def test_restart_changes_nothing_for_traffic(lab: Lab, agents: AgentHost, outside: Outside, c1: Container) -> None:
    """A TCP connection through the masquerade goes on while the agent is killed and started again."""
    agents.start()
    result = lab.add(network(), c1)
    before = netns_snapshot(lab.host, c1)

    def connect() -> socket.socket:
        return socket.create_connection((outside.address(4), outside.port), timeout=DEADLINE_S)

    with c1.in_namespace(connect) as stream:
        reader = stream.makefile("rb")
        greeting = reader.readline()
        assert outside.host_address(4).encode() in greeting
        for how in (signal.SIGKILL, signal.SIGTERM):
            agents.stop(how)
            stream.sendall(b"without\n")
            assert reader.readline() == b"without\n"
            agents.start()
            wait_until(lambda: agents.ask("status")["reconciled"], DEADLINE_S)
            stream.sendall(b"with\n")
            assert reader.readline() == b"with\n"
        reader.close()
    assert_unchanged(before, netns_snapshot(lab.host, c1))
    assert address_of(result, 4) in lab.leases()
    assert agents.ask("status")["reconciled"]["restored"] == []
