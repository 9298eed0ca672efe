"""etcd goes, stays away, forgets its history, comes back; agents die meanwhile: traffic goes on, and at the end every
kernel holds what etcd says."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable

import pytest

from netns_fixtures import wait_until
from pycni.etcd import requests
from pycni.etcd.records import Endpoint, Member
from pycni.etcd.schema import Keys
from tests.kernel.bridge_lab import address_of
from tests.overlay.following import CONFIG, pinging, start, wait_in_step, watched
from tests.overlay.overlay_lab import PREFIX, OverlayLab


def silent(lab: OverlayLab) -> bool:
    """Whether the first host's agent says that it hears nothing of etcd."""
    return bool(lab.agents[0].ask("overlay", network=None)["clusters"][0]["staleSince"])


def test_etcd_is_away(overlay: Callable[..., OverlayLab]) -> None:
    """No packet is lost while etcd is away, not even when an agent is killed and another begins; a device that is
    deleted is replayed from memory; and STATUS of the agent says since when it hears nothing."""
    lab = overlay()
    a, b = lab.hosts
    start(lab)
    one, first = lab.add(a, "one")
    two, second = lab.add(b, "two")
    wait_in_step(lab)
    with pinging(one, address_of(second, 4)), pinging(two, address_of(first, 6)):
        lab.etcd.kill()
        wait_until(lambda: silent(lab), 8.0, "it notices")
        with watched(b) as changes:
            lab.agents[1].stop(signal.SIGKILL)
            lab.agents[1].start(config=CONFIG)
            lab.agents[1].pycni("reconcile", rc=None)
        assert not [each for each in changes if each.gone and (each.entry or each.link)]
        assert silent(lab)
    device = lab.devices(a)[0]
    a.ip("link", "del", device)
    wait_until(lambda: device in lab.devices(a) and len(lab.fdb(a, device)) == 1, 3.0, "made anew, with its entries")
    lab.ping(one, second)
    lab.etcd.start()
    wait_until(lambda: not silent(lab), 10.0, "etcd is heard again")
    _, third = lab.add(b, "late")
    lab.ping(one, third)
    wait_in_step(lab)


def test_killed_under_churn(overlay: Callable[..., OverlayLab]) -> None:
    """An agent that is killed again and again while containers come and go elsewhere: what stays is never lost, and at
    the end the kernel has what etcd says."""
    lab = overlay()
    a, b = lab.hosts
    start(lab)
    one, _ = lab.add(a, "one")
    _, stays = lab.add(b, "stays")
    wait_in_step(lab)
    ended = threading.Event()

    def churn() -> None:
        for number in itertools.count():
            box, _ = lab.add(b, f"passing{number}")
            if number % 3:
                lab.delete(b, box)
            if ended.is_set():
                return

    worker = threading.Thread(target=churn)
    with pinging(one, address_of(stays, 4)):
        worker.start()
        for _ in range(3):
            lab.agents[0].stop(signal.SIGKILL)
            lab.agents[0].start(config=CONFIG)
        ended.set()
        worker.join()
    wait_in_step(lab)


@pytest.mark.parametrize("family", [4, 6])
def test_words_that_cannot_be_used(overlay: Callable[..., OverlayLab], family: int) -> None:
    """A host with tunnels of the other family, an endpoint with a time that no number holds, a key of nobody: all else
    is followed, and containers come up, with agents and without."""
    lab = overlay(family=family)
    a, b = lab.hosts
    start(lab)
    one, _ = lab.add(a, "one")
    lab.add(b, "two")
    keys, stranger = Keys(PREFIX), "f" * 32
    endpoint = Endpoint(node=stranger, container="c", ifname="e", ips=("10.1.255.1",), mac="02:42:0a:01:ff:01")
    member = Member(name="evil", vtep="2001:db8:a::99" if family == 4 else "192.0.2.99", port=4789)
    words = {
        keys.member(stranger, "net"): member.render(),
        f"{keys.endpoints('net', 4)}0a01ff01": endpoint.render(),
        f"{keys.endpoints('net', 4)}0a01ff02": endpoint.render()[:-1] + b', "created": 1' + b"0" * 400 + b"}",
        f"{keys.endpoints('net', 4)}nobody": b"{}",
    }
    lab.with_etcd(lambda client: client.txn(requests.txn([], [requests.put(*each) for each in words.items()])))
    _, third = lab.add(b, "three")
    lab.ping(one, third)
    wait_in_step(lab)
    assert all(agent.ask("overlay", network=None)["clusters"][0]["local"][0]["inStep"] for agent in lab.agents)
    lab.agents[0].stop()
    four, _ = lab.add(a, "four")
    lab.ping(four, third)
    wait_in_step(lab)
