"""The agent's table of ports, without an agent around it: who has what, and what a failed reservation leaves."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from netns_fixtures import Host
from pycni.agent.journal import Journal
from pycni.agent.ports import DESCRIPTORS_STEP, AgentPorts
from pycni.cni.errors import CniError, Code
from pycni.cni.names import Attachment
from pycni.portmap.holding import Binding
from pycni.store import Record, open_store

pytestmark = pytest.mark.needs("root")

FIRST, SECOND = "net/c1/eth0/portmap", "net/c2/eth0/portmap"
STORE = "/run/pycni.db"  # of the host


class Ports:
    """The table, used from threads on the host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.allowed: list[int] = []
        self.table = AgentPorts(Journal("error"), self.allowed.append)

    def reserve(self, owner: str, *bindings: Binding) -> None:
        self.host.in_namespace(lambda: self.table.reserve(owner, bindings))

    def refused(self, owner: str, *bindings: Binding) -> CniError:
        with pytest.raises(CniError) as caught:
            self.reserve(owner, *bindings)
        return caught.value

    def release(self, owner: str) -> None:
        self.host.in_namespace(lambda: self.table.release(owner))

    def release_all(self) -> None:
        for owner in self.table.now():
            self.release(owner)

    def bound(self) -> set[str]:
        """What the kernel has, as "0.0.0.0:8080"."""
        lines = self.host.run(["ss", "-Htuln"]).stdout.splitlines()
        return {line.split()[4] for line in lines}


@pytest.fixture
def ports(host: Host, closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Ports:
    """A table that looks for records in a store of the host's own."""
    monkeypatch.setattr("pycni.agent.ports.open_store", lambda: open_store(STORE))
    host.ip("link", "set", "lo", "up")
    made = Ports(host)
    closing.callback(made.release_all)
    return made


def tcp(port: int = 8080, host_ip: str = "", count: int = 1) -> Binding:
    return Binding(4, "tcp", host_ip, port, "10.1.0.2", 80, count=count)


def record(host: Host, owner: str) -> None:
    """Write a record as that of an attachment which is there."""
    attachment = Attachment.parse(owner)
    assert attachment is not None

    def write() -> None:
        with open_store(STORE) as store:
            store.attachments.begin(Record(attachment, "portmap"))

    host.in_namespace(write)


def test_a_reservation_may_be_repeated_and_changed(ports: Ports) -> None:
    """The same again changes nothing, another one gives back what it does not name; a second release is harmless."""
    ports.reserve(FIRST, tcp(8080), tcp(9000, count=3))
    assert ports.bound() == {"0.0.0.0:8080", "0.0.0.0:9000", "0.0.0.0:9001", "0.0.0.0:9002"}
    before = ports.table.now()
    ports.reserve(FIRST, tcp(8080), tcp(9000, count=3))
    assert ports.table.now() == before
    ports.reserve(FIRST, tcp(8081))
    assert ports.bound() == {"0.0.0.0:8081"}
    ports.release(FIRST)
    ports.release(FIRST)
    assert ports.bound() == set()


def test_all_of_a_reservation_or_nothing(ports: Ports, closing: ExitStack) -> None:
    """The ports before the one that is taken are given back; what the owner had before stays."""
    taken = ports.host.in_namespace(lambda: socket.create_server(("127.0.0.1", 9002)))
    closing.callback(taken.close)
    assert ports.refused(FIRST, tcp(8080), tcp(9000, count=5)).code == Code.PORT_TAKEN
    assert ports.bound() == {"127.0.0.1:9002"}
    ports.reserve(FIRST, tcp(8080))
    ports.refused(FIRST, tcp(8080), tcp(9002))
    assert ports.bound() == {"127.0.0.1:9002", "0.0.0.0:8080"}
    assert ports.table.counts() == {"held": 1, "proxied": 0}


@pytest.mark.parametrize(("one", "other"), [("", ""), ("", "127.0.0.1"), ("127.0.0.1", ""), ("127.0.0.1", "127.0.0.1")])
def test_a_port_of_ours_names_its_container(ports: Ports, one: str, other: str) -> None:
    """As long as the record stands; without one it is left over, and gives way."""
    ports.reserve(FIRST, tcp(8080, one))
    record(ports.host, FIRST)
    failure = ports.refused(SECOND, tcp(8080, other))
    assert failure.code == Code.PORT_TAKEN
    assert "is taken by container c1 on network net" in failure.msg
    ports.host.run(["rm", STORE, f"{STORE}-journal"])
    ports.reserve(SECOND, tcp(8080, other))
    assert set(ports.table.now()) == {SECOND}


def test_two_addresses_have_room_for_two(ports: Ports) -> None:
    """Each is released by itself."""
    ports.reserve(FIRST, tcp(8080, "127.0.0.1"))
    ports.reserve(SECOND, tcp(8080, "127.0.0.2"))
    ports.release(FIRST)
    assert ports.bound() == {"127.0.0.2:8080"}


def test_long_runs_are_looked_at_and_not_held(ports: Ports, closing: ExitStack) -> None:
    """A foreign process within one is found."""
    ports.reserve(SECOND, tcp(8000, count=1000), tcp(9000))
    assert ports.bound() == {"0.0.0.0:9000"}
    assert not ports.table.has(SECOND, tcp(8000, count=1000))
    assert ports.table.has(SECOND, tcp(9000))
    taken = ports.host.in_namespace(lambda: socket.create_server(("127.0.0.1", 8500)))
    closing.callback(taken.close)
    assert "8500/tcp" in ports.refused(SECOND, tcp(8000, count=1000)).msg


def test_room_is_asked_for_before_it_is_needed(ports: Ports) -> None:
    """In steps, and never less than the sockets there are."""
    for number in range(10):
        ports.reserve(f"net/c{number}/eth0/portmap", tcp(10000 + 100 * number, count=50))
        assert ports.allowed[-1] >= ports.table.counts()["held"] == 50 * (number + 1)
    assert len(ports.allowed) <= 1 + 500 // DESCRIPTORS_STEP


def test_many_threads_want_the_same_port(ports: Ports, boxed: Callable[..., list[str]]) -> None:
    """One gets it, the others are told by whom it is taken."""
    owners = [f"net/c{number}/eth0/portmap" for number in range(8)]
    for owner in owners:
        record(ports.host, owner)
    failures = boxed(lambda owner: ports.reserve(owner, tcp(8080), tcp(9000, count=20)), owners)
    assert len(failures) == len(owners) - 1
    assert all("is taken by container" in failure for failure in failures)
    assert len(ports.bound()) == 21
    assert len(ports.table.now()) == 1


@pytest.fixture
def boxed() -> Callable[..., list[str]]:
    """Does something on as many threads as there are arguments; the refusals."""
    import threading

    def run(work: Callable[[str], None], arguments: list[str]) -> list[str]:
        failures: list[str] = []
        begin = threading.Barrier(len(arguments))

        def one(argument: str) -> None:
            begin.wait()
            try:
                work(argument)
            except CniError as failure:
                failures.append(failure.msg)

        threads = [threading.Thread(target=one, args=(argument,)) for argument in arguments]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return failures

    return run
