"""How full the pools of addresses are: this host's own, those that hosts share in etcd, and its blocks of such ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from pycni.cli.clusters import is_overlay
from pycni.cli.networks import NetworkList, member, read_directory
from pycni.cli.state import existing_store, read_leases
from pycni.cni.conf import NetConf, parse_conf
from pycni.cni.errors import CniError
from pycni.cni.value import Value
from pycni.etcd import requests
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.requests import Request
from pycni.etcd.schema import Keys
from pycni.ipam.conf import data_dir, parse_sets
from pycni.ipam.etcd_conf import EtcdIpam, parse_etcd, uses_etcd
from pycni.ipam.etcd_state import HostState
from pycni.ipam.ranges import RangeSet
from pycni.plugins.overlay.conf import with_etcd
from pycni.plugins.overlay.joining import subnets_of
from pycni.store import STATE_DIR, Lease

OWN_TYPE = "pycni-ipam"
DROP_IN_TYPE = "host-local"  # ours too, where `pycni install --replace` has put it

HOST, SHARED, BLOCK, BLOCKS = "host", "shared", "block", "blocks"


class Usage(Value):
    """A range set (or, unconfigured, a subnet that still has leases) and how many of its addresses are given out.

    pool: "host", of this host alone; "shared" by the hosts of a cluster, in etcd; "block", one that this host has taken
    of a shared one; "blocks", that shared one, of which what is in taken blocks counts as leased.
    here: how many of them this host gave out. known: False where etcd did not say how many the others have.
    """

    network: str
    data_dir: str
    ranges: str
    leased: int
    size: int
    pool: str = HOST
    here: int = 0
    known: bool = True

    @property
    def share(self) -> float:
        return self.leased / self.size if self.size else 1.0


class _Pool(Value):
    """What a network of the configuration directory gives addresses out of. etcd: None for a pool of this host's."""

    network: str
    kind: str
    directory: str
    sets: tuple[RangeSet, ...]
    etcd: EtcdIpam | None


def read_usage(conf_dir: str, network: str | None = None) -> list[Usage]:
    """The pools of the networks in *conf_dir* that our IPAM serves, and subnets with leases but no network."""
    leases: dict[tuple[str, str], list[Lease]] = {}
    for lease in read_leases(network):
        leases.setdefault((lease.network, lease.data_dir), []).append(lease)
    found: list[Usage] = []
    configured = [one for one in _configured(conf_dir) if network in (None, one.network)]
    counts = _Counts()
    for one in configured:
        mine = leases.get((one.network, one.directory), [])
        if one.etcd is not None:
            found += _of_cluster(one, one.etcd, mine, counts)
        elif mine or one.kind == OWN_TYPE or _has_pool(one.directory, one.network):
            found += [_usage(one, str(each), _inside(each, mine), each.size) for each in one.sets]
        # else served by somebody else's host-local, whose leases we do not know
    known = {(one.network, one.directory) for one in configured}
    for (name, directory), pool in leases.items():
        if (name, directory) in known:
            continue
        for subnet, leased in sorted(Counter(lease.subnet for lease in pool).items()):
            found.append(Usage(name, directory, subnet, leased, _size_of_subnet(subnet), here=leased))
    return found


def _usage(pool: _Pool, ranges: str, leased: int, size: int) -> Usage:
    return Usage(pool.network, pool.directory, ranges, leased, size, here=leased)


def _inside(ranges: RangeSet, leases: Iterable[Lease]) -> int:
    return sum(ranges.range_of(lease.address) is not None for lease in leases)


def _size_of_subnet(subnet: str) -> int:
    return max(1, ip_network(subnet).num_addresses - 3)  # network, gateway, broadcast


def _has_pool(directory: str, network: str) -> bool:
    try:
        store = existing_store()
    except PermissionError:
        return False  # a reader sees the pools that have leases
    if store is None:
        return False
    with store:
        return store.leases.pool(directory, network) is not None


# -- what the hosts of a cluster share ---------------------------------------------------------------------------------


