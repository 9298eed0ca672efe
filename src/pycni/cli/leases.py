"""`pycni ipam`: the leases of this host, how full its ranges are, and freeing an address by hand."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from pycni.agent.view import ATTACHED
from pycni.cli.failure import FAILED, NOT_FOUND, OK, USAGE, Failure
from pycni.cli.networks import find_network
from pycni.cli.pools import Usage, read_usage
from pycni.cli.state import existing_store, read_leases, see_all
from pycni.cli.tables import age, print_table
from pycni.cni.errors import Code
from pycni.ipam.etcd_conf import pool_of
from pycni.store import Lease, Store

FULL_SHARE = 0.9  # from here on a range counts as nearly full


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


def show_usage(given: Namespace) -> int:
    """One row for each range set."""
    found = read_usage(given.conf_dir, given.network)
    if given.network and not found:
        find_network(given.network, given.conf_dir)  # where there is no such one, that is what is wrong
    if given.json:
        print(json.dumps([{**one.as_dict(), "share": round(one.share, 4)} for one in found], indent=4))
        return OK
    if not found:
        which = f"network {given.network}" if given.network else f"no network in {given.conf_dir}"
        has = "has no ranges" if given.network else "has ranges"
        print(f"{which} {has} that pycni's IPAM serves, and nothing is leased")
        return OK
    rows = [(one.network, one.ranges, one.pool, *_fill(one), _bar(one.share)) for one in found]
    head = ("NETWORK", "RANGES", "POOL", "LEASED", "HERE", "SIZE", "USED", "")
    print_table(head, rows, right=("LEASED", "HERE", "SIZE", "USED"))
    if not all(one.known for one in found):
        print("≥: etcd does not answer, so what other hosts have is not counted")
    return OK


def _fill(one: Usage) -> tuple[str, ...]:
    at_least = "" if one.known else "≥"
    return f"{at_least}{one.leased:,}", f"{one.here:,}", _short(one.size), f"{at_least}{one.share:.0%}"


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
            seen.state in ATTACHED
            and (seen.record.attachment.container_id, seen.record.attachment.ifname)
            == (lease.container_id, lease.ifname)
            for seen in see_all(lease.network)
        )
        state = "that container is alive and would keep using it" if live else "no living container was found for it"
        raise Failure(
            f"{lease.address} belongs to {owner}; nothing was changed",
            exit_code=FAILED,
            code=Code.ADDRESS_TAKEN,
            facts=[("state", state)],
            next_step="`pycni gc NETWORK` or `pycni del` free it in order; to free it at once say --yes",
        )
    if lease.data_dir.startswith(pool_of("")):
        raise Failure(
            f"{lease.address} belongs to {owner}, in a pool that hosts share in etcd; nothing was changed",
            exit_code=FAILED,
            code=Code.ADDRESS_TAKEN,
            facts=[("pool", lease.data_dir)],
            next_step="freed here alone it would stay taken there: `pycni gc NETWORK` or `pycni del` give it back",
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
