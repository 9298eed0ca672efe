"""Messages of nf_tables, as values: layouts of include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h.

The encoding of elements is nft's own, so that `nft list` shows what was added here (compared in
tests/kernel/test_firewall_nft.py).
"""

from __future__ import annotations

import errno
from struct import pack

from pycni.firewall.elements import attribute, encode_element

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pycni.firewall.nft_text import Table
    from pycni.firewall.rules import Element

REQUEST, EXCL, DUMP, CREATE = 0x1, 0x200, 0x300, 0x400
BATCH_BEGIN, BATCH_END = 16, 17
SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, GETRULE, DELRULE = 1, 2, 3, 4, 5, 7, 8
NEWSETELEM, GETSETELEM, DELSETELEM, GETGEN = 12, 13, 14, 16
NESTED = 0x8000
MANY = 200  # elements of one message: an attribute ends at 65535 bytes, an element with a long comment has 260


class Message:
    """One message of a batch: *kind* is NFT_MSG_…, *flags* those beside REQUEST and ACK."""

    __slots__ = ("body", "family", "flags", "kind")

    def __init__(self, kind: int, flags: int, family: str, body: bytes) -> None:
        self.kind = kind
        self.flags = flags
        self.family = FAMILIES[family]
        self.body = body

    def encoded(self, sequence: int, flags: int = REQUEST) -> bytes:
        """As bytes; *flags* beside those of the message."""
        kind = SUBSYSTEM << 8 | self.kind
        header = _header(20 + len(self.body), kind, self.flags | flags, sequence)
        return header + pack("BBH", self.family, 0, 0) + self.body  # nfgenmsg


def add_elements(table: Table, elements: Sequence[Element], *, exclusive: bool = False) -> Message:
    """Add *elements* of one set, at most MANY; one that is there already is fine, and EEXIST where *exclusive*.

    ENOENT: no such table or set.
    """
    flags = CREATE | (EXCL if exclusive else 0)
    return Message(NEWSETELEM, flags, table.family, _elements_body(table, elements, whole=True))


def delete_elements(table: Table, elements: Sequence[Element]) -> Message:
    """Delete the elements of one set with those keys, at most MANY; ENOENT where one is not there."""
    return Message(DELSETELEM, 0, table.family, _elements_body(table, elements, whole=False))


def in_groups(elements: Iterable[Element], size: int = 0) -> list[list[Element]]:
    """*elements* in their order, neighbours of one set together in groups of MANY, or of *size*."""
    out: list[list[Element]] = []
    for one in elements:
        if not out or out[-1][0].set != one.set or len(out[-1]) >= (size or MANY):
            out.append([])
        out[-1].append(one)
    return out


def flush_chain(table: Table, chain: str) -> Message:
    """Remove the rules of *chain*; ENOENT where it does not exist. Of an empty one: whether it exists."""
    body = _names(table.name, chain)
    return Message(DELRULE, 0, table.family, body)


def delete_chain(family: str, table: str, chain: str) -> Message:
    return Message(DELCHAIN, 0, family, _chain_names(table, chain))


def add_chain(table: Table, chain: str) -> Message:
    """Add a chain without a hook; it may be there already."""
    return Message(NEWCHAIN, CREATE, table.family, _chain_names(table.name, chain))


def delete_table(family: str, table: str) -> Message:
    return Message(DELTABLE, 0, family, _names(table))


# ---- questions -------------------------------------------------------------------------------------------------------


def get_generation() -> Message:
    return Message(GETGEN, 0, "inet", b"")


def get_table(family: str, table: str) -> Message:
    return Message(GETTABLE, 0, family, _names(table))


def get_chain(family: str, table: str, chain: str) -> Message:
    return Message(GETCHAIN, 0, family, _chain_names(table, chain))


def get_chains(family: str) -> Message:
    """Every chain of *family*: a dump."""
    return Message(GETCHAIN, DUMP, family, b"")


def get_rules(family: str, table: str, chain: str) -> Message:
    """Every rule of one chain: a dump the kernel filters."""
    return Message(GETRULE, DUMP, family, _names(table, chain))


def get_elements(table: Table, elements: Sequence[Element]) -> Message:
    """The elements of one set with those keys, ENOENT where one is not there."""
    return Message(GETSETELEM, 0, table.family, _elements_body(table, elements, whole=False))


def get_all_elements(table: Table, name: str) -> Message:
    """All elements of the set *name*: a dump."""
    return Message(GETSETELEM, DUMP, table.family, _names(table.name, name))


# ---- encoding --------------------------------------------------------------------------------------------------------


def encoded_end(kind: int, sequence: int) -> bytes:
    """An end of a transaction, as bytes: *kind* is BATCH_BEGIN or BATCH_END."""
    return _header(20, kind, REQUEST, sequence) + pack(">BBH", 0, 0, SUBSYSTEM)  # nfgenmsg: res_id is the subsystem


def _header(length: int, kind: int, flags: int, sequence: int) -> bytes:
    return pack("IHHII", length, kind, flags, sequence, 0)


def _names(table: str, *others: str) -> bytes:
    """The table's name is attribute 1 of every message; that of a set, or of the chain of a rule, is 2."""
    return attribute(1, table.encode() + b"\0") + b"".join(attribute(2, name.encode() + b"\0") for name in others)


def _chain_names(table: str, chain: str) -> bytes:
    """Of messages about a chain itself, which have its name in attribute 3."""
    return _names(table) + attribute(3, chain.encode() + b"\0")


def _elements_body(table: Table, elements: Sequence[Element], *, whole: bool) -> bytes:
    """*whole*: with comment and data, not as mere keys."""
    spec = table.set_named(elements[0].set)
    if spec is None:
        raise OSError(errno.ENOENT, f"table {table.family} {table.name} has no set {elements[0].set}")
    members = b"".join(attribute(1 | NESTED, encode_element(spec, one, comment=whole)) for one in elements)
    return _names(table.name, spec.name) + attribute(3 | NESTED, members)
