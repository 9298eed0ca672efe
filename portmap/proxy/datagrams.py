"""Many datagrams with one system call: recvmmsg(2) and sendmmsg(2), which the standard library does not have."""

from __future__ import annotations

import ctypes
import sys
from _socket import AF_INET, AF_INET6, CMSG_LEN, CMSG_SPACE, MSG_DONTWAIT
from errno import EAGAIN, ECONNREFUSED, ENOBUFS
from mmap import mmap

BATCH = 64
LARGEST = 65536  # more than any datagram without jumbograms: none is ever cut
# Places a multiple of 64 KiB apart would begin in the same set of a processor's cache, all 64 of them.
PLACE = LARGEST + 64


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_len", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_len", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_len", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):
    _fields_ = (("hdr", _MsgHdr), ("len", ctypes.c_uint32))


errno = ctypes.get_errno  # of the last call here

HEAD = ctypes.sizeof(_MMsgHdr)

# The interpreter's lock stays taken: there is no other thread, and none of these calls waits.
_libc = ctypes.PyDLL(None, use_errno=True)
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmmsg = _libc.sendmmsg
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


class Layout:
    """How an envelope (who sends, and which of our addresses was asked) lies in memory, for one family.

    It is what the kernel writes: a control message IP_PKTINFO or IPV6_PKTINFO, and a socket address. `key` is the part
    that tells clients apart: without the interface, by which a client's next datagram may not come. Without padding at
    the end a control message is 36 bytes at most, which is what sendmsg(2) has on its stack: else it allocates.
    """

    def __init__(self, family: int) -> None:
        header = CMSG_LEN(0)
        if family == AF_INET:  # struct in_pktinfo: interface, address of ours, destination; then the sockaddr_in
            self.control, self.control_len = 0, CMSG_LEN(12)
            self.name, self.name_len = CMSG_SPACE(12), 16
            self.interface = header
            self.key = slice(header + 4, self.name + self.name_len)
        else:  # the sockaddr_in6; then struct in6_pktinfo: destination, interface
            self.name, self.name_len = 0, 28
            self.control, self.control_len = 32, CMSG_LEN(20)
            self.interface = self.control + header + 16
            self.key = slice(0, self.interface)
        self.address = slice(self.control + header, self.control + header + 16)
        self.size = (max(self.name + self.name_len, self.control + self.control_len) + 7) & ~7
        self.family = family

    def reply(self, envelope: bytes) -> bytes:
        """The envelope of an answer: to who asked, from the address that was asked, by whatever interface routing says
        (a link-local address is one of its interface only)."""
        if self.family == AF_INET6 and envelope[self.address][0] == 0xFE and envelope[self.address][1] & 0xC0 == 0x80:
            return envelope
        return envelope[: self.interface] + b"\0\0\0\0" + envelope[self.interface + 4 :]


LAYOUTS = {family: Layout(family) for family in (AF_INET, AF_INET6)}


class Datagrams:
    """The memory of one batch, shared by all sockets: what was received last can be sent, from place *first* on.

    It is 4 MiB of address space; memory is used for as many pages as datagrams have filled.
    """

    def __init__(self) -> None:
        self._memory = mmap(-1, BATCH * PLACE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        places = [base + number * PLACE for number in range(BATCH)]
        self._room = _vectors(places, LARGEST)
        self._parts = _vectors(places, 0)
        self._part_sizes = _column(self._parts, _IoVec.len.offset, ctypes.sizeof(_IoVec), _IoVec.len.size)
        self._plain_in = Heads(self._room)
        self._plain_out = Heads(self._parts)
        self._from_clients = {family: Heads(self._room, layout, BATCH) for family, layout in LAYOUTS.items()}
        self._to_client = {family: Heads(self._parts, layout, 1) for family, layout in LAYOUTS.items()}

    def receive(self, fd: int) -> int:
        """From a connected socket, as many datagrams as there are, up to BATCH; -1 and errno() if none."""
        return self._receive(fd, self._plain_in)

    def receive_from_clients(self, fd: int, family: int) -> int:
        """The same with `envelopes`."""
        return self._receive(fd, self._from_clients[family])

    def _receive(self, fd: int, heads: Heads) -> int:
        count: int = _recvmmsg(fd, heads.address, BATCH, MSG_DONTWAIT, None)
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

    def send(self, fd: int, first: int, count: int) -> int:
        """To the peer of a connected socket; how many the kernel took."""
        return _send(fd, self._plain_out.address + first * HEAD, count)

    def reply(self, fd: int, family: int, envelope: bytes, count: int) -> int:
        """To a client, in an envelope that `Layout.reply` made."""
        heads = self._to_client[family]
        heads.envelopes[:] = envelope
        return _send(fd, heads.address, count)


class Heads:
    """An array of struct mmsghdr, and the envelopes that it points to: none, one for all, or one for each."""

    def __init__(self, vectors: bytearray, layout: Layout | None = None, envelopes: int = 0) -> None:
        self._memory = bytearray(HEAD * BATCH)
        heads = (_MMsgHdr * BATCH).from_buffer(self._memory)
        self.address = ctypes.addressof(heads)
        self.sizes = _column(self._memory, _MMsgHdr.len.offset, HEAD, _MMsgHdr.len.size)
        self.envelopes = bytearray(layout.size * envelopes if layout else 0)
        vector = ctypes.addressof(ctypes.c_char.from_buffer(vectors))
        for number in range(BATCH):
            hdr = heads[number].hdr
            hdr.iov, hdr.iov_len = vector + number * ctypes.sizeof(_IoVec), 1
            if layout:
                start = ctypes.addressof(ctypes.c_char.from_buffer(self.envelopes)) + number % envelopes * layout.size
                # The kernel writes both lengths back, and they are the same for every datagram.
                hdr.name, hdr.name_len = start + layout.name, layout.name_len
                hdr.control, hdr.control_len = start + layout.control, layout.control_len


def _vectors(places: list[int], size: int) -> bytearray:
    memory = bytearray(ctypes.sizeof(_IoVec) * len(places))
    for vector, place in zip((_IoVec * len(places)).from_buffer(memory), places, strict=True):
        vector.base, vector.len = place, size
    return memory


def _column(memory: bytearray, offset: int, step: int, size: int) -> memoryview:
    """The low 32 bits of one field of an array of structures: columns of two arrays can be copied by one assignment."""
    low = offset if sys.byteorder == "little" else offset + size - 4
    return memoryview(memory).cast("I")[low // 4 :: step // 4]


def _send(fd: int, address: int, count: int) -> int:
    went: int = _sendmmsg(fd, address, count, MSG_DONTWAIT)
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
        sent = _sendmmsg(fd, address + at * HEAD, count - at, MSG_DONTWAIT)
        went += max(sent, 0)
        at += max(sent, 0)
    return went
