"""Drills: members of etcd die, it has no majority, its history is gone, it is away when agents begin. At the end of
each: no address twice, no endpoint lost, each kernel as etcd says, and nothing left after the last DEL."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from netns_fixtures import Etcd, EtcdMember, Host, wait_until
from netns_fixtures.etcd_admin import compact, leader
from tests.kernel.agent_lab import AgentHost
from tests.overlay.drill_checks import Drill, address_in, start_all, traffic
from tests.overlay.drill_facts import DEADLINE_S
from tests.overlay.following import CONFIG
from tests.overlay.overlay_lab import OverlayLab

OUTAGE_S = 8.0  # four times a host's lease; nothing that an outage touches lasts longer
ANSWER_S = 2.0  # of an ADD without etcd
LOADED_S = 2.0  # that a process may have to wait on a machine with other work


def follower(etcd: Etcd) -> EtcdMember:
    leading = leader(etcd)
    return next(each for each in etcd.members if each is not leading)


def is_silent(*agents: AgentHost) -> bool:
    """Whether all these agents say that they hear nothing of etcd."""
    return all(agent.ask("overlay", network=None)["clusters"][0]["staleSince"] for agent in agents)


def hear_nothing(lab: OverlayLab, host: Host) -> None:
    """From now on *host* takes nothing of what etcd sends."""
    store = lab.segment.address(lab.segment.hosts[-1], lab.family)
    rule = f"table inet cut {{ chain in {{ type filter hook input priority -9; ip saddr {store} drop; }}; }}"
    host.run(["nft", "-f", "-"], input=rule)


def hear_again(host: Host) -> None:
    host.run(["nft", "delete", "table", "inet", "cut"])


def move(lab: OverlayLab, host: Host, new: str) -> str:
    """Give *host* another address on the segment; the one before."""
    (old,) = (each for each in host.addresses("eth0") if ":" not in each)
    # In this order: with the first IPv4 address of a subnet the kernel takes the others.
    host.ip("addr", "del", old, "dev", "eth0")
    host.ip("addr", "add", new, "dev", "eth0")
    return old


def test_member_and_leader_are_killed(overlay: Callable[..., OverlayLab]) -> None:
    """The leader of three members is killed, then a follower: containers come and go, and no packet is lost."""
    lab = overlay(members=3)
    a, b = lab.hosts
    drill = Drill(lab)
    one, _ = drill.add(a, "one")
    two, _ = drill.add(b, "two")
    with traffic(two, address_in(one)), traffic(one, address_in(two, 6)):
        for turn, pick in enumerate((leader, follower)):
            victim = pick(lab.etcd)
            victim.kill()
            drill.add_in_the_end(a, f"new{turn}")
            drill.add(b, f"far{turn}")
            lab.etcd.start(members=[victim])
            drill.check()
            drill.delete(f"far{turn}")
    drill.end()


def test_no_majority(overlay: Callable[..., OverlayLab]) -> None:
    """One member is dead and one frozen for four leases' time. No packet is lost; an ADD is code 11 within 2 s, in mode
    routed it works, and its container is reached; a DEL works, and is finished when etcd is back."""
    lab = overlay(members=3)
    a, b = lab.hosts
    flat, routed = lab.conf(), lab.conf("routed", name="blocks", number=2)
    drill = Drill(lab, "node_ttl_s = 2\nreconcile_s = 2\n", [flat, routed])
    one, _ = drill.add(a, "one")
    two, _ = drill.add(b, "two")
    three, _ = drill.add(a, "three", routed)
    four, _ = drill.add(b, "four", routed)
    drill.add(b, "gone")
    drill.check()
    address = address_in(drill.boxes["gone"][0])
    with (
        traffic(one, address_in(two)),
        traffic(two, address_in(one, 6)),
        traffic(three, address_in(four)),
        traffic(four, address_in(three, 6)),
    ):
        frozen = follower(lab.etcd)
        killed = leader(lab.etcd)
        frozen.pause()
        killed.kill()
        began = time.monotonic()
        assert drill.refused(a, "refused") < ANSWER_S + LOADED_S
        late, _ = drill.add(b, "late", routed)
        lab.ping(three, address_in(late))
        drill.delete("gone")
        wait_until(lambda: is_silent(*lab.agents), DEADLINE_S, "the agents know")
        wait_until(lambda: time.monotonic() - began > OUTAGE_S, DEADLINE_S, "it lasts")
        frozen.resume()
        lab.etcd.start()
        wait_until(lambda: not is_silent(*lab.agents), DEADLINE_S, "it is heard again")
        drill.check()
    assert address not in [address_in(each) for each, _ in drill.boxes.values()]
    drill.end()


def test_attribute_changes_during_a_compaction(overlay: Callable[..., OverlayLab]) -> None:
    """A host is moved to another address and its containers change while another host cannot hear of it, and the
    history of that is gone: it is made up for, and so is the way back."""
    lab = overlay(hosts=3)
    a, b, c = lab.hosts
    drill = Drill(lab, CONFIG + "dead_after_s = 0\n")
    drill.add(a, "one")
    two, _ = drill.add(b, "two")
    three, _ = drill.add(c, "three")
    drill.add(b, "gone")
    drill.check()
    old = ""
    for turn, new in enumerate(("192.0.2.77/24", "")):
        hear_nothing(lab, a)
        old = move(lab, b, new or old)
        wait_until(lambda: lab.fdb(c, lab.devices(c)[0]) == vteps(lab, c), DEADLINE_S, "c follows")
        with traffic(three, address_in(two)):
            drill.delete("gone")
            drill.add(b, "gone")
            drill.add(c, f"new{turn}")
            # Else all would come late, by retransmission, and nothing of it be gone.
            wait_until(lambda: is_silent(lab.agents[0]), DEADLINE_S, "a has given its watch up")
            compact(lab.etcd.members[0])
            hear_again(a)
            drill.check()
    drill.end()


def vteps(lab: OverlayLab, host: Host) -> set[tuple[str, str]]:
    """(MAC, tunnel address) of every container that is not on *host*, as its host's link has the address now."""
    return {
        (box.ip_json("link", "show", "eth0")[0]["address"], other.addresses("eth0")[0].partition("/")[0])
        for other in lab.hosts
        if other is not host
        for box in other.containers.values()
    }


def test_agents_begin_without_etcd(overlay: Callable[..., OverlayLab]) -> None:
    """Agents that are killed and begin while etcd is away take nothing from the kernel: no packet is lost. What
    somebody deleted meanwhile is back as soon as etcd is, with the same MAC."""
    lab = overlay()
    a, b = lab.hosts
    drill = Drill(lab)
    one, _ = drill.add(a, "one")
    two, _ = drill.add(b, "two")
    drill.check()
    device = lab.devices(b)[0]
    mac = b.ip_json("link", "show", device)[0]["address"]
    with traffic(one, address_in(two)), traffic(two, address_in(one, 6)):
        lab.etcd.kill()
        for agent in lab.agents:
            agent.stop(signal.SIGKILL)
        start_all(lab, CONFIG)
        assert drill.refused(a, "refused") < ANSWER_S + LOADED_S
        assert not any(agent.ask("overlay", network=None)["clusters"][0]["synced"] for agent in lab.agents)
        lab.agents[1].stop(signal.SIGKILL)
    b.ip("link", "del", device)
    start_all_but_running(lab)
    lab.etcd.start()
    drill.check()
    assert b.ip_json("link", "show", device)[0]["address"] == mac
    drill.end()


def start_all_but_running(lab: OverlayLab) -> None:
    for agent in lab.agents:
        if not agent.agents:
            agent.start(config=CONFIG)
