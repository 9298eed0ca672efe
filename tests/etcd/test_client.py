"""Requests, over both transports: the gateway of an executable's call and the etcd3 package of the agent."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from netns_fixtures import Etcd
from netns_fixtures.etcd_admin import add_role, leader, move_leader, switch_authentication_on
from pycni.cni.errors import CniError, Code
from pycni.etcd import requests
from pycni.etcd.client import Client
from pycni.etcd.connect import open_client
from pycni.etcd.failure import Unreachable
from pycni.etcd.grpc_endpoint import GrpcEndpoint
from tests.etcd.place import TRANSPORTS, conf_of

both = pytest.mark.parametrize("transport", TRANSPORTS)


def put_new(client: Client, key: str, value: bytes, timeout_s: float = 1.7) -> bool:
    """Put a key that nobody has; True also where an earlier attempt of ours did, as every caller must read back."""
    request = requests.txn([requests.is_absent(key)], [requests.put(key, value)], [requests.get(key)])
    answer = client.txn(request, timeout_s)
    return answer.succeeded or answer.parts[0].found[0].value == value


@both
def test_transaction_reads_and_writes(transport: str, shared: Etcd, prefix: str) -> None:
    """Guards, operations of each kind and a nested transaction mean the same over both transports."""
    a, b = f"{prefix}/a", f"{prefix}/b"
    with TRANSPORTS[transport](conf_of(shared)) as client:
        inner = requests.txn([requests.is_absent(b)], [requests.put(b, b"2")], [requests.get(b)])
        first = client.txn(
            requests.txn([requests.is_absent(a)], [requests.put(a, b"\x00\xff1"), requests.nested(inner)])
        )
        assert first.succeeded
        assert first.parts[1].succeeded
        found = client.get(a)
        assert found is not None
        assert (found.value, found.create_revision, found.mod_revision) == (
            b"\x00\xff1",
            first.revision,
            first.revision,
        )
        again = client.txn(requests.txn([requests.is_absent(a)], [requests.put(a, b"x")], [requests.nested(inner)]))
        assert not again.succeeded
        assert [each.value for each in again.parts[0].parts[0].found] == [b"2"]
        for guard, holds in (
            (requests.has_value(a, b"\x00\xff1"), True),
            (requests.has_value(a, b"other"), False),
            (requests.unchanged(a, first.revision), True),
            (requests.created_at(a, first.revision + 1), False),
            (requests.none_since(f"{prefix}/", first.revision), True),
            (requests.none_since(f"{prefix}/", first.revision - 1), False),
            (requests.none_since("/nothing/", 0), True),
        ):
            assert client.txn(requests.txn([guard], [])).succeeded is holds, guard
        assert client.txn(requests.txn([], [requests.delete(a, requests.end_of(f"{prefix}/"))])).succeeded
        assert client.read(f"{prefix}/").found == ()


@both
def test_long_lists_are_read_at_one_revision(
    transport: str, shared: Etcd, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pages are of the revision of the first, although somebody writes in between."""
    monkeypatch.setattr("pycni.etcd.client.PAGE", 7)
    with TRANSPORTS[transport](conf_of(shared)) as client:
        for at in range(3):
            client.txn(requests.txn([], [requests.put(f"{prefix}/p/{at * 10 + one:02}", b"x") for one in range(10)]))
        pages = client.call

        def disturbed(method: str, body: requests.Request, timeout_s: float = 1.0) -> requests.Answer:
            answer = pages(method, body, timeout_s)
            pages(
                "txn",
                requests.txn([], [requests.put(f"{prefix}/p/late", b"x"), requests.delete(f"{prefix}/p/29")]),
                1.0,
            )
            return answer

        monkeypatch.setattr(client, "call", disturbed)
        found = client.read(f"{prefix}/p/", keys_only=True)
        assert [each.key for each in found.found] == [f"{prefix}/p/{at:02}" for at in range(30)]
        assert {each.value for each in found.found} == {b""}


@both
def test_nobody_listens(transport: str, cluster: Callable[..., Etcd]) -> None:
    """Code 11 within 2 s, naming the endpoints and why; at the first request after etcd is back all is well."""
    etcd = cluster()
    with TRANSPORTS[transport](conf_of(etcd)) as client:
        assert put_new(client, "/a", b"1")
        etcd.kill()
        before = time.monotonic()
        with pytest.raises(CniError, match=etcd.endpoints[0]) as failure:
            client.get("/a")
        assert failure.value.code == Code.TRY_AGAIN
        assert time.monotonic() - before < 3.0
        etcd.start()
        found = client.get("/a")
        assert found is not None
        assert found.value == b"1"


@both
@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_failover_takes_about_a_second(transport: str, fault: str, trio: Etcd, prefix: str) -> None:
    """The endpoint in use dies, or answers nothing any more: the request goes to another, and reads back its own."""
    etcd = trio
    member = next(one for one in etcd.members if one is not leader(etcd))  # whose death needs no election
    etcd.members.sort(key=lambda one: one is not member)
    with TRANSPORTS[transport](conf_of(etcd)) as client:
        assert put_new(client, f"{prefix}/a", b"1")
        getattr(member, fault)()
        before = time.monotonic()
        assert put_new(client, f"{prefix}/b", b"2")
        assert time.monotonic() - before < 2.0
        answered = client.current
        assert answered != 0
        assert put_new(client, f"{prefix}/c", b"3")
        assert client.current == answered, "the endpoint that answered is asked first"
        if fault == "pause":
            member.resume()


