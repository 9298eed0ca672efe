"""Which sockets stand in the way of a host port, and which processes have them.

NETLINK_SOCK_DIAG (linux/inet_diag.h) lists sockets; a filter in the request lets the kernel pick those of a range of
ports, so that the answer is short whatever else runs. A socket that is bound and does not listen is in no list of TCP.
"""

from __future__ import annotations

import os
import struct
from functools import partial
from ipaddress import IPv6Address, ip_address

from pycni.cni.value import Value
from pycni.host import netlink
from pycni.host.netlink_socket import NetlinkSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
INET_DIAG_REQ_BYTECODE = 1
INET_DIAG_SKV6ONLY = 11
INET_DIAG_BC_S_GE, INET_DIAG_BC_S_LE = 2, 3
TCP_CLOSE, TCP_LISTEN = 7, 10  # net/tcp_states.h; TCP_CLOSE is also any UDP socket that is not connected
_NUMBERS = {"tcp": 6, "udp": 17}
_ENDING = (4, 5, 6, 8, 9, 11)  # FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING
_NAMES = {number: name for name, number in _NUMBERS.items()}
_LISTENING = {"tcp": 1 << TCP_LISTEN, "udp": 1 << TCP_CLOSE}
_ANY_STATE = 0xFFFFFFFF
_AF_INET, _AF_INET6 = 2, 10
_REQUEST = struct.Struct("=BBBBI")  # family, protocol, extensions, padding, states; then struct inet_diag_sockid
_ID = struct.Struct("!HH16s16s12s")  # ports and addresses of both sides; interface and cookie
_COMPARE = struct.Struct("=BBHBBH")  # struct inet_diag_bc_op and the one behind it, which holds the port
_TAIL = struct.Struct("=IIIII")  # expires, receive queue, send queue, uid, inode


class Listener(Value):
    """A socket that has a port."""

    proto: str
    address: str  # "0.0.0.0" or "::" for all
    port: int
    inode: int  # 0: the kernel's own, as those of NFS, or of a connection that has ended
    ended: bool = False  # in TIME_WAIT or on the way to it: nobody has it any more

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}/{self.proto}"


class Process(Value):
    """One of those that have a socket open."""

    pid: int
    command: str  # its short name, at most 15 bytes
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid})"


def conflicting(
    family: int, proto: str, host_ip: str, low: int, high: int, *, connected: bool = False
) -> list[Listener]:
    """The sockets of this namespace that have ports *low* to *high* at *host_ip* ("": all of *family*).

    A socket of IPv6 on "::" that is not bound to that family alone has the port for IPv4 as well. *connected*: also
    those that only use a port as a client, which keeps others from binding it.
    """
    states = _ANY_STATE if connected else _LISTENING[proto]
    with NetlinkSocket(NETLINK_SOCK_DIAG) as socket:
        ask = partial(_listed, socket, _NUMBERS[proto], states, _between(low, high))
        found = list(ask(_AF_INET if family == 4 else _AF_INET6))
        if family == 4:
            found += [one for one in map(_as_ipv4, ask(_AF_INET6)) if one is not None]
    wanted = ip_address(host_ip) if host_ip else None
    return [
        one
        for one, _ in found
        if wanted is None or one.address in ("0.0.0.0", "::") or ip_address(one.address) == wanted
    ]


def process_of(listener: Listener) -> Process | None:
    """A process that has the socket open; None where /proc shows none: the kernel's own, or another's pid namespace."""
    wanted = f"socket:[{listener.inode}]"
    for pid in filter(str.isdecimal, os.listdir("/proc") if listener.inode else ()):
        try:
            if any(_target(f"/proc/{pid}/fd/{fd}") == wanted for fd in os.listdir(f"/proc/{pid}/fd")):
                arguments = _read(f"/proc/{pid}/cmdline").split("\0")
                return Process(int(pid), _read(f"/proc/{pid}/comm").rstrip("\n"), tuple(filter(None, arguments)))
        except OSError:
            continue  # it has ended, or is hidden from us
    return None


def _listed(
    socket: NetlinkSocket, protocol: int, states: int, program: bytes, family: int
) -> Iterator[tuple[Listener, bool]]:
    """The sockets that *program* accepts, each with whether it is bound to IPv6 alone."""
    request = _REQUEST.pack(family, protocol, 0, 0, states) + bytes(_ID.size)
    attributes = netlink.attribute(INET_DIAG_REQ_BYTECODE, program)
    for answer in socket.answers(netlink.message(SOCK_DIAG_BY_FAMILY, netlink.NLM_F_DUMP, request, attributes)):
        port, _, source, _, _ = _ID.unpack_from(answer, 4)  # behind family, state, timer, retransmissions
        address = ip_address(source[:4] if family == _AF_INET else source)
        inode = _TAIL.unpack_from(answer, 4 + _ID.size)[4]
        more = dict(netlink.attributes(answer, 4 + _ID.size + _TAIL.size))
        alone = netlink.to_int(more.get(INET_DIAG_SKV6ONLY, b"")) != 0
        yield Listener(_NAMES[protocol], str(address), port, inode, not inode and answer[1] in _ENDING), alone


def _between(low: int, high: int) -> bytes:
    """A program of inet_diag_bc_run: it accepts what reaches its end, and refuses by a jump four bytes beyond."""
    size = _COMPARE.size
    at_least = _COMPARE.pack(INET_DIAG_BC_S_GE, size, 2 * size + 4, 0, 0, low)
    at_most = _COMPARE.pack(INET_DIAG_BC_S_LE, size, size + 4, 0, 0, high)
    return at_least + at_most


def _as_ipv4(found: tuple[Listener, bool]) -> tuple[Listener, bool] | None:
    """What a socket of IPv6 has of IPv4; None where that is nothing."""
    listener, alone = found
    address = IPv6Address(listener.address)
    if address.ipv4_mapped is not None:
        return listener.replace(address=str(address.ipv4_mapped)), alone
    return found if listener.address == "::" and not alone else None


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
