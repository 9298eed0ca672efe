"""TCP through the userland proxy: every byte, every end, every reset."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from netns_fixtures import Host, wait_until
from pycni.portmap.proxy.proxy_protocol import header
from tests.kernel.proxy_lab import (
    CONTAINER4,
    CONTAINER6,
    DEADLINE_S,
    HOST4,
    HOST6,
    ProxyLab,
    answer_digest,
    digest_of,
    echo,
    proxy_lab,
    receive,
    send_until_it_blocks,
)

pytestmark = pytest.mark.needs("root")

SEGMENTS_IN, ROUND_TRIP_US = 140, 68  # places in struct tcp_info


@pytest.fixture
def lab(host: Host) -> Iterator[ProxyLab]:
    with proxy_lab(host) as made:
        yield made


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_large_streams_arrive_unchanged_both_ways(lab: ProxyLab) -> None:
    """50 MB to the container and 50 MB back at the same time, IPv6 to IPv4, counted to the byte."""
    data = os.urandom(1 << 20) * 50

    def talk(connection: socket.socket) -> None:
        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        digests.append(digest_of(connection))
        sending.join()

    digests: list[bytes] = []
    port = lab.publish(lab.serve(talk))
    client = lab.dial(port)
    talk(client)
    expected = hashlib.sha256(data).digest()
    wait_until(lambda: len(digests) == 2, DEADLINE_S)
    assert digests == [expected, expected]
    wait_until(lambda: lab.total("open") == 0, DEADLINE_S)
    total = lab.control.stats()["total"]
    assert (total["bytes_in"], total["bytes_out"], total["resets"]) == (len(data), len(data), 0)


# -- the beginning -----------------------------------------------------------------------------------------------------


def tcp_info(connection: socket.socket, at: int) -> int:
    """The number at that place of struct tcp_info, linux/tcp.h."""
    data = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("I", data, at)[0])


def test_request_comes_with_the_end_of_the_handshake(lab: ProxyLab) -> None:
    """One segment less than of a client that connects and then speaks."""
    heard: list[int] = []

    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        heard.append(tcp_info(connection, SEGMENTS_IN))

    to = lab.serve(serve)
    with lab.host.in_namespace(lambda: socket.create_connection(to, timeout=DEADLINE_S)) as direct:
        direct.sendall(b"1")
        wait_until(lambda: len(heard) == 1, DEADLINE_S)
    port = lab.publish(to)
    lab.process.send_signal(signal.SIGSTOP)  # so that the request is there when it connects
    with lab.dial(port) as client:
        client.sendall(b"1")
        lab.process.send_signal(signal.SIGCONT)
        wait_until(lambda: len(heard) == 2, DEADLINE_S)
    assert heard[1] == heard[0] - 1


def test_server_that_speaks_first_is_not_kept_waiting(lab: ProxyLab) -> None:
    """A handshake that is held back takes TCP_DELACK_MAX, 0.2 s, by the server's clock: here at least one does not."""
    took: list[int] = []

    def serve(connection: socket.socket) -> None:
        took.append(tcp_info(connection, ROUND_TRIP_US))
        connection.sendall(b"220")

    port = lab.publish(lab.serve(serve))
    for _ in range(5):
        with lab.dial(port) as client:
            assert receive(client, 3) == b"220"
    assert min(took) < 150_000


def test_many_streams_at_once_do_not_mix(lab: ProxyLab) -> None:
    """20 of 2 MB and 100 of 10 KB, each half-closed by the client and answered with the digest of its own bytes."""
    port = lab.publish(lab.serve(answer_digest))
    before = lab.descriptors()

    def one(size: int) -> bool:
        data = os.urandom(size)
        with lab.dial(port) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return receive(client, 64) == hashlib.sha256(data).digest()

    with ThreadPoolExecutor(20) as threads:
        assert all(threads.map(one, [2_000_000] * 20 + [10_000] * 100))
    wait_until(lambda: lab.total("open") == 0, DEADLINE_S)
    kept = lab.descriptors()  # pipes, for the next
    assert kept - before <= 2 * 20
    assert all(one(2_000_000) for _ in range(25))
    assert lab.total("connections") == 145
    wait_until(lambda: lab.descriptors() <= kept, DEADLINE_S)


