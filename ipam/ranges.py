"""Ranges of addresses and what may be given out of them, as numbers: a range costs the same at any size.

The checks and their wording are the reference host-local's (Range.Canonicalize, RangeSet.Canonicalize), because users
know the messages; an address is an int here, the family (4 or 6) stands beside it.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pycni.cni.addresses import Address, Interface, Network

Interval = tuple[int, int]  # first and last, both included


class Range(Value):
    """Part of a subnet, first to last included. gateway is never given out; it may lie outside of the subnet."""

    subnet: IPv4Network | IPv6Network
    first: int
    last: int
    gateway: IPv4Address | IPv6Address

    @property
    def version(self) -> int:
        return self.subnet.version

    def __str__(self) -> str:
        return f"{address(self.version, self.first)}-{address(self.version, self.last)}"


class RangeSet(Value):
    """Ranges of one family; a container gets one address out of the set.

    pieces: what may be given out, (index of the range, first, last) in order: without gateways and excluded addresses.
    """

    ranges: tuple[Range, ...]
    pieces: tuple[tuple[int, int, int], ...]

    @property
    def version(self) -> int:
        return self.ranges[0].version

    @property
    def size(self) -> int:
        """How many addresses may be given out."""
        return sum(last - first + 1 for _, first, last in self.pieces)

    def range_of(self, wanted: Address) -> Range | None:
        """The range that *wanted* lies in."""
        for each in self.ranges:
            if each.version == wanted.version and each.first <= int(wanted) <= each.last:
                return each
        return None

    def allows(self, number: int) -> bool:
        """Whether *number* may be given out."""
        return any(first <= number <= last for _, first, last in self.pieces)

    def __str__(self) -> str:
        return ",".join(map(str, self.ranges))


def make_subnet(cidr: Interface) -> Network:
    """The network *cidr*; ValueError if it has host bits or fewer than two addresses to give out."""
    bits = cidr.max_prefixlen - cidr.network.prefixlen
    if bits < 2:
        raise ValueError(f"Network {cidr} too small to allocate from")
    if cidr.ip != cidr.network.network_address:
        raise ValueError(
            "Network has host bits set. For a subnet mask of length "
            f"{cidr.network.prefixlen} the network address is {cidr.network.network_address}"
        )
    return cidr.network


def make_range(
    subnet: Network, *, start: Address | None = None, end: Address | None = None, gateway: Address | None = None
) -> Range:
    """A checked range; ValueError with the reference's sentence. *subnet* may have no host bits (see make_subnet).

    Defaults as in the reference: the first address behind the network's, the last one (IPv4: before the broadcast
    address), and the first as gateway.
    """
    low, high = int(subnet.network_address), int(subnet.broadcast_address)
    first, last = low + 1, high - 1 if subnet.version == 4 else high
    if end is not None:
        last = int(end)
    if start is not None:
        first = int(start)
        # The end takes part: a start behind it is "not in network" to the reference.
        if start.version != subnet.version or not low <= first <= high or (end is not None and first > last):
            raise ValueError(f"RangeStart {start} not in network {subnet}")
    if end is not None and (end.version != subnet.version or not first <= last <= high):
        raise ValueError(f"RangeEnd {end} not in network {subnet}")
    if gateway is None:
        gateway = address(subnet.version, low + 1)
    return Range(subnet, first, last, gateway)


def make_set(ranges: Sequence[Range], excluded: Iterable[Network] = ()) -> RangeSet:
    """A checked set; ValueError with the reference's sentence."""
    if not ranges:
        raise ValueError("empty range set")
    for at, one in enumerate(ranges):
        if one.version != ranges[0].version:
            raise ValueError("mixed address families")
        for other in ranges[:at]:
            if overlap(one, other):
                raise ValueError(f"subnets {other} and {one} overlap")
    version = ranges[0].version
    holes = [(int(net.network_address), int(net.broadcast_address)) for net in excluded if net.version == version]
    holes += [(int(each.gateway),) * 2 for each in ranges if each.gateway.version == version]
    if version == 4:
        # A rangeStart or rangeEnd can reach them; the kernel takes both for broadcast (fib_frontend.c,
        # fib_add_ifaddr), so a container with such an address could not be reached.
        holes += [(int(end),) * 2 for each in ranges for end in (each.subnet[0], each.subnet[-1])]
    holes.sort()
    pieces = [(at, *piece) for at, each in enumerate(ranges) for piece in without((each.first, each.last), holes)]
    return RangeSet(tuple(ranges), tuple(pieces))


def without(interval: Interval, holes: Iterable[Interval]) -> list[Interval]:
    """What is left of *interval*; *holes* are sorted and may overlap."""
    first, last = interval
    left = []
    for hole_first, hole_last in holes:
        if hole_first > last or first > last:
            break
        if hole_last < first:
            continue
        if hole_first > first:
            left.append((first, hole_first - 1))
        first = hole_last + 1
    if first <= last:
        left.append((first, last))
    return left


def overlap(one: Range, other: Range) -> bool:
    return one.version == other.version and one.first <= other.last and other.first <= one.last


def address(version: int, number: int) -> Address:
    return IPv4Address(number) if version == 4 else IPv6Address(number)
