"""The entries that lead to other hosts, in the kernel: read those of one VXLAN device, and change them.

What is written is permanent: the kernel neither ages it nor learns over it, and permanent neighbours do not count
against its limits (gc_thresh3). So all of it stays when the process that wrote it is gone.
"""

from __future__ import annotations

import errno
from _socket import AF_INET, AF_INET6, inet_pton

from pycni.change.forwarding import PROTOCOL, FdbEntry, NeighbourEntry, PortEntry, RouteEntry
from pycni.host import inet_messages, vxlan_messages
from pycni.host.forwarding_facts import read_neighbour, read_route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from pycni.change.forwarding import Entry
    from pycni.host.netlink_socket import NetlinkSocket
    from pycni.host.rtnl import Netlink

# A packet never finds a route to a next hop, or a neighbour on a host, that is not known yet. Removal goes backwards.
_ORDER = {FdbEntry: 0, PortEntry: 1, NeighbourEntry: 2, RouteEntry: 3}
MOST_READS = 5
_GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV)


def read_entries(netlink: Netlink, name: str, expected: frozenset[Entry] = frozenset()) -> frozenset[Entry]:
    """What device *name* has that could be ours; empty where there is no such link.

    Permanent entries, static ones of its bridge, routes of our protocol, whoever wrote them: on that device nobody else
    has any business. Four questions that the kernel filters, though it walks the namespace's tables: 5 µs an entry.

    A long answer is resumed by number (rtnl_fdb_dump, neigh_dump_table): for each entry that is removed before that
    one, of whatever link, one that stays is left out. So for what of *expected* is not found the kernel is asked again,
    MOST_READS times at most.
    """
    link = netlink.link(name)
    if link is None:
        return frozenset()
    found: set[Entry] = set()
    for _ in range(MOST_READS):
        found.update(_entries(netlink, link.index))
        if expected <= found:
            break
    return frozenset(found)


def _entries(netlink: NetlinkSocket, device: int) -> Iterator[Entry]:
    for payload in _neighbours(netlink, device):
        index, entry = read_neighbour(payload)
        if entry is not None and index == device:
            yield entry
    for payload in netlink.answers(inet_messages.list_routes(oif=device, protocol=PROTOCOL)):
        index, entry = read_route(payload)
        if entry is not None and index == device:
            yield entry


def change_entries(netlink: Netlink, name: str, add: Iterable[Entry], remove: Iterable[Entry] = ()) -> tuple[str, ...]:
    """Add and remove entries of device *name*; what failed, as text.

    An entry of *add* takes the place of the one with the same MAC, address or prefix, without a moment in which there
    is none or two; what *remove* says of such a one counts for nothing. There already, or gone already, is a success.
    All additions come first. About 10 µs an entry, in batches: the kernel stops at none that fails.
    """
    link = netlink.link(name)
    added = sorted(add, key=_order)
    if link is None:
        return (f"{name} is gone: {len(added)} entries not added",) if added else ()
    replaced = {_key(entry) for entry in added}
    removed = sorted((one for one in remove if _key(one) not in replaced), key=_order, reverse=True)
    if not link.master:
        removed = [one for one in removed if type(one) is not PortEntry]  # they went when it left its bridge
    failed = _attempt(netlink, [(one, request) for one in added for request in _ADD[type(one)](link.index, one)])
    out = [*_words("add", failed)]
    failed = _attempt(netlink, [(one, request) for one in removed for request in _REMOVE[type(one)](link.index, one)])
    return (*out, *_words("remove", [(one, failure) for one, failure in failed if failure.errno not in _GONE]))


def _attempt(netlink: NetlinkSocket, requests: list[tuple[Entry, bytes]]) -> list[tuple[Entry, OSError]]:
    failed = netlink.attempt([request for _, request in requests])
    return [(requests[number][0], failed[number]) for number in sorted(failed)]


def _neighbours(netlink: NetlinkSocket, index: int) -> Iterator[bytes]:
    yield from netlink.answers(vxlan_messages.list_fdb(index))
    yield from netlink.answers(vxlan_messages.list_device_neighbours(index, inet_messages.AF_INET))
    yield from netlink.answers(vxlan_messages.list_device_neighbours(index, inet_messages.AF_INET6))


def _order(entry: Entry) -> int:
    return _ORDER[type(entry)]


def _key(entry: Entry) -> tuple[int, str]:
    """What the kernel has one entry for."""
    if isinstance(entry, FdbEntry | PortEntry):
        return _ORDER[type(entry)], entry.mac
    return _ORDER[type(entry)], entry.address if isinstance(entry, NeighbourEntry) else entry.prefix


def _words(what: str, failed: list[tuple[Entry, OSError]]) -> Iterator[str]:
    """The failures in words: those of one reason together, with the first of them."""
    reasons: dict[str, list[Entry]] = {}
    for entry, failure in failed:
        reasons.setdefault(failure.strerror or str(failure), []).append(entry)
    for reason, entries in reasons.items():
        more = f" and {len(entries) - 1} more" if len(entries) > 1 else ""
        yield f"{what} {entries[0]}{more}: {reason}"


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _packed(address: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address)


def _prefix(text: str) -> tuple[bytes, int]:
    address, _, length = text.partition("/")
    return _packed(address), int(length)


def _add_route(index: int, one: RouteEntry) -> Iterator[bytes]:
    via = _packed(one.via)
    if len(via) == 16:
        yield vxlan_messages.new_next_hop(index, via)
    yield vxlan_messages.new_onlink_route(index, _prefix(one.prefix), via, _packed(one.src) if one.src else b"")


def _remove_route(index: int, one: RouteEntry) -> Iterator[bytes]:
    via = _packed(one.via)
    yield vxlan_messages.delete_onlink_route(index, _prefix(one.prefix), via)
    if len(via) == 16:
        yield vxlan_messages.delete_next_hop(index, via)


# Index of the device and an entry → the requests, in order.
_ADD: dict[type, Any] = {
    FdbEntry: lambda index, one: (vxlan_messages.new_remote(index, _mac(one.mac), _packed(one.vtep)),),
    PortEntry: lambda index, one: (vxlan_messages.new_port_entry(index, _mac(one.mac)),),
    NeighbourEntry: lambda index, one: (
        vxlan_messages.new_static_neighbour(index, _packed(one.address), _mac(one.mac)),
    ),
    RouteEntry: _add_route,
}
_REMOVE: dict[type, Any] = {
    FdbEntry: lambda index, one: (vxlan_messages.delete_remote(index, _mac(one.mac), _packed(one.vtep)),),
    PortEntry: lambda index, one: (vxlan_messages.delete_port_entry(index, _mac(one.mac)),),
    NeighbourEntry: lambda index, one: (vxlan_messages.delete_static_neighbour(index, _packed(one.address)),),
    RouteEntry: _remove_route,
}
