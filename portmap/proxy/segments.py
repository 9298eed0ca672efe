"""Datagrams of one size as one packet: UDP_SEGMENT, Linux 4.18.

The kernel cuts it into datagrams where it enters a socket, or leaves by a wire that cannot: routing, rules, connection
tracking and queues are met once for all of them, which is most of what forwarding a datagram costs.
"""

from __future__ import annotations

import ctypes
from _socket import CMSG_LEN, CMSG_SPACE, MSG_DONTWAIT
from errno import EINVAL, EIO, EMSGSIZE, ENOPROTOOPT, EOPNOTSUPP

from pycni.portmap.proxy.mmsg import IoVec, Layout, MMsgHdr, errno, sendmmsg

SOL_UDP, UDP_SEGMENT = 17, 103  # linux/udp.h
# More than the path takes in one packet, nothing there that does checksums (udp_send_skb), or an older kernel.
_NEVER = (EINVAL, EMSGSIZE, EIO, ENOPROTOOPT, EOPNOTSUPP)


class _Control(ctypes.Structure):
    """struct cmsghdr with the size of a segment."""

    _fields_ = (
        ("len", ctypes.c_size_t),
        ("level", ctypes.c_int),
        ("type", ctypes.c_int),
        ("size", ctypes.c_uint16),
    )


class Segments:
    """One message of which the parts are datagrams: of a connected socket, or with *layout* in an envelope."""

    def __init__(self, vectors: bytearray, layout: Layout | None = None) -> None:
        self._layout = layout
        self._vectors = ctypes.addressof(ctypes.c_char.from_buffer(vectors))
        self._head = MMsgHdr()
        self._address = ctypes.addressof(self._head)
        # The kernel reads control messages one behind the other, each padded; ours is first, its padding known.
        self._memory = bytearray(CMSG_SPACE(2) + (layout.control_len + layout.name_len if layout else 0))
        self._control = _Control.from_buffer(self._memory)
        self._control.len, self._control.level, self._control.type = CMSG_LEN(2), SOL_UDP, UDP_SEGMENT
        hdr = self._head.hdr
        hdr.control, hdr.control_len = ctypes.addressof(self._control), CMSG_SPACE(2)
        if layout:
            hdr.control_len += layout.control_len
            hdr.name, hdr.name_len = hdr.control + hdr.control_len, layout.name_len

    def send(self, fd: int, first: int, count: int, size: int, envelope: bytes = b"") -> bool:
        """Send *count* datagrams of *size* bytes from place *first* on, the last may have fewer; False: none went.

        *envelope*, with a layout: who they go to, and from where.
        """
        if layout := self._layout:
            control = envelope[layout.control : layout.control + layout.control_len]
            self._memory[CMSG_SPACE(2) :] = control + envelope[layout.name : layout.name + layout.name_len]
        hdr = self._head.hdr
        hdr.iov, hdr.iov_len = self._vectors + first * ctypes.sizeof(IoVec), count
        self._control.size = size
        return bool(sendmmsg(fd, self._address, 1, MSG_DONTWAIT) == 1)


def refused_for_good() -> bool:
    """Whether a `send` that just failed would always do so on this path."""
    return errno() in _NEVER
