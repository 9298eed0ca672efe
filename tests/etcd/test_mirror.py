"""Mirrors and the watches under them: whatever happens to etcd, they come to hold what it holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from netns_fixtures import Etcd, Namespace, needs, wait_until
from netns_fixtures.etcd_admin import add_role, compact, leader, switch_authentication_on
from pycni.cni.errors import CniError
from pycni.etcd import mirror as mirror_module
from pycni.etcd import requests
from pycni.etcd.client import Client
from pycni.etcd.failure import Unreachable
from pycni.etcd.grpc_endpoint import GrpcEndpoint
from pycni.etcd.mirror import Mirror
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

    def __init__(self, client: Client, prefix: str, mirrors: ExitStack, end: str = "") -> None:
        self.changes: list[frozenset[str]] = []
        self.mirror = Mirror(client, prefix, self.changes.append, end)
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


def test_mirror_survives_a_bug(
    shared: Etcd, prefix: str, mirrors: ExitStack, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What nobody expected is told, with its traceback, the mirror is stale meanwhile, and reads everything anew."""
    with grpc_client(conf_of(shared)) as client, grpc_client(conf_of(shared)) as writer:
        seen = Seen(client, f"{prefix}/", mirrors)
        with monkeypatch.context() as patch:
            patch.setattr(seen.mirror, "_apply", _fail)
            put(writer, f"{prefix}/a")
            wait_until(lambda: "planted" in seen.mirror.reason, 5.0)
        assert seen.mirror.stale_since > 0
        seen.equals(writer, f"{prefix}/")
        wait_until(lambda: seen.mirror.stale_since == 0.0, 5.0)
        assert "planted" in capfd.readouterr().err
        put(writer, f"{prefix}/b")
        seen.equals(writer, f"{prefix}/")
        mirrors.close()


def _fail(*_: object) -> None:
    raise ValueError("planted")


def test_mirror_of_a_range(shared: Etcd, prefix: str, mirrors: ExitStack) -> None:
    """What agents follow is one range: changes in it come, those in front of it and behind it do not."""
    keys = Keys(prefix)
    first, end = keys.shared
    with grpc_client(conf_of(shared)) as client:
        put(client, keys.fence("n1"))
        put(client, keys.sync("n1"))
        seen = Seen(client, first, mirrors, end)
        for key in (
            f"{keys.base}a",
            keys.sync("n2"),
            keys.own_blocks("n1", "net"),
            keys.vni(7),
            keys.member("n1", "net"),
        ):
            put(client, key)
        put(client, keys.node("n1"))
        wait_until(lambda: seen.mirror.get(keys.node("n1")) is not None, 5.0)
        told = [keys.fence("n1"), keys.member("n1", "net"), keys.node("n1")]
        assert seen.changes == [frozenset({key}) for key in told]
        assert sorted(seen.mirror.items()) == told
        mirrors.close()


def test_member_without_a_majority(
    trio: Etcd, prefix: str, mirrors: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that lost the others still answers, but knows nothing new: it is left, and the mirror says that it is
    stale, until there is a majority again; what was written then comes."""
    monkeypatch.setattr("pycni.etcd.watch.ASK_S", 0.4)
    leads = leader(trio)
    alone = next(member for member in trio.members if member is not leads)
    others = [member for member in trio.members if member is not alone]
    with grpc_client(conf_of(trio, endpoints=[alone.client_url])) as client, grpc_client(conf_of(trio)) as writer:
        seen = Seen(client, f"{prefix}/", mirrors)
        for member in others:
            member.kill()
        wait_until(lambda: seen.mirror.stale_since > 0, 10.0, "the mirror knows that its member knows nothing")
        assert alone.running()
        trio.start(members=others)
        put(writer, f"{prefix}/late", timeout_s=15.0)
        seen.equals(writer, f"{prefix}/", 10.0)
        wait_until(lambda: seen.mirror.stale_since == 0.0, 10.0)
        mirrors.close()


def test_connection_that_leads_nowhere(
    place: Namespace, shared: Etcd, prefix: str, mirrors: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only member answers, but not on the connections that there are, as after a change of this host's address:
    they are given up, and both calls and mirror go on over new ones."""
    needs("tool:nft", "tool:ss")
    monkeypatch.setattr("pycni.etcd.watch.ASK_S", 0.4)
    monkeypatch.setattr("pycni.etcd.client.TRY_S", 0.3)
    member = shared.members[0]
    with grpc_client(conf_of(shared)) as client:
        seen = Seen(client, f"{prefix}/", mirrors)
        put(client, f"{prefix}/a")
        used = place.run(["ss", "-Htn", "dport", "=", f":{member.client_port}"]).stdout.split("\n")
        ports = ", ".join(line.split()[3].rpartition(":")[2] for line in used if line)
        rule = f"add rule inet gone in tcp sport {{ {ports} }} tcp dport {member.client_port} drop"
        hook = "add chain inet gone in { type filter hook input priority 0; }"
        place.run(["nft", "-f", "-"], input=f"add table inet gone\n{hook}\n{rule}\n")
        try:
            put(client, f"{prefix}/b", timeout_s=8.0)
            seen.equals(client, f"{prefix}/", 10.0)
            wait_until(lambda: seen.mirror.stale_since == 0.0, 10.0)
        finally:
            place.run(["nft", "delete", "table", "inet", "gone"])
        mirrors.close()


def test_events_that_come_twice(shared: Etcd, prefix: str, mirrors: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that repeats what it said before, as old releases do, takes the copy back to no earlier value."""
    watch = GrpcEndpoint.watch

    def repeated(*args: Any) -> _Repeating:
        return _Repeating(watch(*args))

    monkeypatch.setattr(GrpcEndpoint, "watch", repeated)
    with grpc_client(conf_of(shared)) as client:
        seen = Seen(client, f"{prefix}/", mirrors)
        for value in (b"1", b"2", b"3"):
            put(client, f"{prefix}/a", value)
        put(client, f"{prefix}/b")
        seen.equals(client, f"{prefix}/")
        wait_until(lambda: len(seen.changes) >= 5, 5.0)
        put(client, f"{prefix}/c")
        wait_until(lambda: frozenset({f"{prefix}/c"}) in seen.changes, 5.0)
        assert len(seen.changes) == 6, "nothing was told twice"
        mirrors.close()


class _Repeating:
    """A stream whose answers all come again behind the next one."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.cancel = stream.cancel

    def __iter__(self) -> Iterator[Any]:
        former = None
        for answer in self.stream:
            yield answer
            if former is not None:
                yield former
            former = answer


def test_data_that_were_replaced(cluster: Callable[..., Etcd], prefix: str, mirrors: ExitStack) -> None:
    """An etcd that comes back empty, at an earlier revision, empties no copy: what was known stands, and the reason is
    told, by the watch as by a whole reading."""
    etcd = cluster()
    with grpc_client(conf_of(etcd)) as client:
        for at in range(5):
            put(client, f"{prefix}/{at}")
        seen = Seen(client, f"{prefix}/", mirrors)
        etcd.stop()
        for member in etcd.members:
            member.wipe()
        etcd.start()
        put(client, f"{prefix}/new")
        wait_until(lambda: "it is at revision 2, before 6" in seen.mirror.reason, 10.0)
        assert seen.mirror.stale_since > 0
        mirrors.close()
        assert len(seen.mirror.items()) == 5
        with pytest.raises(CniError, match="at revision 2 and was at 6: its data was replaced by older"):
            seen.mirror._read(recheck=True)
        assert len(seen.mirror.items()) == 5
