"""Hosts that fall silent: declared dead, freed behind the barrier and not before, back again."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pycni.cni.errors import CniError
from pycni.etcd import requests
from pycni.etcd.audit import audit
from pycni.etcd.claims import Fenced
from pycni.etcd.members import join
from pycni.etcd.networks import remove_network
from pycni.etcd.nodes import Freed, declare_dead, free_behind_barrier
from pycni.etcd.records import Sync
from pycni.etcd.space import Space
from tests.etcd.cluster_hosts import NETWORK, ClusterHost, Hosts
from tests.etcd.place import gateway_client, lossy_client

SPACE = Space(4, ((int(ip_address("10.1.0.2")), int(ip_address("10.1.0.2"))),))  # one address, for which all compete


def freed(host: ClusterHost, dead: ClusterHost, *, now: float = 1.0, quarantine_s: float | None = None) -> Freed:
    return free_behind_barrier(host.client, host.keys, dead.node, now=now, quarantine_s=quarantine_s)


def die(host: ClusterHost) -> int:
    host.cut_off()
    return declare_dead(host.client, host.keys, host.node, by="test", now=1.0)


@pytest.mark.parametrize("family", [4, 6])
def test_addresses_are_free_behind_the_barrier(hosts: Hosts, family: int) -> None:
    """A dead host's address goes to another one only when every other member has followed beyond its fence; then its
    memberships go as well, and nothing of it is left but the fence."""
    dead, slow, quick = hosts(3, family=family)
    last = int(ip_address("10.1.0.2" if family == 4 else "fd00::2"))
    space = Space(family, ((last, last),))
    address = dead.take(space)
    assert isinstance(address, str)
    assert [each.node for each in freed(quick, dead).waits] == [], "nobody has declared it dead, so nothing is asked"
    fence = die(dead)
    assert [(each.node, each.soon) for each in freed(quick, dead).waits] == [("n2", True), ("n3", True)]
    quick.follow(fence)
    slow.follow(fence - 1)
    outcome = freed(quick, dead)
    assert (outcome.count, [each.node for each in outcome.waits]) == (0, ["n2"])
    with pytest.raises(CniError, match="is taken"):
        quick.take(space, wish=address)
    slow.follow(fence)
    assert freed(quick, dead) == Freed(1)
    assert quick.take(space, wish=address) == address
    keys = [kv.key for kv in quick.client.read(quick.keys.base).found]
    assert [key for key in keys if "n1" in key.removeprefix(quick.keys.base)] == [quick.keys.fence("n1")]
    assert audit(quick.keys, quick.client.read(quick.keys.base).found) == [], "all that is left belongs together"


def test_a_suspect_stands_in_the_way(hosts: Hosts) -> None:
    """A host that is cut off from etcd may still send to the dead one: nothing is freed until it followed, or was
    declared dead itself. A quarantine says nothing about it."""
    dead, suspect, other = hosts(3)
    dead.take(SPACE)
    suspect.cut_off()
    fence = die(dead)
    other.follow(fence)
    for quarantine_s in (None, 0.0):
        outcome = freed(other, dead, quarantine_s=quarantine_s)
        assert (outcome.count, [each.node for each in outcome.waits]) == (0, ["n2"])
        assert not outcome.waits[0].soon
    suspect.announce(Sync(revision=fence - 1))
    assert freed(other, dead).waits
    suspect.cut_off()
    declare_dead(other.client, other.keys, suspect.node, by="test", now=1.0)
    assert freed(other, dead) == Freed(1)


def test_hosts_without_agents_need_a_word(hosts: Hosts) -> None:
    """A host that has no agent never says that it followed: somebody's quarantine stands in for it, and nothing else.
    It is never declared dead by itself, since its silence says nothing."""
    dead, other, bare = hosts(3)
    bare.leave()
    bare.join(agent=False)
    bare.cut_off()
    dead.take(SPACE)
    other.follow(die(dead))
    assert [(each.node, each.waivable) for each in freed(other, dead).waits] == [("n3", True)]
    assert freed(other, dead, now=100.0, quarantine_s=100.0).waits
    assert freed(other, dead, now=101.0, quarantine_s=100.0) == Freed(1)


def test_other_networks_need_a_word(hosts: Hosts) -> None:
    """Of a network in which hosts do not follow each other nobody knows who still listens to a dead host: only the
    quarantine frees its addresses there."""
    dead, other = hosts(2)
    dead.leave()
    other.leave()
    remove_network(other.client, other.keys, NETWORK)
    dead.take(SPACE)
    other.follow(die(dead))
    assert freed(other, dead) == Freed(quarantine_s=None)
    assert freed(other, dead, now=4.0, quarantine_s=5.0) == Freed(quarantine_s=2.0)
    assert freed(other, dead, now=6.0, quarantine_s=5.0) == Freed(1)


def test_a_host_returns(hosts: Hosts) -> None:
    """It keeps what nobody freed, and has lost the rest; it is a member again only once it has followed whoever was
    declared dead meanwhile, and takes nothing before it knows of its fence."""
    host, other, third = hosts(3)
    wide = Space(4, ((int(ip_address("10.1.0.2")), int(ip_address("10.1.0.9"))),))
    kept = host.take(wide, "c1")
    created = host.join()
    fence = die(host)
    host.announce()
    refused = host.take(wide, "c2")
    assert refused == Fenced(fence)
    assert host.come_back(Fenced(fence)) == [host.keys.own_endpoint("n1", NETWORK, "c1", "eth0")]
    died = die(third)
    with pytest.raises(CniError, match="declared dead after revision"):
        join(host.client, host.keys, host.node, host.fence, NETWORK, host.member(), followed=died - 1)
    assert [each.node for each in freed(other, host).waits] == ["n2"]
    assert join(host.client, host.keys, host.node, host.fence, NETWORK, host.member(), followed=died) == created
    other.follow()
    assert [each.node for each in freed(other, host).waits] == ["n1"], "it takes part again"
    with pytest.raises(CniError, match="is taken"):
        other.take(wide, wish=str(kept))
    second = host.take(wide, "c2")
    assert isinstance(second, str)
    fence = die(host)
    other.follow(fence)
    assert freed(other, host) == Freed(2)
    assert other.take(wide, wish=str(kept)) == kept
    host.announce()
    assert join(host.client, host.keys, host.node, host.fence, NETWORK, host.member()) == Fenced(fence)
    assert host.come_back(Fenced(fence)) == []
    host.join()


def test_somebody_dies_while_a_host_returns(hosts: Hosts) -> None:
    """A host that comes back between the death of another and its own hearing of it takes part only once it has heard:
    what the other one had may be given away before that."""
    host, third = hosts(2)
    fence = die(host)
    host.announce()
    host.come_back(Fenced(fence))
    client, real = host.client, host.client.txn

    def interrupted(request: requests.Request, timeout_s: float = 0.0) -> requests.Answer:
        if request["compare"]:
            client.txn = real  # type: ignore[method-assign]
            die(third)
        return real(request, timeout_s)

    client.txn = interrupted  # type: ignore[method-assign]
    with pytest.raises(CniError, match="declared dead after revision"):
        join(client, host.keys, host.node, host.fence, NETWORK, host.member(), followed=client.read("/").revision)


def test_freeing_and_returning_at_once(hosts: Hosts) -> None:
    """A host that marks anew while another one frees: each of its addresses is either still its own or free, and a host
    that is back is not fenced by a decision from before."""
    host, other = hosts(2)
    wide = Space(4, ((int(ip_address("10.1.0.2")), int(ip_address("10.1.0.99"))),))
    taken = {f"c{at}": host.take(wide, f"c{at}") for at in range(6)}
    fence = die(host)
    other.follow(fence)
    own = [host.keys.own_endpoint("n1", NETWORK, each, "eth0") for each in taken]
    client = other.client
    real, seen = client.txn, 0

    def interrupted(request: requests.Request, timeout_s: float = 0.0) -> requests.Answer:
        nonlocal seen
        seen += 1
        if seen == 4:  # after the barrier was looked at, and some were freed
            with gateway_client(client.conf) as another:
                returning = ClusterHost(another, host.keys.prefix, "n1", host.vtep)
                returning.come_back(Fenced(fence))
                assert returning.join() > 0
        return real(request, timeout_s)

    client.txn = interrupted  # type: ignore[method-assign]
    count = freed(other, host).count
    client.txn = real  # type: ignore[method-assign]
    left = [key for key in own if host.has(key)]
    assert 0 < count < 6
    assert count + len(left) == 6
    assert host.has(host.keys.member("n1", NETWORK)), "its new membership is not the one that was to be ended"
    assert audit(host.keys, host.client.read(host.keys.base).found) == []


@pytest.mark.parametrize("lost", [(1,), (2,), (3, 4)])
def test_answers_that_are_lost(hosts: Hosts, lost: tuple[int, ...]) -> None:
    """Freeing and returning over a connection that loses answers end as over a sound one."""
    dead, other = hosts(2)
    dead.take(SPACE)
    other.follow(die(dead))
    with lossy_client(other.client.conf, lost) as client:
        free_behind_barrier(client, other.keys, dead.node, now=1.0)
    assert other.take(SPACE) == "10.1.0.2"
    fence = die(other)
    with lossy_client(other.client.conf, lost) as client:
        returning = ClusterHost(client, other.keys.prefix, other.node, other.vtep)
        assert len(returning.come_back(Fenced(fence))) == 1
        returning.join()
