"""Ends of connections through the userland proxy: refused, reset, half-closed, too long silent."""

from __future__ import annotations

import signal
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from netns_fixtures import Host, wait_until
from tests.kernel.proxy_lab import (
    CONTAINER4,
    DEADLINE_S,
    ProxyLab,
    digest_of,
    echo,
    proxy_lab,
    receive,
    send_until_it_blocks,
)

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def lab(host: Host) -> Iterator[ProxyLab]:
    with proxy_lab(host) as made:
        yield made


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# -- ends --------------------------------------------------------------------------------------------------------------


def test_refused_by_the_container_is_a_reset_for_the_client(lab: ProxyLab) -> None:
    """Not an orderly end, which would mean that there was nothing to say."""
    port = lab.publish((CONTAINER4, 9))
    with pytest.raises(ConnectionResetError):
        lab.dial(port).recv(1)  # the reset may come before the client has seen that it is connected
    total = lab.control.stats()["total"]
    assert (total["refused"], total["resets"], total["open"]) == (1, 1, 0)


@pytest.mark.parametrize("size", [0, 100, 1_000_000])
def test_clients_reset_reaches_the_container(lab: ProxyLab, size: int) -> None:
    """Before, while and after data is copied or spliced."""
    seen: list[type[BaseException] | None] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        try:
            digest_of(connection)
            seen.append(None)
        except OSError as failure:
            seen.append(type(failure))

    client = lab.dial(lab.publish(lab.serve(serve)))
    assert receive(client, 5) == b"hello"
    client.sendall(b"x" * size)
    reset(client)
    wait_until(lambda: seen, DEADLINE_S)
    assert seen == [ConnectionResetError]


@pytest.mark.parametrize("proxy_protocol", [False, True])
def test_client_that_has_gone_before_it_was_accepted_disturbs_nobody(lab: ProxyLab, proxy_protocol: bool) -> None:
    """accept(2) hands out a connection that was reset in the queue. The container, whose handshake waits for a request,
    hears nothing of it, or a reset where the proxy was held up; others are served."""
    ends: list[bytes | None] = []

    def serve(connection: socket.socket) -> None:
        try:
            ends.append(connection.recv(100))
        except ConnectionResetError:
            ends.append(None)
        connection.sendall(b"served")

    port = lab.publish(lab.serve(serve), proxy_protocol=proxy_protocol)
    lab.process.send_signal(signal.SIGSTOP)
    reset(lab.dial(port))
    lab.process.send_signal(signal.SIGCONT)
    wait_until(lambda: lab.total("resets") == 1 and lab.total("open") == 0, DEADLINE_S)
    other = lab.dial(port)
    other.sendall(b"hello")
    assert receive(other, 6) == b"served"
    assert len([said for said in ends if said]) == 1
    assert b"" not in ends


def test_reset_after_the_clients_last_word_reaches_the_container(lab: ProxyLab) -> None:
    """Nothing is read from that side any more, and nothing is said to it: only epoll knows."""
    done = threading.Event()

    def serve(connection: socket.socket) -> None:
        assert connection.recv(10) == b""
        connection.sendall(b"what?")
        wait_for_error(connection)
        done.set()

    client = lab.dial(lab.publish(lab.serve(serve)))
    client.shutdown(socket.SHUT_WR)
    assert receive(client, 5) == b"what?"
    reset(client)
    assert done.wait(DEADLINE_S)


def test_reset_by_a_client_whose_data_nobody_reads_reaches_the_container(lab: ProxyLab) -> None:
    """The container's queue is full, so the client is not read from; its reset must be noticed all the same."""
    done = threading.Event()

    def serve(connection: socket.socket) -> None:
        wait_for_error(connection)
        done.set()

    client = lab.dial(lab.publish(lab.serve(serve)))
    send_until_it_blocks(client, bytes(1 << 26))
    reset(client)
    assert done.wait(DEADLINE_S)
    assert lab.total("open") == 0


def wait_for_error(connection: socket.socket) -> None:
    """Until the kernel has been told that the other side has reset the connection; nothing is read or written."""
    wait_until(lambda: connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), DEADLINE_S)


@pytest.mark.parametrize("half_closed", [False, True])
def test_containers_reset_reaches_the_client(lab: ProxyLab, half_closed: bool) -> None:
    """Also after the client has said its last."""

    def serve(connection: socket.socket) -> None:
        receive(connection, 5)
        if half_closed:
            connection.recv(1)
        reset(connection)

    client = lab.dial(lab.publish(lab.serve(serve)))
    client.sendall(b"hello")
    if half_closed:
        client.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    wait_until(lambda: lab.total("open") == 0, DEADLINE_S)


def test_answer_before_a_reset_is_passed_on(lab: ProxyLab) -> None:
    """A server that answers and closes without having read everything: its kernel resets behind the answer."""

    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"too long")

    client = lab.dial(lab.publish(lab.serve(serve)))
    client.sendall(b"x" * 5000)
    assert receive(client, 8) == b"too long"


# -- time --------------------------------------------------------------------------------------------------------------


def test_container_that_does_not_answer_is_given_up(lab: ProxyLab) -> None:
    """connect_s: the client is reset then, and has not been read from."""
    lab.control.set(connect_s=0.2)
    lab.host.ip("neigh", "add", "10.9.0.99", "lladdr", "02:00:00:00:00:99", "dev", "v1")
    client = lab.dial(lab.publish(("10.9.0.99", 80)))
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert lab.total("timeouts") == 1


def test_silent_connections_end_when_told(lab: ProxyLab) -> None:
    """half_open_s is for those that one side has ended, idle_s for all; without either they stay."""

    def end_and_listen(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)
        echo(connection)

    whole = lab.dial(lab.publish(lab.serve(echo)))
    half = lab.dial(lab.publish(lab.serve(end_and_listen)))
    assert half.recv(1) == b""
    lab.control.set(half_open_s=0.2)
    wait_for_error(half)
    whole.sendall(b"still here")
    assert receive(whole, 10) == b"still here"
    lab.control.set(idle_s=0.2)
    wait_for_error(whole)
    assert lab.total("timeouts") == 2
