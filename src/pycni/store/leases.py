"""Who has which address. The order of handing out is decided in pycni.ipam.allocate; here is only the table.

A pool is one `<dataDir>/<network>` of host-local. A row stays after its release, for three uses: its last owner gets
the same address again, a full pool hands out the address that rested longest, and its MAC tells what neighbours may
remember. `HISTORY` bounds those rows; `spans` remembers beyond them which addresses were ever used, as merged runs.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from pycni.store.db import Database

HISTORY = 65536  # released rows kept in a pool: a whole IPv4 /16


class Lease(Value):
    """An address of a pool. released: None while leased, else its rank among the pool's releases (small = long ago).

    netns_id and mount_ns are "device:inode" of the container's namespace and of the mount namespace in which the path
    netns was valid; "" where unknown. created: seconds since the epoch.
    """

    address: IPv4Address | IPv6Address
    container_id: str = ""
    ifname: str = ""
    subnet: str = ""
    released: int | None = None
    boot_id: str = ""
    netns: str = ""
    netns_id: str = ""
    mount_ns: str = ""
    created: float = 0.0
    network: str = ""
    data_dir: str = ""


_OWN = "container_id, ifname, subnet, released, boot_id, netns, netns_id, mount_ns, created"
POOL = "SELECT id, forgot FROM pools WHERE data_dir = ? AND network = ?"
# INDEXED BY: without statistics SQLite takes the primary key for as good, and then walks the whole pool.
OF_OWNER = f"""SELECT address, {_OWN} FROM leases INDEXED BY leases_by_owner
    WHERE pool = ? AND container_id = ? AND ifname = ?"""
AT = f"SELECT address, {_OWN} FROM leases WHERE pool = ? AND address = ?"
RUN_BELOW = "SELECT first, last FROM spans WHERE pool = ? AND first <= ? ORDER BY first DESC LIMIT 1"
RUN_FROM = "SELECT last FROM spans WHERE pool = ? AND first = ?"
STRETCH = "UPDATE spans SET last = ? WHERE pool = ? AND first = ?"
DROP_RUN = "DELETE FROM spans WHERE pool = ? AND first = ?"
ADD_RUN = "INSERT INTO spans (pool, first, last) VALUES (?, ?, ?)"
OLDEST = """SELECT released, address FROM leases
    WHERE pool = ? AND subnet = ? AND released > ? AND address BETWEEN ? AND ? ORDER BY released LIMIT 1"""
PUT = f"INSERT OR REPLACE INTO leases (pool, address, {_OWN}) VALUES (?, ?, ?, ?, ?, NULL, ?, ?, ?, ?, ?)"
NEWEST = "SELECT max(released) FROM leases WHERE pool = ? AND released IS NOT NULL"
RELEASE = "UPDATE leases SET released = ?, netns = '', netns_id = '', mac = ? WHERE pool = ? AND address = ?"
LAST_MAC = "SELECT mac FROM leases WHERE pool = ? AND address = ? AND container_id = ? AND ifname = ?"
FORGET = "UPDATE pools SET forgot = 1 WHERE id = ?"
TRIM = "DELETE FROM leases WHERE pool = ? AND released <= ?"

_LISTING = f"""SELECT address, {_OWN}, network, data_dir FROM leases JOIN pools ON pools.id = leases.pool
    WHERE released IS NULL"""


class Leases:
    """The leases of one store. Writing methods must run inside a transaction of the store."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def pool(self, data_dir: str, network: str) -> Pool | None:
        """The pool, None as long as it has none."""
        rows = self._store.query(POOL, (data_dir, network))
        return Pool(self._store, *rows[0]) if rows else None

    def make_pool(self, data_dir: str, network: str) -> Pool:
        self._store.run("INSERT INTO pools (data_dir, network) VALUES (?, ?)", (data_dir, network))
        pool = self.pool(data_dir, network)
        assert pool is not None
        return pool

    def all(self, network: str | None = None) -> tuple[Lease, ...]:
        """What is leased now on this host, or in *network*, ordered by network and address."""
        where, values = ("", ()) if network is None else (" AND network = ?", (network,))
        rows = self._store.query(f"{_LISTING}{where} ORDER BY network, data_dir, address", values)
        return tuple(map(_lease, rows))

    def by_subnet(self) -> tuple[tuple[str, str, str, int], ...]:
        """(network, data directory, subnet, number leased) for every subnet that has leases."""
        sql = """SELECT network, data_dir, subnet, count(*) FROM leases JOIN pools ON pools.id = leases.pool
            WHERE released IS NULL GROUP BY network, data_dir, subnet ORDER BY network, data_dir, subnet"""
        return tuple(self._store.query(sql))

    def release_address(self, address: IPv4Address | IPv6Address, network: str | None = None) -> tuple[Lease, ...]:
        """Release *address* in every pool (of *network*, if given) that has it leased; what was released."""
        with self._store.transaction():
            where, values = ("", ()) if network is None else (" AND network = ?", (network,))
            sql = f"{_LISTING} AND address = ?{where}"
            found = tuple(map(_lease, self._store.query(sql, (to_key(address), *values))))
            for lease in found:
                pool = self.pool(lease.data_dir, lease.network)
                assert pool is not None
                pool.release([lease])
            return found


