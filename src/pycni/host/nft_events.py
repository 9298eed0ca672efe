"""Hearing of changes to the packet filter: whoever flushes the ruleset tells everybody who listens."""

from __future__ import annotations

import _socket

from pycni.host import netlink

NETLINK_NETFILTER = 12  # linux/netlink.h
NFNLGRP_NFTABLES = 7  # linux/netfilter/nfnetlink.h
NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_DELTABLE, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE = 2, 5, 8  # linux/netfilter/nf_tables.h
NFTA_TABLE_NAME = 1  # the same number as NFTA_CHAIN_TABLE and NFTA_RULE_TABLE
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


def tables_hurt(data: bytes) -> set[str]:
    """The names of the tables that lost themselves, a chain or a rule according to a datagram of that socket."""
    found: set[str] = set()
    for offset, size in netlink.split(data):
        _, kind, *_ = netlink.HEADER.unpack_from(data, offset)
        if kind in _LOSSES:
            payload = data[offset + netlink.HEADER.size : offset + size]
            name = dict(netlink.attributes(payload, _NFGENMSG)).get(NFTA_TABLE_NAME, b"")
            found.add(netlink.to_text(name))
    return found


_LOSSES = {NFNL_SUBSYS_NFTABLES << 8 | kind for kind in (NFT_MSG_DELTABLE, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE)}
