"""The life of a proxy: who may tell it what, take-over, removal, privileges, the end."""

from __future__ import annotations

import array
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_fixtures import Host, wait_until
from pycni.portmap.proxy.client import NOBODY, ProxyClient, ProxyError, command
from tests.kernel.proxy_lab import CONTAINER4, CONTROL, DEADLINE_S, OWNER, ProxyLab, bound, echo, proxy_lab, receive

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def lab(host: Host) -> Iterator[ProxyLab]:
    with proxy_lab(host) as made:
        yield made


def talks(connection: socket.socket) -> bool:
    connection.sendall(b"ping")
    return receive(connection, 4) == b"ping"


def assert_was_reset(connection: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        connection.recv(1)


# -- take-over ---------------------------------------------------------------------------------------------------------


def test_next_agent_finds_everything_and_connections_go_on(lab: ProxyLab) -> None:
    """The first control client vanishes without a word; the second sees, changes and removes what that one had made."""
    where = lab.serve(echo)
    port = lab.publish(where)
    connection = lab.dial(port)
    assert talks(connection)
    lab.control.close()
    assert talks(connection)
    lab.control = lab.connect()
    assert lab.control.mappings() == [
        {
            "owner": OWNER,
            "family": 6,
            "proto": "tcp",
            "host_ip": "",
            "port": port,
            "to": list(where),
            "proxy_protocol": False,
        }
    ]
    lab.control.add(OWNER, family=6, proto="tcp", host_ip="", port=port, to=(CONTAINER4, 9))
    assert talks(connection)
    with pytest.raises(ConnectionResetError):
        lab.dial(port).recv(1)  # the new target refuses, and perhaps before the client has seen that it is connected
    assert lab.control.remove(OWNER) == 1
    assert_was_reset(connection)


def test_removal_ends_everything_of_one_owner_and_nothing_of_another(lab: ProxyLab) -> None:
    """Listeners are closed, connections reset, flows dropped, descriptors back; totals do not go back."""
    before = lab.descriptors()
    where, datagrams = lab.serve(echo), lab.serve_datagrams()
    mine, udp = lab.publish(where), lab.publish(datagrams, proto="udp")
    other = lab.dial(lab.publish(where, owner="other"))
    connections = [lab.dial(mine) for _ in range(5)]
    assert all(talks(connection) for connection in [*connections, other])
    client = lab.datagram_socket(lab.host)
    client.sendto(b"q", ("::1", udp))
    assert client.recv(10) == b"q"
    assert set(lab.control.stats()["owners"]) == {OWNER, "other"}
    assert lab.control.remove(OWNER) == 2
    for connection in connections:
        assert_was_reset(connection)
    with pytest.raises(ConnectionRefusedError):
        lab.dial(mine)
    assert talks(other)
    stats = lab.control.stats()
    assert set(stats["owners"]) == {"other"}
    assert (stats["total"]["open"], stats["total"]["flows"], stats["total"]["connections"]) == (1, 0, 6)
    assert stats["total"]["packets_in"] == 1
    wait_until(lambda: lab.descriptors() == before + 3, DEADLINE_S)  # the other's port and both ends of its connection
    assert lab.control.remove(OWNER) == 0


def test_port_is_free_after_removal_though_the_agent_held_it_too(lab: ProxyLab) -> None:
    """The agent's descriptor is another of the same socket: the proxy must not go on hearing of it."""
    with lab.host.in_namespace(lambda: bound("tcp", 6, "")) as listener:
        port = listener.getsockname()[1]
        lab.control.add(
            OWNER, family=6, proto="tcp", host_ip="", port=port, to=lab.serve(echo), listener=listener.fileno()
        )
        assert talks(lab.dial(port))
        lab.control.remove(OWNER)
        lab.dial(port)  # into the agent's queue, where it stays
        before, since = lab.cpu_s(), time.monotonic()
        wait_until(lambda: time.monotonic() > since + 0.3, DEADLINE_S)
        assert lab.cpu_s() - before < 0.05
        assert lab.total("connections") == 1


def test_port_of_another_owner_is_not_taken(lab: ProxyLab) -> None:
    """The error names who has it."""
    where = lab.serve(echo)
    port = lab.publish(where)
    with pytest.raises(ProxyError, match=rf"tcp port {port} of any IPv6 address is served for {OWNER}"):
        lab.control.add("other", family=6, proto="tcp", host_ip="", port=port, to=where)


def test_thousand_ports_are_listed_and_stay_small(lab: ProxyLab) -> None:
    """More than fits into one answer; under 30 MB in all."""
    for number in range(1000):
        lab.publish((CONTAINER4, 80), host_ip="::1", owner=f"net/c{number}/eth0")
    found = lab.control.mappings()
    assert len({mapping["port"] for mapping in found}) == 1000
    assert len(lab.control.stats()["owners"]) == 1000
    with open(f"/proc/{lab.process.pid}/smaps_rollup") as file:
        resident = next(int(line.split()[1]) for line in file if line.startswith("Rss:"))
    assert resident < 30_000


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"proto": "sctp"}, "only tcp and udp can be proxied"),
        ({"proto": "udp"}, "one for tcp over IPv6"),
        ({"family": 4}, "one for tcp over IPv6"),
        ({"family": 5}, "not 4 or 6"),
        ({"port": 1}, "bound to port"),
        ({"port": True}, "not a port in 1..65535"),
        ({"host_ip": "localhost"}, "not an IPv6 address"),
        ({"to": ("example.org", 80)}, r"not \[address, port\]"),
        ({"to": (CONTAINER4, 0)}, "not a port in 1..65535"),
        ({"owner": ""}, "owner is '', not a text"),
        ({"listener": -1}, "not served yet: send its socket along"),
    ],
)
def test_wrong_requests_are_refused_in_words(lab: ProxyLab, change: dict[str, object], word: str) -> None:
    """And nothing of them stays."""
    before = lab.descriptors()
    with lab.host.in_namespace(lambda: bound("tcp", 6, "")) as listener:
        given = {"owner": OWNER, "family": 6, "proto": "tcp", "host_ip": "", "port": listener.getsockname()[1]}
        request = {**given, "to": (CONTAINER4, 80), "listener": listener.fileno(), **change}
        with pytest.raises(ProxyError, match=word):
            lab.control.add(**request)  # type: ignore[arg-type]
    assert lab.control.mappings() == []
    assert lab.descriptors() == before


