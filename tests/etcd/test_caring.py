"""Agents look after hosts that nothing is heard of: when they declare them dead, and when they do not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from netns_fixtures import Etcd, wait_until
from pycni.agent.absent import Absent
from pycni.cni.errors import CniError, Code
from pycni.etcd import requests
from pycni.etcd.mirror import Mirror
from pycni.etcd.nodes import Cared, declare_dead
from pycni.etcd.records import Fence
from pycni.etcd.space import Space
from tests.etcd.cluster_hosts import NETWORK, Hosts
from tests.etcd.place import conf_of, grpc_client

SPACE = Space(4, ((int(ip_address("10.1.0.2")), int(ip_address("10.1.0.2"))),))


@pytest.fixture
def mirrors() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_an_agent_cares(shared: Etcd, prefix: str, hosts: Hosts, mirrors: ExitStack) -> None:
    """Without anybody's word: a suspect is declared dead after its time, once, by the first host that may, and what it
    had is freed as soon as all others have followed; a host that returns in time is left alone."""
    dead, first, second = hosts(3)
    dead.take(SPACE)
    with grpc_client(conf_of(shared)) as client:
        range_first, end = first.keys.shared
        mirror = Mirror(client, range_first, lambda changed: None, end)
        mirror.start()
        mirrors.callback(mirror.stop)
        wait_until(mirror.synced.is_set, 5.0)

        def seen(key: str, *, there: bool) -> None:
            wait_until(lambda: (mirror.get(key) is not None) is there, 5.0, f"the mirror knows of {key}")

        assert first.care(mirror, 100.0).suspects == {}
        dead.cut_off()
        seen(first.keys.node("n1"), there=False)
        assert first.care(mirror, 101.0).suspects == {"n1": 0.0}
        assert first.care(mirror, 110.0).declared == ()
        dead.announce()
        seen(first.keys.node("n1"), there=True)
        assert first.care(mirror, 112.0).suspects == {}
        dead.cut_off()
        seen(first.keys.node("n1"), there=False)
        for now in (113.0, 122.0):
            for each in (first, second):
                assert each.care(mirror, now).declared == ()
        assert second.care(mirror, 123.0).declared == (), "it is the other one's turn"
        assert first.care(mirror, 123.5, dead_after_s=0.0).declared == (), "nobody is to be declared dead"
        assert first.care(mirror, 124.0).declared == ("n1",)
        assert second.care(mirror, 130.0).declared == (), "it was done"
        seen(first.keys.fence("n1"), there=True)
        fenced = client.get(first.keys.fence("n1"))
        assert fenced is not None
        assert Fence.parse(fenced.value).by == "h"
        waits = first.care(mirror, 131.0).waits
        assert [each.node for each in waits["n1"]] == ["n2", "n3"]
        for each in (first, second):
            each.follow()
        assert first.care(mirror, 132.0).freed == {"n1": 1}
        seen(first.keys.member("n1", NETWORK), there=False)
        cared = first.care(mirror, 133.0)
        assert (cared.suspects, cared.freed, cared.waits) == ({}, {}, {})
        assert second.take(SPACE) == "10.1.0.2"
        mirrors.close()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("ep", b'{"v": 2, "id": "x", "ips": ["10.1.0.99"]}'),
        ("ep", b'{"v": 1, "id": "x", "ips": ["nowhere"]}'),
        ("block", b"damaged"),
    ],
)
def test_a_record_that_cannot_be_read(hosts: Hosts, family: int, kind: str, value: bytes) -> None:
    """What a dead host has said in words that nobody understands stays and is named; all else of that host, and of the
    one after it, is freed. When it can be read it is freed as well."""
    dead, after, first = hosts(3, family=family)
    start = int(ip_address("10.1.0.2" if family == 4 else "fd00::2"))
    for host in (dead, after):
        host.take(Space(family, ((start, start + 7),)))
    keys = first.keys
    own = keys.own_endpoint("n1", NETWORK, "c9", "eth0") if kind == "ep" else keys.own_blocks("n1", NETWORK)
    foreign = f"{keys.own('n1')}of/another/kind"
    first.client.txn(requests.txn([], [requests.put(own, value), requests.put(foreign, b"{}")]))
    for host in (dead, after):
        host.cut_off()
        declare_dead(first.client, keys, host.node, by="test", now=1.0)
    first.follow()

    def look(now: float) -> Cared:
        return first.care(Still(first.client.read(keys.base).found), now)

    cared = look(100.0)
    assert cared.freed == {"n1": 1, "n2": 1}
    assert list(cared.left) == ["n1"]
    assert cared.left["n1"][0].startswith(f"{own}: ")
    assert look(110.0).left == cared.left
    assert first.has(keys.member("n1", NETWORK))
    assert not first.has(keys.member("n2", NETWORK))
    first.client.txn(requests.txn([], [requests.delete(own)]))
    assert look(120.0).left == {}
    assert not first.has(keys.member("n1", NETWORK))


def test_a_failure_is_no_news(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an agent told at one look it does not tell again because the next ones fail."""
    (host,) = hosts(1)
    told: list[str] = []
    looks = iter([Cared(suspects={"n2": 9.0}, declared=("n3",), freed={"n4": 1}), None, None])

    def care(*_: object, **__: object) -> Cared:
        cared = next(looks)
        if cared is None:
            raise CniError(Code.TRY_AGAIN, "etcd is away")
        return cared

    monkeypatch.setattr("pycni.agent.absent.care_for_the_dead", care)
    mirror = Mirror(host.client, host.keys.base, lambda changed: None)
    absent = Absent(host.client, host.keys, mirror, node="n1", name="h", note=lambda _, event, **__: told.append(event))
    for _ in range(3):
        absent.look(10.0)
    assert told == ["overlay-suspect", "overlay-dead", "overlay-freed", "overlay-unsaid"]


