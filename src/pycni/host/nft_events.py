"""Hearing of changes to the packet filter: whoever flushes the ruleset tells everybody who listens."""

from __future__ import annotations

import _socket

from pycni.cni.value import Value
from pycni.firewall import elements
from pycni.firewall.tunnel_text import TUNNELS
from pycni.host import netlink
from pycni.host.socket_filter import DROP, JUMP_EQUAL, LOAD_WORD, PASS, as_loaded, attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from pycni.firewall.rules import Element
    from pycni.host.socket_filter import Instruction

NETLINK_NETFILTER = 12  # linux/netlink.h
NFNLGRP_NFTABLES = 7  # linux/netfilter/nfnetlink.h
NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_NEWTABLE = 0  # linux/netfilter/nf_tables.h
NFT_MSG_DELTABLE, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET = 2, 5, 8, 11
NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM = 12, 14
NFTA_TABLE_NAME = 1  # and NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE, NFTA_SET_ELEM_LIST_TABLE
NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 2, 3
_PORT = 12  # nlmsg_pid, in struct nlmsghdr
_NFGENMSG = 4  # family, version, resource id


def listen() -> _socket.socket:
    """A non-blocking socket in the calling thread's namespace that receives every change of nftables rulesets."""
    sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        sock.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def pass_over(sock: _socket.socket, ports: Iterable[int]) -> None:
    """From now on *sock*, which `listen` made, does not receive what the sockets with these port ids did.

    All that one datagram tells of was one transaction's (nft_commit_notify, nf_tables_api.c).
    """
    program: list[Instruction] = [(LOAD_WORD, 0, 0, _PORT)]
    for port in ports:
        program += [(JUMP_EQUAL, 0, 1, as_loaded(port, 4)), DROP]
    attach(sock, [*program, PASS])


class SetChange(Value):
    """Elements that came to a set or went, as the kernel has them."""

    gone: bool
    name: str
    payload: bytes


class Losses(Value):
    """What somebody removed: *tables* that are *gone* or lost a chain, a rule or a set; owners: of elements, as their
    comments say; "" stands for those that belong to no single attachment. made: tables that are new. tunnels: what came
    and went of TUNNELS.
    """

    tables: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    made: frozenset[str] = frozenset()
    owners: frozenset[str] = frozenset()
    tunnels: tuple[SetChange, ...] = ()


def losses(data: bytes, table: str, own: Container[int] = ()) -> Losses:
    """The losses that a datagram of that socket tells of; owners only those of elements of *table*.

    *own*: the port ids of sockets whose changes are no loss.
    """
    tables: set[str] = set()
    gone: set[str] = set()
    made: set[str] = set()
    owners: set[str] = set()
    tunnels: list[SetChange] = []
    for offset, size in netlink.split(data):
        _, kind, _, _, port = netlink.HEADER.unpack_from(data, offset)
        if kind >> 8 != NFNL_SUBSYS_NFTABLES or kind & 0xFF not in _HEARD or port in own:
            continue
        payload = data[offset + netlink.HEADER.size : offset + size]
        if kind & 0xFF == NFT_MSG_NEWSETELEM and _TUNNELS not in payload:
            continue  # every ADD adds some of *table*
        found = dict(netlink.attributes(payload, _NFGENMSG))
        name = netlink.to_text(found.get(NFTA_TABLE_NAME, b""))
        if kind & 0xFF == NFT_MSG_NEWTABLE:
            made.add(name)
            continue
        if kind & 0xFF in _LOSSES:
            tables.add(name)
            if kind & 0xFF == NFT_MSG_DELTABLE:
                gone.add(name)
            continue
        listed = found.get(NFTA_SET_ELEM_LIST_ELEMENTS, b"")
        if name == table:
            owners.update(elements.comments(listed))
        elif name == TUNNELS.name:
            of = netlink.to_text(found.get(NFTA_SET_ELEM_LIST_SET, b""))
            tunnels.append(SetChange(kind & 0xFF == NFT_MSG_DELSETELEM, of, listed))
    return Losses(frozenset(tables), frozenset(gone), frozenset(made), frozenset(owners), tuple(tunnels))


def tunnel_elements(changes: Iterable[SetChange]) -> Iterator[tuple[bool, Element]]:
    """Each element of `Losses.tunnels`, and whether it went."""
    for change in changes:
        for spec in TUNNELS.sets:
            if spec.name == change.name:
                for element in elements.decode_elements(spec, change.payload):
                    yield change.gone, element


_TUNNELS = f"{TUNNELS.name}\0".encode()
_LOSSES = (NFT_MSG_DELTABLE, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET)
_HEARD = (*_LOSSES, NFT_MSG_NEWTABLE, NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM)
