"""`pycni-ipam` with an `etcd` object: addresses for all hosts of a cluster, with etcd there and away."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import Container, Etcd
from pycni.cni.errors import CniError, Code
from pycni.etcd import requests
from pycni.etcd.client import Client
from pycni.etcd.nodes import Freed, declare_dead, free_behind_barrier, mark_anew
from pycni.etcd.schema import Keys
from tests.etcd.ipam_calls import NETWORK, HostCalls


@pytest.fixture
def hosts(shared: Etcd, prefix: str, tmp_path: Path) -> list[HostCalls]:
    """Two hosts of one cluster."""
    return [HostCalls(shared, tmp_path / name, prefix) for name in ("h1", "h2")]


def test_life_of_an_address(hosts: list[HostCalls]) -> None:
    """ADD takes it in etcd and here, CHECK finds it, a second ADD is refused, DEL leaves nothing; the same container
    gets the same address again."""
    host, other = hosts
    (ip,) = host.add("c1", netns="/proc/self/ns/net")
    assert ip.startswith("10.1.0.")
    assert ip.endswith("/24")
    bare = ip.partition("/")[0]
    assert host.in_etcd() == [f"ep net1 {bare}", f"own-ep {host.node} net1 c1 eth0"]
    assert host.leased() == {bare: "c1"}
    host.check("c1")
    with pytest.raises(CniError, match="duplicate allocation") as failure:
        host.add("c1", netns="/proc/self/ns/net")
    assert failure.value.code == Code.ALREADY_ATTACHED
    (others,) = other.add("c1")
    assert others != ip
    host.delete("c1")
    host.delete("c1")
    other.delete("c1")
    assert host.in_etcd() == []
    assert host.leased() == {}
    with pytest.raises(CniError) as failure:
        host.check("c1")
    assert failure.value.code == Code.BROKEN
    assert host.add("c1") == [ip]


def test_two_families_all_or_nothing(hosts: list[HostCalls]) -> None:
    """One address of each range set, in one step; where one set is full none of the other is taken."""
    host, other = hosts
    host.ipam = other.ipam = {
        "ranges": [
            [{"subnet": "10.1.0.0/24"}],
            [{"subnet": "fd00:1::/64", "rangeStart": "fd00:1::10", "rangeEnd": "fd00:1::11"}],
        ]
    }
    first, second = host.add("c1"), other.add("c2")
    assert {ip.partition("/")[0] for ip in (first[1], second[1])} == {"fd00:1::10", "fd00:1::11"}
    before = host.in_etcd()
    assert len(before) == 6
    with pytest.raises(CniError, match="all 2 are taken") as failure:
        host.add("c3")
    assert failure.value.code == Code.EXHAUSTED
    assert host.in_etcd() == before
    with pytest.raises(CniError) as failure:
        host.status()
    assert failure.value.code == Code.NOT_AVAILABLE
    other.delete("c2")
    host.status()
    assert host.add("c3")[1] == second[1]


def test_requested_addresses(hosts: list[HostCalls]) -> None:
    """CNI_ARGS: that address or code 102, which names who has it; excluded ones are never given."""
    host, other = hosts
    host.ipam = other.ipam = {"subnet": "10.1.0.0/29", "exclude": ["10.1.0.4/31"]}
    assert host.add("c1", args="IP=10.1.0.3") == ["10.1.0.3/29"]
    with pytest.raises(CniError, match="by container c1, interface eth0, on host") as failure:
        other.add("c2", args="IP=10.1.0.3")
    assert failure.value.code == Code.ADDRESS_TAKEN
    for forbidden in ("10.1.0.1", "10.1.0.4", "10.1.0.5"):
        with pytest.raises(CniError, match="not available") as failure:
            other.add("c2", args=f"IP={forbidden}")
        assert failure.value.code == Code.ADDRESS_TAKEN
    assert {*other.add("c2"), *other.add("c3")} == {"10.1.0.2/29", "10.1.0.6/29"}
    with pytest.raises(CniError, match="all 3 are taken") as failure:
        host.add("c4")
    assert failure.value.code == Code.EXHAUSTED
    host.delete("c1")
    assert other.add("c4", args="IP=10.1.0.3") == ["10.1.0.3/29"]


@pytest.mark.parametrize("subnet", ["10.1.0.0/29", "fd00:1::/125"])
def test_foreign_keys_between_ours(hosts: list[HostCalls], subnet: str) -> None:
    """A key that is none of ours, between those of addresses, takes no address and hinders nobody."""
    host, _ = hosts
    host.ipam = {"subnet": subnet}
    (first,) = host.add("c0")
    key = Keys(host.prefix).endpoint(NETWORK, ip_interface(first).ip)
    with host.client() as client:
        client.txn(requests.txn([], [requests.put(f"{key}{more}", b"{}") for more in ("x", "/x", "0")]))
    left = 4 if "." in subnet else 5  # IPv6 has no broadcast address
    assert len({host.add(f"c{at}")[0] for at in range(1, 1 + left)}) == left
    with pytest.raises(CniError, match="are taken") as failure:
        host.add("c9")
    assert failure.value.code == Code.EXHAUSTED


def test_large_subnet_that_is_almost_full(hosts: list[HostCalls]) -> None:
    """The last free address of 8190 is found, and then that there is none."""
    host, _ = hosts
    host.ipam = {"subnet": "10.1.0.0/19"}
    keys = Keys(host.prefix)
    last = "10.1.13.57"
    puts = [
        requests.put(keys.endpoint(NETWORK, IPv4Address(0x0A010000 + at)), b"{}")
        for at in range(2, 8191)
        if str(IPv4Address(0x0A010000 + at)) != last
    ]
    with host.client() as client:
        for at in range(0, len(puts), 100):
            client.txn(requests.txn([], puts[at : at + 100]))
    assert host.add("c1") == [f"{last}/19"]
    with pytest.raises(CniError, match="all 8189 are taken"):
        host.add("c2")


def test_gc_and_leaks(hosts: list[HostCalls], container_ns: Container) -> None:
    """With a list what is not on it goes, without one what is dead: known here, or only to etcd; other hosts' stay."""
    host, other = hosts
    for one in ("c1", "c2", "c3"):
        host.add(one, netns="/proc/self/ns/net")
    other.add("c9")
    host.gc([("c1", "eth0"), ("c2", "eth0")])
    assert {each for each in host.in_etcd() if each.startswith("own-ep")} == {
        f"own-ep {host.node} net1 c1 eth0",
        f"own-ep {host.node} net1 c2 eth0",
        f"own-ep {other.node} net1 c9 eth0",
    }
    host.gc()
    assert len(host.leased()) == 2, "what lives stays"
    host.add("gone", netns=container_ns.path)
    for path in host.directory.glob("pycni.db*"):
        path.unlink()  # the store is lost; the containers are not
    host.gc()
    assert len(host.in_etcd()) == 8
    container_ns.delete()
    host.gc()
    assert not [each for each in host.in_etcd() if "gone" in each]
    assert len(host.in_etcd()) == 6


