"""`pycni-ipam`, and drop-in `host-local`: the six commands on the leases of this host.

Every function takes the call, the network config and the open store, and may raise CniError and OSError. All of one
command happens in one transaction (or in the caller's): it succeeds for every range set or changes nothing.
"""

from __future__ import annotations

import os
import time
from ipaddress import IPv4Interface, IPv6Interface

from pycni.cni.errors import CniError, Code
from pycni.cni.result import Dns, IPConfig, Result
from pycni.ipam.allocate import choose
from pycni.ipam.conf import data_dir, parse_ipam, parse_resolv_conf, parse_sets
from pycni.ipam.ranges import address
from pycni.ipam.reclaim import here, identity, is_dead, namespace_of, release_dead
from pycni.store.leases import Lease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pycni.cni.addresses import Address
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.ipam.conf import IpamConf
    from pycni.ipam.ranges import Range, RangeSet
    from pycni.ipam.reclaim import Here
    from pycni.store import Store
    from pycni.store.leases import Pool


def add(call: Call, conf: NetConf, store: Store) -> Result:
    """Lease one address of every range set. CniError: EXHAUSTED, ADDRESS_TAKEN, ALREADY_ATTACHED, INVALID_CONFIG."""
    return lease_from(parse_ipam(conf, call.args), call, conf, store, lambda: _pool(conf, store))


def lease_from(ipam: IpamConf, call: Call, conf: NetConf, store: Store, find_pool: Callable[[], Pool | None]) -> Result:
    """`add` with the config parsed, and the pool's own way to be found."""
    dns = read_dns(ipam.resolv_conf)
    seen_from = here(store.boot_id)
    netns_id = namespace_of(call)
    with store.transaction():
        pool = find_pool() or store.leases.make_pool(ipam.data_dir, conf.name)
        chosen = _choose_all(ipam, call, pool, seen_from)
        now = time.time()
        former: list[bytes] = []
        for free, within in chosen:
            owner = (call.container_id, call.ifname, str(within.subnet))
            where = (seen_from.boot_id, call.netns, netns_id, seen_from.mount_ns)
            mac = pool.put(Lease(free, *owner, None, *where, now))
            if mac is not None:
                former.append(mac)
    ips = tuple(ip_config(*each) for each in chosen)
    mac = _mac_of(chosen[0][0], ipam, conf, seen_from)
    return Result(ips=ips, routes=ipam.routes, dns=dns, mac=mac, former_macs=tuple(former))


def _mac_of(first: Address, ipam: IpamConf, conf: NetConf, seen_from: Here) -> bytes:
    from pycni.cni.macs import lease_mac  # not for DEL

    host = f"{seen_from.boot_id}/{identity('/proc/thread-self/ns/net')}"
    return lease_mac(host, f"{ipam.data_dir}/{conf.name}", first)


def delete(call: Call, conf: NetConf, store: Store) -> None:
    """Release what the attachment has; success if that is nothing. Of the config only dataDir matters."""
    with store.transaction():
        pool = _pool(conf, store)
        if pool is not None:
            pool.release(held_by(pool, call), call.mac)


def check(call: Call, conf: NetConf, store: Store) -> None:
    """CniError (BROKEN) unless the attachment has a lease."""
    with store.transaction():
        pool = _pool(conf, store)
        if pool is None or not held_by(pool, call):
            raise CniError(
                Code.BROKEN,
                f"host-local: Failed to find address added by container {call.container_id}",
                f"network {conf.name}, interface {call.ifname}",
            )


def gc(call: Call, conf: NetConf, store: Store) -> None:
    """Release what belongs to no attachment of `cni.dev/valid-attachments`; without that key what is surely dead."""
    with store.transaction():
        pool = _pool(conf, store)
        if pool is None:
            return
        if conf.valid_attachments is None:
            release_dead(pool, here(store.boot_id))
            return
        valid = {(each.container_id, each.ifname) for each in conf.valid_attachments}
        valid |= {(each.container_id, "") for each in conf.valid_attachments}  # imported ones of the old format
        pool.release([each for each in pool.leased() if (each.container_id, each.ifname) not in valid])


def status(call: Call, conf: NetConf, store: Store) -> None:
    """CniError (NOT_AVAILABLE) when an ADD would fail: a range set is full, or the store cannot be written."""
    ipam = parse_ipam(conf, "")
    try:
        with store.transaction():
            pool = _pool(conf, store)
            leased = pool.leased() if pool else ()
    except (CniError, OSError) as exc:
        raise CniError(Code.NOT_AVAILABLE, f"the address store cannot be used: {exc}") from exc
    seen_from = here(store.boot_id)
    alive = [each.address for each in leased if not is_dead(each, seen_from)]
    for ranges in ipam.sets:
        if sum(each.version == ranges.version and ranges.allows(int(each)) for each in alive) >= ranges.size:
            raise CniError(
                Code.NOT_AVAILABLE,
                f"no IP addresses available in range set: {ranges}",
                f"all {ranges.size} addresses of network {conf.name} are leased: see `pycni ipam`",
            )


