"""The tests of this folder reach etcd from within one namespace, the same for the whole session.

gRPC makes its connections on threads of its own, which stay in the namespace in which they were born; so the thread of
the tests goes there for their duration, and every etcd listens on its loopback.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netns_fixtures import Etcd, Namespace, needs
from pycni.etcd import hints
from tests.etcd.cluster_hosts import Hosts, make_hosts
from tests.etcd.place import conf_of, gateway_client

CLONE_NEWNET = 0x40000000
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="session")
def place() -> Iterator[Namespace]:
    needs("root", "tool:etcd", "python:etcd3")
    made = Namespace("etcd", lo_up=True)
    yield made
    made.delete()


@pytest.fixture(autouse=True)
def inside(place: Namespace) -> Iterator[None]:
    """The test's own thread is in the namespace, and back afterwards."""
    assert threading.current_thread() is threading.main_thread()
    with open("/proc/thread-self/ns/net") as before, open(place.path) as there:
        _enter(there.fileno())
        yield
        _enter(before.fileno())


def _enter(fd: int) -> None:
    assert _libc.setns(fd, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


@pytest.fixture(autouse=True)
def own_hints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "DIRECTORY", str(tmp_path / "run"))


@pytest.fixture(scope="module")
def shared(place: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One member for all tests of a file that break nothing; each keeps below a `prefix` of its own."""
    made = Etcd([(place, "127.0.0.2")], tmp_path_factory.mktemp("shared"))
    made.start()
    yield made
    made.delete()


@pytest.fixture(scope="module")
def _trio(place: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    made = Etcd([(place, "127.0.0.3")] * 3, tmp_path_factory.mktemp("trio"))
    yield made
    made.delete()


@pytest.fixture
def trio(_trio: Etcd) -> Etcd:
    """Three members, healthy again whatever the tests before did to them; each test keeps below its `prefix`."""
    for member in _trio.members:
        if member.running():
            member.resume()
    _trio.start()
    _trio.members.sort(key=lambda member: member.name)
    return _trio


@pytest.fixture
def prefix() -> str:
    return f"/pycni/test{next(_numbers)}"


@pytest.fixture
def hosts(shared: Etcd, prefix: str) -> Iterator[Hosts]:
    """`hosts(3)`: hosts of an overlay network as etcd sees them."""
    with gateway_client(conf_of(shared)) as client:
        yield functools.partial(make_hosts, client, prefix)


@pytest.fixture
def cluster(place: Namespace, make_etcd: Callable[..., Etcd]) -> Callable[..., Etcd]:
    """`cluster(3, tls=True)`: a started etcd that the test reaches on 127.0.0.1."""

    def make(members: int = 1, *, tls: bool = False) -> Etcd:
        return make_etcd(places=[(place, "127.0.0.1")] * members, tls=tls)

    return make