@pytest.mark.parametrize("subnet", ["10.1.0.0/24", "fd00:1::/64"])
@pytest.mark.parametrize("value", [b"{", b'{"v": 2, "id": "x"}', b'{"v": 1, "id": "x", "ips": []}'])
def test_own_record_that_cannot_be_read(
    hosts: list[HostCalls], subnet: str, value: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """DEL and GC give back what was taken together with it, and say so; nothing else. A key that is none of ours, among
    this host's own, stays."""
    host, other = hosts
    host.ipam = other.ipam = {"subnet": subnet}
    for container in ("by-DEL", "by-GC", "store-lost", "stays"):
        host.add(container)
    other.add("c1")
    keys = Keys(host.prefix)

    def damage(container: str) -> str:
        key = keys.own_endpoint(host.node, NETWORK, container, "eth0")
        with host.client() as client:
            client.txn(requests.txn([], [requests.put(key, value)]))
        return key

    damaged = damage("by-DEL")
    host.delete("by-DEL")
    assert f"{damaged} cannot be read" in capsys.readouterr().err
    damage("by-GC")
    host.gc([("store-lost", "eth0"), ("stays", "eth0")])
    assert sorted(host.leased().values()) == ["stays", "store-lost"]
    damage("store-lost")
    foreign = f"{keys.own_endpoints(host.node, NETWORK)}a/b/c"
    with host.client() as client:
        client.txn(requests.txn([], [requests.put(foreign, b"{}")]))
    for path in host.directory.glob("pycni.db*"):
        path.unlink()
    host.gc([("stays", "eth0")])
    with host.client() as client:
        assert client.txn(requests.txn([], [requests.delete(foreign)])).succeeded
    found = host.in_etcd()
    assert len(found) == 4
    assert sorted(each.split()[3] for each in found if each.startswith("own-ep")) == ["c1", "stays"]
    assert host.add("by-DEL")


def test_add_that_was_killed(hosts: list[HostCalls], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an ADD left in etcd when it was killed before its host's store knew: the next ADD or DEL of that
    container takes it over."""
    host, _ = hosts

    def killed(*_: object) -> None:
        raise SystemExit

    for finish in (host.add, host.delete):
        with monkeypatch.context() as patch:
            patch.setattr("pycni.ipam.etcd_plugin._keep", killed)
            patch.setattr("pycni.ipam.etcd_site.Site.give_back", lambda *_: False)
            with pytest.raises(SystemExit):
                host.add("c1")
        assert len(host.in_etcd()) == 2
        assert host.leased() == {}
        finish("c1")
        assert len(host.in_etcd()) == 2 * len(host.leased())
        host.delete("c1")
    assert host.in_etcd() == []


def test_store_that_fails(hosts: list[HostCalls], monkeypatch: pytest.MonkeyPatch) -> None:
    """An ADD whose host cannot write its store gives the address back."""
    host, _ = hosts

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pycni.ipam.etcd_plugin._keep", full)
        with pytest.raises(OSError, match="space"):
            host.add("c1")
    assert host.in_etcd() == []


def test_host_that_was_declared_dead_returns(hosts: list[HostCalls]) -> None:
    """Its addresses are freed and given to others; on its return it forgets those, keeps what is still its own, and
    its next ADD works. CHECK tells which containers lost theirs."""
    host, other = hosts
    host.ipam = other.ipam = {"subnet": "10.1.0.0/29"}
    (first,) = host.add("c1")
    keys = Keys(host.prefix)

    def freed(client: Client) -> int:
        return free_behind_barrier(client, keys, host.node, now=9.0, quarantine_s=5.0).count

    with host.client() as client:
        declare_dead(client, keys, host.node, by="test", now=1.0)
        assert free_behind_barrier(client, keys, host.node, now=5.0, quarantine_s=5.0) == Freed(quarantine_s=1.0)
        assert free_behind_barrier(client, keys, host.node, now=5.0) == Freed(quarantine_s=None)
        assert freed(client) == 1
        assert freed(client) == 0
    assert other.add("c2", args=f"IP={first.partition('/')[0]}") == [first]
    (second,) = host.add("c3")
    assert second != first
    assert set(host.leased().values()) == {"c3"}
    with pytest.raises(CniError):
        host.check("c1")
    host.check("c3")
    with host.client() as client:
        assert freed(client) == 0, "what it took since belongs to it"
        declare_dead(client, keys, host.node, by="test", now=2.0)
    host.add("c4")
    with host.client() as client:
        assert freed(client) == 0, "it was back before anything was freed"
    host.check("c3")
    host.delete("c1")
    other.check("c2")


@pytest.mark.parametrize("subnet", ["10.1.0.0/24", "fd00:1::/64"])
def test_two_calls_learn_of_the_fence_at_once(
    hosts: list[HostCalls], monkeypatch: pytest.MonkeyPatch, subnet: str
) -> None:
    """Two ADDs bring a host home at the same moment, one of them slowly: both containers have and keep an address."""
    host, _ = hosts
    host.ipam = {"subnet": subnet}
    host.add("before")
    with host.client() as client:
        declare_dead(client, Keys(host.prefix), host.node, by="test", now=1.0)
    has_read, go_on = threading.Event(), threading.Event()

    def slowly(*what: Any) -> Any:
        kept = mark_anew(*what)
        if not has_read.is_set():
            has_read.set()
            go_on.wait(5.0)
        return kept

    monkeypatch.setattr("pycni.ipam.etcd_return.mark_anew", slowly)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(host.add, "slow")
        has_read.wait(5.0)
        quick = pool.submit(host.add, "quick")
        wait([quick], timeout=1.0)
        go_on.set()
        given = {each.partition("/")[0] for call in (slow, quick) for each in call.result()}
    assert given < host.leased().keys()
    assert len(host.leased()) == 3
    for container in ("before", "slow", "quick"):
        host.check(container)
