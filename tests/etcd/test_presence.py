"""Leases that are kept and what is under them: that a host is there, where its tunnels end, how far it follows."""

from __future__ import annotations

import time

import pytest

from netns_fixtures import Etcd, wait_until
from netns_fixtures.etcd_admin import leader
from pycni.cni.errors import CniError, Code
from pycni.etcd import requests
from pycni.etcd.client import Client
from pycni.etcd.lease import Keeper
from pycni.etcd.nodes import declare_dead
from pycni.etcd.presence import announce, report
from pycni.etcd.records import Node, Sync
from pycni.etcd.schema import Keys
from tests.etcd.place import conf_of, grpc_client


def test_lease_is_kept(shared: Etcd, prefix: str) -> None:
    """The key stays beyond the lease's time, comes back when somebody revokes the lease, and goes with the keeper."""
    told: list[bool] = []
    with grpc_client(conf_of(shared)) as client:
        keeper = Keeper(
            client,
            2,
            lambda each, lease: put_under(each, f"{prefix}/me", lease),
            lambda held, reason: told.append(held),
        )
        keeper.start()
        wait_until(lambda: keeper.held, 5.0)
        first = keeper.lease
        client.revoke(first)
        assert client.get(f"{prefix}/me") is None
        wait_until(lambda: keeper.lease not in (0, first) and keeper.held, 5.0, "a new lease")
        assert client.get(f"{prefix}/me") is not None
        until = time.monotonic() + 2.6
        wait_until(lambda: time.monotonic() > until or client.get(f"{prefix}/me") is None, 5.0)
        assert client.get(f"{prefix}/me") is not None
        keeper.stop()
        assert client.get(f"{prefix}/me") is None
        assert told == [True, False, True]


def test_lease_survives_a_bug(shared: Etcd, prefix: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What nobody expected ends neither the keeping nor the truth about it: the traceback is told, the lease counts as
    lost meanwhile, and is had again."""
    told: list[bool] = []
    bugs = [ValueError("planted")]

    def establish(client: Client, lease: int) -> None:
        put_under(client, f"{prefix}/me", lease)
        if told == [True] and bugs:
            raise bugs.pop()

    with grpc_client(conf_of(shared)) as client:
        keeper = Keeper(client, 2, establish, lambda held, reason: told.append(held))
        keeper.start()
        wait_until(lambda: told == [True, False, True], 10.0)
        assert "planted" in capfd.readouterr().err
        keeper.stop()


def test_lease_that_is_gone_and_confirmed(shared: Etcd, prefix: str) -> None:
    """Old releases confirm a lease that they have revoked: that its keys cannot be put is enough to ask for another."""

    class Confirming(Client):
        def keep_alive(self, lease: int, timeout_s: float = 0.0) -> int:
            return super().keep_alive(lease, timeout_s) or 2

    conf = conf_of(shared)
    with Confirming(conf, grpc_client(conf).callers) as client:
        keeper = Keeper(client, 2, lambda each, lease: put_under(each, f"{prefix}/me", lease))
        keeper.start()
        wait_until(lambda: keeper.held, 5.0)
        first = keeper.lease
        client.revoke(first)
        wait_until(lambda: keeper.held and keeper.lease not in (0, first), 10.0, "a new lease")
        assert client.get(f"{prefix}/me") is not None
        keeper.stop()


def test_lease_outlives_its_members(trio: Etcd, prefix: str) -> None:
    """The member that renewed it is stopped, then the leader is killed: the key is there all the time, under the same
    lease."""
    lost: list[str] = []
    with grpc_client(conf_of(trio)) as client, grpc_client(conf_of(trio)) as reader:
        keeper = Keeper(
            client,
            6,
            lambda each, lease: put_under(each, f"{prefix}/me", lease),
            lambda held, reason: None if held else lost.append(reason),
        )
        keeper.start()
        wait_until(lambda: keeper.held, 5.0)
        lease = keeper.lease
        used = trio.members[client.current]
        used.pause()
        until = time.monotonic() + 3.0
        while time.monotonic() < until:
            found = reader.txn(requests.txn([], [requests.get(f"{prefix}/me")]), 8.0).parts[0].found
            assert found, lost
            assert found[0].lease == lease
        used.resume()
        leader(trio).kill()
        wait_until(lambda: reader.get(f"{prefix}/me", 8.0) is not None and keeper.held, 10.0)
        assert keeper.lease == lease
        keeper.stop()


def put_under(client: Client, key: str, lease: int) -> None:
    client.txn(requests.txn([], [requests.put(key, b"x", lease)]))


def test_presence(shared: Etcd, prefix: str) -> None:
    """A host's record and addresses under its lease; two machines with one id, or one address, are refused, and a host
    that is there cannot be declared dead."""
    keys = Keys(prefix)
    record = Node(name="h1", boot="b1", pid=10, started=1, vtep4="192.0.2.1", vtep6="2001:db8::1", mtu=1500)
    with grpc_client(conf_of(shared)) as client:
        lease = client.grant(30)

        def say(node: str, what: Node, *, is_former: bool = False) -> None:
            announce(client, keys, node, what, lease, is_former=lambda other: is_former)

        say("n1", record)
        found = client.get(keys.node("n1"))
        say("n1", record)
        assert client.get(keys.node("n1")) == found, "the same again writes nothing"
        say("n1", record.replace(mtu=1400))
        with pytest.raises(CniError, match="n1 is in use by process 10 of h1"):
            say("n1", record.replace(boot="b2"))
        with pytest.raises(CniError, match="n1 is in use by process 10 of h1"):
            say("n1", record.replace(pid=11))
        say("n1", record.replace(pid=11), is_former=True)
        with pytest.raises(CniError, match="host n1 has the address of this host's tunnels") as failure:
            say("n2", record.replace(name="h2", vtep6="2001:db8::2"))
        assert failure.value.code == Code.TRY_AGAIN
        assert client.get(keys.node("n2")) is None
        with pytest.raises(CniError, match="n1 is alive"):
            declare_dead(client, keys, "n1", by="test", now=1.0)
        client.revoke(lease)
        assert client.read(keys.base).found == ()
        declare_dead(client, keys, "n1", by="test", now=1.0)


def test_how_far_a_host_follows(shared: Etcd, prefix: str) -> None:
    """It is said under the host's lease, with its record or at once, and not again for its time alone; it goes with the
    record. Without the lease it cannot be said."""
    keys = Keys(prefix)
    record = Node(name="h1", boot="b1", pid=10, started=1)
    with grpc_client(conf_of(shared)) as client:
        lease = client.grant(30)

        def say(sync: Sync | None) -> requests.KeyValue | None:
            announce(client, keys, "n1", record, lease, is_former=lambda _: False, sync=sync)
            return client.get(keys.sync("n1"))

        assert say(None) is None
        first = say(Sync(revision=5, at=1.0))
        assert first is not None
        assert first.lease == lease
        assert say(Sync(revision=5, at=2.0)) == first
        second = say(Sync(revision=5, at=2.0, problems=("no route",)))
        assert second is not None
        assert Sync.parse(second.value).problems == ("no route",)
        report(client, keys, "n1", Sync(revision=9, at=3.0), lease)
        assert Sync.parse(client.read(keys.syncs).found[0].value).revision == 9
        client.revoke(lease)
        assert client.read(keys.base).found == ()
        with pytest.raises(CniError, match="lease not found"):
            report(client, keys, "n1", Sync(revision=10, at=4.0), lease)
