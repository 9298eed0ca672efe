"""The resident half: watches, mirrors, leases, a host's presence, networks. Over the etcd3 package, as in the agent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from netns_fixtures import Etcd, wait_until
from netns_fixtures.etcd_admin import add_role, compact, leader, switch_authentication_on
from pycni.cni.errors import CniError, Code
from pycni.etcd import mirror as mirror_module
from pycni.etcd import requests
from pycni.etcd.client import Client
from pycni.etcd.failure import Unreachable
from pycni.etcd.lease import Keeper
from pycni.etcd.mirror import Mirror
from pycni.etcd.networks import make_network, remove_network
from pycni.etcd.nodes import declare_dead
from pycni.etcd.presence import announce
from pycni.etcd.records import NetworkRecord, Node
from pycni.etcd.schema import Keys
from tests.etcd.place import conf_of, grpc_client


@pytest.fixture
def mirrors() -> Iterator[ExitStack]:
    """Closes mirrors before anything that they need."""
    with ExitStack() as stack:
        yield stack


def put(client: Client, key: str, value: bytes = b"x", timeout_s: float = 8.0) -> None:
    client.txn(requests.txn([], [requests.put(key, value)]), timeout_s)


class Seen:
    """A mirror and what it said."""

    def __init__(self, client: Client, prefix: str, mirrors: ExitStack) -> None:
        self.changes: list[frozenset[str]] = []
        self.mirror = Mirror(client, prefix, self.changes.append)
        self.mirror.start()
        mirrors.callback(self.mirror.stop)
        wait_until(self.mirror.synced.is_set, 5.0, "the first reading")

    def equals(self, client: Client, prefix: str, deadline_s: float = 5.0) -> None:
        """The mirror comes to hold what etcd holds."""
        wanted = {kv.key: kv for kv in client.read(prefix).found}
        wait_until(lambda: self.mirror.items() == wanted, deadline_s, "the mirror equals etcd")


def test_mirror_follows(shared: Etcd, prefix: str, mirrors: ExitStack) -> None:
    """It begins with what is there and hears of everything afterwards, within some milliseconds."""
    with grpc_client(conf_of(shared)) as client, grpc_client(conf_of(shared)) as writer:
        put(writer, f"{prefix}/a")
        seen = Seen(client, f"{prefix}/", mirrors)
        assert seen.changes == [frozenset({f"{prefix}/a"})]
        both = [requests.put(f"{prefix}/b", b"1"), requests.delete(f"{prefix}/a")]
        began = time.monotonic()
        writer.txn(requests.txn([], both))
        wait_until(lambda: len(seen.changes) == 2, 5.0)
        assert time.monotonic() - began < 2.0
        assert seen.changes[1] == {f"{prefix}/a", f"{prefix}/b"}, "one revision is one change"
        seen.equals(writer, f"{prefix}/")
        assert seen.mirror.get(f"{prefix}/a") is None
        assert seen.mirror.stale_since == 0.0
        mirrors.close()


def test_mirror_survives_everything(
    trio: Etcd, prefix: str, mirrors: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its member killed, stopped, the leader killed, and history compacted while nobody answers: at the end it holds
    what etcd holds, each event came once, and a change of a value alone is not lost."""
    monkeypatch.setattr("pycni.etcd.watch.ASK_S", 0.4)
    etcd = trio
    order = sorted(etcd.members, key=lambda member: member is leader(etcd))
    first, second, third = order
    conf = conf_of(etcd, endpoints=[member.client_url for member in order])
    with grpc_client(conf) as client, grpc_client(conf_of(etcd)) as writer:
        put(writer, f"{prefix}/same", b"1")
        seen = Seen(client, f"{prefix}/", mirrors)
        for fault, member in (("kill", first), ("pause", second)):
            getattr(member, fault)()
            if fault == "pause":
                etcd.start(members=[first])
            for at in range(20):
                put(writer, f"{prefix}/{fault}{at}")
            seen.equals(writer, f"{prefix}/")
            if fault == "pause":
                member.resume()
        counted = [key for change in seen.changes for key in change]
        assert len(counted) == len(set(counted)), "nothing came twice"
        assert seen.mirror.readings == 1, "and it was resumed, not read again"
        for member in etcd.members:
            member.kill()
        wait_until(lambda: seen.mirror.stale_since > 0, 5.0, "the mirror knows that it is stale")
        assert len(seen.mirror.items()) == 41, "and keeps what it has"
        # While the mirror has no member to go to: a change of a value alone, then history is forgotten.
        with monkeypatch.context() as patch:
            patch.setattr("pycni.etcd.grpc_endpoint.GrpcEndpoint.watch", _refuse)
            etcd.start()
            put(writer, f"{prefix}/same", b"2")
            writer.txn(requests.txn([], [requests.delete(f"{prefix}/kill0")]))
            put(writer, f"{prefix}/late")
            compact(third)
        seen.equals(writer, f"{prefix}/", 15.0)
        assert seen.mirror.readings == 2
        assert seen.mirror.stale_since == 0.0
        leader(etcd).kill()
        put(writer, f"{prefix}/after", timeout_s=10.0)
        seen.equals(writer, f"{prefix}/", 10.0)
        mirrors.close()


