"""From records of a cluster to the view of `pycni peers` and `pycni networks`."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pycni.etcd.overview import NetworkView, overview
from pycni.etcd.records import Block, Endpoint, Fence, Member, NetworkRecord, Node, Record, Sync
from pycni.etcd.requests import KeyValue
from pycni.etcd.schema import Keys

KEYS = Keys("/pycni")
H1, H2 = "1" * 32, "2" * 32


def kv(key: str, record: Record, revision: int) -> KeyValue:
    return KeyValue(key, record.render(), revision, revision)


def endpoint(address: str, node: str, container: str, revision: int, ips: tuple[str, ...] = ()) -> KeyValue:
    record = Endpoint(node, container, "eth0", ips or (address,))
    return kv(KEYS.endpoint("net", ip_address(address)), record, revision)


NET = kv(KEYS.network("net"), NetworkRecord(7, "l2", ("10.1.0.0/16",), 4789), 2)
JOINED1 = kv(KEYS.member(H1, "net"), Member("h1", "192.0.2.1", "0a:00", 1500, 4789, agent=True, created=5.0), 3)
JOINED2 = kv(KEYS.member(H2, "net"), Member("h2", "192.0.2.2", "0a:01", 1500, 4789, created=6.0), 4)
BASE = [NET, JOINED1, JOINED2, endpoint("10.1.0.5", H1, "c1", 10), endpoint("10.1.0.9", H2, "c2", 12)]


def node(which: str, **more: Any) -> KeyValue:
    return kv(KEYS.node(which), Node("h", "boot", 1, 1, version="1.0", **more), 20)


def sync(which: str, revision: int, **more: Any) -> KeyValue:
    return kv(KEYS.sync(which), Sync(revision, 99.0, **more), 21)


def states(found: list[KeyValue]) -> dict[str, str]:
    (view,) = overview(KEYS, found)
    return {host.name: host.state for host in view.hosts}


def test_states() -> None:
    """What each host's records say of it, from no agent to declared dead."""
    assert states(BASE) == {"h1": "suspect", "h2": "no agent"}
    assert states([*BASE, node(H1)])["h1"] == "starting"
    assert states([*BASE, node(H1), sync(H1, 12)])["h1"] == "in sync"
    assert states([*BASE, node(H1), sync(H1, 11)])["h1"] == "behind"
    fence = kv(KEYS.fence(H2), Fence("h1", 7.0), 5)
    assert states([*BASE, fence])["h2"] == "dead"
    again = KeyValue(JOINED2.key, JOINED2.value, 4, 6)
    assert states([*(each for each in BASE if each is not JOINED2), again, fence])["h2"] == "no agent"
    lone = [NET, endpoint("10.1.0.5", H1, "c1", 10)]
    (view,) = overview(KEYS, lone)
    assert [(host.state, host.name, host.node) for host in view.hosts] == [("outside", "", H1)]


def test_what_is_counted() -> None:
    """Containers by interface whatever their families, blocks by host, records that a host has not heard of, problems
    of both its records; other networks' and damaged records count for nothing."""
    both = ("10.1.0.6", "fd00::6")
    found = [
        *BASE,
        *(endpoint(each, H1, "c3", 30, both) for each in both),
        kv(KEYS.block("net", ip_network("10.1.4.0/26")), Block(H2), 31),
        kv(KEYS.endpoint("other", ip_address("10.2.0.5")), Endpoint(H1, "c9", "eth0", ("10.2.0.5",)), 50),
        KeyValue(KEYS.endpoint("net", ip_address("10.1.0.7")), b"damaged", 60, 60),
        node(H1, problems=("no uplink",)),
        sync(H1, 12, problems=("no room",)),
    ]
    (view,) = overview(KEYS, found)
    one, two = view.hosts
    assert (one.containers, one.missing, one.problems) == (2, 3, ("no uplink", "no room"))
    assert (two.containers, two.blocks) == (1, ("10.1.4.0/26",))
    assert (view.newest, view.containers, view.suspects) == (31, 3, ())


@given(st.permutations([*BASE, node(H1), sync(H1, 11), kv(KEYS.fence(H2), Fence("h1", 7.0), 5)]))
def test_the_order_of_records_does_not_matter(found: list[KeyValue]) -> None:
    """Any order gives the same view, and it survives its way through JSON."""
    expected = overview(KEYS, sorted(found, key=lambda each: each.key))
    views = overview(KEYS, found)
    assert views == expected
    assert [NetworkView.from_json(json.loads(json.dumps(each.as_json()))) for each in views] == views
