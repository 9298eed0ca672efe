"""Overlay networks of this host, for as long as the agent lives: their peers are followed, cluster by cluster.

Nothing of it is loaded, and no thread runs, before this host takes part in such a network.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pycni.agent.config import AgentConfig
from pycni.agent.journal import Journal
from pycni.cni.errors import CniError
from pycni.host.nft_events import SetChange, tunnel_elements
from pycni.ipam import etcd_pending
from pycni.plugins.overlay import following
from pycni.plugins.overlay.site import Joined, all_joined
from pycni.store import STATE_DIR, Record, Store

if TYPE_CHECKING:
    from pycni.agent.cluster import Cluster
    from pycni.agent.watching import Watching

END_S = 3.0  # that the agent's end waits for etcd
LINGER_S = 60.0  # of a cluster without networks: the next container often comes soon


class Overlay:
    """The `plugins.overlay.following.Follower` of this process. Thread-safe."""

    def __init__(self, config: Callable[[], AgentConfig], journal: Journal, directory: str = STATE_DIR) -> None:
        self._config = config
        self._journal = journal
        self._directory = directory
        self._lock = threading.Lock()
        self._clusters: dict[str, Cluster] = {}
        self._watching: Watching | None = None
        self._closed = False

    def install(self) -> None:
        """From now on ADDs of this process leave the following to this. Without the etcd3 package there can be none,
        and they see to their peers themselves, once."""
        if all(find_spec(name) is not None for name in ("etcd3", "grpc")):
            following.install(self)
        elif self._joined():
            msg = "peers are not followed: etcd3 or grpcio is missing, pip install 'pycni[etcd]'"
            self._journal.note("error", event="overlay-problem", msg=msg)

    def close(self) -> None:
        """The kernel keeps what it has; in etcd this host is not there any more."""
        following.install(None)
        with self._lock:
            self._closed = True
            clusters, self._clusters = self._clusters, {}
            watching, self._watching = self._watching, None
        if watching is not None:
            watching.close()
        ends = [threading.Thread(target=cluster.close, daemon=True) for cluster in clusters.values()]
        for end in ends:
            end.start()
        until = time.monotonic() + END_S
        for end in ends:
            end.join(max(0.0, until - time.monotonic()))

    def admit(self, connection: str, prefix: str) -> None:
        self._cluster(connection, prefix).standing.admit()

    def follow(self, joined: Joined) -> bool:
        return self._cluster(joined.connection, joined.prefix).follow(joined)

    def leave(self, network: str, prefix: str) -> None:
        cluster = self._clusters.get(prefix)
        if cluster is not None:
            cluster.leave(network)

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        with self._lock:
            return tuple(self._clusters.values())

    def adopt(self) -> tuple[str, ...]:
        """Follow what this host was found to take part in; what could not be, in words. Returns at once."""
        failures = []
        ways: dict[Cluster, list[str]] = {}
        for joined in self._joined() if following.follower() is self else ():
            try:
                cluster = self._cluster(joined.connection, joined.prefix)
                cluster.adopt(joined)
                ways.setdefault(cluster, []).append(joined.connection)
            except (CniError, OSError) as failure:
                failures.append(f"network {joined.network}: {failure}")
        for cluster, connections in ways.items():
            cluster.try_others(connections)
        return tuple(failures)

    def compare(self) -> tuple[str, ...]:
        """Compare everything wanted with the kernel, and end what is over; what is wrong, in words."""
        failures: list[str] = []
        for cluster in self.clusters:
            cluster.compare()
            failures += cluster.standing.problems()
            if self._is_over(cluster):
                cluster.close()
        return tuple(failures)

    def guard_changed(self, changes: Iterable[SetChange]) -> None:
        """Elements of the tunnels' table came or went, by whomever."""
        if clusters := self.clusters:
            elements = tuple(tunnel_elements(changes))
            for cluster in clusters:
                cluster.guard_changed(elements)

    def refused(self, record: Record) -> str:
        """Why *record* may not be released: the container may be another machine's that has the id of this one. "" for
        those of other networks."""
        for cluster in self.clusters:
            if record.attachment.network in cluster.networks:
                return cluster.standing.why_not()
        return ""

    def finish(self, store: Store) -> tuple[str, ...]:
        """Finish what a DEL did not: it was killed, or etcd was silent; what hindered it, in words."""
        if any(cluster.standing.refused for cluster in self.clusters):
            return ()  # it may be another machine's
        connections = {cluster.keys.prefix: cluster.connection for cluster in self.clusters}
        if all_joined(self._directory) or all_joined(self._directory, left=True):
            from pycni.plugins.overlay.leaving import finish_everywhere

            finish_everywhere(store, connections)
        return etcd_pending.finish_everywhere(store, connections)

    def counts(self) -> dict[str, Any]:
        """For status and metrics: of each cluster, by its prefix, what `cluster_view.counts` says."""
        clusters = self.clusters
        if not clusters:
            return {}
        from pycni.agent import cluster_view

        return {cluster.keys.prefix: cluster_view.counts(cluster) for cluster in clusters}

    def as_json(self, network: str | None) -> dict[str, Any]:
        """For readers, see docs/agent.md."""
        clusters = self.clusters
        if not clusters:
            return {"node": "", "clusters": []}
        from pycni.agent import cluster_view

        return {"node": clusters[0].node, "clusters": [cluster_view.as_json(each, network) for each in clusters]}

    def _is_over(self, cluster: Cluster) -> bool:
        """Whether nothing has been followed there for long; then it is one of them no more."""
        with self._lock:
            return cluster.is_idle(LINGER_S) and self._clusters.pop(cluster.keys.prefix, None) is cluster

    def _joined(self) -> tuple[Joined, ...]:
        return tuple(joined for joined in all_joined(self._directory) if joined.connection)

    def _cluster(self, connection: str, prefix: str) -> Cluster:
        """The cluster with that prefix, begun where it is new. CniError 7 for a connection that cannot be one."""
        with self._lock:
            cluster = self._clusters.get(prefix)
            if cluster is not None:
                cluster.touch()
                return cluster
        from pycni.agent.cluster import Cluster  # gRPC: 25 MiB, 0.1 s
        from pycni.agent.watching import Watching

        with self._lock:
            cluster = self._clusters.get(prefix)
            if cluster is None:
                if self._watching is None:
                    self._watching = Watching(lambda: self.clusters)
                cluster = self._clusters[prefix] = Cluster(
                    prefix,
                    connection,
                    self._directory,
                    self._journal,
                    ring=self._watching.ring,
                    ttl_s=self._config().node_ttl_s,
                    dead_after_s=lambda: self._config().dead_after_s,
                )
        return cluster
