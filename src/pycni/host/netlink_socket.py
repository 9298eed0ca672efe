"""A netlink socket: requests with every acknowledgement read, questions with complete answers.

The kernel handles a request while it is being sent (netlink_rcv_skb runs inside sendmsg), so its answer is there, or
lost, as soon as the send returns: nothing here ever blocks on the socket.
"""

from __future__ import annotations

import _socket
import errno
import os
from struct import Struct

from pycni.host import netlink
from pycni.host.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTI, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

NETLINK_ROUTE = 0
SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12

# The kernel builds answers to a dump of up to 32 KiB (netlink_recvmsg); any other answer we ask for is far smaller.
RECEIVE_BYTES = 65536
# An acknowledgement takes about 1 KiB of the default receive buffer of 208 KiB; one that finds no room is dropped.
BATCH_MESSAGES, BATCH_BYTES = 64, 65536
UNANSWERED = 100  # messages of a batch of which only failures are told: at worst all
DUMP_ATTEMPTS = 10
_FLAGS_AND_SEQUENCE = Struct("=HI")  # of struct nlmsghdr, from its 7th byte


class NetlinkSocket:
    """A socket in the network namespace that the creating thread is in; it stays there. One thread at a time.

    Every failure is an OSError with the kernel's errno and its ext_ack text, or else what the errno means.
    """

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._sequence = 0
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; again is harmless."""
        self._socket.close()

    def request(self, *requests: bytes) -> None:
        """Send *requests*, each of one or more messages, in one go and read every acknowledgement.

        The kernel does not stop at an error: whatever can be done is done. Then the first failure is raised, with the
        number of its request as attribute `position`. ENOBUFS: an acknowledgement was lost, anything may be done.
        """
        first: tuple[int, OSError] | None = None
        for batch in _batches(requests):
            failed = self._acknowledged(batch)
            first = first or failed
        if first is not None:
            position, error = first
            error.position = position  # type: ignore[attr-defined]
            raise error

    def attempt(self, requests: Sequence[bytes]) -> dict[int, OSError]:
        """Send *requests*, each one message, and answer the failures by the number of the request.

        The kernel does not stop at an error. It acknowledges the last of each batch only, so thousands cost half.
        """
        failed: dict[int, OSError] = {}
        for start in range(0, len(requests), UNANSWERED):
            batch = requests[start : start + UNANSWERED]
            if self._sequence + len(batch) > 0xFFFFFFFF:
                self._sequence = 0
            first, last = self._sequence + 1, self._sequence + len(batch)
            self._sequence = last
            data = bytearray(b"".join(batch))
            at = 0
            for number, one in enumerate(batch, first):
                flags = netlink.U16.unpack_from(one, 6)[0] & ~NLM_F_ACK | (NLM_F_ACK if number == last else 0)
                _FLAGS_AND_SEQUENCE.pack_into(data, at + 6, flags, number)
                at += len(one)
            self._socket.send(data)
            for number, error in self._failures(first, last):
                failed[start + number - first] = error
        return failed

    def answers(self, question: bytes) -> list[bytes]:
        """The payloads (what follows the header) of the kernel's answers to a get… or list… message.

        A list that changed while it was read, or lost a part, is asked for anew: DUMP_ATTEMPTS times, then EINTR.
        """
        for _ in range(DUMP_ATTEMPTS):
            found = self._ask(question)
            if found is not None:
                return found
        raise OSError(errno.EINTR, f"the kernel's answer was incomplete {DUMP_ATTEMPTS} times")

    def answer_each(self, questions: Sequence[bytes]) -> list[bytes | OSError]:
        """For each get… message its one answer, or why there is none; all are asked in one go."""
        data = bytearray()
        asked = [self._number(question, data) for question in questions]
        self._socket.send(data)
        found: dict[int, bytes | OSError] = {}
        while len(found) < len(asked):
            for sequence, kind, flags, payload in self._receive():
                failure = _error(kind, flags, payload) if kind == NLMSG_ERROR else None
                if sequence in asked:
                    found[sequence] = failure or bytes(payload)
        return [found[sequence] for sequence in asked]

    def _acknowledged(self, batch: Sequence[tuple[int, bytes]]) -> tuple[int, OSError] | None:
        """Send the messages of one batch; position and error of the first that failed."""
        data = bytearray()
        waiting: dict[int, int] = {}  # sequence number → position of the request
        for position, message in batch:
            waiting[self._number(message, data)] = position
        self._socket.send(data)
        failed: dict[int, OSError] = {}
        while waiting:
            for sequence, kind, flags, payload in self._receive():
                if sequence in waiting and kind == NLMSG_ERROR:
                    position = waiting.pop(sequence)
                    error = _error(kind, flags, payload)
                    if error is not None:
                        failed.setdefault(position, error)
        return min(failed.items(), key=lambda one: one[0]) if failed else None

    def _failures(self, first: int, last: int) -> Iterator[tuple[int, OSError]]:
        """Sequence number and error of those from *first* to *last* that failed; reads to the answer to *last*."""
        while True:
            for sequence, kind, flags, payload in self._receive():
                if kind != NLMSG_ERROR or not first <= sequence <= last:
                    continue
                error = _error(kind, flags, payload)
                if error is not None:
                    yield sequence, error
                if sequence == last:
                    return

    def _ask(self, question: bytes) -> list[bytes] | None:
        """The answers to one question, None if they are incomplete; reads a dump to its end in either case."""
        data = bytearray()
        asked = self._number(question, data)
        dump = netlink.HEADER.unpack_from(question)[2] & NLM_F_DUMP == NLM_F_DUMP
        self._socket.send(data)
        found: list[bytes] = []
        complete = True
        while True:
            try:
                received = list(self._receive())
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                if not dump or not complete:
                    return None
                complete = False  # a part was lost, but until its end is read the next dump would be EBUSY
                continue
            for sequence, kind, flags, payload in received:
                if sequence != asked:
                    continue
                complete = complete and not flags & NLM_F_DUMP_INTR
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    failure = _error(kind, flags, payload)
                    if failure is not None:
                        raise failure
                    return found if complete else None
                found.append(bytes(payload))
                if not flags & NLM_F_MULTI:
                    return found

    def _number(self, message: bytes, out: bytearray) -> int:
        """Append *message* to *out* with a fresh sequence number, which is returned."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        out += message[:8] + netlink.U32.pack(self._sequence) + message[12:]
        return self._sequence

    def _receive(self) -> Iterator[tuple[int, int, int, memoryview]]:
        """Sequence number, type, flags and payload of the messages of one datagram; ENOBUFS if an answer is missing."""
        try:
            size, sender = self._socket.recvfrom_into(self._buffer, 0, _socket.MSG_DONTWAIT | _socket.MSG_TRUNC)
        except BlockingIOError:
            raise OSError(errno.ENOBUFS, "the kernel dropped an answer for want of buffer space") from None
        if size > len(self._buffer):  # MSG_TRUNC: the size it had
            raise OSError(errno.EMSGSIZE, f"an answer of the kernel has {size} bytes, read were {len(self._buffer)}")
        if sender[0] != 0:  # only the kernel is port 0; a privileged process may write to us too
            return
        for offset, length in netlink.split(self._buffer[:size]):
            _, kind, flags, sequence, _ = netlink.HEADER.unpack_from(self._buffer, offset)
            if kind != NLMSG_NOOP:
                yield sequence, kind, flags, self._buffer[offset + netlink.HEADER.size : offset + length]


def _batches(requests: Sequence[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """The single messages of *requests*, each with the position of its request, in lots the socket can take."""
    batch: list[tuple[int, bytes]] = []
    size = 0
    for position, request in enumerate(requests):
        for offset, length in netlink.split(request):
            if batch and (len(batch) == BATCH_MESSAGES or size + length > BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append((position, request[offset : offset + length]))
            size += length
    if batch:
        yield batch


def _error(kind: int, flags: int, payload: memoryview) -> OSError | None:
    """What an NLMSG_ERROR or NLMSG_DONE says; None for an acknowledgement or a good end."""
    number = -netlink.I32.unpack_from(payload)[0] if len(payload) >= 4 else 0
    if number <= 0:  # the end of a dump of old kernels counts its messages
        return None
    return OSError(number, netlink.error_text(kind, flags, payload) or os.strerror(number))
