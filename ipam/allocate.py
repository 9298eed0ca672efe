"""Which address comes next. Pure: what was given out before is asked through `Used`.

The order, for a container that asks for none in particular:
1. an address that this very owner had and nobody got since (the latest such);
2. the next never used address behind the highest used of the set, ranges in their order, then around from the start;
3. the address that was released longest ago.
So .2, .3, .4 … as with the reference host-local, and a used address rests as long as the pool allows: caches of
neighbours and peers that still mean its former owner have time to forget.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol

    from pycni.ipam.ranges import RangeSet

    class Used(Protocol):
        """What has been given out so far; every answer is one index search in the store (`store.leases.Pool`)."""

        def run_below(self, version: int, address: int) -> tuple[int, int] | None: ...

        def oldest_released(
            self, version: int, subnet: str, first: int, last: int, after: int
        ) -> tuple[int, int] | None: ...


def choose(ranges: RangeSet, used: Used, former: Sequence[int]) -> int | None:
    """The address to give out of *ranges*, None if there is none.

    *former*: what the owner had and nobody has now, latest first.
    """
    for number in former:
        if ranges.allows(number):
            return number
    unused = next_unused(ranges, used)
    return longest_rested(ranges, used) if unused is None else unused


def next_unused(ranges: RangeSet, used: Used) -> int | None:
    """The first never used address behind the highest used one, going round."""
    for first, last in _from_highest(ranges, used):
        number = first
        while number <= last:
            run = used.run_below(ranges.version, number)
            if run is None or run[1] < number:
                return number
            number = run[1] + 1
    return None


def longest_rested(ranges: RangeSet, used: Used) -> int | None:
    """The address of *ranges* that was released longest ago."""
    oldest = [_oldest(ranges, used, str(each.subnet), each.first, each.last) for each in ranges.ranges]
    found = [each for each in oldest if each is not None]
    return min(found)[1] if found else None


def _oldest(ranges: RangeSet, used: Used, subnet: str, first: int, last: int) -> tuple[int, int] | None:
    after = 0
    while found := used.oldest_released(ranges.version, subnet, first, last, after):
        if ranges.allows(found[1]):
            return found
        after = found[0]  # excluded, or a gateway, since it was released
    return None


def _from_highest(ranges: RangeSet, used: Used) -> Iterator[tuple[int, int]]:
    """The pieces of the set in the order of search, the one that holds the highest used address cut in two."""
    at, highest = _highest_used(ranges, used)
    behind = [(first, last) for index, first, last in ranges.pieces if index == at and last > highest]
    yield from ((max(first, highest + 1), last) for first, last in behind)
    yield from ((first, last) for index, first, last in ranges.pieces if index > at)
    yield from ((first, last) for index, first, last in ranges.pieces if index < at)
    yield from ((first, min(last, highest)) for index, first, last in ranges.pieces if index == at and first <= highest)


def _highest_used(ranges: RangeSet, used: Used) -> tuple[int, int]:
    """Index of the last range in which an address was used, and the highest of these; (0, -1) if none was."""
    for at in range(len(ranges.ranges) - 1, -1, -1):
        each = ranges.ranges[at]
        run = used.run_below(ranges.version, each.last)
        if run is not None and run[1] >= each.first:
            return at, min(run[1], each.last)
    return 0, -1