def test_next_call_begins_where_the_last_one_was_answered(trio: Etcd, prefix: str) -> None:
    """Each call of an executable is a process of its own: only the first one waits for a member that is stopped."""
    etcd = trio
    stopped = next(one for one in etcd.members if one is not leader(etcd))
    etcd.members.sort(key=lambda one: one is not stopped)
    conf = conf_of(etcd)
    stopped.pause()
    began, ended = [], []
    for _ in range(3):
        with open_client(conf) as client:
            began.append(client.current)
            assert client.get(f"{prefix}/a") is None
            ended.append(client.current)
    stopped.resume()
    assert began == [0, *ended[:2]]
    assert ended[0] != 0
    assert ended == ended[:1] * 3, "nobody had to ask another"


@both
def test_leader_moves(transport: str, trio: Etcd, prefix: str) -> None:
    """Requests that meet an election are answered after it: at once where the lead was handed over, else in seconds."""
    etcd = trio
    with TRANSPORTS[transport](conf_of(etcd)) as client:
        assert put_new(client, f"{prefix}/a", b"1")
        move_leader(etcd)
        assert put_new(client, f"{prefix}/b", b"2")
        leader(etcd).kill()
        assert put_new(client, f"{prefix}/c", b"3", timeout_s=8.0)


@both
def test_tls_with_client_certificates(transport: str, cluster: Callable[..., Etcd]) -> None:
    """With its certificate a client gets in; without one, or with another authority's, it is code 11 and says why."""
    conf = conf_of(cluster(tls=True))
    with TRANSPORTS[transport](conf) as client:
        assert put_new(client, "/a", b"1")
    with TRANSPORTS[transport](conf.replace(cert="", key="")) as client:
        with pytest.raises(CniError, match="https://127") as failure:
            client.get("/a", timeout_s=0.5)
        assert failure.value.code == Code.TRY_AGAIN


@both
def test_user_and_password(transport: str, cluster: Callable[..., Etcd]) -> None:
    """The token is fetched, and fetched anew when a restart of etcd made it void; a wrong password is code 7."""
    etcd = cluster()
    (member,) = etcd.members
    add_role(member, "reader", [("READWRITE", "/pycni/")])
    switch_authentication_on(member, {"host1": "secret"}, {"host1": ["reader"]})
    conf = conf_of(etcd, user="host1", password="secret")
    with TRANSPORTS[transport](conf) as client:
        client.patience_s = 10.0  # a token takes etcd some time on a busy machine
        assert put_new(client, "/pycni/a", b"1", timeout_s=10.0)
        etcd.stop()
        etcd.start()
        assert put_new(client, "/pycni/b", b"1", timeout_s=10.0)
        with pytest.raises(CniError, match="permission denied") as failure:
            client.get("/other")
        assert failure.value.code == Code.INVALID_CONFIG
    with TRANSPORTS[transport](conf.replace(password="wrong")) as client:
        client.patience_s = 10.0
        with pytest.raises(CniError, match="invalid user ID or password") as failure:
            client.get("/pycni/a")
        assert failure.value.code == Code.INVALID_CONFIG


@both
def test_user_where_authentication_is_off(transport: str, shared: Etcd, prefix: str) -> None:
    """A config that names a user works before etcd's authentication is switched on."""
    with TRANSPORTS[transport](conf_of(shared, user="host1", password="secret")) as client:
        assert put_new(client, f"{prefix}/a", b"1")


@both
def test_lease_ends_with_its_keys(transport: str, shared: Etcd, prefix: str) -> None:
    """Keys under a lease go when it is revoked; revoking it again is no failure."""
    with TRANSPORTS[transport](conf_of(shared)) as client:
        lease = client.grant(30)
        client.txn(requests.txn([], [requests.put(f"{prefix}/a", b"1", lease)]))
        found = client.get(f"{prefix}/a")
        assert found is not None
        assert found.lease == lease
        client.revoke(lease)
        client.revoke(lease)
        assert client.get(f"{prefix}/a") is None


def test_connection_that_another_thread_closes(shared: Etcd, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed between the look at it and the request, it is one that does not answer: a call goes on over a new one, and
    a watch can be begun anew."""
    with TRANSPORTS["grpc"](conf_of(shared)) as client:
        (caller,) = client.callers
        assert isinstance(caller, GrpcEndpoint)
        before = caller.client(1.0)
        caller.close()
        with monkeypatch.context() as patch:
            looks = iter([before, before])
            patch.setattr(caller, "client", lambda timeout_s: next(looks, None) or GrpcEndpoint.client(caller, 1.0))
            with pytest.raises(Unreachable, match="Cannot invoke RPC"):
                caller.watch(iter([]), 1.0)
            assert client.get(f"{prefix}/a") is None
        assert next(looks, None) is None, "both met the closed connection"
