"""Take over what the reference host-local has leased: `<dataDir>/<network>/`, read once and left as it is.

There, a file per address, named by it, holds `<container id>\\r\\n<ifname>` (before 2018 only the id), and
`last_reserved_ip.<index of the range set>` the address given out last. host-local creates a file before it writes it,
without fsync: one that is empty after a crash is a leak nobody can release.
"""

from __future__ import annotations

import fcntl
import os
import sys
from ipaddress import ip_network

from pycni.cni.addresses import parse_address
from pycni.cni.errors import CniError
from pycni.cni.names import check_container_id, check_ifname
from pycni.store.leases import Lease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycni.cni.addresses import Address
    from pycni.ipam.ranges import RangeSet
    from pycni.store.leases import Pool

_LAST = "last_reserved_ip."
_LONGEST_FILE = 4096  # bytes; an id and an interface name are far below


def import_directory(directory: str, pool: Pool, sets: Sequence[RangeSet], boot_id: str, now: float) -> None:
    """Copy the leases of *directory* into *pool*. Files that are no leases are named on stderr.

    *sets* say which subnet an address belongs to and may be empty; *now* is seconds since the epoch. The leases get
    this boot: nobody recorded theirs, and a live one must not be taken for dead.
    """
    lock = _lock(directory)
    try:
        rested: list[Address] = []
        for name in sorted(os.listdir(directory)):
            if name == "lock":
                continue
            try:
                content = _read(f"{directory}/{name}")
                if name.startswith(_LAST):
                    rested.append(parse_address(content.strip()))
                    continue
                container_id, ifname = parse_lease(content)
                address = parse_address(name)
            except (OSError, ValueError, CniError) as exc:
                print(f"pycni: {directory}/{name} is not imported: {exc}", file=sys.stderr)
                continue
            pool.put(Lease(address, container_id, ifname, _subnet(sets, address), boot_id=boot_id, created=now))
        # Those last given out and free again: the search goes on behind them.
        for address in rested:
            if pool.at(address) is None:
                lease = Lease(address, subnet=_subnet(sets, address), boot_id=boot_id, created=now)
                pool.put(lease)
                pool.release([lease])
    finally:
        if lock is not None:
            os.close(lock)


def parse_lease(content: str) -> tuple[str, str]:
    """Container id and interface name ("" in the old format) of a lease file; ValueError or CniError for garbage."""
    lines = content.strip().splitlines()
    if not 1 <= len(lines) <= 2:
        raise ValueError("the file is empty" if not lines else "more than a container id and an interface name")
    check_container_id(lines[0])
    if len(lines) == 1:
        return lines[0], ""
    check_ifname(lines[1])
    return lines[0], lines[1]


def _subnet(sets: Sequence[RangeSet], address: Address) -> str:
    found = next((each for ranges in sets if (each := ranges.range_of(address))), None)
    return str(found.subnet if found else ip_network(address))


def _lock(directory: str) -> int | None:
    """host-local's own lock, so that it is not in the middle of something."""
    try:
        fd = os.open(f"{directory}/lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # NONBLOCK: a named pipe there must not hang us
    try:
        return os.read(fd, _LONGEST_FILE).decode()
    finally:
        os.close(fd)