class Pool:
    """One pool of the store; addresses of both families. Writing methods must run inside a transaction."""

    def __init__(self, store: Database, number: int, forgot: int) -> None:
        self._store = store
        self._number = number
        self._forgot = bool(forgot)

    def of_owner(self, container_id: str, ifname: str) -> tuple[Lease, ...]:
        """What the owner has (released is None) and had and nobody got since."""
        return tuple(map(_lease, self._store.query(OF_OWNER, (self._number, container_id, ifname))))

    def at(self, address: IPv4Address | IPv6Address) -> Lease | None:
        """The row of *address*, leased or released."""
        rows = self._store.query(AT, (self._number, to_key(address)))
        return _lease(rows[0]) if rows else None

    def leased(self) -> tuple[Lease, ...]:
        """All that is leased, by address. Reads the whole pool: not for the ordinary ADD and DEL."""
        sql = f"SELECT address, {_OWN} FROM leases WHERE pool = ? AND released IS NULL ORDER BY address"
        return tuple(map(_lease, self._store.query(sql, (self._number,))))

    def count(self, version: int, first: int, last: int) -> int:
        """How many addresses in first..last are leased; reads all of them."""
        sql = "SELECT count(*) FROM leases WHERE pool = ? AND address BETWEEN ? AND ? AND released IS NULL"
        keys = _key(version, first), _key(version, last)
        return int(self._store.query(sql, (self._number, *keys))[0][0])

    def run_below(self, version: int, address: int) -> tuple[int, int] | None:
        """First and last of the nearest run of ever used addresses that begins at or below *address*."""
        rows = self._store.query(RUN_BELOW, (self._number, _key(version, address)))
        if not rows or rows[0][0][0] != version:  # the first byte is the family
            return None
        first, last = rows[0]
        return _number(first), _number(last)

    def oldest_released(self, version: int, subnet: str, first: int, last: int, after: int) -> tuple[int, int] | None:
        """(rank, address) of what in first..last was released longest ago, of ranks behind *after*."""
        between = _key(version, first), _key(version, last)
        rows = self._store.query(OLDEST, (self._number, subnet, after, *between))
        return (rows[0][0], _number(rows[0][1])) if rows else None

    def put(self, lease: Lease) -> bytes | None:
        """Lease an address that is free; a row of its former owner goes. None if nobody ever had it before, else the
        MAC that the same owner had with it to the end; b"" where the last one was another, or nobody knows."""
        key = to_key(lease.address)
        unused = self._mark_used(key) and not self._forgot
        owner = self._number, key, lease.container_id, lease.ifname
        former = [] if unused else self._store.query(LAST_MAC, owner)
        where_from = lease.boot_id, lease.netns, lease.netns_id, lease.mount_ns, lease.created
        self._store.run(PUT, (self._number, key, lease.container_id, lease.ifname, lease.subnet, *where_from))
        if unused:
            return None
        return bytes(former[0][0]) if former else b""

    def whereabouts(self) -> list[tuple[bytes, str, str, str, str]]:
        """(key for release_keys, boot id, netns, netns id, mount namespace) of all that is leased, oldest first."""
        sql = """SELECT address, boot_id, netns, netns_id, mount_ns FROM leases
            WHERE pool = ? AND released IS NULL ORDER BY created, address"""
        return self._store.query(sql, (self._number,))

    def release(self, leases: Iterable[Lease], mac: bytes = b"") -> None:
        """End *leases*; the rows stay as the memory of their owners, the oldest beyond HISTORY are dropped.

        *mac*: what their interface had to the end, where somebody saw it.
        """
        self.release_keys([to_key(lease.address) for lease in leases], mac)

    def release_keys(self, keys: Sequence[bytes], mac: bytes = b"") -> None:
        """`release` for what `whereabouts` gave."""
        if not keys:
            return
        ((rank,),) = self._store.query(NEWEST, (self._number,))
        rank = rank or 0
        for key in keys:
            rank += 1
            self._store.run(RELEASE, (rank, mac, self._number, key))
        if rank > HISTORY:
            self._store.run(TRIM, (self._number, rank - HISTORY))

    def forget_released(self) -> None:
        """Have everything that is not leased handed out as if it had never been used. Reads the whole pool.

        For the pool that has no candidate left and yet is not full: its history was trimmed, or its subnets were
        configured anew and the released rows speak of the former ones.
        """
        self._store.run("DELETE FROM leases WHERE pool = ? AND released IS NOT NULL", (self._number,))
        self._store.run("DELETE FROM spans WHERE pool = ?", (self._number,))
        self._store.run(FORGET, (self._number,))
        self._forgot = True
        for lease in self.leased():
            self._mark_used(to_key(lease.address))

    def _mark_used(self, key: bytes) -> bool:
        below = self._store.query(RUN_BELOW, (self._number, key))
        if below and below[0][1] >= key:
            return False
        behind = _step(key, 1)
        above = self._store.query(RUN_FROM, (self._number, behind))
        last = above[0][0] if above else key
        if above:
            self._store.run(DROP_RUN, (self._number, behind))
        if below and below[0][1] == _step(key, -1):
            self._store.run(STRETCH, (last, self._number, below[0][0]))
        else:
            self._store.run(ADD_RUN, (self._number, key, last))
        return True


def to_key(address: IPv4Address | IPv6Address) -> bytes:
    return _key(address.version, int(address))


def _key(version: int, address: int) -> bytes:
    return bytes((version,)) + address.to_bytes(4 if version == 4 else 16, "big")


def _number(key: bytes) -> int:
    return int.from_bytes(key[1:], "big")


def _step(key: bytes, by: int) -> bytes:
    # Beyond the last address of a family this changes the family byte, to a key that no address has.
    return (int.from_bytes(key, "big") + by).to_bytes(len(key), "big")


def _lease(row: tuple[Any, ...]) -> Lease:
    key = row[0]
    address = IPv4Address(key[1:]) if key[0] == 4 else IPv6Address(key[1:])
    return Lease(address, *row[1:])