def test_garbage_neither_stays_nor_ends_anything(lab: ProxyLab) -> None:
    """Packets that are no request, and descriptors that nobody asked for."""
    connection = lab.dial(lab.publish(lab.serve(echo)))
    assert talks(connection)
    before = lab.descriptors()
    draw = random.Random(7)
    packets = [
        b"[]",
        b"{",
        b"{}",
        b'{"do": "list", "start": -1}',
        b'{"do": "set", "limits": {"flows": 0}}',
        b"[" * 60000,
    ]
    packets += [draw.randbytes(draw.randrange(1, 2000)) for _ in range(30)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(lab.host.file(CONTROL)))
        for packet in packets:
            for count in (0, 1, 3, 30):
                fds = array.array("i", [client.fileno()] * count)
                client.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if count else [])
                assert client.recv(65536).startswith(b'{"error": '), (packet[:40], count)
    wait_until(lambda: lab.descriptors() == before, DEADLINE_S)
    assert talks(connection)


def test_client_that_does_not_read_its_answers_is_dropped(lab: ProxyLab) -> None:
    """Its queue is full: it is closed, the others are served."""
    lab.publish((CONTAINER4, 80))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(lab.host.file(CONTROL)))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            ask_without_end(client)
    assert len(lab.control.mappings()) == 1


def ask_without_end(client: socket.socket) -> None:
    for _ in range(10_000):
        client.send(b'{"do": "list"}')


def test_only_root_may_tell_it_anything(lab: ProxyLab) -> None:
    """The socket is root's, and where somebody opens it to all, the kernel's word on who calls decides."""
    path = lab.host.file(CONTROL)
    assert path.stat().st_mode & 0o777 == 0o600
    lab.host.run(["chmod", "666", CONTROL])
    script = f"import socket; s = socket.socket(1, 5); s.connect({CONTROL!r}); s.send(b'{{}}'); print(s.recv(9))"
    as_nobody = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "/usr/bin/python3", "-ISc", script]
    ran = lab.host.run(as_nobody, check=False)
    assert ran.stdout in ("", "b''\n"), ran.stdout
    assert lab.control.mappings() == []


# -- life --------------------------------------------------------------------------------------------------------------


def test_it_gives_up_all_privileges(lab: ProxyLab) -> None:
    """Another user, no capability, no way to get one; it serves all the same."""
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{lab.process.pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert set(status["Uid"].split() + status["Gid"].split()) == {str(NOBODY)}
    assert (status["Groups"].split(), status["NoNewPrivs"]) == ([], "1")
    assert {int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Amb")} == {0}
    assert talks(lab.dial(lab.publish(lab.serve(echo))))


def test_second_proxy_for_one_path_does_not_start(lab: ProxyLab) -> None:
    """Two agents that start at once have one proxy; the path of one that was killed is taken over."""
    second = lab.start()
    assert second.wait(DEADLINE_S) == 1
    assert second.stderr is not None
    assert CONTROL in second.stderr.read()
    assert lab.control.mappings() == []
    lab.process.kill()
    lab.process.wait(DEADLINE_S)
    lab.start()
    assert lab.connect().mappings() == []


def test_inherited_listening_socket_serves_as_control(lab: ProxyLab) -> None:
    """--control FD: whoever starts it has made the path."""
    path = str(lab.host.file("/run/other.sock"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        process = subprocess.Popen(command(listener.fileno()), pass_fds=[listener.fileno()])
        try:
            with ProxyClient(path) as client:
                assert client.mappings() == []
                client.stop()
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("how", ["SIGTERM", "stop"])
def test_end_resets_connections(lab: ProxyLab, how: str) -> None:
    """An orderly end would tell a client that it has all of an answer of which half is missing."""
    connection = lab.dial(lab.publish(lab.serve(echo)))
    assert talks(connection)
    if how == "stop":
        lab.control.stop()
    else:
        lab.process.send_signal(signal.SIGTERM)
    assert_was_reset(connection)
    assert lab.process.wait(DEADLINE_S) == 0


def test_unused_proxy_ends_by_itself(lab: ProxyLab) -> None:
    """No port and no client of the control socket; a port alone keeps it."""
    lab.control.set(unused_s=0.1)
    port = lab.publish(lab.serve(echo))
    lab.control.close()
    assert talks(lab.dial(port))
    control = lab.connect()
    control.remove(OWNER)
    assert control.mappings() == []
    assert lab.process.poll() is None
    control.close()
    assert lab.process.wait(DEADLINE_S) == 0


def test_terminal_of_the_agent_does_not_end_it(lab: ProxyLab) -> None:
    """It has a session of its own and does not heed SIGINT."""
    assert os.getsid(lab.process.pid) == lab.process.pid
    lab.process.send_signal(signal.SIGINT)
    assert lab.control.mappings() == []
