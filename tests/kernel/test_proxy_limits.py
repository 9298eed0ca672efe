"""The userland proxy with too little of everything: it waits, it does not burn, and it recovers."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_fixtures import Host, wait_until
from pycni.portmap.proxy import pipes
from pycni.portmap.proxy.client import command
from pycni.portmap.proxy.pipes import LARGE, SMALL
from tests.kernel.proxy_lab import CONTROL, DEADLINE_S, OWNER, ProxyLab, bound, echo, proxy_lab

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def lab(host: Host) -> Iterator[ProxyLab]:
    with proxy_lab(host) as made:
        yield made


def test_without_descriptors_it_waits_and_recovers(host: Host) -> None:
    """EMFILE from accept(2) leaves the socket readable: a loop that asks again at once would burn a processor.

    The limit is lowered under a proxy that counted on more, so it is the kernel that refuses. Nobody is reset: clients
    wait in the kernel's queue, and are served when others end, or when the limit is raised.
    """
    with proxy_lab(host, command(CONTROL, uid=0)) as lab:  # this process' user, so this may lower its limit
        port = lab.publish(lab.serve(echo))
        first = lab.dial(port)
        first.sendall(b"b")
        assert answers(first, DEADLINE_S)
        set_descriptors(lab, lab.descriptors() + 20)
        clients = asking_clients(lab, port, 30)
        assert_waits_without_burning(lab)
        first.sendall(b"b")
        assert answers(first, DEADLINE_S)
        answered = [client for client in clients if answers(client, 0.01)]
        assert len(answered) == 10
        waiting = [client for client in clients if client not in answered]
        for client in answered[:5]:
            client.close()
        served: set[socket.socket] = set()  # over all looks: they are answered one by one

        def five_more() -> bool:
            served.update(client for client in waiting if answers(client, 0.01))
            return len(served) == 5

        wait_until(five_more, DEADLINE_S)
        set_descriptors(lab, 1000)
        wait_until(lambda: lab.total("open") == 26, DEADLINE_S)
        assert lab.total("resets") == 0


def test_within_its_descriptors_it_asks_for_no_more(host: Host) -> None:
    """It knows how many it may have, and lets clients wait before the kernel refuses."""
    few = ["setpriv", "--bounding-set=-sys_resource", "prlimit", "--nofile=100:100"]  # which root could raise otherwise
    with proxy_lab(host, [*few, *command(CONTROL, uid=0)]) as lab:
        port = lab.publish(lab.serve(echo))
        clients = asking_clients(lab, port, 30)
        assert_waits_without_burning(lab)
        answered = [client for client in clients if answers(client, 0.01)]
        assert len(answered) == 14  # of 100, 64 for itself, 6 for pipes, 1 for the port
        answered[0].close()
        wait_until(lambda: lab.total("connections") == 15, DEADLINE_S)
        assert lab.total("resets") == 0


USES_UP = """
others = [os.pipe() for _ in range({whole} - 1)]
for _, end in others:
    fcntl(end, F_SETPIPE_SZ, LARGE)
others.append(os.pipe())  # of the last MiB 64 KiB
pool = Pipes()
print([pipe[2] for pipe in iter(pool.take, None)])
"""
POOR = 64998  # a user that nobody is


def test_where_the_system_allows_no_large_pipe_there_are_small_ones() -> None:
    """pipe-user-pages-soft is of a user: one that has used up nearly all of it gets what is left, and no error."""
    pages = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())
    whole, rest = divmod(pages * resource.getpagesize(), LARGE)
    assert whole >= 2
    assert not rest
    script = Path(pipes.__file__).read_text() + USES_UP.format(whole=whole)  # as text: POOR may not read the file
    python = os.path.realpath(sys.executable)
    done = subprocess.run(
        [python, "-ISc", script], user=POOR, group=POOR, extra_groups=[], stdout=subprocess.PIPE, check=True, text=True
    )
    assert done.stdout == f"{[SMALL] * 7}\n"


def set_descriptors(lab: ProxyLab, most: int) -> None:
    _, hard = resource.prlimit(lab.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(lab.process.pid, resource.RLIMIT_NOFILE, (most, hard))


def asking_clients(lab: ProxyLab, port: int, count: int) -> list[socket.socket]:
    """All of them connect: the kernel's queue takes those that the proxy does not."""
    clients = [lab.dial(port) for _ in range(count)]
    for client in clients:
        client.sendall(b"b")
    return clients


def assert_waits_without_burning(lab: ProxyLab) -> None:
    """While the limit is met again and again, hardly any CPU is used."""
    wait_until(lambda: lab.total("limited") > 0, DEADLINE_S)
    before, since = lab.cpu_s(), time.monotonic()
    wait_until(lambda: time.monotonic() > since + 0.4, DEADLINE_S)
    assert lab.cpu_s() - before < 0.04


def answers(client: socket.socket, within_s: float) -> bool:
    client.settimeout(within_s)
    try:
        return client.recv(1) == b"b"
    except (TimeoutError, ConnectionResetError):
        return False


@pytest.mark.parametrize("limit", ["connections", "owner_connections"])
def test_connection_too_many_waits_for_one_to_end(lab: ProxyLab, limit: str) -> None:
    """It is not refused: it waits in the kernel's queue, and is served as soon as another ends."""
    lab.control.set(**{limit: 3})
    port = lab.publish(lab.serve(echo))
    clients = [lab.dial(port) for _ in range(5)]
    for client in clients:
        client.sendall(b"b")
    assert [answers(client, DEADLINE_S) for client in clients[:3]] == [True] * 3
    assert not answers(clients[3], 0.2)
    other = lab.dial(lab.publish(lab.serve(echo), owner="other"))
    other.sendall(b"b")
    assert answers(other, 0.2) == (limit == "owner_connections")
    clients[0].close()
    other.close()
    assert answers(clients[3], DEADLINE_S)
    lab.control.set(**{limit: 10})
    assert answers(clients[4], DEADLINE_S)
    lab.control.remove("other")


def test_place_that_becomes_free_is_taken_at_once(lab: ProxyLab) -> None:
    """Not only when the port is tried again, every tenth of a second: thirty of them in half the time."""
    lab.control.set(connections=1)
    port = lab.publish(lab.serve(echo))
    clients = asking_clients(lab, port, 30)
    since = time.monotonic()
    for client in clients:
        assert answers(client, DEADLINE_S)
        client.close()
    assert time.monotonic() - since < 2.5


def test_owner_removed_while_its_clients_wait(lab: ProxyLab) -> None:
    """A port that waits for room is closed like any other, and not woken afterwards, though the agent holds it open."""
    lab.control.set(connections=1)
    with lab.host.in_namespace(lambda: bound("tcp", 6, "")) as listener:
        port = listener.getsockname()[1]
        where = {"family": 6, "proto": "tcp", "host_ip": "", "port": port}
        lab.control.add(OWNER, **where, to=lab.serve(echo), listener=listener.fileno())
        clients = asking_clients(lab, port, 3)
        assert answers(clients[0], DEADLINE_S)
        wait_until(lambda: lab.total("limited") > 0, DEADLINE_S)
        before = lab.cpu_s()
        lab.control.remove(OWNER)
        lab.control.set(connections=100)
        with pytest.raises(ConnectionResetError):
            clients[0].recv(1)
        assert not answers(clients[1], 0.2)  # the agent's, who does not accept
        assert (lab.total("open"), lab.total("connections")) == (0, 1)
        assert lab.cpu_s() - before < 0.05
