"""IPAM while etcd is away, slow, or answers nothing: nothing is given twice, nothing is forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from netns_fixtures import Etcd
from pycni.cni.errors import CniError, Code
from pycni.etcd.client import Client
from pycni.etcd.failure import Unreachable
from pycni.etcd.gateway import Gateway
from pycni.etcd.requests import Answer, Request
from tests.etcd.ipam_calls import HostCalls

LIVE = "/proc/self/ns/net"


def test_etcd_is_down(cluster: Callable[..., Etcd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ADD and CHECK are code 11 within 2 s, STATUS 50; DEL succeeds, remembers, and the next call finishes it."""
    etcd = cluster()
    host = HostCalls(etcd, tmp_path, "/pycni/test")
    (first,), _ = host.add("c1", netns=LIVE), host.add("c2", netns=LIVE)
    etcd.kill()
    before = time.monotonic()
    with pytest.raises(CniError, match=f"{etcd.endpoints[0]}: connection refused") as failure:
        host.add("c3")
    assert failure.value.code == Code.TRY_AGAIN
    assert time.monotonic() - before < 3.0
    with monkeypatch.context() as patch:
        patch.setattr(Client, "patience_s", 0.3)
        with pytest.raises(CniError) as failure:
            host.check("c2")
        assert failure.value.code == Code.TRY_AGAIN
        with pytest.raises(CniError) as failure:
            host.status()
        assert failure.value.code == Code.NOT_AVAILABLE
        host.delete("c1")
        host.delete("never-added")
    assert list(host.leased().values()) == ["c2"]
    assert host.pending() == 1
    etcd.start()
    assert len(host.in_etcd()) == 4
    assert host.add("c1") == [first], "the very container returns before anything was finished"
    assert host.pending() == 0
    host.delete("c1")
    host.delete("c2")
    assert host.in_etcd() == []


def test_answer_that_was_lost(shared: Etcd, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A taking that was carried out, but whose answer did not come: sent again, it finds itself. Where no answer comes
    at all, ADD is code 11 and what it may have taken is given back later."""
    host = HostCalls(shared, tmp_path, prefix)
    send, lose, sent = Gateway.call, [1], [0]

    def losing(self: Gateway, method: str, body: Request, timeout_s: float) -> Answer:
        answer = send(self, method, body, timeout_s)
        sent[0] += method == "txn"
        if method == "txn" and lose[0]:
            lose[0] -= 1
            raise Unreachable("the answer was lost")
        return answer

    monkeypatch.setattr(Gateway, "call", losing)
    host.add("c1")
    assert sent[0] == 2
    assert len(host.in_etcd()) == 2
    lose[0] = 1 << 30
    with pytest.raises(CniError, match="etcd does not answer") as failure:
        host.add("c2")
    assert failure.value.code == Code.TRY_AGAIN
    lose[0] = 0
    assert host.pending() == 1
    assert len(host.in_etcd()) == 4
    host.delete("c1")
    assert host.in_etcd() == []
    assert host.pending() == 0


def test_taking_that_arrives_late(shared: Etcd, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that reaches etcd only after its ADD was given up is given back all the same; after a DEL and a new ADD of
    the container it does nothing."""
    host = HostCalls(shared, tmp_path, prefix)
    send, held = Gateway.call, []

    def holding(self: Gateway, method: str, body: Request, timeout_s: float) -> Answer:
        if method == "txn":
            held.append(body)
            raise Unreachable("it is on its way")
        return send(self, method, body, timeout_s)

    with monkeypatch.context() as patch:
        patch.setattr(Gateway, "call", holding)
        patch.setattr("pycni.etcd.client.TRY_S", 0.05)
        with pytest.raises(CniError, match="on its way"):
            host.add("c1")
    host.add("c2")
    assert host.pending() == 1, "it may arrive yet"
    with host.client() as client:
        client.txn(held[0])
    assert any("c1" in each for each in host.in_etcd())
    host.delete("c2")
    assert host.in_etcd() == []
    host.add("c1")
    with host.client() as client:
        assert not client.txn(held[0]).succeeded
    assert len(host.in_etcd()) == 2


def test_members_stop_under_load(trio: Etcd, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members are stopped and woken one after the other while two hosts attach and detach: no address is given twice,
    and at the end etcd holds exactly what the hosts have."""
    monkeypatch.setattr("pycni.ipam.etcd_pending.LATE_S", 0.0)
    etcd = trio
    hosts = [HostCalls(etcd, tmp_path / name, prefix) for name in ("h1", "h2")]
    end = time.monotonic() + 4.0
    failures: list[CniError] = []
    problems: list[str] = []
    living: dict[str, str] = {}
    guard = threading.Lock()

    def churn(host: HostCalls) -> None:
        at = 0
        while time.monotonic() < end:
            at += 1
            name = f"{host.directory.name}c{at}"
            try:
                (ip,) = host.add(name, netns=LIVE)
            except CniError as failure:
                failures.append(failure)
                continue
            with guard:
                if ip in living:
                    problems.append(f"{ip} to {name} and {living[ip]}")
                living[ip] = name
            if at % 2:
                with guard:
                    del living[ip]
                host.delete(name)

    threads = [threading.Thread(target=churn, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    turn = 0
    while time.monotonic() < end:
        member = etcd.members[turn % 3]
        member.pause()
        time.sleep(0.9)
        member.resume()
        turn += 1
    for thread in threads:
        thread.join()
    assert problems == []
    assert {failure.code for failure in failures} <= {Code.TRY_AGAIN}
    assert len(living) > 3
    etcd.start()  # none ended: this waits until all of them have a leader again
    for host in hosts:
        host.add("last")
        host.gc([*((name, "eth0") for name in living.values()), ("last", "eth0")])
        assert host.pending() == 0
    assert sorted(ip for host in hosts for ip in host.leased()) == sorted(
        each.split()[2] for each in hosts[0].in_etcd() if each.startswith("ep ")
    )
    assert len(hosts[0].in_etcd()) == 2 * (len(living) + 2)
