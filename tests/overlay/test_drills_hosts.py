"""Drills: hosts that lose their power, that are frozen while their addresses go to others, whose agents are killed in
the middle of calls, and eight that begin at once. At the end of each: no address twice, no endpoint lost, each kernel
as etcd says, and nothing left after the last DEL."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface

import pytest

from netns_fixtures import can_ping, wait_until
from tests.kernel.agent_lab import AgentHost
from tests.overlay.drill_checks import Drill, address_in, attempt, fixed, logged, takes_part, traffic
from tests.overlay.drill_facts import DEADLINE_S, wait_in_order
from tests.overlay.following import CONFIG
from tests.overlay.overlay_lab import OverlayLab

DEAD_AFTER_S = 2.0
EXHAUSTED = 101


def power_off(lab: OverlayLab, agent: AgentHost) -> None:
    """What a host's memory held is gone: processes, containers, links, rules, /run. Its disk stays."""
    host = agent.host
    lab.segment.cut(host)
    agent.stop(signal.SIGKILL)
    for box in host.containers.values():
        box.delete()
    host.containers.clear()
    for link in host.ip_json("-d", "link", "show"):
        if link.get("linkinfo", {}).get("info_kind") in ("vxlan", "bridge"):
            host.ip("link", "del", link["ifname"])
    host.run(["sh", "-c", "nft flush ruleset; rm -rf /run/pycni"])


def boot(lab: OverlayLab, agent: AgentHost, config: str) -> None:
    """The host begins anew, with another boot id."""
    script = "echo {} >/run/id && mount --bind /run/id /proc/sys/kernel/random/boot_id && rm /run/id"
    agent.host.run(["sh", "-c", script.format(uuid.uuid4())])
    lab.segment.heal(agent.host)
    agent.start(config=config)


@pytest.mark.parametrize("dead_after_s", [600.0, DEAD_AFTER_S])
def test_host_without_power(overlay: Callable[..., OverlayLab], dead_after_s: float) -> None:
    """A host that loses its power and comes back after its lease, once as a suspect, once after it was declared dead
    and its addresses went to others: no packet between the others is lost, and its containers are attached again."""
    lab = overlay(hosts=3)
    a, b, c = lab.hosts
    config = f"node_ttl_s = 2\nreconcile_s = 2\ndead_after_s = {dead_after_s}\n"
    drill = Drill(lab, config)
    one, _ = drill.add(a, "one")
    two, _ = drill.add(b, "two")
    drill.add(c, "three", fixed(lab.conf(), "10.1.3.3/16", "fd00:1::3:3/64"))
    drill.add(c, "four")
    drill.check()
    with traffic(one, address_in(two)), traffic(two, address_in(one, 6)):
        power_off(lab, lab.agents[2])
        for name in ("three", "four"):
            del drill.boxes[name]
        event = "overlay-freed" if dead_after_s == DEAD_AFTER_S else "overlay-suspect"
        wait_until(lambda: any(logged(agent, event) for agent in lab.agents[:2]), DEADLINE_S, event)
        if dead_after_s == DEAD_AFTER_S:
            drill.add(b, "reused", fixed(lab.conf(), "10.1.3.3/16", "fd00:1::3:3/64"))
        boot(lab, lab.agents[2], config)
        drill.add(c, "four")
        if dead_after_s != DEAD_AFTER_S:
            drill.add(c, "three", fixed(lab.conf(), "10.1.3.3/16", "fd00:1::3:3/64"))
        drill.check()
    drill.end()


