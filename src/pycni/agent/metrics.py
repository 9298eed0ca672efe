"""Prometheus metrics, from what the journal and the store know; off unless an address is configured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pycni.agent.config import metrics_address
from pycni.agent.journal import BUCKETS_S, Tally
from pycni.cni.errors import CniError, Code
from pycni.portmap.proxy.client import ProxyClient
from pycni.store import open_store

if TYPE_CHECKING:
    from pycni.agent.main import Agent
    from pycni.agent.ports import AgentPorts


class MetricsServer:
    """An HTTP server on a thread of its own. CniError 7 without prometheus-client, 5 where the port cannot be had."""

    def __init__(self, agent: Agent) -> None:
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
        except ImportError as failure:
            raise CniError(
                Code.INVALID_CONFIG,
                "metrics are configured, but prometheus-client is missing",
                "pip install 'pycni[metrics]', or take `metrics` out of agent.toml",
            ) from failure
        registry = CollectorRegistry()
        registry.register(_Collector(agent))
        ProcessCollector(registry=registry)
        host, port = metrics_address(agent.config.metrics)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as failure:
            raise CniError(
                Code.IO,
                f"metrics cannot be served at {agent.config.metrics}: {failure.strerror or failure}",
                "choose another address or port for `metrics` in agent.toml, or end who has it",
            ) from failure

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Collector:
    """Read when asked, so that calls pay nothing but an addition."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def describe(self) -> Iterable[Any]:
        return ()  # else prometheus-client would collect once to learn the names, before the agent serves

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        agent = self._agent
        yield from _calls(agent.journal.tallies())
        yield GaugeMetricFamily("pycni_clients", "Clients at this moment.", agent.server.clients)
        yield GaugeMetricFamily("pycni_calls_running", "Plugin calls being carried out or waiting for it.", agent.busy)
        yield GaugeMetricFamily("pycni_workers", "Plugin calls carried out at the same time.", agent.config.workers)
        # On a thread that stays: each scrape has one of its own, and would open the store anew.
        attachments, leases = agent.read_now(_objects)
        yield _gauges("pycni_attachments", "Attachments in the store.", ("network", "state"), attachments)
        yield _gauges("pycni_leases", "Addresses given out.", ("network",), leases)
        yield from _ports(agent.ports)
        yield from _overlay(agent.overlay.counts())
        yield CounterMetricFamily("pycni_restored", "Rules, bridges, ports, addresses put back.", agent.restored)
        last = agent.last
        if last is not None:
            yield GaugeMetricFamily("pycni_reconcile_timestamp_seconds", "When records met the kernel last.", last.at)
            yield GaugeMetricFamily("pycni_reconcile_seconds", "How long that took.", last.ms / 1000)
            yield GaugeMetricFamily("pycni_reconcile_failures", "What could not be put right then.", len(last.failures))
            yield GaugeMetricFamily("pycni_reconcile_foreign", "Changes by others that it found.", len(last.foreign))


def _calls(tallies: list[tuple[tuple[str, str, int], Tally]]) -> Iterable[Any]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    calls = CounterMetricFamily("pycni_calls", "Plugin calls.", labels=["plugin", "command", "code"])
    latency = HistogramMetricFamily(
        "pycni_call_duration_seconds", "Time of a call in the agent.", labels=["plugin", "command", "code"]
    )
    ends = [*(f"{end:g}" for end in BUCKETS_S), "+Inf"]
    for (plugin, command, code), tally in tallies:
        labels = [plugin, command, str(code)]
        calls.add_metric(labels, tally.count)
        latency.add_metric(labels, list(zip(ends, accumulate(tally.buckets), strict=True)), tally.seconds)
    return calls, latency


def _ports(ports: AgentPorts) -> Iterable[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    counts = ports.counts()
    yield GaugeMetricFamily("pycni_ports_held", "Host ports that are held by a socket.", counts["held"])
    yield GaugeMetricFamily("pycni_ports_proxied", "Those of them that the userland proxy serves.", counts["proxied"])
    yield CounterMetricFamily("pycni_proxy_restarts", "Proxies that died and have a successor.", ports.proxy.restarts)
    try:
        stats = ports.proxy.tell(ProxyClient.stats)
    except CniError:
        return  # the log says why
    for name, number in (stats["total"] if stats is not None else {}).items():
        kind = GaugeMetricFamily if name in ("open", "flows") else CounterMetricFamily
        yield kind(f"pycni_proxy_{name}", "Of the userland proxy, see docs/proxy.md.", number)


def _overlay(clusters: dict[str, Any]) -> Iterable[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    labels = ["prefix", "network"]
    peers = GaugeMetricFamily("pycni_overlay_peers", "Other hosts of an overlay network.", labels=labels)
    entries = GaugeMetricFamily("pycni_overlay_entries", "Kernel entries that lead to them.", labels=labels)
    in_step = GaugeMetricFamily("pycni_overlay_in_step", "Whether the kernel has all of them.", labels=labels)
    restored = CounterMetricFamily("pycni_overlay_restored", "Comparisons that had to repair.", labels=labels)
    for prefix, counts in clusters.items():
        for name, network in counts["networks"].items():
            peers.add_metric([prefix, name], network["peers"])
            entries.add_metric([prefix, name], network["entries"])
            in_step.add_metric([prefix, name], network["in_step"])
            restored.add_metric([prefix, name], network["restored"])
    yield from (peers, entries, in_step, restored)
    for key, name, text in _OF_CLUSTERS:
        family = GaugeMetricFamily(f"pycni_overlay_{name}", text, labels=["prefix"])
        for prefix, counts in clusters.items():
            family.add_metric([prefix], counts[key])
        yield family


_OF_CLUSTERS = (
    ("revision", "revision", "Of etcd's store, as far as it was heard."),
    ("applied", "applied_revision", "Up to which the kernel has everything."),
    ("stale_s", "stale_seconds", "Since when etcd is silent, 0 while it is not."),
    ("lease", "lease_held", "Whether this host is there for the others."),
    ("suspects", "suspects", "Hosts that nothing is heard of."),
)


def _objects() -> tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]]:
    with open_store() as store:
        attachments = Counter((record.attachment.network, record.state) for record in store.attachments.all(part=""))
        return Counter(attachments), Counter((lease.network,) for lease in store.leases.all())


def _gauges(name: str, text: str, labels: tuple[str, ...], counts: Counter[tuple[str, ...]]) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in sorted(counts.items()):
        family.add_metric(values, number)
    return family