def test_only_a_host_that_is_heard_again_is_no_suspect(hosts: Hosts) -> None:
    """Not one that was declared dead, by this agent or by another; and nothing is told twice where etcd was away."""
    dead, first, second = hosts(3)
    told: list[str] = []
    still = Still(first.client.read(first.keys.base).found)

    def note(_: str, event: str, *, node: str) -> None:
        told.append(f"{event} {node}")

    agent = Absent(first.client, first.keys, still, node=first.node, name="h", note=note)

    def look(*, stale: bool = False) -> list[str]:
        told.clear()
        still.show(first.client.read(first.keys.base).found)
        still.stale_since = float(stale)
        agent.look(0.0)
        return sorted(told)

    dead.cut_off()
    second.cut_off()
    assert look() == ["overlay-suspect n1", "overlay-suspect n3"]
    assert look(stale=True) == look() == []
    declare_dead(first.client, first.keys, dead.node, by="another", now=1.0)
    assert look() == []
    second.announce()
    assert look() == ["overlay-no-suspect n3"]


def test_a_stale_decision_declares_nobody_dead(shared: Etcd, prefix: str, hosts: Hosts) -> None:
    """Who decides on an old copy is refused by the guards: the host is back, or took part anew, or was declared dead by
    another one already. And a copy that is stale decides nothing."""
    dead, first, _ = hosts(3)
    dead.cut_off()
    with grpc_client(conf_of(shared)) as client:
        old = Still(client.read(first.keys.base).found)
        for _ in range(2):
            assert first.care(old, 100.0).declared == ()
        stale = Still(client.read(first.keys.base).found)
        stale.stale_since = 1.0
        assert first.care(stale, 120.0).suspects == {dead.node: 0.0}, "what was known stands"
        assert first.cared.memory.at == 0.0, "the time in which it heard nothing does not count"
        first.care(old, 121.0)
        dead.announce()
        assert first.care(old, 140.0).declared == ()
        dead.cut_off()
        dead.join(mtu=1400)
        assert first.care(old, 141.0).declared == ()
        old = Still(client.read(first.keys.base).found)
        declare_dead(client, first.keys, dead.node, by="test", now=1.0)
        assert first.care(old, 142.0).declared == ()


class Still:
    """A mirror that stands still."""

    def __init__(self, found: tuple[requests.KeyValue, ...]) -> None:
        self.show(found)
        self.stale_since = 0.0

    def show(self, found: tuple[requests.KeyValue, ...]) -> None:
        self.found = {kv.key: kv for kv in found}
        self.revision = max(kv.mod_revision for kv in found)

    def items(self, prefix: str = "") -> dict[str, requests.KeyValue]:
        return {key: kv for key, kv in self.found.items() if key.startswith(prefix)}
