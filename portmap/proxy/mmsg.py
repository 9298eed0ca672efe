"""struct mmsghdr in memory of ours, for recvmmsg(2) and sendmmsg(2), which the standard library does not have."""

from __future__ import annotations

import ctypes
import sys
from _socket import AF_INET, AF_INET6, CMSG_LEN, CMSG_SPACE

BATCH = 64


class IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_len", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_len", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_len", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class MMsgHdr(ctypes.Structure):
    _fields_ = (("hdr", MsgHdr), ("len", ctypes.c_uint32))


errno = ctypes.get_errno  # of the last call here

HEAD = ctypes.sizeof(MMsgHdr)

# The interpreter's lock stays taken: there is no other thread, and none of these calls waits.
_libc = ctypes.PyDLL(None, use_errno=True)
recvmmsg = _libc.recvmmsg
recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
sendmmsg = _libc.sendmmsg
sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


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


class Heads:
    """An array of struct mmsghdr, and the envelopes that it points to: none, one for all, or one for each."""

    def __init__(self, vectors: bytearray, layout: Layout | None = None, envelopes: int = 0) -> None:
        self._memory = bytearray(HEAD * BATCH)
        heads = (MMsgHdr * BATCH).from_buffer(self._memory)
        self.address = ctypes.addressof(heads)
        self.sizes = column(self._memory, MMsgHdr.len.offset, HEAD, MMsgHdr.len.size)
        self.envelopes = bytearray(layout.size * envelopes if layout else 0)
        vector = ctypes.addressof(ctypes.c_char.from_buffer(vectors))
        for number in range(BATCH):
            hdr = heads[number].hdr
            hdr.iov, hdr.iov_len = vector + number * ctypes.sizeof(IoVec), 1
            if layout:
                start = ctypes.addressof(ctypes.c_char.from_buffer(self.envelopes)) + number % envelopes * layout.size
                # The kernel writes both lengths back, and they are the same for every datagram.
                hdr.name, hdr.name_len = start + layout.name, layout.name_len
                hdr.control, hdr.control_len = start + layout.control, layout.control_len


def make_vectors(places: list[int], size: int) -> bytearray:
    memory = bytearray(ctypes.sizeof(IoVec) * len(places))
    for vector, place in zip((IoVec * len(places)).from_buffer(memory), places, strict=True):
        vector.base, vector.len = place, size
    return memory


def column(memory: bytearray, offset: int, step: int, size: int) -> memoryview:
    """The low 32 bits of one field of an array of structures: columns of two arrays can be copied by one assignment."""
    low = offset if sys.byteorder == "little" else offset + size - 4
    return memoryview(memory).cast("I")[low // 4 :: step // 4]
