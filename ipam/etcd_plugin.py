"""The commands of the IPAM plugin where `ipam` has an `etcd` object: one pool of addresses for all hosts of a cluster.

etcd says who has an address; this host's store keeps a copy of its own part, so that DEL needs no answer of etcd,
`pycni ipam` shows it, and what is dead can be told from here. Every command is like its namesake in `ipam.plugin`.
"""

from __future__ import annotations

import sys
import time

from pycni.cni.errors import CniError, Code
from pycni.cni.result import Result
from pycni.etcd import requests
from pycni.etcd.claims import Want
from pycni.etcd.client import Denied, Silent, Unavailable
from pycni.etcd.records import OwnEndpoint
from pycni.etcd.schema import SchemaError
from pycni.ipam import etcd_blocks
from pycni.ipam.conf import parse_ipam
from pycni.ipam.etcd_conf import space_of
from pycni.ipam.etcd_site import Site, already_attached
from pycni.ipam.plugin import ip_config, read_dns
from pycni.ipam.reclaim import is_dead
from pycni.store.leases import Lease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycni.cni.addresses import Address
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.etcd.client import Client
    from pycni.etcd.requests import KeyValue
    from pycni.ipam.conf import IpamConf
    from pycni.ipam.ranges import Range, RangeSet
    from pycni.store import Store


def add(call: Call, conf: NetConf, store: Store) -> Result:
    """Take one address of every range set, in one transaction. CniError as `pycni.ipam.plugin.add`, and 11."""
    site = Site(call, conf, store)
    if site.settings.blocks:
        return etcd_blocks.add(site, conf)
    ipam = parse_ipam(conf, call.args)
    dns = read_dns(ipam.resolv_conf)
    wants = _wants(ipam)
    own = site.new_own()
    with site.state.lock(site.own_key(call.container_id, call.ifname)), site.client() as client:
        _settle(site, client)
        site.finish_pending(client)
        try:
            ips = site.take(client, own, wants)
        except Silent as failure:
            if failure.sent:
                site.remember(call.container_id, call.ifname, id=own.id)
            raise
        try:
            _keep(site, own, ipam, ips)
        except BaseException:
            found = client.get(site.own_key(call.container_id, call.ifname))
            if found is not None:
                site.give_back(client, found)
            raise
    return Result(
        ips=tuple(ip_config(ip, _range_of(ip, ranges)) for ip, ranges in zip(ips, ipam.sets, strict=True)),
        routes=ipam.routes,
        dns=dns,
    )


def delete(call: Call, conf: NetConf, store: Store) -> None:
    """Give back what the attachment has. Where etcd does not answer, or not to us, that is remembered, with success."""
    site = Site(call, conf, store)
    if site.settings.blocks:
        etcd_blocks.delete(site)
        return
    with site.state.lock(site.own_key(call.container_id, call.ifname)):
        held = site.held(call.container_id, call.ifname)
        try:
            with site.client() as client:
                _give_back(site, client, call.container_id, call.ifname)
                site.release_here(held)
                site.finish_pending(client)
        except Unavailable as failure:
            if isinstance(failure, Denied):
                print(f"pycni: {call.container_id} is still to be given back: {failure}", file=sys.stderr)
            if held:
                site.remember(call.container_id, call.ifname, created=held[0].created)
            site.release_here(held)


def check(call: Call, conf: NetConf, store: Store) -> None:
    """CniError (BROKEN) unless the attachment has its addresses, here and in etcd."""
    site = Site(call, conf, store)
    held = site.held(call.container_id, call.ifname)
    if not held:
        raise site.broken("this host has no lease of it")
    if site.settings.blocks:
        etcd_blocks.check(site)
        return
    key = site.own_key(call.container_id, call.ifname)
    names = {each.address: site.keys.endpoint(site.network, each.address) for each in held}
    with site.client() as client:
        reads = [requests.get(key), *map(requests.get, names.values())]
        mine, *found = client.txn(requests.txn([], reads)).parts
    if not mine.found:
        raise site.broken("etcd has no lease of it")
    made = mine.found[0].create_revision
    for address, answer in zip(names, found, strict=True):
        if not answer.found or answer.found[0].create_revision != made:
            raise site.broken(f"{address} is not its own in etcd")


def gc(call: Call, conf: NetConf, store: Store) -> None:
    """Give back what belongs to no attachment of `cni.dev/valid-attachments`; without that key what is surely dead.

    Both what this host's store knows and what only etcd knows, as after a killed ADD or a lost store.
    """
    site = Site(call, conf, store)
    valid = None if conf.valid_attachments is None else {(a.container_id, a.ifname) for a in conf.valid_attachments}
    if site.settings.blocks:
        etcd_blocks.gc(site, valid)
        return
    with site.client() as client:
        site.finish_pending(client, most=1 << 30)
        pool = site.pool()
        for lease in pool.leased() if pool else ():
            owner = lease.container_id, lease.ifname
            if owner not in valid if valid is not None else is_dead(lease, site.seen_from):
                _collect(site, client, *owner)
        found = client.read(site.keys.own_endpoints(site.node, site.network)).found
        for (_, _, _, container_id, ifname), key in site.keys.understood(found):
            if (container_id, ifname) not in valid if valid is not None else _is_over(site, key):
                _collect(site, client, container_id, ifname)


