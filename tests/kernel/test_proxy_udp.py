"""UDP through the userland proxy: a flow for each client, answers from where it asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from netns_fixtures import Host, wait_until
from tests.kernel.proxy_lab import (
    CONTAINER4,
    CONTAINER6,
    DEADLINE_S,
    HOST4,
    HOST6,
    MORE4,
    MORE6,
    ProxyLab,
    proxy_lab,
)

pytestmark = pytest.mark.needs("root")
LARGEST = 65507  # over IPv4


@pytest.fixture
def lab(host: Host) -> Iterator[ProxyLab]:
    with proxy_lab(host) as made:
        yield made


def ask(client: socket.socket, server: tuple[str, int], data: bytes) -> tuple[bytes, str]:
    """The answer and the address it came from."""
    client.sendto(data, server)
    answer, sender = client.recvfrom(LARGEST + 100)
    return answer, sender[0]


@pytest.mark.parametrize(
    ("family", "own", "addresses", "container"),
    [
        (6, "::", (HOST6, MORE6, "::1"), CONTAINER4),
        (4, "0.0.0.0", (HOST4, MORE4, "127.0.0.1", "127.0.0.53"), CONTAINER4),
        (4, "0.0.0.0", (HOST4, MORE4), CONTAINER6),
    ],
)
def test_answer_comes_from_the_address_that_was_asked(
    lab: ProxyLab, family: int, own: str, addresses: tuple[str, ...], container: str
) -> None:
    """One client socket asks several addresses of the host; the kernel alone would answer from one of them."""
    port = lab.publish(lab.serve_datagrams(address=container), proto="udp", family=family)
    client = lab.datagram_socket(lab.host, (own, 0))
    for number, address in enumerate(addresses * 2):
        data = f"question {number}".encode()
        assert ask(client, (address, port), data) == (data, address)
    assert lab.total("flows") == len(addresses)


def test_answer_to_a_client_elsewhere_comes_from_the_address_that_it_asked(lab: ProxyLab) -> None:
    """A second address of the host, asked from another namespace, over both families."""
    for family, own, asked in ((4, "0.0.0.0", MORE4), (6, "::", MORE6)):
        port = lab.publish(lab.serve_datagrams(), proto="udp", family=family)
        client = lab.datagram_socket(lab.c1, (own, 0))
        assert ask(client, (asked, port), b"q") == (b"q", asked)


def test_link_local_client_gets_its_answer(lab: ProxyLab) -> None:
    """fe80:: means something on one interface only, which must be named on the way back."""
    wait_until(lambda: all(link_local(where) for where in (lab.host, lab.c1)), DEADLINE_S)
    port = lab.publish(lab.serve_datagrams(), proto="udp")
    client = lab.datagram_socket(lab.c1)
    address = link_local(lab.host)[0]
    index = lab.c1.ip_json("link", "show", "eth0")[0]["ifindex"]
    client.sendto(b"q", (address, port, 0, index))
    answer, sender = client.recvfrom(100)
    assert (answer, sender[0].partition("%")[0]) == (b"q", address)


def link_local(where: object) -> list[str]:
    shown = where.ip_json("addr", "show", "scope", "link", "-tentative")  # type: ignore[attr-defined]
    return [
        entry["local"] for link in shown for entry in link["addr_info"] if entry.get("local", "").startswith("fe80")
    ]


@pytest.mark.parametrize("size", [0, 1, 1472, 2049, 9000, LARGEST])
def test_datagrams_of_any_size_arrive_whole(lab: ProxyLab, size: int) -> None:
    """Nothing is cut, an empty one is one too."""
    port = lab.publish(lab.serve_datagrams(), proto="udp", family=4)
    data = os.urandom(size)
    assert ask(lab.datagram_socket(lab.host, ("0.0.0.0", 0)), (HOST4, port), data)[0] == data


def test_batches_of_many_clients_do_not_mix(lab: ProxyLab) -> None:
    """20 clients, datagrams of different sizes from all of them in one queue: each gets its own back, in order."""
    port = lab.publish(lab.serve_datagrams(), proto="udp")
    clients = [lab.datagram_socket(lab.host) for _ in range(20)]
    wanted = [[f"{number} {turn} ".encode() * (turn + 1) for turn in range(12)] for number in range(len(clients))]
    for turn in range(12):
        for client, data in zip(clients, wanted, strict=True):
            client.sendto(data[turn], ("::1", port))
            if turn % 3 == 0:
                client.sendto(data[turn], ("::1", port))  # two of one client behind each other
    for client, data in zip(clients, wanted, strict=True):
        expected = [part for turn, part in enumerate(data) for _ in range(2 if turn % 3 == 0 else 1)]
        assert [client.recv(1000) for _ in expected] == expected
    total = lab.control.stats()["total"]
    assert (total["packets_in"], total["packets_out"], total["dropped"]) == (320, 320, 0)
    assert total["bytes_in"] == total["bytes_out"]


@contextlib.contextmanager
def paused(lab: ProxyLab) -> Iterator[None]:
    """What is sent meanwhile is one batch for the proxy."""
    lab.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: os.waitid(os.P_PID, lab.process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT), DEADLINE_S)
        yield
    finally:
        lab.process.send_signal(signal.SIGCONT)


def count(lab: ProxyLab, match: str) -> None:
    lab.host.run(
        [
            "nft",
            f"add table inet count; add chain inet count out {{ type filter hook output priority 0; }}; "
            f"add rule inet count out {match} counter",
        ]
    )


def counted(lab: ProxyLab) -> int:
    """Packets that the rule has seen."""
    listed = json.loads(lab.host.run(["nft", "-j", "list", "chain", "inet", "count", "out"]).stdout)["nftables"]
    packets: int = next(one["rule"]["expr"][-1]["counter"]["packets"] for one in listed if "rule" in one)
    return packets


@pytest.mark.needs("tool:nft")
@pytest.mark.parametrize("container", [CONTAINER4, CONTAINER6])
@pytest.mark.parametrize(("size", "packets"), [(100, 1), (1472 - 20, 1), (2000, 41)])
def test_datagrams_of_one_size_travel_as_one_packet(lab: ProxyLab, container: str, size: int, packets: int) -> None:
    """40 and a shorter one: each arrives as it was sent, in order. What the path does not take whole goes one by one,
    in fragments."""
    where = lab.serve_datagrams(address=container)
    port = lab.publish(where, proto="udp")
    client = lab.datagram_socket(lab.host)
    assert ask(client, ("::1", port), b"first")[0] == b"first"
    count(lab, f"udp dport {where[1]}")
    sent = [number.to_bytes(2, "big") * (size // 2) for number in range(40)] + [b"last"]
    with paused(lab):
        for data in sent:
            client.sendto(data, ("::1", port))
    assert [client.recv(LARGEST) for _ in sent] == sent
    assert counted(lab) == packets
    assert lab.total("dropped") == 0


@pytest.mark.needs("tool:nft")
@pytest.mark.parametrize(("family", "own", "asked"), [(4, "0.0.0.0", HOST4), (6, "::", HOST6)])
def test_answers_of_one_size_travel_as_one_packet(lab: ProxyLab, family: int, own: str, asked: str) -> None:
    """One question, 40 answers and a shorter one, to a client elsewhere: all from the address that it asked."""
    server = lab.datagram_socket(lab.c1, (CONTAINER4, 0))
    port = lab.publish(server.getsockname(), proto="udp", family=family)
    client = lab.datagram_socket(lab.c1, (own, 0))
    count(lab, f"udp sport {port}")
    client.sendto(b"question", (asked, port))
    data, flow = server.recvfrom(100)
    assert data == b"question"
    answers = [number.to_bytes(2, "big") * 300 for number in range(40)] + [b"last"]
    with paused(lab):
        for answer in answers:
            server.sendto(answer, flow)
    received = [client.recvfrom(1000) for _ in answers]
    assert [data for data, _ in received] == answers
    assert {sender[:2] for _, sender in received} == {(asked, port)}
    assert counted(lab) == 1


def test_container_that_does_not_listen_yet_is_not_held_against_the_client(lab: ProxyLab) -> None:
    """Refused datagrams are lost; as soon as the container listens, the same client is served by the same flow."""
    lab.control.set(flow_s=60)
    port = lab.publish((CONTAINER4, 7001), proto="udp")
    client = lab.datagram_socket(lab.host)
    for _ in range(5):
        client.sendto(b"anybody?", ("::1", port))
    wait_until(lambda: lab.total("refused") > 0, DEADLINE_S)
    lab.serve_datagrams(port=7001)
    assert ask(client, ("::1", port), b"now")[0] in (b"now", b"anybody?")
    assert lab.total("clients") == 1


def test_silent_flows_end_and_used_ones_stay(lab: ProxyLab) -> None:
    """flow_s, either way counts; the descriptors are back, and a client that comes again is served again."""
    lab.control.set(flow_s=0.3)
    before = lab.descriptors()
    port = lab.publish(lab.serve_datagrams(), proto="udp")
    silent, used = lab.datagram_socket(lab.host), lab.datagram_socket(lab.host)
    ask(silent, ("::1", port), b"once")

    def used_until_alone() -> bool:
        ask(used, ("::1", port), b"again")
        return lab.total("flows") == 1

    wait_until(used_until_alone, DEADLINE_S)
    assert lab.total("clients") == 2  # the used one is still its first
    wait_until(lambda: lab.total("flows") == 0, DEADLINE_S)
    assert lab.descriptors() == before + 1  # the port's
    assert ask(silent, ("::1", port), b"back")[0] == b"back"


def test_one_client_too_many_takes_the_place_of_the_most_silent(lab: ProxyLab) -> None:
    """owner_flows: the table is full, not closed; who spoke last stays."""
    lab.control.set(owner_flows=4)
    port = lab.publish(lab.serve_datagrams(), proto="udp")
    clients = [lab.datagram_socket(lab.host) for _ in range(8)]
    for client in clients[:4]:
        ask(client, ("::1", port), b"q")
    ask(clients[0], ("::1", port), b"q")
    for client in clients[4:7]:
        assert ask(client, ("::1", port), b"q")[0] == b"q"
    ask(clients[0], ("::1", port), b"q")
    total = lab.control.stats()["total"]
    assert (total["flows"], total["evicted"], total["clients"]) == (4, 3, 7)


def test_new_target_is_for_new_clients(lab: ProxyLab) -> None:
    """Adding a port again does not need its socket, and does not disturb who is being served."""
    port = lab.publish(lab.serve_datagrams(lambda data: b"old " + data), proto="udp")
    first, second = lab.datagram_socket(lab.host), lab.datagram_socket(lab.host)
    assert ask(first, ("::1", port), b"q")[0] == b"old q"
    new = lab.serve_datagrams(lambda data: b"new " + data)
    lab.control.add("net/c1/eth0", family=6, proto="udp", host_ip="", port=port, to=new)
    assert ask(second, ("::1", port), b"q")[0] == b"new q"
    assert ask(first, ("::1", port), b"q")[0] == b"old q"
