"""What is known of the networks that span hosts: from the agent, which has it in memory, else from etcd itself; of what
neither tells, this host's own part."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator
from typing import Any

from pycni.cli.agent_client import NoAgent, ask
from pycni.cli.failure import Failure
from pycni.cli.networks import NetworkList, member, read_directory
from pycni.cli.state import see_all, unreadable
from pycni.cni.conf import Keys as ConfKeys
from pycni.cni.errors import CniError
from pycni.cni.value import Value
from pycni.etcd.client import Client
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.overview import BEHIND, IN_SYNC, STARTING, HostView, NetworkView, overview
from pycni.etcd.records import Endpoint
from pycni.etcd.requests import end_of
from pycni.etcd.schema import Keys, SchemaError
from pycni.ipam.etcd_state import HostState
from pycni.plugins.overlay.site import Joined, all_joined
from pycni.store import STATE_DIR

UNKNOWN = "unknown"  # the state of a host where nothing tells of the others of its network
UNDECODABLE = 6  # what an agent that does not know the question answers
OVERLAY_TYPES = ("pycni-overlay", "overlay")


class ClusterView(Value):
    """One cluster as this host sees it. node: this host's id. reason: why it is not, or no more, what etcd holds now
    ("" where it is); stale_since: since when, seconds since the epoch. by_agent: the agent said so. applied: the
    revision that this host's kernel holds, 0 where nobody knows. problems: what hinders this host."""

    prefix: str
    node: str
    networks: tuple[NetworkView, ...] = ()
    by_agent: bool = False
    revision: int = 0
    applied: int = 0
    reason: str = ""
    stale_since: float = 0.0
    problems: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {**self.as_dict(), "networks": [one.as_json() for one in self.networks]}


def read_clusters(conf_dir: str, network: str | None = None) -> list[ClusterView]:
    """Every cluster that this host has to do with, by prefix; of *network* only, if given. Failure for who may not
    know."""
    try:
        found = _from_agent(network)
    except (NoAgent, PermissionError):
        found = []
        _check_readable()
    found += _from_etcd(conf_dir, {one.prefix for one in found})
    found = [_with_own_part(one) if one.reason else one for one in found]
    keep = [one.replace(networks=tuple(each for each in one.networks if network in (None, each.name))) for one in found]
    return sorted((one for one in keep if one.networks or one.reason), key=lambda one: one.prefix)


def _from_agent(network: str | None) -> list[ClusterView]:
    """[] where the agent takes part in no cluster, or knows nothing of such questions."""
    try:
        told = ask("overlay", network=network)
    except Failure as failure:
        if failure.code == UNDECODABLE:
            return []
        raise
    return [
        ClusterView(
            prefix=one["prefix"],
            node=one["node"],
            networks=tuple(_with_own(NetworkView.from_json(each), one) for each in one["networks"]),
            by_agent=True,
            revision=one["revision"],
            applied=one["applied"],
            reason=one["reason"] or ("" if one["synced"] else "it was not read yet"),
            stale_since=one["staleSince"],
            problems=tuple(one["problems"]),
        )
        for one in told["clusters"]
    ]


def _with_own(network: NetworkView, told: dict[str, Any]) -> NetworkView:
    """*network* with what this host's kernel holds now; its record in etcd says so when its lease is renewed."""
    applied, now = int(told["applied"]), time.time()

    def own(host: HostView) -> HostView:
        if host.node != told["node"] or host.state not in (STARTING, BEHIND, IN_SYNC) or applied < network.newest:
            return host
        return host.replace(state=IN_SYNC, revision=applied, missing=0, at=now)

    return network.replace(hosts=tuple(map(own, network.hosts)))


# -- without etcd -----------------------------------------------------------------------------------------------------


def _with_own_part(cluster: ClusterView) -> ClusterView:
    """*cluster*, with what this host itself remembers of its networks that nobody else tells of."""
    told = {network.name for network in cluster.networks}
    own = [each for each in _joined() if each.prefix == cluster.prefix and each.network not in told]
    return cluster.replace(networks=(*cluster.networks, *map(_own_part, own)))


def _own_part(joined: Joined) -> NetworkView:
    host = HostView(
        node=joined.node,
        state=UNKNOWN,
        name=os.uname().nodename,
        vtep=joined.local,
        mtu=joined.uplink_mtu,
        containers=len(see_all(joined.network)),
        blocks=tuple(map(str, HostState(STATE_DIR, joined.prefix).blocks(joined.network).blocks)),
    )
    return NetworkView(
        *(joined.network, joined.prefix, joined.mode, joined.vni, joined.subnets),
        port=joined.port,
        mtu=joined.mtu,
        hosts=(host,),
    )


