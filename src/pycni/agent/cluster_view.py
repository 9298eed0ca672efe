"""What there is to be seen of a cluster on this host: for status, metrics and readers."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from pycni.agent.followed import Followed
from pycni.etcd.overview import overview

if TYPE_CHECKING:
    from pycni.agent.cluster import Cluster

SHOWN = 10  # damaged records, of what may be as many as there are hosts
_JOINED = ("network", "mode", "vni", "port", "vxlan", "bridge", "uplink", "local", "mtu")


def counts(cluster: Cluster) -> dict[str, Any]:
    """Numbers. applied_at: seconds since the epoch."""
    with cluster.lock:
        networks = {
            name: {
                "peers": len(network.table.vteps()),
                "entries": network.table.count,
                "restored": network.restored,
                "in_step": network.in_step,
            }
            for name, network in cluster.networks.items()
        }
        applied, at = cluster.applied, cluster.applied_at
    since = cluster.mirror.stale_since
    return {
        "networks": networks,
        "revision": cluster.mirror.revision,
        "applied": applied,
        "applied_at": at,
        "stale_s": max(0.0, time.time() - since) if since else 0.0,
        "lease": cluster.standing.held,
        "suspects": len(cluster.standing.absent.found.suspects),
        "reconnects": cluster.mirror.reconnects,
        "corrected": cluster.mirror.corrected,
    }


def as_json(cluster: Cluster, only: str | None) -> dict[str, Any]:
    """docs/agent.md, method `overlay`; asks etcd how far the other hosts follow."""
    with cluster.lock:
        local = [_local(each) for name, each in sorted(cluster.networks.items()) if only in (None, name)]
        applied = cluster.applied
    mirror = cluster.mirror
    found = [*mirror.items().values(), *cluster.standing.syncs()]
    return {
        "prefix": cluster.keys.prefix,
        "node": cluster.node,
        "revision": mirror.revision,
        "applied": applied,
        "synced": mirror.synced.is_set(),
        "staleSince": mirror.stale_since,
        "reason": mirror.reason,
        "problems": list(cluster.standing.problems()),
        "networks": [view.as_json() for view in overview(cluster.keys, found) if only in (None, view.name)],
        "local": local,
    }


def _local(network: Followed) -> dict[str, Any]:
    return {
        **{name: getattr(network.joined, name) for name in _JOINED},
        "entries": network.table.count,
        "peers": len(network.table.vteps()),
        "inStep": network.in_step,
        "changedAt": network.changed_at,
        "restored": network.restored,
        "problems": [*network.problems, *islice(network.table.problems.values(), SHOWN)],
    }
