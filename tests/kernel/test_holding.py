"""Which host ports can be had, who is named where one cannot, and what a held one does with packets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from netns_fixtures import Host
from pycni.cni.errors import CniError, Code
from pycni.host import listeners
from pycni.portmap.holding import HELD_PORTS, Binding, Standalone

pytestmark = pytest.mark.needs("root", "tool:ip")

PORT = 8080
SILENCE_S = 0.3
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
ANY = {4: "0.0.0.0", 6: "::"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
LISTEN = """
import socket, sys
family, kind, address, port = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
sock = socket.socket(family, kind)
sock.bind((address, port))
if kind == socket.SOCK_STREAM:
    sock.listen()
print("bound", flush=True)
sys.stdin.read()
"""


class Foreign:
    """Sockets of others on the host: of the test's own process, or of one that is started."""

    def __init__(self, host: Host, closing: ExitStack) -> None:
        self.host = host
        self._closing = closing

    def socket(
        self, family: int, proto: str, address: str, port: int = PORT, *, only6: bool = True, **options: bool
    ) -> socket.socket:
        """A socket in the host's namespace; *options*: reuse, listen (TCP: yes)."""

        def make() -> socket.socket:
            sock = socket.socket(FAMILIES[family], KINDS[proto])
            try:
                if family == 6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only6)
                if options.get("reuse"):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address, port))
                if proto == "tcp" and options.get("listen", True):
                    sock.listen()
            except OSError:
                sock.close()
                raise
            return sock

        made = self.host.in_namespace(make)
        self._closing.callback(made.close)
        return made

    def process(self, family: int, proto: str, address: str, port: int = PORT, *, word: str = "") -> int:
        """The pid of a process that has that port; *word*: the last of its arguments."""
        words = (FAMILIES[family], KINDS[proto], address, port)
        process = self.host.popen(
            [sys.executable, "-c", LISTEN, *map(str, map(int, words[:2])), *map(str, words[2:]), word],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None
        self._closing.callback(process.stdin.close)
        self._closing.callback(process.stdout.close)
        assert process.stdout.readline() == "bound\n"
        return process.pid


@pytest.fixture
def foreign(host: Host, closing: ExitStack) -> Foreign:
    return Foreign(host, closing)


@pytest.fixture
def host(host: Host) -> Host:
    """With addresses to choose from on lo."""
    host.ip_batch("link set lo up", "addr add 192.0.2.1/32 dev lo", "addr add 192.0.2.2/32 dev lo")
    host.ip_batch("addr add 2001:db8::1/128 dev lo nodad", "addr add 2001:db8::2/128 dev lo nodad")
    return host


def binding(family: int = 4, proto: str = "tcp", host_ip: str = "", port: int = PORT, count: int = 1) -> Binding:
    return Binding(family, proto, host_ip, port, {4: "10.1.0.2", 6: "fd00::2"}[family], 80, count=count)


def reserve(host: Host, *bindings: Binding) -> None:
    host.in_namespace(lambda: Standalone().reserve("net/c1/eth0/portmap", bindings))


def refused(host: Host, *bindings: Binding) -> CniError:
    with pytest.raises(CniError) as caught:
        reserve(host, *bindings)
    return caught.value


@pytest.fixture
def hold(host: Host, closing: ExitStack) -> Callable[..., socket.socket]:
    """Holds a port of the host until the test ends."""

    def make(family: int, proto: str, address: str = "", port: int = PORT) -> socket.socket:
        held = host.in_namespace(lambda: listeners.hold(family, proto, address, port))
        made = socket.socket(fileno=held.detach())
        closing.callback(made.close)
        return made

    return make


# -- who has it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_foreign_process_is_named(host: Host, foreign: Foreign, family: int, proto: str) -> None:
    """Pid, command and socket, as code 100; the port beside it is free."""
    pid = foreign.process(family, proto, ANY[family])
    failure = refused(host, binding(family, proto))
    assert failure.code == Code.PORT_TAKEN
    assert f"host port {PORT}/{proto} is taken by python" in failure.msg
    assert f"(pid {pid})" in failure.msg
    assert "import socket" in failure.details
    reserve(host, binding(family, proto, port=PORT + 1))
    reserve(host, binding(family, "udp" if proto == "tcp" else "tcp"))


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
def test_the_kernel_says_what_excludes_what(host: Host, foreign: Foreign, family: int, proto: str) -> None:
    """A port on every address excludes the same on each one, two addresses and two families do not meet."""
    one, two = ("192.0.2.1", "192.0.2.2") if family == 4 else ("2001:db8::1", "2001:db8::2")
    taken = foreign.socket(family, proto, one)
    for host_ip, excluded in (("", True), (one, True), (two, False), (LOOPBACK[family], False)):
        if excluded:
            failure = refused(host, binding(family, proto, host_ip))
            assert f"(pid {os.getpid()})" in failure.msg
            shown = f"[{one}]" if family == 6 else one
            assert f"{shown}:{PORT}/{proto}" in failure.details
        else:
            reserve(host, binding(family, proto, host_ip))
    taken.close()
    foreign.socket(family, proto, ANY[family])
    for host_ip in ("", one, LOOPBACK[family]):
        assert refused(host, binding(family, proto, host_ip)).code == Code.PORT_TAKEN
    reserve(host, binding(10 - family, proto))


def test_a_socket_of_both_families_is_found_under_ipv4(host: Host, foreign: Foreign) -> None:
    """Most servers listen on "::" without IPV6_V6ONLY, and have the port for IPv4 as well."""
    foreign.socket(6, "tcp", "::", only6=False)
    failure = refused(host, binding(4))
    assert f"(pid {os.getpid()})" in failure.msg and f"[::]:{PORT}/tcp" in failure.details


def test_a_client_that_uses_the_port_is_named(host: Host, foreign: Foreign) -> None:
    """A connection that began at the port keeps others from binding it, though nobody listens."""
    foreign.socket(4, "tcp", "127.0.0.1", 7000)
    client = foreign.socket(4, "tcp", "127.0.0.1", listen=False)
    host.in_namespace(lambda: client.connect(("127.0.0.1", 7000)))
    failure = refused(host, binding(4))
    assert failure.code == Code.PORT_TAKEN
    assert f"(pid {os.getpid()})" in failure.msg


def test_one_that_is_bound_and_does_not_listen_is_taken_as_well(host: Host, foreign: Foreign) -> None:
    """The kernel may not tell whose it is; it is refused all the same."""
    foreign.socket(4, "tcp", "0.0.0.0", listen=False)
    assert refused(host, binding(4)).code == Code.PORT_TAKEN


@pytest.mark.parametrize(("proto", "count"), [("tcp", 1), ("tcp", HELD_PORTS + 1), ("udp", 1000), ("sctp", 1)])
@pytest.mark.parametrize(("family", "address"), [(4, "192.0.2.9"), (6, "2001:db8::9")])
def test_an_address_of_another_host_is_refused(host: Host, family: int, address: str, proto: str, count: int) -> None:
    """With what to do about one that comes later; also where the ports are not held."""
    wanted = binding(family, proto, host_ip=address, count=count)
    failure = refused(host, wanted)
    assert failure.code == Code.INVALID_CONFIG
    assert wanted.replace(count=1).shown() in failure.msg and f"no address {address}" in failure.msg
    assert f"net.ipv{family}.ip_nonlocal_bind=1" in failure.details
    host.sysctl(f"net/ipv{family}/ip_nonlocal_bind", "1")
    reserve(host, wanted)
    host.sysctl(f"net/ipv{family}/ip_nonlocal_bind", "0")
    reserve(host, wanted.replace(host_ip={4: "192.0.2.1", 6: "2001:db8::1"}[family]))


@pytest.mark.parametrize(("container_id", "theirs"), [("bound", False), ("0f1e2d3c4b5a", True)])
@pytest.mark.parametrize("family", [4, 6])
def test_only_an_id_says_whose_runtime_a_process_is(
    host: Host, foreign: Foreign, family: int, container_id: str, theirs: bool
) -> None:
    """A container may be called as a word of a foreign process's arguments: that has the port all the same."""
    pid = foreign.process(family, "tcp", ANY[family], word=container_id)
    attempt = partial(Standalone().reserve, f"net/{container_id}/eth0/portmap", [binding(family)])
    if theirs:
        host.in_namespace(attempt)
        return
    with pytest.raises(CniError, match=f"is taken by python.* .pid {pid}.") as caught:
        host.in_namespace(attempt)
    assert caught.value.code == Code.PORT_TAKEN


def test_all_or_nothing_and_nothing_stays(host: Host, foreign: Foreign) -> None:
    """A look leaves no socket, whether it found something or not."""
    foreign.socket(4, "udp", "0.0.0.0", PORT + 2)
    refused(host, binding(4), binding(6), binding(4, "udp", count=5))
    for family in (4, 6):
        foreign.socket(family, "tcp", ANY[family])
    foreign.socket(4, "udp", "0.0.0.0", PORT + 1)


# -- long runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_long_run_is_looked_through_at_once(host: Host, foreign: Foreign, family: int, proto: str) -> None:
    """One listener among ten thousand ports is named with its port; those beside the run do not matter."""
    run = binding(family, proto, port=20000, count=10000)
    foreign.socket(family, proto, ANY[family], 19999)
    foreign.socket(family, proto, ANY[family], 30000)
    foreign.socket(10 - family, proto, LOOPBACK[10 - family], 25000)
    reserve(host, run)
    last = foreign.socket(family, proto, LOOPBACK[family], 29999)
    failure = refused(host, run)
    assert f"host port 29999/{proto}" in failure.msg and f"(pid {os.getpid()})" in failure.msg
    last.close()
    foreign.socket(family, proto, LOOPBACK[family], 20000)
    assert f"host port 20000/{proto}" in refused(host, run).msg
    assert run.count > HELD_PORTS


def test_clients_within_a_long_run_do_not_matter(host: Host, foreign: Foreign) -> None:
    """The ports of resolvers and browsers come and go in ip_local_port_range."""
    for proto in ("tcp", "udp"):
        foreign.socket(4, proto, "127.0.0.1", 7000)
        client = foreign.socket(4, proto, "127.0.0.1", 40000, listen=False)
        host.in_namespace(lambda client=client: client.connect(("127.0.0.1", 7000)))  # type: ignore[misc]
        reserve(host, binding(4, proto, port=32768, count=20000))


def test_sctp_is_between_attachments_alone(host: Host) -> None:
    """Its sockets are not asked for: where the kernel has none, that would start modprobe."""
    reserve(host, binding(4, "sctp"), binding(4, "sctp", port=1000, count=1000))


# -- what is held ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_nobody_can_take_a_held_port(
    host: Host, foreign: Foreign, hold: Callable[..., socket.socket], family: int, proto: str
) -> None:
    """Not even with SO_REUSEADDR and for one address only; it is free again at the close."""
    held = hold(family, proto)
    for address in (ANY[family], LOOPBACK[family]):
        with pytest.raises(OSError, match="Address already in use"):
            foreign.socket(family, proto, address, reuse=True)
    held.close()
    foreign.socket(family, proto, ANY[family], reuse=True)


