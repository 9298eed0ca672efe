"""ICMP echoes from many namespaces by one thread: a raw socket in each, all of them waited for at once.

A process for each of 20 000 pairs, or a thread for each of 100 containers, would measure the machine and not the lab.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack

from pycni.cni.value import Value
from pycni.host.inet_messages import delete_neighbour
from pycni.host.netns import inside, open_netns
from pycni.host.rtnl import Netlink

NUD_PERMANENT, NUD_NOARP = 0x80, 0x40  # <linux/neighbour.h>
SOL_RAW, ICMP_FILTER, ICMP6_FILTER = 255, 1, 1  # <linux/icmp.h>, <linux/icmpv6.h>
ECHO, REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_STAMP = struct.Struct("!IHd")  # probe, round, when it was sent
PAYLOAD_BYTES = 56  # as ping(8) sends

WINDOW = 256  # echoes without an answer at a time
ROUND_S = 0.1  # how long the next round of echoes waits for the answers to the last one

#: The kernel keeps at most 1024 learned neighbours of a family on the whole machine, all namespaces together, and gives
#: none up that is younger than 5 s (gc_thresh3, neigh_forced_gc() in net/core/neighbour.c). A pair of containers that
#: talk to each other is two of them.
PAIRS_AT_ONCE = 400


class Probe(Value):
    """One address to be pinged from one namespace; *source* is that namespace's name."""

    source: str
    address: str
    rounds: int = 1

    @property
    def family(self) -> int:
        return 6 if ":" in self.address else 4


class Echoes(Value):
    """What became of a probe; *rtts_ms* of the echoes that were answered, in the order of the rounds."""

    sent: int
    rtts_ms: tuple[float, ...] = ()


def ping(
    namespaces: Mapping[str, str],
    probes: Sequence[Probe],
    *,
    timeout_s: float = 1.0,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Echoes]:
    """Ping all of *probes*; *namespaces* has the path of each source. *progress* hears how many are finished.

    Where one namespace is gone, its probes were sent 0 times.
    """
    found: list[Echoes] = []
    with ExitStack() as closing:
        opened = _open(namespaces, {probe.source for probe in probes}, closing)
        crowded = len({(probe.source, probe.address) for probe in probes}) > PAIRS_AT_ONCE
        for at in range(0, len(probes), PAIRS_AT_ONCE):
            lot = probes[at : at + PAIRS_AT_ONCE]
            with _Pinger(opened, lot, timeout_s) as pinger:
                found += pinger.run()
            if crowded:
                _forget_neighbours(namespaces.values())
            progress(len(found))
    return found


def _open(namespaces: Mapping[str, str], names: Iterable[str], closing: ExitStack) -> dict[str, int]:
    opened = {}
    for name in names:
        try:
            opened[name] = os.open(namespaces[name], os.O_RDONLY | os.O_CLOEXEC)
        except (KeyError, OSError):  # its host was rebooted, its process is gone
            continue
        closing.callback(os.close, opened[name])
    return opened


def _forget_neighbours(paths: Iterable[str]) -> None:
    """Drop what these namespaces have learned of their neighbours, to make room for others."""
    for path in paths:
        try:
            descriptor = open_netns(path)
        except Exception:  # it is gone, and what it had learned as well
            continue
        try:
            with inside(descriptor, Netlink) as netlink:
                for link in netlink.links():
                    learned = [
                        each for each in netlink.neighbours(link.index) if not each.state & (NUD_PERMANENT | NUD_NOARP)
                    ]
                    _delete(netlink, [delete_neighbour(link.index, each.address) for each in learned])
        finally:
            os.close(descriptor)


def _delete(netlink: Netlink, messages: Sequence[bytes]) -> None:
    try:
        netlink.request(*messages)
    except OSError:  # one that went by itself in between
        pass


