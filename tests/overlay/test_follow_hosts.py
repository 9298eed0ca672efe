"""Hosts that are not what they seem: two with one identity, one that is gone, one that was given up and returns; and
containers that are on another host than before."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from netns_fixtures import can_ping, wait_until
from pycni.cni.conf import Keys as ConfKeys
from pycni.etcd import requests
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.records import Member
from pycni.etcd.schema import Keys
from tests.kernel.bridge_lab import address_of
from tests.overlay.following import CONFIG, start, wait_in_step, without_etcd
from tests.overlay.overlay_lab import PREFIX, OverlayLab


def fixed(conf: dict[str, Any], *addresses: str) -> dict[str, Any]:
    return {**conf, "args": {"cni": {"ips": list(addresses)}}}


def lasting(lab: OverlayLab) -> dict[str, bytes]:
    """What is in etcd under no lease."""
    return {key: kv.value for key, kv in lab.keys().items() if not kv.lease}


def test_container_moves(overlay: Callable[..., OverlayLab]) -> None:
    """A container with a fixed address comes up on another host: every peer follows, both former and new host too."""
    lab = overlay(hosts=3)
    a, b, c = lab.hosts
    start(lab)
    wanted = fixed(lab.conf(), "10.1.7.7/16", "fd00:1::7/64")
    watcher, third = lab.add(c, "watcher")
    lab.add(a, "stays-a")
    lab.add(b, "stays-b")
    for turn, (there, other) in enumerate(((a, b), (b, a), (a, b))):
        box, result = lab.add(there, f"moving{turn}", wanted)
        wait_in_step(lab)
        lab.ping(watcher, "10.1.7.7")
        lab.ping(box, third)
        lab.ping(other.containers["stays-b" if other is b else "stays-a"], result)
        lab.delete(there, box, wanted)
    wait_in_step(lab)


def test_two_with_one_identity(overlay: Callable[..., OverlayLab]) -> None:
    """A copied disk: the second machine is refused, says so, takes and gives back nothing; the first and its containers
    are as before. When the first is gone, the second has its place."""
    lab = overlay(hosts=3)
    a, b, c = lab.hosts
    start(lab)
    one, first = lab.add(a, "one")
    two, second = lab.add(b, "two")
    lab.agents[2].stop()
    copied = a.file("/var/lib/pycni")
    c.run(["sh", "-c", "rm -rf /var/lib/pycni"])
    c.run(["cp", "-a", str(copied), "/var/lib/pycni"])
    before = lasting(lab)
    lab.agents[2].start(config=CONFIG + "grace_s = 0\n")
    wait_until(lambda: lab.agents[2].logged("overlay-refused"), 5.0, "refused")
    error = lab.refused(c, c.container("three"), lab.conf())
    assert error["code"] == 11
    assert "in use" in error["msg"] + error.get("details", "")
    answer = lab.gc(c, lab.conf())  # as its runtime calls it at its start, when it has no containers
    assert (answer.error_code, lasting(lab) == before) == (11, True), answer
    lab.agents[2].pycni("reconcile", rc=1)
    assert lasting(lab) == before
    assert any("id" in text for text in lab.agents[2].ask("overlay", network=None)["clusters"][0]["problems"])
    lab.ping(two, first)
    lab.ping(one, second)
    lab.agents[0].stop(signal.SIGTERM)
    wait_until(lambda: lab.agents[2].logged("overlay-admitted"), 5.0, "admitted")


def test_words_of_another(overlay: Callable[..., OverlayLab]) -> None:
    """Somebody else wrote another tunnel address in this host's name: it is put right, once, and told."""
    lab = overlay()
    a, b = lab.hosts
    start(lab)
    lab.add(a, "one")
    two, _ = lab.add(b, "two")
    wait_in_step(lab)
    key, found = next((key, kv) for key, kv in lab.keys().items() if key == f"member/{lab.node(a)}/net")
    wrong = Member.parse(found.value).replace(vtep="192.0.2.99").render()
    conf = EtcdConf.parse(ConfKeys(lab.connection(), "etcd"))

    def write() -> None:
        with open_client(conf) as client:
            client.txn(requests.txn([], [requests.put(Keys(PREFIX).base + key, wrong)]))

    b.in_namespace(write)
    wait_until(lambda: Member.parse(lab.keys()[key].value).vtep == lab.tunnel_address(a), 5.0, "put right")
    assert lab.agents[0].logged("overlay-double")[0]["other"] == "192.0.2.99"
    wait_in_step(lab)
    lab.ping(two, "10.1.0.1")


def test_dead_host(overlay: Callable[..., OverlayLab]) -> None:
    """A host that is cut off from etcd alone is a suspect when its lease has ended, and its containers reach everybody;
    after `dead_after_s` it is declared dead, its peers refuse its packets, and behind the barrier its addresses are
    free, and given to others. It returns: what it has lost is cut off, and it takes part again."""
    lab = overlay(hosts=3)
    a, b, c = lab.hosts
    start(lab, CONFIG + "dead_after_s = 1.5\n")
    one, first = lab.add(a, "one")
    two, _ = lab.add(b, "two")
    three, third = lab.add(c, "three", fixed(lab.conf(), "10.1.3.3/16", "fd00:1::3:3/64"))
    lab.ping(one, third)
    node = lab.node(c)
    with without_etcd(lab, c):
        wait_until(lambda: any(agent.logged("overlay-suspect") for agent in lab.agents[:2]), 6.0, "a suspect")
        assert f"member/{node}/net" in lab.keys(a)
        lab.ping(one, third)
        lab.ping(three, first)
        wait_until(lambda: any(agent.logged("overlay-freed") for agent in lab.agents[:2]), 10.0, "freed")
        assert not [key for key, kv in lab.keys(a).items() if node in key and key.startswith(("own/", "member/"))]
        wait_in_step(lab, a, b)
        lab.add(b, "reused", fixed(lab.conf(), "10.1.3.3/16", "fd00:1::3:3/64"))
        lab.ping(one, "10.1.3.3")
        assert not can_ping(three, address_of(first, 4), deadline_s=0.5), "its packets are refused"
    wait_until(lambda: lab.agents[2].logged("overlay-returned"), 10.0, "it returns")
    wait_in_step(lab, deadline_s=10.0)
    assert "10.1.3.3 of three" in lab.agents[2].logged("overlay-returned")[0]["lost"]
    assert three.ip_json("link", "show", "eth0")[0]["operstate"] != "UP"
    lab.ping(one, "10.1.3.3")
    fresh, fourth = lab.add(c, "fresh")
    lab.ping(fresh, first)
    lab.ping(two, fourth)
