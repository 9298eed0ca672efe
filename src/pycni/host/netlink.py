"""What every netlink message is made of: the header and the attributes, to bytes and back. Pure.

Names and numbers are those of linux/netlink.h; all integers are in host byte order, everything is padded to 4 bytes.
"""

from __future__ import annotations

import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Buffer = bytes | bytearray | memoryview

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3

NLM_F_REQUEST = 0x001
NLM_F_MULTI = 0x002
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010  # in answers: the table changed while it was dumped
NLM_F_CAPPED = 0x100  # in NLMSG_ERROR: the request is not echoed behind its header
NLM_F_ACK_TLVS = 0x200  # in NLMSG_ERROR and NLMSG_DONE: attributes follow
NLM_F_REPLACE = 0x100  # in NEW requests
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_DUMP = 0x300  # in GET requests

NLMSGERR_ATTR_MSG = 1  # ext_ack: why, as text

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_ATTRIBUTE = struct.Struct("=HH")  # length, type
U16 = struct.Struct("=H")
U32 = struct.Struct("=I")
I32 = struct.Struct("=i")


def message(kind: int, flags: int, *parts: bytes) -> bytes:
    """One request of type *kind* (RTM_…); its sequence number is 0 until it is sent."""
    body = b"".join(parts)
    return HEADER.pack(HEADER.size + len(body), kind, flags | NLM_F_REQUEST, 0, 0) + body


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded: struct nlattr and *data*."""
    size = 4 + len(data)
    return _ATTRIBUTE.pack(size, kind) + data + b"\0" * (-size & 3)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute; undecodable bytes of a name come and go as surrogate escapes."""
    return attribute(kind, value.encode("utf-8", "surrogateescape") + b"\0")


def u8(kind: int, value: int) -> bytes:
    """A one-byte attribute; True is 1."""
    return attribute(kind, bytes((value,)))


def u16(kind: int, value: int) -> bytes:
    """A two-byte attribute."""
    return attribute(kind, U16.pack(value))


def u32(kind: int, value: int) -> bytes:
    """A four-byte attribute."""
    return attribute(kind, U32.pack(value))


def attributes(data: Buffer, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type (without the flag bits) and data of every attribute in *data* from *offset*; a torn one ends the walk."""
    end = len(data)
    while offset + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < 4 or offset + size > end:
            return
        yield kind & NLA_TYPE_MASK, bytes(data[offset + 4 : offset + size])
        offset += (size + 3) & ~3


def pick(wanted: frozenset[int], data: Buffer, offset: int = 0) -> dict[int, bytes]:
    """The attributes that are *wanted*, by type: of the seventy that a link has a dozen, at half the price."""
    found = {}
    end = len(data)
    unpack = _ATTRIBUTE.unpack_from
    while offset + 4 <= end:
        size, kind = unpack(data, offset)
        if size < 4 or offset + size > end:
            break
        kind &= NLA_TYPE_MASK
        if kind in wanted:
            found[kind] = bytes(data[offset + 4 : offset + size])
        offset += (size + 3) & ~3
    return found


def to_text(data: bytes) -> str:
    """The string in a NUL-terminated attribute."""
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def to_int(data: bytes) -> int:
    """The unsigned number in an attribute of 1, 2, 4 or 8 bytes; 0 for an empty one."""
    return int.from_bytes(data, sys.byteorder)


def split(data: Buffer) -> Iterator[tuple[int, int]]:
    """Offset and length (header included) of every message in *data*; a torn one ends the walk."""
    offset, end = 0, len(data)
    while offset + HEADER.size <= end:
        size = U32.unpack_from(data, offset)[0]
        if size < HEADER.size or offset + size > end:
            return
        yield offset, size
        offset += (size + 3) & ~3


def error_text(kind: int, flags: int, payload: Buffer) -> str:
    """The ext_ack text of an NLMSG_ERROR or NLMSG_DONE, "" without one (netlink_ack_tlv_fill, af_netlink.c).

    An error is the errno, the header of the request, the rest of the request unless NLM_F_CAPPED, the attributes;
    the end of a dump is the errno and the attributes.
    """
    if not flags & NLM_F_ACK_TLVS:
        return ""
    offset = 4
    if kind == NLMSG_ERROR:
        offset += HEADER.size if flags & NLM_F_CAPPED else (U32.unpack_from(payload, 4)[0] + 3) & ~3
    return next((to_text(data) for name, data in attributes(payload, offset) if name == NLMSGERR_ATTR_MSG), "")