def _pool(conf: NetConf, store: Store) -> Pool | None:
    """The network's pool; made from host-local's directory if that exists, else None if there is none."""
    where = data_dir(conf)
    pool = store.leases.pool(where, conf.name)
    if pool is None and os.path.isdir(f"{where}/{conf.name}"):
        try:
            sets = parse_sets(conf)
        except CniError:  # DEL of a config that is no longer valid
            sets = ()
        pool = store.leases.make_pool(where, conf.name)
        from pycni.ipam.import_host_local import import_directory

        import_directory(f"{where}/{conf.name}", pool, sets, store.boot_id, time.time())
    return pool


def _choose_all(ipam: IpamConf, call: Call, pool: Pool, seen_from: Here) -> list[tuple[Address, Range]]:
    """A free address of every set: the requested one where the set holds one."""
    requested = list(ipam.requested)
    chosen = []
    for at, ranges in enumerate(ipam.sets):
        wanted = next((each for each in requested if ranges.range_of(each)), None)
        try:
            if wanted is None:
                free = _next_address(ranges, pool, call, seen_from)
            else:
                requested.remove(wanted)
                free = wanted
                _check_wanted(free, ranges, pool, seen_from)
        except CniError as exc:
            raise CniError(exc.code, f"failed to allocate for range {at}: {exc.msg}", exc.details) from None
        within = ranges.range_of(free)
        assert within is not None
        chosen.append((free, within))
    if requested:
        raise CniError(
            Code.INVALID_CONFIG,
            f"failed to allocate all requested IPs: {' '.join(map(str, requested))}",
            f"the range sets are {' and '.join(map(str, ipam.sets))}, and each gives one address",
        )
    return chosen


def held_by(pool: Pool, call: Call) -> list[Lease]:
    """What the attachment has leased; an imported lease of the old format knows only its container."""
    for ifname in (call.ifname, ""):
        held = [each for each in pool.of_owner(call.container_id, ifname) if each.released is None]
        if held:
            return held
    return []


def _next_address(ranges: RangeSet, pool: Pool, call: Call, seen_from: Here) -> Address:
    """The address that the caller gets who asks for none in particular."""
    own = pool.of_owner(call.container_id, call.ifname)
    held = [each for each in own if each.released is None and ranges.range_of(each.address)]
    if held:
        if not all(is_dead(each, seen_from) for each in held):
            raise CniError(
                Code.ALREADY_ATTACHED,
                f"{held[0].address} has been allocated to {call.container_id}, duplicate allocation is not allowed",
                f"interface {call.ifname}: a DEL of it must come first",
            )
        pool.release(held)
        own = pool.of_owner(call.container_id, call.ifname)
    rested = [(each.released, int(each.address)) for each in own if each.address.version == ranges.version]
    former = [number for rank, number in sorted(rested, reverse=True) if rank is not None]
    number = choose(ranges, pool, former)
    if number is None and release_dead(pool, seen_from):
        number = choose(ranges, pool, former)
    if number is None and count_leased(ranges, pool) < ranges.size:
        pool.forget_released()
        number = choose(ranges, pool, former)
    if number is None:
        raise CniError(
            Code.EXHAUSTED,
            f"no IP addresses available in range set: {ranges}",
            f"all {ranges.size} addresses are leased to running containers: add a range, or see `pycni ipam`",
        )
    return address(ranges.version, number)


def _check_wanted(wanted: Address, ranges: RangeSet, pool: Pool, seen_from: Here) -> None:
    """CniError unless *wanted* may be given out and is free; a lease of a dead container on it is ended."""
    within = ranges.range_of(wanted)
    if within and wanted == within.gateway:
        raise CniError(Code.ADDRESS_TAKEN, f"requested ip {wanted} is subnet's gateway")
    problem = ""
    if not ranges.allows(int(wanted)):
        problem = "it is excluded, the gateway of another range, or the network or broadcast address"
    lease = pool.at(wanted)
    if lease is not None and lease.released is None:
        if is_dead(lease, seen_from):
            pool.release([lease])
        else:
            problem = f"it is leased to container {lease.container_id}, interface {lease.ifname or 'unknown'}"
    if problem:
        raise CniError(
            Code.ADDRESS_TAKEN, f"requested IP address {wanted} is not available in range set {ranges}", problem
        )


def ip_config(free: Address, within: Range) -> IPConfig:
    kind = IPv4Interface if free.version == 4 else IPv6Interface
    return IPConfig(kind((free, within.subnet.prefixlen)), within.gateway)


def count_leased(ranges: RangeSet, pool: Pool) -> int:
    """How many addresses of *ranges* are leased; reads them all."""
    return sum(pool.count(ranges.version, first, last) for _, first, last in ranges.pieces)


def read_dns(path: str) -> Dns:
    if not path:
        return Dns()
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse_resolv_conf(file.read())
    except OSError as exc:
        reason = str(exc.strerror).lower()
        raise CniError(Code.INVALID_CONFIG, f"ipam.resolvConf: open {path}: {reason}") from exc
