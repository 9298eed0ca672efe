"""Hosts of an overlay as etcd sees them, without a kernel: they take part, say so, follow, fall silent and return."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from pycni.etcd.claims import Claimed, Fenced, Taker, Want, claim
from pycni.etcd.client import Client
from pycni.etcd.members import join, leave
from pycni.etcd.networks import make_network
from pycni.etcd.nodes import Cared, care_for_the_dead, mark_anew
from pycni.etcd.presence import announce, report
from pycni.etcd.records import Member, NetworkRecord, Node, OwnEndpoint, Sync
from pycni.etcd.schema import Keys
from pycni.etcd.space import Space

if TYPE_CHECKING:
    from pycni.etcd.nodes import Copy

NETWORK = "net1"
Hosts = Callable[..., list["ClusterHost"]]


class ClusterHost:
    """One host with an agent. vtep: its tunnel address."""

    def __init__(self, client: Client, prefix: str, node: str, vtep: str) -> None:
        self.client, self.keys, self.node, self.vtep = client, Keys(prefix), node, vtep
        self.fence = 0
        self.lease = 0
        self.cared = Cared()

    def member(self, **more: Any) -> Member:
        return Member(**{"name": self.node, "vtep": self.vtep, "mtu": 1500, "port": 4789, "agent": True, **more})

    def join(self, network: str = NETWORK, **more: Any) -> int:
        made = join(self.client, self.keys, self.node, self.fence, network, self.member(**more))
        assert not isinstance(made, Fenced), made
        return made

    def leave(self, network: str = NETWORK) -> None:
        leave(self.client, self.keys, self.node, network)

    def announce(self, sync: Sync | None = None, *, boot: str = "") -> None:
        """Its record, under a lease that the test ends with `cut_off`."""
        self.lease = self.lease or self.client.grant(60)
        record = Node(name=self.node, boot=boot or self.node, pid=1, started=1, vtep4=self.vtep)
        announce(self.client, self.keys, self.node, record, self.lease, is_former=lambda _: False, sync=sync)

    def follow(self, revision: int = 0) -> None:
        """Its kernel holds what etcd says, up to now."""
        revision = revision or self.client.read(self.keys.base).revision
        report(self.client, self.keys, self.node, Sync(revision=revision, at=time.time()), self.lease)

    def cut_off(self) -> None:
        """Its lease ends."""
        self.client.revoke(self.lease)
        self.lease = 0

    def take(self, space: Space, container: str = "c1", *, wish: str = "") -> str | Fenced:
        """An address for a container; *wish*: that one."""
        own = OwnEndpoint(id=f"{self.node}/{container}/{time.monotonic_ns()}", ips=())
        taker = Taker(self.node, self.fence, NETWORK, container, "eth0", own)
        want = Want(space, ip_address(wish) if wish else None)
        mac = "02:42:0a:01:00:02"
        outcome = claim(self.client, self.keys, taker, [want], mac_of=lambda ips: mac, timeout_s=8.0)
        if isinstance(outcome, Fenced):
            return outcome
        assert isinstance(outcome, Claimed), outcome
        return str(outcome.ips[0])

    def come_back(self, fenced: Fenced) -> list[str]:
        """What it keeps, as keys."""
        kept = mark_anew(self.client, self.keys, self.node, fenced.revision)
        self.fence = fenced.revision
        return [kv.key for kv in kept]

    def care(self, mirror: Copy, now: float, dead_after_s: float = 10.0) -> Cared:
        self.cared = care_for_the_dead(
            self.client, self.keys, mirror, self.cared, node=self.node, name="h", now=now, dead_after_s=dead_after_s
        )
        return self.cared

    def has(self, key: str) -> bool:
        return self.client.get(key) is not None


def make_hosts(client: Client, prefix: str, count: int, *, family: int = 4) -> list[ClusterHost]:
    """That many, all taking part in an overlay network, with agents that have followed."""
    near = "192.0.2." if family == 4 else "2001:db8::"
    made = [ClusterHost(client, prefix, f"n{at}", f"{near}{at}") for at in range(1, count + 1)]
    make_network(client, Keys(prefix), NETWORK, NetworkRecord(vni=0, mode="l2"))
    for each in made:
        each.join()
        each.announce()
    for each in made:
        each.follow()
    return made