def status(call: Call, conf: NetConf, store: Store) -> None:
    """CniError (NOT_AVAILABLE) when an ADD would fail: etcd does not answer, or a range set is full."""
    ipam = parse_ipam(conf, "")
    site = Site(call, conf, store)
    try:
        if site.settings.blocks:
            etcd_blocks.status(site, ipam)
            return
        answers = _count(site, ipam)
    except CniError as exc:
        raise CniError(Code.NOT_AVAILABLE, exc.msg, exc.details) from exc
    for ranges, taken in zip(ipam.sets, answers, strict=True):
        if taken >= ranges.size:
            raise CniError(
                Code.NOT_AVAILABLE,
                f"no IP addresses available in range set: {ranges}",
                f"all {ranges.size} addresses of network {conf.name} are taken: see `pycni etcd dump`",
            )


def _count(site: Site, ipam: IpamConf) -> list[int]:
    """How many addresses are taken in each range set."""
    spaces = map(space_of, ipam.sets)
    return site.count(
        (site.keys.endpoint_range(site.network, space.version, *piece) for piece in space.pieces) for space in spaces
    )


def _wants(ipam: IpamConf) -> list[Want]:
    """What to take of each range set: the address that the caller asks for, or any."""
    requested = list(ipam.requested)
    wants = []
    for at, ranges in enumerate(ipam.sets):
        fixed = next((each for each in requested if ranges.range_of(each)), None)
        if fixed is not None:
            requested.remove(fixed)
            within = ranges.range_of(fixed)
            if not ranges.allows(int(fixed)):
                gateway = within is not None and fixed == within.gateway
                raise CniError(
                    Code.ADDRESS_TAKEN,
                    f"failed to allocate for range {at}: requested IP address {fixed} is not available in range set"
                    f" {ranges}",
                    "it is the gateway" if gateway else "it is excluded, or the network or broadcast address",
                )
        elif not ranges.size:
            raise CniError(
                Code.EXHAUSTED,
                f"failed to allocate for range {at}: no IP addresses available in range set: {ranges}",
                "it has none but gateways and excluded ones",
            )
        wants.append(Want(space_of(ranges), fixed))
    if requested:
        raise CniError(
            Code.INVALID_CONFIG,
            f"failed to allocate all requested IPs: {' '.join(map(str, requested))}",
            f"the range sets are {' and '.join(map(str, ipam.sets))}, and each gives one address",
        )
    return wants


def _settle(site: Site, client: Client) -> None:
    """What this host's store still has of the attachment: an error where the container lives, else an end to it."""
    call = site.call
    held = site.held(call.container_id, call.ifname)
    if not held:
        return
    if not all(is_dead(each, site.seen_from) for each in held):
        raise already_attached(held[0].address, call)
    _give_back(site, client, call.container_id, call.ifname)
    site.release_here(held)


def _give_back(site: Site, client: Client, container_id: str, ifname: str) -> None:
    found = client.get(site.own_key(container_id, ifname))
    if found is not None:
        site.give_back(client, found)


def _collect(site: Site, client: Client, container_id: str, ifname: str) -> None:
    """Give back what is no attachment's, unless a call is working on it just now."""
    lock = site.state.lock(site.own_key(container_id, ifname))
    try:
        if lock.take_now():
            _give_back(site, client, container_id, ifname)
            site.release_here(site.held(container_id, ifname))
    finally:
        lock.__exit__()


def _is_over(site: Site, key: KeyValue) -> bool:
    try:
        return site.is_over(OwnEndpoint.parse(key.value, key.key))
    except SchemaError:
        return False  # `pycni etcd check` tells of it


def _keep(site: Site, own: OwnEndpoint, ipam: IpamConf, ips: Sequence[Address]) -> None:
    """Copy what was taken into this host's store."""
    call, now = site.call, own.created or time.time()
    where = own.boot, own.netns, own.netns_id, own.mount_ns
    with site.store.transaction():
        pool = site.pool() or site.store.leases.make_pool(site.settings.pool, site.network)
        for ip, ranges in zip(ips, ipam.sets, strict=True):
            subnet = str(_range_of(ip, ranges).subnet)
            pool.put(Lease(ip, call.container_id, call.ifname, subnet, None, *where, now))


def _range_of(ip: Address, ranges: RangeSet) -> Range:
    found = ranges.range_of(ip)
    assert found is not None
    return found