def test_container_may_end_first(lab: ProxyLab) -> None:
    """The container says all and its end; the client may go on, and is heard."""
    heard: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"welcome")
        connection.shutdown(socket.SHUT_WR)
        heard.append(digest_of(connection))

    client = lab.dial(lab.publish(lab.serve(serve)))
    assert receive(client, 100) == b"welcome"
    client.sendall(b"later")
    client.close()
    wait_until(lambda: heard == [hashlib.sha256(b"later").digest()], DEADLINE_S)


def test_slow_reader_holds_up_the_sender_and_nobody_else(lab: ProxyLab) -> None:
    """What the container does not read stays with the client, not in the proxy's memory; others go on meanwhile."""
    go = threading.Event()

    def slow(connection: socket.socket) -> None:
        go.wait(DEADLINE_S)
        answer_digest(connection)

    slow_client = lab.dial(lab.publish(lab.serve(slow)))
    quick = lab.dial(lab.publish(lab.serve(echo)))
    data = os.urandom(1 << 16) * 1024
    sent = send_until_it_blocks(slow_client, data)
    assert sent < len(data)
    before = lab.cpu_s()
    for _ in range(20):
        quick.sendall(b"ping")
        assert receive(quick, 4) == b"ping"
    assert lab.cpu_s() - before < 0.1
    assert resident_kib(lab) < 40_000
    go.set()
    slow_client.shutdown(socket.SHUT_WR)
    assert receive(slow_client, 64) == hashlib.sha256(data[:sent]).digest()


def resident_kib(lab: ProxyLab) -> int:
    with open(f"/proc/{lab.process.pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))


def test_what_follows_an_urgent_byte_is_not_forgotten(lab: ProxyLab) -> None:
    """A read ends at the urgent mark though more is there: no new edge will say so."""
    client = lab.dial(lab.publish(lab.serve(echo)))
    client.sendall(b"hello")
    assert receive(client, 5) == b"hello"
    lab.process.send_signal(signal.SIGSTOP)  # so that it finds all of it at once
    client.sendall(b"before ")
    client.send(b"!", socket.MSG_OOB)
    client.sendall(b"after")
    lab.process.send_signal(signal.SIGCONT)
    assert receive(client, 12) == b"before after"


# -- families ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "asked", "container"),
    [(6, HOST6, CONTAINER4), (6, "::1", CONTAINER6), (4, HOST4, CONTAINER6), (4, "127.0.0.1", CONTAINER4)],
)
def test_any_family_reaches_any_family(lab: ProxyLab, family: int, asked: str, container: str) -> None:
    """What address translation cannot do, and what it could."""
    port = lab.publish(lab.serve(echo, container), family=family)
    client = lab.dial(port, asked)
    client.sendall(b"x" * 1000)
    assert receive(client, 1000) == b"x" * 1000


@pytest.mark.parametrize(("family", "asked"), [(6, HOST6), (4, HOST4)])
def test_proxy_protocol_says_who_the_client_is(lab: ProxyLab, family: int, asked: str) -> None:
    """The header is there before the client has said anything, and the client's bytes follow."""
    got: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        got.append(receive(connection, 16 + (36 if family == 6 else 12)))
        connection.sendall(b"hello")
        echo(connection)

    port = lab.publish(lab.serve(serve), family=family, proxy_protocol=True)
    client = lab.dial(port, asked)
    assert receive(client, 5) == b"hello"
    client.sendall(b"bye")
    assert receive(client, 3) == b"bye"
    assert got == [header(client.getsockname()[:2], (asked, port))]
