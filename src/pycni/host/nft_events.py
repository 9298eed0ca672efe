"""Hearing of changes to the packet filter: whoever flushes the ruleset tells everybody who listens."""

from __future__ import annotations

import _socket

from pycni.cni.value import Value
from pycni.firewall import elements
from pycni.host import netlink

NETLINK_NETFILTER = 12  # linux/netlink.h
NFNLGRP_NFTABLES = 7  # linux/netfilter/nfnetlink.h
NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_DELTABLE, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET = 2, 5, 8, 11  # linux/netfilter/nf_tables.h
NFT_MSG_DELSETELEM = 14
NFTA_TABLE_NAME = 1  # and NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE, NFTA_SET_ELEM_LIST_TABLE
NFTA_SET_ELEM_LIST_ELEMENTS = 3
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


class Losses(Value):
    """What somebody removed: *tables* that are *gone* or lost a chain, a rule or a set; emptier: those whose sets lost
    elements.

    owners: of the elements, as their comments say; "" stands for those that belong to no single attachment.
    """

    tables: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    emptier: frozenset[str] = frozenset()
    owners: frozenset[str] = frozenset()


def losses(data: bytes, table: str) -> Losses:
    """The losses that a datagram of that socket tells of; owners only those of elements of *table*."""
    tables: set[str] = set()
    gone: set[str] = set()
    emptier: set[str] = set()
    owners: set[str] = set()
    for offset, size in netlink.split(data):
        _, kind, *_ = netlink.HEADER.unpack_from(data, offset)
        if kind >> 8 != NFNL_SUBSYS_NFTABLES or kind & 0xFF not in _LOSSES:
            continue
        payload = data[offset + netlink.HEADER.size : offset + size]
        found = dict(netlink.attributes(payload, _NFGENMSG))
        name = netlink.to_text(found.get(NFTA_TABLE_NAME, b""))
        if kind & 0xFF != NFT_MSG_DELSETELEM:
            tables.add(name)
            if kind & 0xFF == NFT_MSG_DELTABLE:
                gone.add(name)
            continue
        emptier.add(name)
        if name == table:
            owners.update(elements.comments(found.get(NFTA_SET_ELEM_LIST_ELEMENTS, b"")))
    return Losses(frozenset(tables), frozenset(gone), frozenset(emptier), frozenset(owners))


_LOSSES = (NFT_MSG_DELTABLE, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_DELSETELEM)
