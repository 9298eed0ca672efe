"""Drills: hosts that are cut in two halves. At the end of each: no address twice, no endpoint lost, each kernel as etcd
says, and nothing left after the last DEL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from netns_fixtures import Host, can_ping, wait_until
from tests.overlay.drill_checks import Drill, address_in, attempt, fixed, logged, takes_part, traffic
from tests.overlay.drill_facts import DEADLINE_S
from tests.overlay.overlay_lab import OverlayLab

EXHAUSTED = 101


@contextmanager
def split(lab: OverlayLab, *groups: Sequence[Host]) -> Iterator[None]:
    """Nothing passes between these groups of hosts; who is in none of them reaches all."""
    rules = []
    for one in groups:
        for other in groups:
            if one is not other:
                ports = (", ".join(f'"{lab.segment.port(host)}"' for host in each) for each in (one, other))
                rules.append("iifname {{ {} }} oifname {{ {} }} drop".format(*ports))
    chain = f"chain between {{ type filter hook forward priority 0; {'; '.join(rules)}; }}"
    lab.segment.switch.run(["nft", "-f", "-"], input=f"table bridge split {{ {chain}; }}")
    yield
    lab.segment.switch.run(["nft", "delete", "table", "bridge", "split"])


def test_two_halves(overlay: Callable[..., OverlayLab]) -> None:
    """First all hosts reach etcd, then it is with one half. Each half goes on by itself without losing a packet, the
    one without etcd refuses what is new and keeps what it is told to give back; afterwards all is as if nothing had
    been, because nobody was declared dead."""
    lab = overlay(hosts=4)
    a, b, c, d = lab.hosts
    drill = Drill(lab, "node_ttl_s = 2\nreconcile_s = 2\n")
    boxes = [drill.add(host, f"of-{host.name}")[0] for host in lab.hosts]
    drill.add(d, "gone")
    drill.check()
    of_a, of_b, of_c, of_d = boxes
    with traffic(of_a, address_in(of_b)), traffic(of_c, address_in(of_d, 6)):
        with split(lab, (a, b), (c, d)):
            near, _ = drill.add(a, "near")
            far, _ = drill.add(c, "far")
            assert can_ping(of_b, address_in(near))
            assert can_ping(of_d, address_in(far, 6))
            assert not can_ping(of_a, address_in(of_c), deadline_s=0.3)
        drill.check()
        with split(lab, (a, b, lab.segment.hosts[-1]), (c, d)):
            wait_until(lambda: len(suspects(lab)) == 2, DEADLINE_S, "the others are suspects")
            later, _ = drill.add(a, "later")
            assert can_ping(of_b, address_in(later))
            drill.refused(c, "refused")
            drill.delete("gone")
            assert can_ping(of_d, address_in(far))
        drill.check()
    drill.end()


def test_half_that_was_given_up(overlay: Callable[..., OverlayLab]) -> None:
    """The half without etcd is declared dead, and its addresses go to others; its own two hosts still reach each other
    without losing a packet. When all is one again nothing of what was given away answers twice: those containers are
    cut off until they are attached anew, and both hosts take part again."""
    lab = overlay(hosts=4)
    a, b, c, d = lab.hosts
    drill = Drill(lab, "node_ttl_s = 2\nreconcile_s = 2\ndead_after_s = 2.0\n")
    of_a, of_b, of_c, of_d = [drill.add(host, f"of-{host.name}")[0] for host in lab.hosts]
    drill.check()
    given_away = {
        host.name: [address_in(box, 4) + "/16", address_in(box, 6) + "/64"] for host, box in ((c, of_c), (d, of_d))
    }
    with traffic(of_a, address_in(of_b)):
        with traffic(of_c, address_in(of_d)), split(lab, (a, b, lab.segment.hosts[-1]), (c, d)):
            wait_until(lambda: len(freed(lab)) == 2, DEADLINE_S, "both are freed")
            drill.add(a, "as-c", fixed(lab.conf(), *given_away["h3"]))
            drill.add(b, "as-d", fixed(lab.conf(), *given_away["h4"]))
            assert can_ping(of_a, address_in(of_d))
        for host in (c, d):
            wait_until(lambda: takes_part(lab, host), DEADLINE_S, f"{host.name} returns")  # noqa: B023
        drill.check("of-h3", "of-h4")
    for name, host in (("of-h3", c), ("of-h4", d)):
        drill.delete(name)
        drill.add(host, name)
    drill.end()


def test_block_that_was_given_away(overlay: Callable[..., OverlayLab]) -> None:
    """Mode routed, two blocks, three hosts: one of the two that have a block is cut off, goes on to attach containers
    by itself, is declared dead, and the third host gets its block. When it is back, all its containers are cut off,
    those of the new owner are reached, and it has no block until one is free."""
    lab = overlay(hosts=3)
    a, b, c = lab.hosts
    conf = lab.conf("routed", blocks={"ipv4": 28}, ipam={"type": "pycni-ipam", "ranges": [[{"subnet": "10.1.0.0/27"}]]})
    drill = Drill(lab, "node_ttl_s = 2\nreconcile_s = 2\ndead_after_s = 2.0\n", [conf])
    of_a, _ = drill.add(a, "of-a")
    drill.add(c, "of-c")
    assert attempt(lab, b, "of-b", conf).error_code == EXHAUSTED
    with split(lab, (c,), (a, b, lab.segment.hosts[-1])):
        drill.add(c, "late")
        wait_until(lambda: freed(lab), DEADLINE_S, "freed")
        of_b, _ = drill.add(b, "of-b")
        drill.add(b, "another")
        drill.add(c, "later")
    with traffic(of_a, address_in(of_b)):
        wait_until(lambda: logged(lab.agents[2], "overlay-returned"), DEADLINE_S, "it returns")
    drill.check("of-c", "late", "later")
    assert attempt(lab, c, "none", conf).error_code == EXHAUSTED
    for name in ("of-b", "another"):
        drill.delete(name)
    assert lab.gc(b, conf).ok, "hands the empty block back"
    c.containers.pop("none").delete()
    for name in ("of-c", "late", "later"):
        drill.delete(name)
        drill.add(c, name)
    drill.end()


def suspects(lab: OverlayLab) -> set[str]:
    return {line["node"] for line in logged(lab.agents[0], "overlay-suspect")}


def freed(lab: OverlayLab) -> set[str]:
    return {line["node"] for agent in lab.agents[:2] for line in logged(agent, "overlay-freed")}