def test_frozen_host(overlay: Callable[..., OverlayLab]) -> None:
    """An agent is frozen, with a call in its hands, for twice the time after which its host is declared dead; its
    containers send all the while. Its address goes to another container, and from then on nothing of the former one is
    let in. When it wakes up it finds out, cuts that container off, and the call comes to an end."""
    lab = overlay(hosts=3)
    a, b, c = lab.hosts
    drill = Drill(lab, CONFIG + f"dead_after_s = {DEAD_AFTER_S}\n")
    one, _ = drill.add(a, "one")
    two, _ = drill.add(b, "two")
    shared = fixed(lab.conf(), "10.1.3.3/16", "fd00:1::3:3/64")
    three, _ = drill.add(c, "three", shared)
    drill.check()
    pid = lab.agents[2].agents[-1].pid
    with traffic(one, address_in(two)), ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        caught = pool.submit(attempt, lab, c, "caught", lab.conf())
        assert can_ping(three, address_in(one)), "the kernel goes on"
        wait_until(lambda: any(logged(each, "overlay-freed") for each in lab.agents[:2]), DEADLINE_S, "freed")
        drill.add(b, "reused", shared)
        wait_in_order(lab, lab.conf(), hosts=(a, b))
        counter = "table ip heard { chain in { type filter hook input priority 0; ip saddr 10.1.3.3 counter; }; }"
        one.run(["nft", "-f", "-"], input=counter)
        while time.monotonic() - began < 2 * DEAD_AFTER_S:
            assert not can_ping(three, address_in(one), deadline_s=0.3), "nobody listens"
        assert "packets 0 " in one.run(["nft", "list", "table", "ip", "heard"]).stdout
        one.run(["nft", "delete", "table", "ip", "heard"])
        assert can_ping(one, "10.1.3.3")
        os.kill(pid, signal.SIGCONT)
        answer = caught.result()
        wait_until(lambda: takes_part(lab, c), DEADLINE_S, "it returns")
    drill.boxes["caught"] = c.containers["caught"], lab.conf()
    if not answer.ok:
        assert answer.error_code == 11, answer
        drill.delete("caught")
    drill.add(c, "fresh")
    drill.check("three")
    drill.delete("three")
    drill.add(c, "three")
    drill.end()


def test_calls_of_a_killed_agent(overlay: Callable[..., OverlayLab]) -> None:
    """An agent is killed again and again in the middle of the calls of its own host: after the DEL of what failed,
    hosts and etcd agree, and the other host's container was reached all the time."""
    lab = overlay()
    a, b = lab.hosts
    drill = Drill(lab)
    one, _ = drill.add(a, "one")
    two, _ = drill.add(b, "two")
    ended = threading.Event()

    def churn(name: str) -> None:
        while not ended.is_set():
            attempt(lab, b, name, lab.conf())  # which may fail
            wait_until(lambda: lab.call("DEL", b, b.containers[name], lab.conf()).ok, DEADLINE_S)

    with traffic(one, address_in(two)), ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(churn, f"passing{number}") for number in range(3)]
        for _ in range(12):
            lab.agents[1].stop(signal.SIGKILL)
            lab.agents[1].start(config=CONFIG)
        ended.set()
        for worker in workers:
            worker.result()
    drill.check()
    for number in range(3):
        drill.add(b, f"passing{number}")
    drill.end()


def test_eight_hosts_for_eight_blocks(overlay: Callable[..., OverlayLab]) -> None:
    """Eight hosts begin at the same moment in a subnet of eight blocks: each has one, and reaches all others; for a
    ninth host there is none."""
    lab = overlay(hosts=9)
    ranges = [[{"subnet": "10.1.0.0/26"}]]
    conf = lab.conf("routed", blocks={"ipv4": 29}, ipam={"type": "pycni-ipam", "ranges": ranges})
    last = lab.agents.pop()
    lab.hosts.remove(last.host)
    drill = Drill(lab, networks=[conf])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda host: drill.add(host, f"of-{host.name}"), lab.hosts))
    drill.check()
    blocks = {ip_interface(box.addresses("eth0")[0]).network for box, _ in drill.boxes.values()}
    assert len(blocks) == 8
    assert attempt(lab, last.host, "ninth", conf).error_code == EXHAUSTED
    drill.end()


def test_block_that_changes_hands(overlay: Callable[..., OverlayLab]) -> None:
    """A host hands an empty block back while it keeps another one: the next owner's containers are reached from it."""
    lab = overlay()
    a, b = lab.hosts
    ranges = [[{"subnet": "10.1.0.0/29"}]]
    conf = lab.conf("routed", blocks={"ipv4": 30}, ipam={"type": "pycni-ipam", "ranges": ranges})
    drill = Drill(lab, networks=[conf])
    for _ in range(2):
        drill.add(a, "one")
        drill.add(a, "two")
        assert attempt(lab, b, "three", conf).error_code == EXHAUSTED
        b.containers.pop("three").delete()
        drill.delete("two")
        assert lab.gc(a, conf, "one").ok
        drill.add(b, "three")
        drill.check()
        drill.delete("three")
        assert lab.gc(b, conf).ok
        drill.check()
        drill.delete("one")
    drill.end()
