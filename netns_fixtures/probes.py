"""Does traffic get through, and whom does the other side see? Each probe runs in a namespace and has a deadline.

`can_*` answer False for any failure. `*_peer_seen` raise OSError: TimeoutError if dropped, ConnectionRefusedError if
rejected.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time

from .echo import Answer
from .namespace import Namespace

DEADLINE_S = 2.0
RESEND_S = 0.1
ICMP_HEADER_BYTES = 8

_IP_MTU_DISCOVER, _IP_PMTUDISC_DO, _IPV6_MTU_DISCOVER = 10, 2, 23  # <linux/in.h>, <linux/in6.h>
_identifiers = itertools.count(os.getpid())


def can_ping(ns: Namespace, addr: str, *, deadline_s: float = DEADLINE_S, size: int = 56) -> bool:
    """Whether an ICMP echo of *size* payload bytes gets its reply; never fragmented, so it also probes the path MTU.

    Sent again every 100 ms: the first packet may be lost to address resolution. *addr* may be "fe80::1%eth0".
    """

    def ping() -> bool:
        with _ping_socket(addr) as sender:
            return _echo_comes_back(sender, size, time.monotonic() + deadline_s)

    try:
        return ns.in_namespace(ping)
    except OSError:
        return False


def tcp_peer_seen(
    ns: Namespace, addr: str, port: int, *, deadline_s: float = DEADLINE_S, source: str = "", payload: bytes = b"ping\n"
) -> Answer:
    """What the `EchoServer` at *addr*:*port* saw of a TCP connection from *ns*; *payload* makes the round trip too."""

    def connect() -> Answer:
        end = time.monotonic() + deadline_s
        bound = (source, 0) if source else None
        with socket.create_connection((addr, port), timeout=deadline_s, source_address=bound) as stream:
            stream.sendall(payload)
            received = b""
            while b"\n" not in received or len(received.partition(b"\n")[2]) < len(payload):
                stream.settimeout(max(0.001, end - time.monotonic()))
                part = stream.recv(65536)
                if not part:
                    raise ConnectionResetError(f"{addr}:{port} closed after {received!r}")
                received += part
        return _answer(received, payload)

    return ns.in_namespace(connect)


def udp_peer_seen(
    ns: Namespace, addr: str, port: int, *, deadline_s: float = DEADLINE_S, source: str = "", payload: bytes = b"ping\n"
) -> Answer:
    """The same with datagrams from one source port, sent again every 100 ms."""

    def exchange() -> Answer:
        end = time.monotonic() + deadline_s
        family, _, _, _, sockaddr = socket.getaddrinfo(addr, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            if source:
                client.bind((source, 0))
            client.connect(sockaddr)
            while (left := end - time.monotonic()) > 0:
                client.send(payload)
                client.settimeout(min(RESEND_S, left))
                try:
                    return _answer(client.recv(65536), payload)
                except TimeoutError:
                    continue
        raise TimeoutError(f"no answer from {addr}:{port}/udp within {deadline_s} s")

    return ns.in_namespace(exchange)


def can_tcp(ns: Namespace, addr: str, port: int, *, deadline_s: float = DEADLINE_S) -> bool:
    """Whether an `EchoServer` answers over TCP."""
    try:
        tcp_peer_seen(ns, addr, port, deadline_s=deadline_s)
    except OSError:
        return False
    return True


def can_udp(ns: Namespace, addr: str, port: int, *, deadline_s: float = DEADLINE_S) -> bool:
    """Whether an `EchoServer` answers over UDP."""
    try:
        udp_peer_seen(ns, addr, port, deadline_s=deadline_s)
    except OSError:
        return False
    return True


def _answer(received: bytes, payload: bytes) -> Answer:
    greeting, _, echoed = received.partition(b"\n")
    if echoed != payload:
        raise ConnectionError(f"sent {payload!r}, back came {echoed!r}")
    server, address, port = greeting.decode().rsplit(" ", 2)
    return Answer(server, address, int(port))


def _ping_socket(addr: str) -> socket.socket:
    family, _, _, _, sockaddr = socket.getaddrinfo(addr, None, type=socket.SOCK_RAW)[0]
    version6 = family == socket.AF_INET6
    sender = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if version6 else socket.IPPROTO_ICMP)
    try:
        if version6:
            sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _IP_PMTUDISC_DO)
        else:
            sender.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
        sender.connect(sockaddr)  # errors of the path reach the socket, answers of others do not
    except BaseException:  # no route, most often
        sender.close()
        raise
    return sender


def _echo_comes_back(sender: socket.socket, size: int, end: float) -> bool:
    identifier = next(_identifiers) & 0xFFFF
    version6 = sender.family == socket.AF_INET6
    request, reply = (128, 129) if version6 else (8, 0)
    packet = struct.pack("!BBHHH", request, 0, 0, identifier, 1) + bytes(size)
    if not version6:  # the kernel fills in the checksum of ICMPv6
        packet = packet[:2] + struct.pack("!H", _checksum(packet)) + packet[4:]
    while time.monotonic() < end:
        sender.send(packet)
        resend = min(end, time.monotonic() + RESEND_S)
        while (left := resend - time.monotonic()) > 0:
            sender.settimeout(left)
            try:
                received = sender.recv(65536 + 60)
            except TimeoutError:
                break
            icmp = received if version6 else received[(received[0] & 15) * 4 :]
            if len(icmp) >= ICMP_HEADER_BYTES + size and (icmp[0], icmp[4:6]) == (reply, packet[4:6]):
                return True
    return False


def _checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
