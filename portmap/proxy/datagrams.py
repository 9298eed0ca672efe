"""Many datagrams with one system call."""

from __future__ import annotations

import ctypes
from _socket import MSG_DONTWAIT
from errno import EAGAIN, ECONNREFUSED, ENOBUFS
from mmap import mmap

from pycni.portmap.proxy.mmsg import (
    BATCH,
    HEAD,
    LAYOUTS,
    Heads,
    IoVec,
    column,
    errno,
    make_vectors,
    recvmmsg,
    sendmmsg,
)
from pycni.portmap.proxy.segments import Segments, refused_for_good

LARGEST = 65536  # more than any datagram without jumbograms: none is ever cut
# Places a multiple of 64 KiB apart would begin in the same set of a processor's cache, all 64 of them.
PLACE = LARGEST + 64


class Datagrams:
    """The memory of one batch, shared by all sockets: what was received last can be sent, from place *first* on.

    It is 4 MiB of address space; memory is used for as many pages as datagrams have filled.
    """

    def __init__(self) -> None:
        self._memory = mmap(-1, BATCH * PLACE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        places = [base + number * PLACE for number in range(BATCH)]
        self._room = make_vectors(places, LARGEST)
        self._parts = make_vectors(places, 0)
        self._part_sizes = column(self._parts, IoVec.len.offset, ctypes.sizeof(IoVec), IoVec.len.size)
        self._plain_in = Heads(self._room)
        self._from_clients = {family: Heads(self._room, layout, BATCH) for family, layout in LAYOUTS.items()}
        self._to_backend = Heads(self._parts), Segments(self._parts)
        self._to_client = {
            family: (Heads(self._parts, layout, 1), Segments(self._parts, layout)) for family, layout in LAYOUTS.items()
        }

    def receive(self, fd: int) -> int:
        """From a connected socket, as many datagrams as there are, up to BATCH; -1 and errno() if none."""
        return self._receive(fd, self._plain_in)

    def receive_from_clients(self, fd: int, family: int) -> int:
        """The same with `envelopes`."""
        return self._receive(fd, self._from_clients[family])

    def _receive(self, fd: int, heads: Heads) -> int:
        count: int = recvmmsg(fd, heads.address, BATCH, MSG_DONTWAIT, None)
        if count > 0:
            self._part_sizes[:count] = heads.sizes[:count]
        return count

    def sizes(self, first: int, count: int) -> int:
        """Bytes of so many datagrams."""
        return self._part_sizes[first] if count == 1 else sum(self._part_sizes[first : first + count])

    def envelopes(self, family: int, count: int) -> list[tuple[bytes, int, int]]:
        """The received batch by client: an envelope, the first of its datagrams, and how many follow each other."""
        size = LAYOUTS[family].size
        written = self._from_clients[family].envelopes
        if count == 1 or written[: size * (count - 1)] == written[size : size * count]:  # mostly all are of one client
            return [(bytes(written[:size]), 0, count)]
        groups = []
        first = 0
        envelope = bytes(written[:size])
        for number in range(1, count):
            following = bytes(written[size * number : size * (number + 1)])
            if following != envelope:
                groups.append((envelope, first, number - first))
                envelope, first = following, number
        groups.append((envelope, first, count - first))
        return groups

    def send(self, fd: int, first: int, count: int, *, segments: bool) -> tuple[int, bool]:
        """To the peer of a connected socket: how many the kernel took, and *segments*: whether such of one size may go
        as those of one packet, which a path can refuse for good."""
        return self._send(self._to_backend, fd, first, count, segments=segments)

    def reply(self, fd: int, family: int, envelope: bytes, count: int, *, segments: bool) -> tuple[int, bool]:
        """The same to a client, in an envelope that `Layout.reply` made, from the first on."""
        return self._send(self._to_client[family], fd, 0, count, segments=segments, envelope=envelope)

    def _send(
        self, way: tuple[Heads, Segments], fd: int, first: int, count: int, *, segments: bool, envelope: bytes = b""
    ) -> tuple[int, bool]:
        plain, whole = way
        if segments and (size := self._one_size(first, count)):
            if whole.send(fd, first, count, size, envelope):
                return count, True
            segments = not refused_for_good()
        if envelope:
            plain.envelopes[:] = envelope
        return _send(fd, plain.address + first * HEAD, count), segments

    def _one_size(self, first: int, count: int) -> int:
        """The size of so many datagrams if they can go as segments: all have it, the last may be shorter; else 0."""
        size: int = self._part_sizes[first]
        if count == 1 or self._part_sizes[first + count - 1] > size:
            return 0
        return size if all(one == size for one in self._part_sizes[first + 1 : first + count - 1]) else 0


def _send(fd: int, address: int, count: int) -> int:
    went: int = sendmmsg(fd, address, count, MSG_DONTWAIT)
    if went == count:
        return went
    return _send_rest(fd, address, count, went)


def _send_rest(fd: int, address: int, count: int, sent: int) -> int:
    """After a call that took fewer: -1 is an error of the first datagram, or one that the socket had from earlier."""
    went, at, asked_again = max(sent, 0), max(sent, 0), False
    while at < count:
        if sent < 0:
            error = errno()
            if error in (EAGAIN, ENOBUFS):
                break  # the queue is full, and a datagram is not kept
            if error != ECONNREFUSED or asked_again:  # told once, an answer to an earlier datagram is out of the way
                at += 1
            asked_again = error == ECONNREFUSED and not asked_again
            if at >= count:
                break
        sent = sendmmsg(fd, address + at * HEAD, count - at, MSG_DONTWAIT)
        went += max(sent, 0)
        at += max(sent, 0)
    return went