def is_own_part(network: NetworkView) -> bool:
    """Whether *network* is what this host remembers, and nothing is known of its other hosts."""
    return any(host.state == UNKNOWN for host in network.hosts)


def _joined() -> tuple[Joined, ...]:
    """The networks that this host takes part in; none where that may not be read."""
    try:
        return all_joined(STATE_DIR)
    except PermissionError:
        return ()


def _check_readable() -> None:
    """Without an agent that answers, what cannot be read must not pass for nothing."""
    try:
        all_joined(STATE_DIR)
    except PermissionError as refused:
        raise unreadable(refused) from None


# -- without an agent --------------------------------------------------------------------------------------------------


def _from_etcd(conf_dir: str, known: Collection[str]) -> Iterator[ClusterView]:
    """The clusters of this host's networks whose prefix is not in *known*."""
    for prefix, connection in _connections(conf_dir).items():
        if prefix in known:
            continue
        keys, node = Keys(prefix), _own_id()
        try:
            with _open(connection) as client:
                first, end = keys.shared
                shared = client.read(first, end=end)
                said = client.read(keys.syncs, end=end_of(keys.syncs))
            networks = tuple(overview(keys, (*shared.found, *said.found)))
            yield ClusterView(prefix, node, networks, revision=shared.revision)
        except CniError as failure:
            yield ClusterView(prefix, node, reason=failure.msg)


def read_endpoints(conf_dir: str, network: str) -> list[Endpoint]:
    """The containers of *network* with an address of their own in etcd, by host and id: none in routed mode, where a
    host has blocks. Straight from etcd; CniError 11 where it does not answer."""
    found: dict[tuple[str, ...], Endpoint] = {}
    for prefix, connection in _connections(conf_dir).items():
        with _open(connection) as client:
            for kv in client.read(Keys(prefix).endpoints(network)).found:
                try:
                    one = Endpoint.parse(kv.value, kv.key)
                except SchemaError:
                    continue  # `pycni etcd check` names it
                found[prefix, one.node, one.container, one.ifname] = one
    return [found[owner] for owner in sorted(found)]


def clusters_with(conf_dir: str, network: str) -> list[EtcdConf]:
    """The clusters of this host's networks that have a record of *network*, which need be no network of this host."""
    found = []
    for prefix, connection in _connections(conf_dir).items():
        conf = EtcdConf.parse(ConfKeys(json.loads(connection), "etcd"))
        with open_client(conf) as client:
            if client.get(Keys(prefix).network(network)) is not None:
                found.append(conf)
    return found


def _connections(conf_dir: str) -> dict[str, str]:
    """Prefix to connection, of the networks that this host has joined, and of those it is configured for."""
    joined = {each.prefix: each.connection for each in _joined()}
    return {**dict(_configured(conf_dir)), **joined}


def _open(connection: str) -> Client:
    return open_client(EtcdConf.parse(ConfKeys(json.loads(connection), "etcd")))


def _own_id() -> str:
    """The id of this host, "" where it has none yet: looking must not draw one."""
    try:
        with open(f"{STATE_DIR}/node", encoding="ascii") as file:
            return file.read().strip()
    except (FileNotFoundError, PermissionError):
        return ""


def _configured(conf_dir: str) -> Iterator[tuple[str, str]]:
    """Prefix and connection of the overlay networks in *conf_dir*, which this host may not have joined yet."""
    for network in read_directory(conf_dir)[0]:
        yield from _connections_of(network)


def _connections_of(network: NetworkList) -> Iterator[tuple[str, str]]:
    for found in map(_connection, filter(is_overlay, network.plugins)):
        try:
            yield EtcdConf.parse(ConfKeys(found, "etcd")).prefix, json.dumps(found)
        except CniError:
            continue  # multicast has none; else the plugin says it when it is called


def prefix_of(network: NetworkList) -> str:
    """Of the cluster that a configured network is of, "" where it is of none."""
    return next((prefix for prefix, _ in _connections_of(network)), "")


def is_overlay(plugin: Any) -> bool:
    return member(plugin, "type") in OVERLAY_TYPES


def _connection(plugin: Any) -> dict[str, Any]:
    for holder in (plugin, member(plugin, "ipam")):
        found = member(holder, "etcd") if isinstance(holder, dict) else None
        if isinstance(found, dict):
            return found
    return {}
