"""A host in a network of many, which are only records in etcd: its kernel holds exactly what etcd says."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bench.overlay_fleet import Fleet, Place
from netns_fixtures import Host
from pycni.cni.conf import Keys as ConfKeys
from pycni.etcd.client import Client
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.records import NetworkRecord
from pycni.etcd.schema import Keys
from tests.overlay.overlay_lab import PREFIX, OverlayLab, wait_until

T = TypeVar("T")
HOSTS, ENDPOINTS = 50, 20
FIRST = "10.1.200.1"


def asked(lab: OverlayLab, question: Callable[[Client], T]) -> T:
    conf = EtcdConf.parse(ConfKeys(lab.connection(), "etcd"))

    def answer() -> T:
        with open_client(conf) as client:
            return question(client)

    return lab.etcd.namespace.in_namespace(answer)


def neighbours(host: Host, device: str) -> set[tuple[str, str]]:
    """(address, MAC) of the permanent neighbour entries of *device*, as iproute2 shows them."""
    found = host.ip_json("neigh", "show", "dev", device, "nud", "permanent")
    return {(each["dst"], each["lladdr"]) for each in found if "lladdr" in each}


def holds(lab: OverlayLab, device: str, places: Iterable[Place]) -> bool:
    """Whether the first host's device has the tunnel and neighbour entries of *places*, and no others."""
    host, wanted = lab.hosts[0], list(places)
    entries = {(place.mac, place.vtep) for place in wanted} == lab.fdb(host, device)
    return entries and {(place.address, place.mac) for place in wanted} == neighbours(host, device)


def test_a_fleet_comes_changes_and_goes(overlay: Callable[..., OverlayLab]) -> None:
    """A thousand endpoints of fifty hosts, written while the agent follows, are in its kernel and nothing else; so too
    after the agent was away while others left and joined; and nothing is left when all have gone."""
    lab = overlay(hosts=1)
    (host,), (place,) = lab.hosts, lab.agents
    place.start()
    lab.add(host, "c1", lab.conf(families=(4,)))
    record = asked(lab, lambda client: client.get(Keys(PREFIX).network("net")))
    assert record is not None
    vni = NetworkRecord.parse(record.value).vni
    device = f"vxlan{vni}"

    def fleet(client: Client) -> Fleet:
        return Fleet(client, Keys(PREFIX), "net", vni, first=FIRST)

    def places(hosts: Iterable[int]) -> list[Place]:
        return asked(
            lab, lambda client: [fleet(client).place(each, at, ENDPOINTS) for each in hosts for at in range(ENDPOINTS)]
        )

    asked(lab, lambda client: fleet(client).join(range(HOSTS), ENDPOINTS))
    everyone = places(range(HOSTS))
    assert len(everyone) == HOSTS * ENDPOINTS
    wait_until(lambda: holds(lab, device, everyone), 20, "the whole fleet is programmed")

    place.stop()
    asked(lab, lambda client: fleet(client).leave(range(10), ENDPOINTS))
    asked(lab, lambda client: fleet(client).join(range(HOSTS, HOSTS + 5), ENDPOINTS))
    assert holds(lab, device, everyone)  # nobody follows: the kernel keeps what it has
    place.start()
    rest = places(range(10, HOSTS + 5))
    wait_until(lambda: holds(lab, device, rest), 20, "what changed meanwhile is made good")

    asked(lab, lambda client: fleet(client).leave(range(10, HOSTS + 5), ENDPOINTS))
    wait_until(lambda: holds(lab, device, ()), 20, "nothing is left")


def test_check_beside_churn(overlay: Callable[..., OverlayLab]) -> None:
    """While hosts with their containers come and go elsewhere as fast as etcd writes it, CHECK of a container that has
    all it needs says so every time, and the agent takes nothing for somebody's meddling."""
    lab = overlay(hosts=1)
    (host,), (place,) = lab.hosts, lab.agents
    place.start()
    conf = lab.conf(families=(4,))
    box, result = lab.add(host, "c1", conf)
    record = asked(lab, lambda client: client.get(Keys(PREFIX).network("net")))
    assert record is not None
    vni = NetworkRecord.parse(record.value).vni
    joined, ended = threading.Event(), threading.Event()

    def churn(client: Client) -> None:
        fleet = Fleet(client, Keys(PREFIX), "net", vni, first=FIRST)
        fleet.join(range(HOSTS), ENDPOINTS)
        joined.set()
        for number in itertools.count():
            if ended.is_set():
                return
            fleet.leave([number % HOSTS], ENDPOINTS)
            fleet.join([number % HOSTS], ENDPOINTS)

    with ThreadPoolExecutor(1) as pool:
        churning = pool.submit(asked, lab, churn)
        try:
            assert joined.wait(20)
            answers = [lab.check(host, box, conf, result) for _ in range(10)]
            place.ask("reconcile")
        finally:
            ended.set()
        churning.result()
    assert [each.stdout for each in answers if not each.ok] == []
    assert place.logged("overlay-restored") == []
