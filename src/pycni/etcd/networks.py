"""Networks that are known to the whole cluster, and their VXLAN network identifiers: each is one network's."""

from __future__ import annotations

import os

from pycni.cni.errors import CniError, Code
from pycni.etcd import requests
from pycni.etcd.records import NetworkRecord, Vni
from pycni.etcd.schema import SchemaError
from pycni.etcd.space import Space, draw_some

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from pycni.etcd.client import Client
    from pycni.etcd.requests import KeyValue
    from pycni.etcd.schema import Keys

VNIS = Space(4, ((4096, (1 << 24) - 1),))  # below 4096 others count from one
CANDIDATES = 8
ATTEMPTS = 20  # others that make networks at the same moment


def make_network(
    client: Client, keys: Keys, name: str, wanted: NetworkRecord, *, avoid: Collection[int] = ()
) -> NetworkRecord:
    """The network's record: the one that is there, whoever made it, else *wanted*, with a VNI of its own.

    wanted.vni 0: any, drawn from the name first, so that a network made anew has its former one; never one of *avoid*
    (those of foreign tunnels). CniError 102 where a given VNI, or a part of a subnet, is another network's; that none
    was made since they were looked at is a guard of the transaction. CniError 7 where the network is there and not what
    is wanted, naming what differs (see `compare`). SchemaError where its record cannot be read, or it is to be
    made and another's cannot: no VNI and no address is given out that may be that one's.
    """
    if wanted.vni in avoid and wanted.vni:
        raise CniError(
            Code.ADDRESS_TAKEN, f"VNI {wanted.vni} of network {name} is another tunnel's on this host", "choose another"
        )
    seed = f"{name}/vni"
    for _ in range(ATTEMPTS):
        there = client.read(keys.networks)
        found = {parts[1]: kv for parts, kv in keys.understood(there.found)}
        if name in found:
            record = _parsed(found[name])
            compare(name, record, wanted)
            return record
        known = {other: _parsed_other(name, other, kv) for other, kv in found.items()}
        for other, record in known.items():
            _refuse_overlap(wanted, other, record)
        used = {record.vni for record in known.values()} | set(avoid)
        free = [one for one in draw_some(seed, VNIS, CANDIDATES) if one not in used]
        number = wanted.vni or (free[0] if free else 0)
        if number:
            made = wanted.replace(vni=number)
            puts = [requests.put(keys.network(name), made.render())]
            puts.append(requests.put(keys.vni(number), Vni(network=name).render()))
            guards = [requests.none_since(keys.networks, there.revision), requests.is_absent(keys.vni(number))]
            if client.txn(requests.txn(guards, puts)).succeeded:
                return made
        seed = os.urandom(8).hex()
    raise CniError(Code.TRY_AGAIN, f"network {name} could not be made in {ATTEMPTS} attempts", "try again")


def compare(name: str, there: NetworkRecord, wanted: NetworkRecord) -> None:
    """CniError 7 where network *name*, recorded as *there*, is not what this host's config wants. What the config
    leaves open (0, "" or no subnets) is the record's to say; the order of subnets says nothing."""
    differences = [
        f"{what} {mine or 'none'} here, {its or 'none'} there"
        for what, mine, its in (
            ("VNI", wanted.vni, there.vni),
            ("mode", wanted.mode, there.mode),
            ("subnets", _listed(wanted), _listed(there)),
            ("port", wanted.port, there.port),
            ("MTU", wanted.mtu, there.mtu),
        )
        if mine and mine != its
    ]
    if wanted.encrypted != there.encrypted:
        differences.append(f"encrypted {wanted.encrypted} here, {there.encrypted} there")
    if differences:
        raise CniError(
            Code.INVALID_CONFIG,
            f"network {name} is not what etcd has under that name: {'; '.join(differences)}",
            "all hosts need the same config; to change it, take the network down everywhere first",
        )


def _listed(record: NetworkRecord) -> str:
    return ", ".join(map(str, sorted(record.networks, key=lambda one: (one.version, one))))


def _parsed(kv: KeyValue) -> NetworkRecord:
    """The record, whose subnets are some; SchemaError."""
    record = NetworkRecord.parse(kv.value, kv.key)
    try:
        _ = record.networks
    except SchemaError as exc:
        raise SchemaError(f"{kv.key}: {exc.msg}") from None
    return record


def _parsed_other(name: str, other: str, kv: KeyValue) -> NetworkRecord:
    try:
        return _parsed(kv)
    except SchemaError as exc:
        told = f"network {name} is not made: what network {other} has cannot be read, and may be the same"
        raise SchemaError(f"{told}: {exc.msg}") from None


def _refuse_overlap(wanted: NetworkRecord, other: str, record: NetworkRecord) -> None:
    step = f"choose another, or `pycni networks remove {other}` where nobody uses that any more"
    if wanted.vni == record.vni:
        raise CniError(Code.ADDRESS_TAKEN, f"VNI {wanted.vni} is taken by network {other}", step)
    for mine in wanted.networks:
        for its in record.networks:
            if mine.version == its.version and mine.overlaps(its):
                raise CniError(Code.ADDRESS_TAKEN, f"subnet {mine} overlaps with {its} of network {other}", step)


def remove_network(client: Client, keys: Keys, name: str) -> None:
    """Forget a network, also one whose record is damaged. CniError 11 while a host takes part in it, or has addresses
    or blocks of it."""
    found = client.get(keys.network(name))
    if found is None:
        return
    everybody = client.read(keys.all_members, keys_only=True)
    members = [node for (_, node, network), _ in keys.understood(everybody.found) if network == name]
    if members:
        raise CniError(
            Code.TRY_AGAIN,
            f"network {name} is in use: {', '.join(members)} (host ids) take part in it",
            "detach its containers there; `pycni etcd forget` a host that is gone",
        )
    endpoints, blocks = keys.endpoints(name), keys.blocks(name)
    guards = [requests.unchanged(found.key, found.mod_revision)]
    guards.append(requests.none_since(keys.all_members, everybody.revision))
    guards.append(requests.none_between(endpoints, requests.end_of(endpoints)))
    # Digits only: "length" is no block, and goes with the network.
    guards += [requests.none_between(f"{blocks}{version}/0", f"{blocks}{version}/g") for version in (4, 6)]
    operations = [requests.delete(key) for key in (found.key, *_vnis_of(client, keys, name, found))]
    operations.append(requests.delete(blocks, requests.end_of(blocks)))
    answer = client.txn(requests.txn(guards, operations, [requests.get(found.key)]))
    if not answer.succeeded and answer.parts[0].found:
        raise CniError(Code.TRY_AGAIN, f"network {name} is in use", "`pycni etcd dump` shows by which containers")


def _vnis_of(client: Client, keys: Keys, name: str, found: KeyValue) -> list[str]:
    """The keys of the VNIs that are network *name*'s: they say so, or its record does and they are damaged."""
    try:
        told = keys.vni(NetworkRecord.parse(found.value).vni)
    except SchemaError:
        told = ""
    owners = {kv.key: _owner(kv) for _, kv in keys.understood(client.read(keys.vnis).found)}
    return [key for key, owner in owners.items() if owner == name or (key == told and not owner)]


def _owner(kv: KeyValue) -> str:
    """The network of a VNI, "" where its record is damaged."""
    try:
        return Vni.parse(kv.value).network
    except SchemaError:
        return ""