class _Pinger:
    """The sockets and the state of one lot."""

    def __init__(self, opened: Mapping[str, int], probes: Sequence[Probe], timeout_s: float) -> None:
        self.probes = probes
        self.timeout_s = timeout_s
        self.identifier = int.from_bytes(os.urandom(2), "big")
        self.sent = [0] * len(probes)
        self.answered: list[dict[int, float]] = [{} for _ in probes]  # of each probe: round -> ms
        self.waiting: dict[tuple[int, int], float] = {}  # (probe, round) -> when it was sent, oldest first
        self.poll = select.epoll()
        self.sockets: dict[tuple[str, int], socket.socket] = {}
        self.by_descriptor: dict[int, tuple[socket.socket, int]] = {}
        for name, descriptor in opened.items():
            for family in {probe.family for probe in probes if probe.source == name}:
                made = inside(descriptor, _echo_socket, family)
                self.sockets[name, family] = made
                self.by_descriptor[made.fileno()] = made, family
                self.poll.register(made.fileno(), select.EPOLLIN)

    def __enter__(self) -> _Pinger:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.sockets.values():
            each.close()
        self.poll.close()

    def run(self) -> list[Echoes]:
        """All rounds, and the answers to them."""
        rounds = max((probe.rounds for probe in self.probes), default=0)
        for number in range(rounds):
            for at, probe in enumerate(self.probes):
                if number < probe.rounds:
                    self._send(at, probe, number)
                    while len(self.waiting) >= WINDOW:
                        self._receive(0.01)
            self._settle(ROUND_S if number < rounds - 1 else self.timeout_s)
        return [
            Echoes(sent, tuple(ms for _, ms in sorted(answered.items())))
            for sent, answered in zip(self.sent, self.answered, strict=True)
        ]

    def _send(self, at: int, probe: Probe, number: int) -> None:
        sender = self.sockets.get((probe.source, probe.family))
        if sender is None:
            return
        self.sent[at] += 1
        now = time.perf_counter()
        try:
            sender.sendto(_echo(probe.family, self.identifier, _STAMP.pack(at, number, now)), (probe.address, 0))
        except OSError:  # no route, or told so by an ICMP error: an echo without answer
            return
        self.waiting[at, number] = now
        self._receive(0)

    def _settle(self, within_s: float) -> None:
        """Wait for answers until there is none to wait for, or *within_s* has passed."""
        end = time.perf_counter() + within_s
        while self.waiting and (left := end - time.perf_counter()) > 0:
            self._receive(left)

    def _receive(self, wait_s: float) -> None:
        """Take in what has come, and give up on what is overdue."""
        for descriptor, _ in self.poll.poll(wait_s):
            receiver, family = self.by_descriptor[descriptor]
            while True:
                try:
                    packet = receiver.recv(2048)
                except BlockingIOError:
                    break
                except OSError:  # an ICMP error for what was sent before; the socket has it once
                    continue
                self._take(packet, family)
        overdue = time.perf_counter() - self.timeout_s
        while self.waiting:
            oldest = next(iter(self.waiting))
            if self.waiting[oldest] > overdue:
                break
            del self.waiting[oldest]

    def _take(self, packet: bytes, family: int) -> None:
        now = time.perf_counter()
        message = packet[(packet[0] & 15) * 4 :] if family == 4 else packet  # IPv4 comes with its header
        if len(message) < _HEADER.size + PAYLOAD_BYTES:
            return
        kind, _, _, identifier, _ = _HEADER.unpack_from(message)
        if kind != REPLY[family] or identifier != self.identifier:
            return
        at, number, sent = _STAMP.unpack_from(message, _HEADER.size)
        if self.waiting.pop((at, number), None) is not None:  # neither too late nor a second time
            self.answered[at][number] = (now - sent) * 1000


def _echo_socket(family: int) -> socket.socket:
    """A raw socket that receives echo replies and nothing else."""
    if family == 4:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP)
        made.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("I", ~(1 << REPLY[4]) & 0xFFFFFFFF))
    else:
        made = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6)
        passing = [0xFFFFFFFF] * 8
        passing[REPLY[6] // 32] &= ~(1 << REPLY[6] % 32)
        made.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, struct.pack("8I", *passing))
    made.setblocking(False)
    return made


def _echo(family: int, identifier: int, stamp: bytes) -> bytes:
    payload = stamp.ljust(PAYLOAD_BYTES, b"\0")
    packet = _HEADER.pack(ECHO[family], 0, 0, identifier, 0) + payload
    if family == 6:  # the kernel writes the checksum of ICMPv6
        return packet
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return packet[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + packet[4:]
