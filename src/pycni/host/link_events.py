"""Hearing of changes to links, addresses and the entries that lead to other hosts, whoever makes them.

The kernel tells everybody who listens; what it cannot deliver for want of room is lost, and then everything has to be
looked at (`LinkEvents.read` says so). A filter in the kernel keeps away what nobody here wants to hear: the coming,
ageing and going of neighbours that hosts and bridges learn, and the routes of others.
"""

from __future__ import annotations

import _socket
import errno

from pycni.change.forwarding import PROTOCOL, NeighbourEntry
from pycni.cni.value import Value
from pycni.host import forwarding_facts, link_facts, messages, netlink
from pycni.host.inet_messages import (
    NUD_NOARP,
    NUD_PERMANENT,
    RTM_DELADDR,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
)
from pycni.host.messages import RTM_DELLINK, RTM_NEWLINK
from pycni.host.socket_filter import DROP, JUMP_ANY, JUMP_EQUAL, LOAD_BYTE, LOAD_HALF, PASS, as_loaded, attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycni.change.forwarding import Entry
    from pycni.host.link_facts import Link
    from pycni.host.socket_filter import Instruction

NETLINK_ROUTE = 0
RTNLGRP_LINK, RTNLGRP_NEIGH = 1, 3  # linux/rtnetlink.h
RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE = 5, 7, 9, 11
GROUPS = (
    *(RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR),
    *(RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE),
)
SOL_SOCKET, SO_RCVBUFFORCE = 1, 33
# A thousand notices; one takes less than 2 KiB of it, and that of a link as much as 4.
RECEIVE_BUFFER = 4 << 20
LARGEST = 65536  # bytes of one datagram
MANY = 500  # datagrams of one read: others want to run, too


class Change(Value):
    """One thing that is not as it was: `gone`, or new or different. The index is that of the link it is on.

    `link`: the link itself. `address`: one of its addresses came or went ("10.1.2.3"). `entry`: one that leads to other
    hosts. One of the three is given; all of them are as the kernel says them, of whatever link. Of a neighbour that is
    gone the MAC is "": the kernel does not tell it any more. A link that went down has lost its neighbours and routes,
    and of those of IPv4 nobody is told.
    """

    index: int
    gone: bool
    link: Link | None = None
    address: str = ""
    entry: Entry | None = None


class LinkEvents:
    """A socket in the calling thread's namespace, from the moment it is made. For a selector: it has fileno().

    groups: RTNLGRP_…; program: what of them passes, see `wanted_program`.
    """

    def __init__(self, groups: Sequence[int] = GROUPS, program: Sequence[Instruction] | None = None) -> None:
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        try:
            self._socket.setsockopt(SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
            attach(self._socket, program or wanted_program())
            self._socket.bind((0, sum(1 << (group - 1) for group in groups)))
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> list[Change] | None:
        """What has happened since the last read, at most the notices of MANY datagrams, without waiting for any.

        None: some were lost, so look at everything there is; those still waiting are answered by the next read.
        """
        out: list[Change] = []
        for _ in range(MANY):
            try:
                data, sender = self._socket.recvfrom(LARGEST)
            except BlockingIOError:
                break
            except OSError as failure:
                if failure.errno != errno.ENOBUFS:
                    raise
                return None
            if sender[0] == 0:  # only the kernel is port 0; a privileged process may write to us too
                out += changes(data)
        return out


def changes(data: bytes) -> list[Change]:
    """What one datagram tells of. Pure."""
    out = []
    for offset, size in netlink.split(data):
        kind = netlink.HEADER.unpack_from(data, offset)[1]
        found = _change(kind, data[offset + netlink.HEADER.size : offset + size])
        if found is not None:
            out.append(found)
    return out


def _change(kind: int, payload: bytes) -> Change | None:
    if kind in (RTM_NEWLINK, RTM_DELLINK):
        if payload[0] == messages.AF_BRIDGE:  # a port's settings, or that it left its bridge: the link says so as well
            return None
        link = link_facts.read_link(payload)
        return Change(link.index, kind == RTM_DELLINK, link=link)
    if kind in (RTM_NEWADDR, RTM_DELADDR):
        address = link_facts.read_address(payload)
        return Change(address.index, kind == RTM_DELADDR, address=str(address.interface.ip))
    if kind in (RTM_NEWNEIGH, RTM_DELNEIGH):
        gone = kind == RTM_DELNEIGH
        index, entry = _gone_neighbour(payload) if gone else forwarding_facts.read_neighbour(payload)
        return Change(index, gone, entry=entry) if entry is not None else None
    if kind in (RTM_NEWROUTE, RTM_DELROUTE):
        index, entry = forwarding_facts.read_route(payload)
        return Change(index, kind == RTM_DELROUTE, entry=entry) if entry is not None else None
    return None


def _gone_neighbour(payload: bytes) -> tuple[int, Entry | None]:
    """As forwarding_facts.read_neighbour: but it has neither MAC nor the state that it had."""
    index, entry = forwarding_facts.read_neighbour(payload)
    address = forwarding_facts.neighbour_address(payload)
    return index, NeighbourEntry(address, "") if address else entry


def wanted_program() -> list[Instruction]:
    """The filter, see socket_filter. Pure.

    Of routes those of our protocol pass, of new neighbours those that somebody wrote (no state but these two is
    written), and everything else.
    """
    kind, state, protocol = 4, 16 + 8, 16 + 5  # in struct nlmsghdr, and behind it in ndmsg and rtmsg
    return [
        (LOAD_HALF, 0, 0, kind),
        (JUMP_EQUAL, 3, 0, as_loaded(RTM_NEWNEIGH)),
        (JUMP_EQUAL, 4, 0, as_loaded(RTM_NEWROUTE)),
        (JUMP_EQUAL, 3, 0, as_loaded(RTM_DELROUTE)),
        PASS,
        (LOAD_HALF, 0, 0, state),
        (JUMP_ANY, 2, 3, as_loaded(NUD_PERMANENT | NUD_NOARP)),
        (LOAD_BYTE, 0, 0, protocol),
        (JUMP_EQUAL, 0, 1, PROTOCOL),
        PASS,
        DROP,
    ]
