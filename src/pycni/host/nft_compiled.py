"""A table of ours as the messages that make it, kept from the first time nft made it from text.

Loading ctypes and libnftables and having the text compiled is 7 ms of an ADD that finds no table, which is that of the
first container of a host; sending what the kernel itself said of the finished table is less than one. A dump has the
same attributes as the request (nf_tables_fill_*_info beside nf_tables_new*, nf_tables_api.c) plus handles, counters and
positions, which are left out. Anonymous sets keep the names that the kernel gave them.
"""

from __future__ import annotations

import os
from binascii import crc32
from struct import pack, unpack_from

from pycni.firewall.elements import attribute, each_attribute
from pycni.host.nft_messages import CREATE, DUMP, GETCHAIN, GETRULE, GETSETELEM, NEWCHAIN, NEWSETELEM, Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycni.firewall.nft_text import Table
    from pycni.host.nfnetlink import Nfnetlink

FOLDER = "/var/lib/pycni"
NEWTABLE, NEWRULE, NEWSET, GETSET = 0, 6, 9, 10
APPEND = 0x800
# What of a dump is not for a request: enum nft_chain_attributes, nft_rule_attributes, nft_set_attributes.
CHAIN_OWN = (2, 6, 8, 10)  # handle, use, counters, and the flag that says it has a hook
RULE_OWN = (3, 6)  # handle, position
SET_OWN = (10, 16, 19, 20)  # id, handle, type, count
SET_FLAGS, SET_ID, ANONYMOUS = 3, 10, 0x1
_HEAD = "HHI"


def load(table: Table) -> list[Message]:
    """The messages that make *table*; [] where they are not known, or were of another kernel."""
    try:
        with open(_path(table), "rb") as file:
            data = file.read()
    except OSError:
        return []
    if len(data) < 4 or crc32(data[4:]) != int.from_bytes(data[:4], "little"):
        return []  # half written before a power loss
    return list(_decoded(table, data[4:]))


def keep(kernel: Nfnetlink, table: Table) -> None:
    """Note how the kernel has *table*, which nobody has put anything into yet. Where it cannot be written, or somebody
    changed the ruleset meanwhile, it is compiled again the next time."""
    generation = kernel.generation()
    known = messages(kernel, table)
    if kernel.generation() != generation or not _is_whole(table, known):
        return
    data = encode(known)
    path = _path(table)
    try:
        for name in os.listdir(FOLDER):
            if name.startswith(_name(table)):
                os.unlink(f"{FOLDER}/{name}")  # of other versions and kernels
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        os.rename(f"{path}.new", path)
    except OSError:
        pass


def encode(known: Iterable[Message]) -> bytes:
    """*known* as the bytes of a file."""
    data = b"".join(pack(_HEAD, one.kind, one.flags, len(one.body)) + one.body for one in known)
    return crc32(data).to_bytes(4, "little") + data


def messages(kernel: Nfnetlink, table: Table) -> list[Message]:
    """The requests that make *table* as it is now, but for the elements of its named sets."""
    family = table.family
    own = attribute(1, table.name.encode() + b"\0")
    out = [Message(NEWTABLE, CREATE, family, own)]
    contents: list[Message] = []
    for number, answer in enumerate(_of(kernel, Message(GETSET, DUMP, family, own), own), 1):
        found = dict(each_attribute(answer))
        body = _without(answer, SET_OWN) + attribute(SET_ID, number.to_bytes(4, "big"))
        out.append(Message(NEWSET, CREATE, family, body))
        if int.from_bytes(found.get(SET_FLAGS, b""), "big") & ANONYMOUS:
            name = attribute(2, found[2])
            question = Message(GETSETELEM, DUMP, family, own + name)
            contents += [Message(NEWSETELEM, CREATE, family, one) for one in kernel.get(question)]
    chains = _of(kernel, Message(GETCHAIN, DUMP, family, own), own)
    out += [Message(NEWCHAIN, CREATE, family, _without(one, CHAIN_OWN)) for one in chains]
    rules = _of(kernel, Message(GETRULE, DUMP, family, own), own)
    return [*out, *contents, *(Message(NEWRULE, CREATE | APPEND, family, _without(one, RULE_OWN)) for one in rules)]


def _is_whole(table: Table, known: Iterable[Message]) -> bool:
    """Whether all of *table* is in the messages: after a flush before the first question nothing changes any more."""
    kinds = [one.kind for one in known]
    rules = sum(len(rules) - 1 for name, rules in table.chains.items() if name != "admin")
    wanted = {NEWSET: len(table.sets), NEWCHAIN: len(table.chains), NEWRULE: rules}
    return all(kinds.count(kind) >= number for kind, number in wanted.items())


def _of(kernel: Nfnetlink, question: Message, own: bytes) -> list[bytes]:
    """The answers that are of the table; not every kernel filters a dump."""
    return [answer for answer in kernel.get(question) if answer.startswith(own)]


def _without(answer: bytes, left_out: Iterable[int]) -> bytes:
    out, at = [], 0
    while at + 4 <= len(answer):
        length, kind = unpack_from("HH", answer, at)
        end = at + ((length + 3) & ~3)
        if kind & 0x3FFF not in left_out:
            out.append(answer[at:end])
        at = end
    return b"".join(out)


def _decoded(table: Table, data: bytes) -> Iterator[Message]:
    at = 0
    while at < len(data):
        kind, flags, length = unpack_from(_HEAD, data, at)
        at += 8
        yield Message(kind, flags, table.family, data[at : at + length])
        at += length


def _name(table: Table) -> str:
    return f"{table.family}-{table.name}-base_"


def _path(table: Table) -> str:
    return f"{FOLDER}/{table.family}-{table.name}-{table.marker()}-{os.uname().release}"