@pytest.mark.parametrize("reuse", [True, False])
def test_connections_in_time_wait(
    host: Host, foreign: Foreign, hold: Callable[..., socket.socket], reuse: bool
) -> None:
    """A port whose server has just closed connections can be had at once, if it had SO_REUSEADDR, as ours and nearly
    all; else it is said what one has to wait for."""
    server = foreign.socket(4, "tcp", "127.0.0.1", reuse=reuse)
    client = host.in_namespace(lambda: socket.create_connection(("127.0.0.1", PORT), timeout=2))
    accepted = server.accept()[0]
    accepted.close()  # first: this side waits
    assert client.recv(1) == b""
    client.close()
    server.close()
    waiting = host.run(["ss", "-tan", "state", "time-wait"]).stdout
    assert f"127.0.0.1:{PORT}" in waiting
    if reuse:
        hold(4, "tcp")
    else:
        assert "is taken by a connection that has just ended, for a minute" in refused(host, binding(4)).msg


@pytest.fixture
def dial(host: Host) -> Iterator[Callable[[int, str], socket.socket]]:
    """A client on the host that has sent something to the port: connected (TCP) or on its way."""
    clients: list[socket.socket] = []

    def make(family: int, proto: str) -> socket.socket:
        client = host.in_namespace(lambda: socket.socket(FAMILIES[family], KINDS[proto]))
        clients.append(client)
        client.settimeout(SILENCE_S)
        client.connect((LOOPBACK[family], PORT))
        if proto == "udp":
            client.send(b"hello")
        return client

    yield make
    for client in clients:
        client.close()


@pytest.mark.parametrize("family", [4, 6])
def test_tcp_clients_hear_nothing_until_they_are_let_in(
    hold: Callable[..., socket.socket], dial: Callable[[int, str], socket.socket], family: int
) -> None:
    """The kernel would answer for a socket that listens; then those who come are accepted."""
    held = hold(family, "tcp")
    with pytest.raises(TimeoutError):
        dial(family, "tcp")
    listeners.let_in(held)
    listeners.let_in(held)
    held.settimeout(2)
    dial(family, "tcp")
    held.accept()[0].close()


@pytest.mark.parametrize("family", [4, 6])
def test_datagrams_are_not_queued_until_they_are_let_in(
    hold: Callable[..., socket.socket], dial: Callable[[int, str], socket.socket], family: int
) -> None:
    """What came before would be answered by the wrong end."""
    held = hold(family, "udp")
    held.settimeout(SILENCE_S)
    dial(family, "udp")
    with pytest.raises(TimeoutError):
        held.recv(100)
    listeners.let_in(held)
    dial(family, "udp")
    assert held.recv(100) == b"hello"