class _Counts:
    """Asks etcd for numbers of keys, and an etcd that does not answer only once."""

    def __init__(self) -> None:
        self._silent: set[EtcdConf] = set()

    def ask(self, conf: EtcdConf, ranges: list[tuple[str, str]]) -> list[int] | None:
        """How many keys are in each of *ranges*, None where etcd does not say."""
        if conf in self._silent:
            return None
        reads: list[Request] = [requests.get_range(first, end, count_only=True) for first, end in ranges]
        try:
            with open_client(conf) as client:
                return [part.count for part in client.txn(requests.txn([], reads)).parts]
        except (CniError, OSError):
            self._silent.add(conf)
            return None


def _of_cluster(pool: _Pool, etcd: EtcdIpam, mine: list[Lease], counts: _Counts) -> Iterator[Usage]:
    keys = Keys(etcd.connection.prefix)
    lengths = dict(etcd.blocks)
    blocks = _blocks_of(etcd, pool.network) if lengths else ()
    for one in pool.sets:
        here = _inside(one, mine)
        wanted = keys.block_range if lengths else keys.endpoint_range
        answers = counts.ask(
            etcd.connection, [wanted(pool.network, one.version, each.first, each.last) for each in one.ranges]
        )
        if not lengths:
            leased = here if answers is None else sum(answers)
            usage = _usage(pool, str(one), leased, one.size)
            yield usage.replace(pool=SHARED, here=here, known=answers is not None)
            continue
        each_has = 1 << ((32 if one.version == 4 else 128) - lengths[one.version])
        inside = [block for block in blocks if one.range_of(block.network_address) is not None]
        taken = len(inside) if answers is None else sum(answers)
        whole = max(each_has, sum(each.subnet.num_addresses for each in one.ranges))
        usage = _usage(pool, f"{one} in /{lengths[one.version]}", taken * each_has, whole)
        yield usage.replace(pool=BLOCKS, here=here, known=answers is not None)
        for block in inside:
            leased = sum(lease.address in block for lease in mine)
            yield _usage(pool, str(block), leased, _size_of_subnet(str(block))).replace(pool=BLOCK)


def _blocks_of(etcd: EtcdIpam, network: str) -> tuple[Any, ...]:
    """This host's blocks, as it remembers them itself; none where the files may not be read."""
    try:
        return HostState(STATE_DIR, etcd.connection.prefix).blocks(network).blocks
    except PermissionError:
        return ()


# -- configurations ----------------------------------------------------------------------------------------------------


def subnets_in(network: NetworkList) -> tuple[str, ...]:
    """Those that a network of the configuration directory gives addresses out of, as far as its IPAM says so there."""
    for plugin in network.plugins:
        if isinstance(member(plugin, "ipam"), dict):
            try:
                return subnets_of(_parsed(network, plugin))
            except CniError:
                continue
    return ()


def _configured(conf_dir: str) -> Iterator[_Pool]:
    """What each network in *conf_dir* that may be our IPAM's gives addresses out of."""
    for network in read_directory(conf_dir)[0]:
        for plugin in network.plugins:
            ipam = member(plugin, "ipam")
            if not isinstance(ipam, dict) or member(ipam, "type") not in (OWN_TYPE, DROP_IN_TYPE):
                continue
            try:
                yield _pool_of(network, _parsed(network, plugin))
            except CniError:
                continue  # the plugin says it when it is called; here it has no ranges to show


def _parsed(network: NetworkList, plugin: Mapping[str, Any]) -> NetConf:
    """The configuration as the IPAM plugin gets it: an overlay hands on its own `etcd` object."""
    whole = {**plugin, "name": network.name, "cniVersion": network.version}
    conf = parse_conf(json.dumps(whole).encode(), "ADD")
    return with_etcd(conf) if is_overlay(plugin) else conf


def _pool_of(network: NetworkList, conf: NetConf) -> _Pool:
    etcd = parse_etcd(conf) if uses_etcd(conf) else None
    directory = data_dir(conf) if etcd is None else etcd.pool
    return _Pool(network.name, conf.ipam.text("type"), directory, parse_sets(conf), etcd)
