"""Who takes part in which network, and who knows what: records of a cluster in, a view of every network out. Pure.

`pycni peers` and `pycni networks` show it; they get it from the agent, which has the records in its mirror, or make it
from a reading of their own. The order of the records does not matter.
"""

from __future__ import annotations

from bisect import bisect_right

from pycni.cni.value import Value
from pycni.etcd.audit import read_entries
from pycni.etcd.records import Block, Endpoint, Fence, Member, NetworkRecord, Node, Sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self

    from pycni.etcd.audit import Entry
    from pycni.etcd.requests import KeyValue
    from pycni.etcd.schema import Keys

IN_SYNC, BEHIND, STARTING, SUSPECT = "in sync", "behind", "starting", "suspect"
NO_AGENT, DEAD, OUTSIDE = "no agent", "dead", "outside"


class HostView(Value):
    """A host of one network.

    state: "in sync"; "behind", where *missing* records are newer than what it said it knows; "starting", while it has
    said nothing; "suspect", where no lease says any more that its agent lives; "no agent", where none ever ran, so that
    nobody follows changes there; "dead", where it was declared that; "outside", where it has addresses and is no
    member. revision, at: what it knows and when it said so, seconds since the epoch.
    containers: how many interfaces it has in the network.
    since: when it joined, or was declared dead.
    """

    node: str
    state: str
    name: str = ""
    vtep: str = ""
    mac: str = ""
    mtu: int = 0
    since: float = 0.0
    revision: int = 0
    at: float = 0.0
    missing: int = 0
    containers: int = 0
    blocks: tuple[str, ...] = ()
    agent: str = ""  # the version of pycni there, "" without an agent
    problems: tuple[str, ...] = ()


class NetworkView(Value):
    """A network with a record in etcd. newest: revision of the last change that its hosts should know of."""

    name: str
    prefix: str
    mode: str
    vni: int
    subnets: tuple[str, ...]
    port: int = 0
    mtu: int = 0
    created: float = 0.0
    newest: int = 0
    hosts: tuple[HostView, ...] = ()

    @property
    def containers(self) -> int:
        return sum(host.containers for host in self.hosts)

    @property
    def suspects(self) -> tuple[HostView, ...]:
        return tuple(host for host in self.hosts if host.state == SUSPECT)

    def as_json(self) -> dict[str, Any]:
        return {**self.as_dict(), "hosts": [host.as_dict() for host in self.hosts]}

    @classmethod
    def from_json(cls, shown: dict[str, Any]) -> Self:
        """What `as_json` gave, after its way through JSON."""
        hosts = tuple(HostView(**_tuples(host)) for host in shown["hosts"])
        return cls(**{**_tuples(shown), "hosts": hosts})


class _Cluster:
    """The records, sorted by what is asked of them."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.networks: dict[str, NetworkRecord] = {}
        self.members: dict[str, dict[str, Entry]] = {}  # by network and node
        self.fences: dict[str, Entry] = {}
        self.nodes: dict[str, Node] = {}
        self.syncs: dict[str, Sync] = {}
        self.owners: dict[str, dict[str, set[tuple[str, str]]]] = {}  # by network and node: (container id, ifname)
        self.blocks: dict[str, dict[str, list[str]]] = {}
        self.revisions: dict[str, list[int]] = {}  # by network, of all that its hosts should know, in order
        for entry in entries:
            self._sort(entry, entry.parts, entry.record, entry.key.mod_revision)
        for network, members in self.members.items():
            fenced = (self.fences[node].key.mod_revision for node in members if node in self.fences)
            self.revisions.setdefault(network, []).extend(fenced)
        for revisions in self.revisions.values():
            revisions.sort()

    def _sort(self, entry: Entry, parts: tuple[str, ...], record: object, revision: int) -> None:
        if isinstance(record, NetworkRecord):
            self.networks[parts[0]] = record
        elif isinstance(record, Member):
            self.members.setdefault(parts[1], {})[parts[0]] = entry
            self.revisions.setdefault(parts[1], []).append(revision)
        elif isinstance(record, Fence):
            self.fences[parts[0]] = entry
        elif isinstance(record, Node):
            self.nodes[parts[0]] = record
        elif isinstance(record, Sync):
            self.syncs[parts[0]] = record
        elif isinstance(record, Endpoint):
            nodes = self.owners.setdefault(parts[0], {})
            nodes.setdefault(record.node, set()).add((record.container, record.ifname))
            self.revisions.setdefault(parts[0], []).append(revision)
        elif isinstance(record, Block):
            self.blocks.setdefault(parts[0], {}).setdefault(record.node, []).append(parts[1])
            self.revisions.setdefault(parts[0], []).append(revision)


def overview(keys: Keys, found: Iterable[KeyValue]) -> list[NetworkView]:
    """Every network that *found* has a record of, by name, its hosts by name. Damaged records are left out: `audit`
    names them."""
    cluster = _Cluster(read_entries(keys, found)[0])
    return [_network(keys, cluster, name, record) for name, record in sorted(cluster.networks.items())]


def _network(keys: Keys, cluster: _Cluster, name: str, record: NetworkRecord) -> NetworkView:
    having = (cluster.members, cluster.owners, cluster.blocks)
    nodes = {node for kind in having for node in kind.get(name, {})}
    hosts = [_host(cluster, name, node) for node in nodes]
    return NetworkView(
        name=name,
        prefix=keys.prefix,
        mode=record.mode,
        vni=record.vni,
        subnets=record.subnets,
        port=record.port,
        mtu=record.mtu,
        created=record.created,
        newest=max(cluster.revisions.get(name, ()), default=0),
        hosts=tuple(sorted(hosts, key=lambda host: (host.name, host.node))),
    )


def _host(cluster: _Cluster, network: str, node: str) -> HostView:
    entry = cluster.members.get(network, {}).get(node)
    member = entry.record if entry is not None and isinstance(entry.record, Member) else None
    there, sync = cluster.nodes.get(node), cluster.syncs.get(node)
    fence = cluster.fences.get(node)
    known = sync.revision if sync is not None else 0
    revisions = cluster.revisions.get(network, [])
    missing = len(revisions) - bisect_right(revisions, known)
    known_as = member or Member(name=there.name if there is not None else "", vtep="")
    since = known_as.created
    if entry is None or member is None:
        state = OUTSIDE
    elif fence is not None and fence.key.mod_revision > entry.key.mod_revision:
        state = DEAD
        since = fence.record.at if isinstance(fence.record, Fence) else 0.0
    elif there is None:
        state = SUSPECT if member.agent else NO_AGENT
    elif sync is None:
        state = STARTING
    else:
        state = BEHIND if missing else IN_SYNC
    return HostView(
        node=node,
        state=state,
        name=known_as.name,
        vtep=known_as.vtep,
        mac=known_as.mac,
        mtu=known_as.mtu,
        since=since,
        revision=known,
        at=sync.at if sync is not None else 0.0,
        missing=missing if sync is not None else 0,
        containers=len(cluster.owners.get(network, {}).get(node, ())),
        blocks=tuple(sorted(cluster.blocks.get(network, {}).get(node, ()))),
        agent=there.version if there is not None else "",
        problems=(*(there.problems if there is not None else ()), *(sync.problems if sync is not None else ())),
    )


def _tuples(shown: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in shown.items()}
