"""A cluster in which everything happens at random, on a real etcd: no address is ever two hosts' to those who count."""

from __future__ import annotations

import random
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from netns_fixtures import Etcd
from netns_fixtures.etcd_admin import leader
from pycni.cni.errors import CniError, Code
from pycni.etcd.audit import audit
from pycni.etcd.barrier import Hosts, is_fenced
from pycni.etcd.claims import Fenced, give_back
from pycni.etcd.client import Client
from pycni.etcd.members import join
from pycni.etcd.networks import make_network
from pycni.etcd.nodes import declare_dead, free_behind_barrier, read_hosts
from pycni.etcd.records import NetworkRecord
from pycni.etcd.schema import Keys
from pycni.etcd.space import Space
from tests.etcd.cluster_hosts import NETWORK, ClusterHost
from tests.etcd.place import conf_of, gateway_client

FIRST = int(ip_address("10.1.0.2"))
SPACE = Space(4, ((FIRST, FIRST + 5),))  # so few that what is freed is taken again
ACTS = ("take", "take", "take", "release", "cut_off", "cut_off", "heal", "die", "die", "free", "follow", "settle")


class Host(ClusterHost):
    """With containers, which stay when it is cut off, and a kernel, which sends to whom it last heard of."""

    def __init__(self, client: Client, prefix: str, node: str, vtep: str) -> None:
        super().__init__(client, prefix, node, vtep)
        self.addresses: dict[str, str] = {}  # by container
        self.heard = Hosts(0, {}, (), frozenset())
        self.names = iter(range(1000))
        self.freed = 0

    @property
    def connected(self) -> bool:
        return self.lease != 0

    def act(self, what: str, other: Host) -> None:
        if what == "die":
            self._die(other)
        elif what == "free":
            self.freed += free_behind_barrier(self.client, self.keys, other.node, now=1.0).count
        elif what == "cut_off" and self.connected:
            self.cut_off()
        elif what == "heal" and not self.connected:
            self.announce()
        elif self.connected and what in ("take", "release", "follow"):
            getattr(self, f"_{what}")()

    def _take(self) -> None:
        if self.member_of() is None and not self._take_part():
            return
        name = f"c{next(self.names)}"
        try:
            taken = self.take(SPACE, name)
        except CniError as failure:
            assert failure.code == Code.EXHAUSTED
            return
        if isinstance(taken, Fenced):
            self._return(taken)
        else:
            self.addresses[name] = taken

    def member_of(self) -> int | None:
        """The revision of its member key."""
        return next((s.revision for s in read_hosts(self.client, self.keys).seats if s.node == self.node), None)

    def _take_part(self) -> bool:
        """Join, then hear of the others; what it lost goes before."""
        outcome = join(self.client, self.keys, self.node, self.fence, NETWORK, self.member())
        if isinstance(outcome, Fenced):
            self._return(outcome)
            return False
        self.heard = read_hosts(self.client, self.keys)
        return True

    def _return(self, fenced: Fenced) -> None:
        kept = self.come_back(fenced)
        owned = {name: self.keys.own_endpoint(self.node, NETWORK, name, "eth0") for name in self.addresses}
        self.addresses = {name: ip for name, ip in self.addresses.items() if owned[name] in kept}
        self.heard = read_hosts(self.client, self.keys)
        followed = self.heard.revision
        join(self.client, self.keys, self.node, self.fence, NETWORK, self.member(), followed=followed)

    def _release(self) -> None:
        if not self.addresses:
            return
        name = min(self.addresses)
        del self.addresses[name]
        key = self.client.get(self.keys.own_endpoint(self.node, NETWORK, name, "eth0"))
        if key is not None:
            give_back(self.client, self.keys, NETWORK, key)

    def _follow(self) -> None:
        self.heard = read_hosts(self.client, self.keys)
        self.follow(self.heard.revision)

    def _die(self, other: Host) -> None:
        try:
            declare_dead(self.client, self.keys, other.node, by=self.node, now=1.0)
        except CniError:
            assert other.connected


def counting(hosts: Hosts) -> set[str]:
    """Who takes part and is not fenced, as *hosts* has it."""
    return {seat.node for seat in hosts.seats if not is_fenced(hosts, seat)}


def owners(hosts: list[Host], now: Hosts) -> dict[str, set[str]]:
    """Of each address the hosts with a container that has it, and to which anybody who counts would send."""
    found: dict[str, set[str]] = {}
    for node in counting(now):
        listener = next(host for host in hosts if host.node == node)
        for host in hosts:
            if host is listener or host.node in counting(listener.heard):
                for ip in host.addresses.values():
                    found.setdefault(ip, set()).add(host.node)
    return found


def make(client: Client, prefix: str) -> list[Host]:
    make_network(client, Keys(prefix), NETWORK, NetworkRecord(vni=0, mode="l2"))
    hosts = [Host(client, prefix, f"n{at}", f"192.0.2.{at}") for at in range(1, 5)]
    for host in hosts:
        host.announce()
    return hosts


def drill(hosts: list[Host], dice: random.Random, steps: int) -> Iterator[int]:
    """Something happens at each step, after which no address may be two hosts'."""
    client, keys = hosts[0].client, hosts[0].keys
    had: dict[str, set[str]] = {}
    for step in range(steps):
        yield step
        host, other = dice.sample(hosts, 2)
        what = dice.choice(ACTS)
        for each in hosts if what == "settle" else ():
            each.act("follow", other)
        host.act("free" if what == "settle" else what, other)
        now = read_hosts(client, keys)
        for ip, nodes in owners(hosts, now).items():
            assert len(nodes) < 2, f"step {step}: {host.node} {what} {other.node}: {ip} is {nodes}'s"
            had.setdefault(ip, set()).update(nodes)
    wrong = [each.what for each in audit(keys, client.read(keys.base).found) if "still to be freed" not in each.what]
    assert [each for each in wrong if "takes no part" not in each] == []
    assert sum(host.freed for host in hosts) > 1
    assert max(map(len, had.values())) > 1


@pytest.mark.parametrize("seed", [0, 1, 13])  # each finds another rule that is left out
def test_no_address_is_two_hosts(shared: Etcd, prefix: str, seed: int) -> None:
    """Hosts take and release, are cut off while their containers live on, are declared dead, freed and come back, hear
    of it late, in any order: to all who count an address is one host's all the time. And those of the dead do become
    free, and are had by others."""
    with gateway_client(conf_of(shared)) as client:
        for _ in drill(make(client, prefix), random.Random(seed), 250):
            pass


def test_while_members_fall(trio: Etcd, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same while etcd's members are killed, the leader among them, and one stops in the middle of it: some requests
    are carried out twice, some are asked again at another member, and nothing else is different."""
    monkeypatch.setattr("pycni.etcd.client.Client.patience_s", 10.0)
    with gateway_client(conf_of(trio)) as client:
        for step in drill(make(client, prefix), random.Random(1), 120):
            if step == 30:
                leader(trio).kill()
            elif step in (45, 90):
                trio.start()
            elif step == 60:
                trio.members[client.current].pause()
            elif step == 75:
                for member in trio.members:
                    member.resume()
                trio.members[client.current].kill()
