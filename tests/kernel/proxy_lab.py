"""A proxy process on a host, with a container behind it whose servers are threads of the test."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from netns_fixtures import Container, Host, wait_until
from pycni.portmap.proxy.client import ProxyClient, command

DEADLINE_S = 10.0
HOST4, HOST6 = "10.9.0.1", "fd09::1"
MORE4, MORE6 = "10.9.0.77", "fd09::77"  # of the host as well
CONTAINER4, CONTAINER6 = "10.9.0.2", "fd09::2"
CONTROL = "/run/proxy.sock"
COMMAND = command(CONTROL)
OWNER = "net/c1/eth0"


class ProxyLab:
    """`host` with a container `c1` on a veth, and a running proxy."""

    def __init__(self, host: Host, closing: contextlib.ExitStack, argv: Sequence[str]) -> None:
        self.host = host
        self._closing = closing
        self.c1: Container = host.container("c1")
        host.ip_batch(
            f"link add v1 index 40 type veth peer name eth0 netns {self.c1.pid}",  # same index, late carrier
            *(f"addr add {address}/24 dev v1" for address in (HOST4, MORE4)),
            *(f"addr add {address}/64 dev v1 nodad" for address in (HOST6, MORE6)),
            "link set v1 up",
        )
        self.c1.ip_batch(
            f"addr add {CONTAINER4}/24 dev eth0", f"addr add {CONTAINER6}/64 dev eth0 nodad", "link set eth0 up"
        )
        self.process = self.start(argv)
        self.control = self.connect()

    def start(self, argv: Sequence[str] = COMMAND) -> subprocess.Popen[str]:
        process = self.host.popen(argv, stderr=subprocess.PIPE)
        self._closing.callback(_end, process)
        return process

    def connect(self) -> ProxyClient:
        """Another client of the control socket."""

        def connected() -> ProxyClient | None:
            try:
                return ProxyClient(str(self.host.file(CONTROL)))
            except OSError:
                return None

        client = wait_until(connected, DEADLINE_S, "the proxy listens")
        assert client is not None
        self._closing.callback(client.close)
        client.mappings()  # it is served now, not only queued
        return client

    def publish(
        self,
        to: tuple[str, int],
        *,
        proto: str = "tcp",
        family: int = 6,
        host_ip: str = "",
        owner: str = OWNER,
        **more: Any,
    ) -> int:
        """A free port of the host, of which the proxy has the only descriptor."""
        with self.host.in_namespace(lambda: bound(proto, family, host_ip)) as listener:
            port: int = listener.getsockname()[1]
            where: dict[str, Any] = {"proto": proto, "family": family, "host_ip": host_ip, "port": port}
            self.control.add(owner, **where, to=to, listener=listener.fileno(), **more)
        return port

    def serve(self, handler: Callable[[socket.socket], None], address: str = CONTAINER4) -> tuple[str, int]:
        """A TCP server in the container, a thread for each connection; where it is."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = self.c1.in_namespace(lambda: socket.create_server((address, 0), family=family, backlog=1024))
        self._closing.callback(_shut, server)

        def handle(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(DEADLINE_S)
                handler(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=handle, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        where: tuple[str, int] = server.getsockname()[:2]
        return where

    def serve_datagrams(
        self, answer: Callable[[bytes], bytes] = bytes, address: str = CONTAINER4, port: int = 0
    ) -> tuple[str, int]:
        """A UDP server in the container that answers what *answer* makes of each datagram; where it is."""
        server = self.datagram_socket(self.c1, (address, port))
        server.settimeout(None)

        def respond() -> None:
            with contextlib.suppress(OSError):
                while (received := server.recvfrom(65536))[1]:  # no sender: it was shut
                    server.sendto(answer(received[0]), received[1])

        threading.Thread(target=respond, daemon=True).start()
        where: tuple[str, int] = server.getsockname()[:2]
        return where

    def datagram_socket(self, where: Host | Container, address: tuple[str, int] = ("::", 0)) -> socket.socket:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET

        def made() -> socket.socket:
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            sock.bind(address)
            return sock

        sock = where.in_namespace(made)
        sock.settimeout(DEADLINE_S)
        self._closing.callback(_shut, sock)
        return sock

    def dial(self, port: int, address: str = "::1") -> socket.socket:
        """A connection from the host."""
        sock = self.host.in_namespace(lambda: socket.create_connection((address, port), timeout=DEADLINE_S))
        self._closing.callback(sock.close)
        return sock

    def total(self, name: str) -> int:
        counter: int = self.control.stats()["total"][name]
        return counter

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def cpu_s(self) -> float:
        """CPU that the proxy has used so far."""
        return time.clock_gettime(~self.process.pid << 3 | 2)  # CPUCLOCK_SCHED, linux/posix-timers.h


def bound(proto: str, family: int, host_ip: str, port: int = 0) -> socket.socket:
    """What an agent hands over: bound, listening if TCP, IPv6 alone if IPv6."""
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind)
    if family == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((host_ip, port))
    if proto == "tcp":
        sock.listen(1024)
    return sock


def receive(sock: socket.socket, size: int) -> bytes:
    """So many bytes, fewer at the end. MSG_WAITALL is not enough: a socket with a timeout never waits in the kernel."""
    data = b""
    while len(data) < size and (part := sock.recv(size - len(data))):
        data += part
    return data


def send_until_it_blocks(sock: socket.socket, data: bytes) -> int:
    """How much of *data* was taken before nothing was for 0.3 s."""
    sent = 0
    sock.settimeout(0.3)
    try:
        while sent < len(data):
            sent += sock.send(data[sent : sent + 65536])
    except TimeoutError:
        pass
    finally:
        sock.settimeout(DEADLINE_S)
    return sent


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def answer_digest(connection: socket.socket) -> None:
    """When the client has said all, the digest of that."""
    connection.sendall(digest_of(connection))


def digest_of(connection: socket.socket) -> bytes:
    digest = hashlib.sha256()
    while data := connection.recv(1 << 20):
        digest.update(data)
    return digest.digest()


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)  # who waits in it returns
    sock.close()


def _end(process: subprocess.Popen[str]) -> None:
    """It has nothing to say on stderr but why it does not start: whatever else comes there is a defect."""
    process.terminate()
    code = process.wait(DEADLINE_S)
    if process.stderr is not None and not process.stderr.closed:
        with process.stderr:
            said = process.stderr.read()
        assert not said or code == 1, said


@contextlib.contextmanager
def proxy_lab(host: Host, argv: Sequence[str] = COMMAND) -> Iterator[ProxyLab]:
    """A lab that leaves nothing but what is the host's."""
    with contextlib.ExitStack() as closing:
        yield ProxyLab(host, closing, argv)
