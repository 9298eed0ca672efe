"""`pycni ipam`: the leases of this host, how full its ranges are, and freeing an address by hand."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from pycni.cli.failure import FAILED, NOT_FOUND, OK, USAGE, Failure
from pycni.cli.networks import member, read_directory
from pycni.cli.state import existing_store, read_leases, see_all
from pycni.cli.tables import age, print_table
from pycni.cni.conf import parse_conf
from pycni.cni.errors import CniError
from pycni.cni.value import Value
from pycni.ipam.conf import data_dir, parse_sets
from pycni.ipam.ranges import RangeSet
from pycni.store import Lease, Store

FULL_SHARE = 0.9  # from here on a range counts as nearly full
OWN_TYPE = "pycni-ipam"
DROP_IN_TYPE = "host-local"  # ours too, where `pycni install --replace` has put it


class Usage(Value):
    """A range set (or, unconfigured, a subnet that still has leases) and how many of its addresses are leased."""

    network: str
    data_dir: str
    ranges: str
    leased: int
    size: int

    @property
    def share(self) -> float:
        return self.leased / self.size if self.size else 1.0


def list_leases(given: Namespace) -> int:
    """One row for each address that is given out."""
    leases = read_leases(given.network)
    if given.json:
        print(json.dumps([_lease_json(lease) for lease in leases], indent=4))
        return OK
    if not leases:
        print("no address is leased on this host" + (f" in network {given.network}" if given.network else ""))
        return OK
    now = time.time()
    rows = [
        (lease.network, str(lease.address), lease.subnet, lease.container_id, lease.ifname, age(now - lease.created))
        for lease in leases
    ]
    print_table(("NETWORK", "ADDRESS", "SUBNET", "CONTAINER", "IFNAME", "AGE"), rows, right=("AGE",))
    return OK


def _lease_json(lease: Lease) -> dict[str, Any]:
    return {
        "network": lease.network,
        "address": str(lease.address),
        "subnet": lease.subnet,
        "containerID": lease.container_id,
        "ifname": lease.ifname,
        "netns": lease.netns,
        "dataDir": lease.data_dir,
        "created": lease.created,
    }


# -- usage -------------------------------------------------------------------------------------------------------------


def read_usage(conf_dir: str, network: str | None = None) -> list[Usage]:
    """The range sets of the networks in *conf_dir* that our IPAM serves, and subnets with leases but no network."""
    leases: dict[tuple[str, str], list[Lease]] = {}
    for lease in read_leases(network):
        leases.setdefault((lease.network, lease.data_dir), []).append(lease)
    found = []
    with_ranges: set[tuple[str, str]] = set()
    for name, kind, directory, sets in _configured(conf_dir):
        with_ranges.add((name, directory))
        pool = leases.get((name, directory), [])
        if not pool and kind != OWN_TYPE and not _has_pool(directory, name):
            continue  # served by somebody else's host-local, whose leases we do not know
        for one in sets:
            leased = sum(one.range_of(lease.address) is not None for lease in pool)
            found.append(Usage(network=name, data_dir=directory, ranges=str(one), leased=leased, size=one.size))
    for (name, directory), pool in leases.items():
        if (name, directory) in with_ranges:
            continue
        for subnet, leased in sorted(Counter(lease.subnet for lease in pool).items()):
            size = max(1, ip_network(subnet).num_addresses - 3)  # network, gateway, broadcast
            found.append(Usage(network=name, data_dir=directory, ranges=subnet, leased=leased, size=size))
    return [one for one in found if network in (None, one.network)]


def _has_pool(directory: str, network: str) -> bool:
    try:
        store = existing_store()
    except PermissionError:
        return False  # a reader sees the pools that have leases
    if store is None:
        return False
    with store:
        return store.leases.pool(directory, network) is not None


def _configured(conf_dir: str) -> Iterator[tuple[str, str, str, tuple[RangeSet, ...]]]:
    """(network, IPAM type, data directory, range sets) of each network in *conf_dir* that may be our IPAM's."""
    for network in read_directory(conf_dir)[0]:
        for plugin in network.plugins:
            ipam = member(plugin, "ipam")
            if not isinstance(ipam, dict) or member(ipam, "type") not in (OWN_TYPE, DROP_IN_TYPE):
                continue
            whole = {**plugin, "name": network.name, "cniVersion": network.version}
            try:
                conf = parse_conf(json.dumps(whole).encode(), "ADD")
                yield network.name, member(ipam, "type"), data_dir(conf), parse_sets(conf)
            except CniError:
                continue  # the plugin says it when it is called; here it has no ranges to show


def show_usage(given: Namespace) -> int:
    """One row for each range set."""
    found = read_usage(given.conf_dir, given.network)
    if given.json:
        print(json.dumps([{**one.as_dict(), "share": round(one.share, 4)} for one in found], indent=4))
        return OK
    if not found:
        print(f"no network in {given.conf_dir} has ranges that pycni's IPAM serves, and nothing is leased")
        return OK
    rows = [
        (one.network, one.ranges, f"{one.leased:,}", _short(one.size), f"{one.share:.0%}", _bar(one.share))
        for one in found
    ]
    print_table(("NETWORK", "RANGES", "LEASED", "SIZE", "USED", ""), rows, right=("LEASED", "SIZE", "USED"))
    return OK


def _short(number: int) -> str:
    return f"{number:,}" if number < 10**9 else f"2^{number.bit_length() - 1}"


def _bar(share: float) -> str:
    filled = round(min(share, 1.0) * 20)
    return "#" * filled + "." * (20 - filled)


# -- release -----------------------------------------------------------------------------------------------------------


def release(given: Namespace) -> int:
    """Free one address; only with --yes, because the container may still use it."""
    address = _address(given.address)
    store = existing_store()
    found = [lease for lease in read_leases(given.network) if lease.address == address]
    if store is None or not found:
        step = "`pycni ipam list` shows the leases"
        raise Failure(f"{address} is not leased", exit_code=NOT_FOUND, code=3, next_step=step)
    with store:
        return _release(given, store, found)


def _release(given: Namespace, store: Store, found: list[Lease]) -> int:
    lease = found[0]
    if len(found) > 1:
        networks = ", ".join(f"{one.network} ({one.data_dir})" for one in found)
        step = "say which with --network"
        raise Failure(
            f"{lease.address} is leased {len(found)} times", exit_code=USAGE, facts=[("in", networks)], next_step=step
        )
    owner = f"{lease.container_id}/{lease.ifname} on network {lease.network}"
    if not given.yes:
        live = any(
            seen.state == "ready"
            and (seen.record.attachment.container_id, seen.record.attachment.ifname)
            == (lease.container_id, lease.ifname)
            for seen in see_all(lease.network)
        )
        state = "that container is alive and would keep using it" if live else "no living container was found for it"
        raise Failure(
            f"{lease.address} belongs to {owner}; nothing was changed",
            exit_code=FAILED,
            facts=[("state", state)],
            next_step="`pycni gc NETWORK` or `pycni del` free it in order; to free it at once say --yes",
        )
    store.leases.release_address(lease.address, lease.network)
    if given.json:
        print(json.dumps(_lease_json(lease), indent=4))
    else:
        print(f"{lease.address} of {owner} is free")
    return OK


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError as exc:
        raise Failure(str(exc), exit_code=USAGE, next_step="give an address such as 10.77.0.5") from None


def run(given: Namespace) -> int:
    """`pycni ipam`: its second word decides; without one, the list."""
    return {None: list_leases, "list": list_leases, "usage": show_usage, "release": release}[given.ipam_command](given)


HANDLERS = {"ipam": run}