def _refuse(*_: object) -> None:
    raise Unreachable("not now")


def test_mirror_finds_what_the_watch_missed(
    shared: Etcd, prefix: str, mirrors: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that never came is found by the next comparison, and counted."""
    monkeypatch.setattr(mirror_module, "RECHECK_S", 0.5)
    with grpc_client(conf_of(shared)) as client, grpc_client(conf_of(shared)) as writer:
        seen = Seen(client, f"{prefix}/", mirrors)
        with monkeypatch.context() as patch:
            patch.setattr(seen.mirror, "_apply", lambda batch: None)
            put(writer, f"{prefix}/a")
            wait_until(lambda: seen.mirror.corrected == 1, 5.0, "the comparison found it")
        seen.equals(writer, f"{prefix}/")
        mirrors.close()


def test_mirror_with_authentication(cluster: Callable[..., Etcd], mirrors: ExitStack) -> None:
    """A watch goes on after a restart of etcd made its token void; a prefix that may not be read is an error."""
    etcd = cluster()
    (member,) = etcd.members
    add_role(member, "host", [("READWRITE", "/p/")])
    switch_authentication_on(member, {"host1": "secret"}, {"host1": ["host"]})
    conf = conf_of(etcd, user="host1", password="secret")
    with grpc_client(conf) as client, grpc_client(conf) as writer:
        seen = Seen(client, "/p/", mirrors)
        etcd.stop()
        etcd.start()
        put(writer, "/p/a")
        seen.equals(writer, "/p/", 10.0)
        mirrors.close()
        forbidden = Mirror(client, "/other/", lambda changed: None)
        forbidden.start()
        mirrors.callback(forbidden.stop)
        wait_until(lambda: "permission denied" in forbidden.reason, 5.0)
        assert not forbidden.synced.is_set()
        mirrors.close()


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
        say("n1", record.replace(applied=7))
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


def test_networks_have_numbers_of_their_own(shared: Etcd, prefix: str) -> None:
    """The first to name a network makes it, everybody else gets the same; no VNI is two networks'."""
    keys = Keys(prefix)
    clients = [grpc_client(conf_of(shared)) for _ in range(4)]
    made: dict[int, list[NetworkRecord]] = {}

    def make(at: int) -> None:
        made[at] = [make_network(clients[at], keys, f"n{one}", NetworkRecord(vni=0, mode="l2")) for one in range(3)]

    threads = [threading.Thread(target=make, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client = clients[0]
    assert len(made) == 4
    assert made[0] == made[1] == made[2] == made[3]
    numbers = [record.vni for record in made[0]]
    assert len(set(numbers)) == 3
    assert all(4096 <= number < 1 << 24 for number in numbers)
    with pytest.raises(CniError, match="is taken by network n0"):
        make_network(client, keys, "other", NetworkRecord(vni=numbers[0]))
    assert make_network(client, keys, "other", NetworkRecord(vni=77, subnets=("10.4.0.0/16",))).vni == 77
    with pytest.raises(CniError, match=r"10.4.9.0/24 overlaps with 10.4.0.0/16 of network other"):
        make_network(client, keys, "inner", NetworkRecord(vni=0, subnets=("10.4.9.0/24",)))
    put(client, f"{keys.endpoints('n0', 4)}0a010002")
    with pytest.raises(CniError, match="n0 is in use"):
        remove_network(client, keys, "n0")
    remove_network(client, keys, "n1")
    remove_network(client, keys, "n1")
    assert make_network(client, keys, "n1", NetworkRecord(vni=0)).vni == numbers[1], "drawn from its name"
    for each in clients:
        each.close()
