"""Addresses or blocks to choose from, as numbers, and which of them to try. Pure: the same seed draws the same.

Chosen at random, never "the lowest free": everybody who looks at the same moment would choose the same one, and all but
one come back (measured with 16 contenders: 12 round trips for an address instead of 1).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from pycni.cni.names import sha256_hex
from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from pycni.cni.addresses import Address

WINDOW = 256  # addresses next to each other that are looked at for a free one
WINDOWS = 4  # of them, in a space that is larger than all together
MOST_PIECES = 16  # of a small space: etcd takes 128 operations in a transaction


class Space(Value):
    """Addresses that may be given out: those of *pieces* (first, last), which are in order and do not overlap."""

    version: int
    pieces: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        return sum(last - first + 1 for first, last in self.pieces)

    def at(self, index: int) -> int:
        """The address with number *index*, from 0 to size - 1."""
        for first, last in self.pieces:
            if index <= last - first:
                return first + index
            index -= last - first + 1
        raise IndexError(index)

    def windows(self, seed: str) -> tuple[tuple[int, int], ...]:
        """Where to look for free ones: everywhere in a small space, at some places that *seed* draws in a large one."""
        if self.is_small:
            return self.pieces
        found = {self._window(draw(f"{seed}/{at}", self.size)) for at in range(WINDOWS)}
        return tuple(sorted(found))

    @property
    def is_small(self) -> bool:
        return self.size <= WINDOW * WINDOWS and len(self.pieces) <= MOST_PIECES

    def _window(self, index: int) -> tuple[int, int]:
        number = self.at(index)
        first, last = next(piece for piece in self.pieces if piece[0] <= number <= piece[1])
        start = number - (number - first) % WINDOW  # aligned to the piece: two windows are the same or apart
        return start, min(last, start + WINDOW - 1)


def address(version: int, number: int) -> Address:
    return IPv4Address(number) if version == 4 else IPv6Address(number)


def draw(seed: str, size: int) -> int:
    """A number below *size* that *seed* determines, all about equally likely."""
    return int(sha256_hex(seed.encode("utf-8", "surrogateescape"))[:48], 16) % size


def draw_some(seed: str, space: Space, count: int) -> list[int]:
    """Up to *count* different addresses of *space*."""
    return [space.at(index) for index in dict.fromkeys(draw(f"{seed}/{at}", space.size) for at in range(count))]


def free_in(windows: Collection[tuple[int, int]], taken: Collection[int]) -> list[int]:
    return [number for first, last in windows for number in range(first, last + 1) if number not in taken]


def shuffled(seed: str, numbers: list[int], count: int) -> list[int]:
    """Up to *count* of *numbers*, in an order that *seed* determines."""
    left, picked = list(numbers), []
    for at in range(min(count, len(left))):
        picked.append(left.pop(draw(f"{seed}/{at}", len(left))))
    return picked
