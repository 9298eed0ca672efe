"""nf_tables by raw netlink: set elements in one batch, and look-ups whose cost does not depend on the ruleset's size.

libnftables would do as well, but a fresh process pays 4 ms to load it; this needs nothing but `_socket`.
"""

from __future__ import annotations

import _socket
import errno
import os
from struct import unpack_from

from pycni.firewall.elements import attributes, decode_elements, encode_key, keys_and_comments
from pycni.host.netfilter_socket import NetfilterSocket, open_kept
from pycni.host.nft_messages import (
    BATCH_BEGIN,
    BATCH_END,
    DUMP,
    REQUEST,
    encoded_end,
    get_all_elements,
    get_chain,
    get_chains,
    get_elements,
    get_generation,
    get_rules,
    get_table,
    in_groups,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pycni.firewall.nft_text import SetType, Table
    from pycni.firewall.rules import Element
    from pycni.host.nft_messages import Message

NETLINK_NETFILTER = 12
SOL_NETLINK, NETLINK_CAP_ACK = 270, 10
NLMSG_ERROR, NLMSG_DONE = 2, 3
ACK, DUMP_INTR = 0x4, 0x10
NOT_THERE = errno.ENOENT, errno.EINVAL  # the latter: a kernel without nf_tables, where nothing is (nfnetlink_rcv_msg)
SOL_SOCKET, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 1, 32, 33
SEND_BUFFER = 100_000  # bytes that fit into any socket's
ANSWERS = 100  # acknowledgements that fit into any socket's receive buffer, 208 KiB; each takes about 1 KiB of it
ASKED = 64  # elements of one question: the answers must fit into the receive buffer, 208 KiB by default


class Nfnetlink(NetfilterSocket):
    """A netfilter socket of the namespace that the calling thread is in."""

    def __init__(self) -> None:
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Nfnetlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def batch(self, messages: Sequence[Message]) -> dict[int, int]:
        """Send *messages* as one transaction: {} if it was committed, else position → errno of each that failed.

        Nothing is changed if anything failed. Raises OSError where the batch as such is refused (EPERM …).
        """
        begin = self._sequence + 1
        parts = [encoded_end(BATCH_BEGIN, begin)]
        parts += [one.encoded(number) for number, one in enumerate(messages, begin + 1)]
        end = begin + len(messages) + 1
        parts.append(encoded_end(BATCH_END, end))
        self._sequence = end
        data = b"".join(parts)
        if len(data) > SEND_BUFFER:
            # A transaction is one datagram, and one that does not fit is EMSGSIZE (netlink_sendmsg).
            self._socket.setsockopt(SOL_SOCKET, SO_SNDBUFFORCE, 2 * len(data))
        if len(messages) > ANSWERS:
            # An error that finds no room is lost (ENOBUFS), and whether all was done is not known.
            self._socket.setsockopt(SOL_SOCKET, SO_RCVBUFFORCE, 2048 * len(messages))
        self._socket.send(data)
        # The kernel has done it all when send returns (nfnetlink_rcv runs inside), and errors come without being asked
        # for: an acknowledgement of each of the hundred messages of a table would be 0.4 ms to read.
        failed: dict[int, int] = {}
        while True:
            try:
                answers = list(self._receive(_socket.MSG_DONTWAIT))
            except BlockingIOError:
                return failed
            for kind, _, sequence, payload in answers:
                if kind != NLMSG_ERROR or not begin <= sequence <= end:
                    continue
                number = -unpack_from("i", payload)[0]
                if number and sequence in (begin, end):
                    raise OSError(number, f"nf_tables: {os.strerror(number)}")
                if number:
                    failed[sequence - begin - 1] = number

    def get(self, message: Message) -> list[bytes]:
        """The answers (attributes only) to one GET…, which may be a dump; [] where the thing is not there.

        Errors but ENOENT are raised as OSError. A dump that the ruleset changed under is taken again.
        """
        while True:
            try:
                answers, interrupted = self._ask(message)
            except OSError as failure:
                if failure.errno in NOT_THERE:
                    return []
                raise
            if not interrupted:
                return answers

    def get_each(self, messages: Sequence[Message]) -> list[bytes | None]:
        """For each GET… of a single thing its attributes, None where that is not there; errors as `get`. One request
        for all: a question for each costs more than the answers."""
        first = self._sequence + 1
        self._sequence += len(messages)
        self._socket.send(b"".join([one.encoded(number) for number, one in enumerate(messages, first)]))
        found: dict[int, bytes | None] = {}
        while len(found) < len(messages):
            for kind, _, sequence, payload in self._receive():
                if not first <= sequence <= self._sequence:
                    continue
                if kind != NLMSG_ERROR:
                    found[sequence] = payload[4:]
                    continue
                number = -unpack_from("i", payload)[0]
                if number not in NOT_THERE:
                    raise OSError(number, f"nf_tables: {os.strerror(number)}")
                found[sequence] = None
        return [found[number] for number in range(first, self._sequence + 1)]

    def has_nf_tables(self) -> bool:
        """Whether this kernel has nf_tables: it then knows its generation."""
        return bool(self.generation())

    def generation(self) -> bytes:
        """What tells the ruleset of this namespace from what it was before any transaction; b"" without nf_tables."""
        return attributes(self.get_each([get_generation()])[0] or b"").get(1, b"")

    def _ask(self, message: Message) -> tuple[list[bytes], bool]:
        self._sequence += 1
        dump = message.flags & DUMP == DUMP
        self._socket.send(message.encoded(self._sequence, REQUEST if dump else REQUEST | ACK))
        answers: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, sequence, payload in self._receive():
                if sequence != self._sequence:
                    continue
                interrupted |= bool(flags & DUMP_INTR)
                if kind not in (NLMSG_ERROR, NLMSG_DONE):
                    answers.append(bytes(payload[4:]))
                    continue
                number = -unpack_from("i", payload)[0] if len(payload) >= 4 else 0
                if number:
                    raise OSError(number, f"nf_tables: {os.strerror(number)}")
                return answers, interrupted

    def _receive(self, flags: int = 0) -> Iterator[tuple[int, int, int, bytes]]:
        """(type, flags, sequence, payload) of each message in one datagram; *flags* are those of recv."""
        data = self._socket.recv(1 << 16, flags)
        at = 0
        while at + 16 <= len(data):
            length, kind, flags, sequence, _ = unpack_from("IHHII", data, at)
            yield kind, flags, sequence, data[at + 16 : at + length]
            at += (length + 3) & ~3

    # ---- look-ups ------------------------------------------------------------------------------------------------

    def has_chain(self, family: str, table: str, chain: str) -> bool:
        """Whether that chain exists: one message, whatever the ruleset's size."""
        return bool(self._chain(family, table, chain))

    def chain_use(self, family: str, table: str, chain: str) -> int:
        """How many rules are in the chain and jump to it; 0 where it does not exist."""
        return int.from_bytes(self._chain(family, table, chain).get(6, b""), "big")

    def policies_drop(self, chains: Sequence[tuple[str, str, str]]) -> list[bool]:
        """For each (family, table, name) whether that chain exists and its policy is drop."""
        return [chain.get(5) == bytes(4) for chain in self._chains(chains)]

    def _chain(self, family: str, table: str, chain: str) -> dict[int, bytes]:
        return self._chains([(family, table, chain)])[0]

    def _chains(self, chains: Sequence[tuple[str, str, str]]) -> list[dict[int, bytes]]:
        """For each (family, table, name) that chain's attributes, {} where it does not exist."""
        return [attributes(answer or b"") for answer in self.get_each([get_chain(*chain) for chain in chains])]

    @staticmethod
    def hook_of(chain: dict[int, bytes]) -> int | None:
        """The netfilter hook (NF_INET_…) of a chain of chains(); None for one that is only jumped to."""
        number = attributes(chain.get(4, b"")).get(1)
        return None if number is None else int.from_bytes(number, "big")

    def chains(self, family: str) -> list[dict[int, bytes]]:
        """Every chain of *family* (a dump): attributes by NFTA_CHAIN_…"""
        return [attributes(answer) for answer in self.get(get_chains(family))]

    def rules(self, family: str, table: str, chain: str) -> list[dict[int, bytes]]:
        """Every rule of one chain (a dump the kernel filters): attributes by NFTA_RULE_…"""
        return [attributes(answer) for answer in self.get(get_rules(family, table, chain))]

    def has_table(self, family: str, table: str) -> bool:
        return self.get_each([get_table(family, table)])[0] is not None

    def has_marked(self, table: Table) -> tuple[bool, bool]:
        """Whether *table* is there, and whether it is in this version."""
        names = table.family, table.name
        there, marked = self.get_each([get_table(*names), get_chain(*names, table.marker())])
        return there is not None, marked is not None

    def element(self, table: Table, element: Element) -> Element | None:
        """The element of the same key as it is in the kernel, with its comment; None where it is not there."""
        found = self.holder(table, element)
        # An interval set answers with whatever element holds the key's first address: only the same one counts.
        return found if found is not None and found.key == element.key else None

    def holder(self, table: Table, element: Element) -> Element | None:
        """The element of an interval set that holds the first values of *element*'s key, None where none does."""
        return next(iter(self._look_up(table, [element])), None)

    def find(self, table: Table, elements: Iterable[Element]) -> list[Element | None]:
        """For each of *elements* what element() says; many cost little more than one."""
        out: list[Element | None] = []
        for group in in_groups(elements, ASKED):
            found: Sequence[Element | None] = self._look_up(table, group)
            if len(found) != len(group):  # one that is not there ends the answer
                found = [self.holder(table, one) for one in group]
            out += [
                has if has is not None and has.key == one.key else None for one, has in zip(group, found, strict=True)
            ]
        return out

    def owners(self, table: Table, elements: Iterable[Element]) -> list[str | None]:
        """For each of *elements* the comment that the one of the same key has in the kernel; None where that is not
        there."""
        out: list[str | None] = []
        for group in in_groups(elements, ASKED):
            spec = table.set_named(group[0].set)
            answers = self.get(get_elements(table, group)) if spec is not None else []
            if spec is None or len(answers) != len(group):  # one that is not there ends the answer
                out += [found.comment if (found := self.element(table, one)) is not None else None for one in group]
                continue
            for one, answer in zip(group, answers, strict=True):
                ((key, comment),) = keys_and_comments(attributes(answer).get(3, b""))
                out.append(comment if key == encode_key(spec, one) else None)
        return out

    def _look_up(self, table: Table, elements: Sequence[Element]) -> list[Element]:
        """The elements of one set with those keys; [] where one is not there."""
        spec = table.set_named(elements[0].set)
        if spec is None:
            return []
        return self._decoded(spec, self.get(get_elements(table, elements)))

    def elements(self, table: Table, name: str) -> list[Element]:
        """All elements of the set *name* (a dump)."""
        spec = table.set_named(name)
        if spec is None:
            return []
        return self._decoded(spec, self.get(get_all_elements(table, name)))

    def _decoded(self, spec: SetType, answers: Sequence[bytes]) -> list[Element]:
        return [one for answer in answers for one in decode_elements(spec, attributes(answer).get(3, b""))]


def open_nfnetlink() -> Nfnetlink:
    """A socket in the calling thread's namespace; OSError where the kernel has no nfnetlink."""
    return open_kept(Nfnetlink, "nfnetlink")
