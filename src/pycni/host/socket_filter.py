"""Filters in the kernel, as classic BPF (linux/filter.h): what of a socket's datagrams is worth waking anybody for.

An instruction is (code, jump if true, jump if false, operand); jumps count the instructions that are left out.
"""

from __future__ import annotations

from struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Sequence

    Instruction = tuple[int, int, int, int]

SOL_SOCKET, SO_ATTACH_FILTER = 1, 26
# linux/bpf_common.h
LOAD_NUMBER, LOAD_X, LOAD_WORD, LOAD_HALF, LOAD_BYTE, LOAD_WORD_AT_X = 0x00, 0x01, 0x20, 0x28, 0x30, 0x40
JUMP_EQUAL, JUMP_ANY, TO_X, ANSWER = 0x15, 0x45, 0x07, 0x06
PASS, DROP = (ANSWER, 0, 0, 0xFFFFFFFF), (ANSWER, 0, 0, 0)


def attach(sock: _socket.socket, program: Sequence[Instruction]) -> None:
    """From now on *sock* receives what *program* lets pass; one that it had before is replaced."""
    from array import array

    code = array("B", b"".join(pack("=HBBI", *one) for one in program))
    sock.setsockopt(SOL_SOCKET, SO_ATTACH_FILTER, pack("HP", len(program), code.buffer_info()[0]))  # struct sock_fprog


def as_loaded(number: int, size: int = 2) -> int:
    """*number*, of *size* bytes in a netlink header, as an operand: BPF takes them for big-endian, and they are in the
    host's order."""
    return int.from_bytes(pack({2: "=H", 4: "=I"}[size], number), "big")
