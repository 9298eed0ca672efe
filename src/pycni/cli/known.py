"""One network as `pycni networks` shows it: what this host is configured for beside what its cluster has."""

from __future__ import annotations

from collections import Counter

from pycni.cli.clusters import UNKNOWN, is_overlay, is_own_part
from pycni.cli.networks import NetworkList, member, plugin_type
from pycni.cli.pools import subnets_in
from pycni.cni.value import Value
from pycni.etcd.overview import BEHIND, DEAD, IN_SYNC, NO_AGENT, OUTSIDE, STARTING, SUSPECT, NetworkView
from pycni.plugins.overlay.conf import ROUTED

NETWORKS = ("NETWORK", "KIND", "VNI", "SUBNETS", "HOSTS", "CONTAINERS", "STATE")
SILENT = f"{UNKNOWN}: etcd is silent"


class Known(Value):
    """A network that is configured here (*conf*), in a cluster (*view*), or both. here: attachments of this host;
    silent: etcd, which would know of it, does not answer."""

    conf: NetworkList | None
    view: NetworkView | None
    here: int
    silent: bool = False

    @property
    def kind(self) -> str:
        """What makes the interface: the mode of an overlay, else the type of the first plugin."""
        if self.view is not None:
            return self.view.mode
        if self.conf is None:
            return ""
        first = self.conf.plugins[0]
        return str(member(first, "mode") or "l2") if is_overlay(first) else plugin_type(first)

    @property
    def subnets(self) -> tuple[str, ...]:
        if self.view is not None:
            return self.view.subnets
        return subnets_in(self.conf) if self.conf is not None else ()

    @property
    def state(self) -> str:
        if self.view is not None:
            return _state(self.view) + ("" if self.conf is not None else ", no configuration here")
        if not _expects(self.conf):
            return ""
        return SILENT if self.silent else "not joined"

    def row(self) -> tuple[str, ...]:
        """Its line of the table, in the order of NETWORKS."""
        subnets, view = " ".join(self.subnets), self.view
        if view is None:
            name, hosts = self.conf.name if self.conf is not None else "", "1" if self.here else ""
            return name, self.kind, "", subnets, hosts, str(self.here), self.state
        more = "≥" if is_own_part(view) else ""
        containers = "" if view.mode == ROUTED else f"{more}{view.containers}"
        return view.name, view.mode, str(view.vni), subnets, f"{more}{len(view.hosts)}", containers, self.state

    def as_json(self) -> dict[str, object]:
        view, conf = self.view, self.conf
        return {
            "name": view.name if view is not None else conf.name if conf is not None else "",
            "kind": self.kind,
            "file": conf.path if conf is not None else None,
            "subnets": list(self.subnets),
            "attachments": self.here,
            "state": self.state,
            "shared": view.as_json() if view is not None else None,
        }


def _expects(conf: NetworkList | None) -> bool:
    """Whether the network would be in etcd once a container was attached."""
    return conf is not None and is_overlay(conf.plugins[0]) and member(conf.plugins[0], "mode") != "multicast"


def _state(view: NetworkView) -> str:
    """The states of all hosts, the bad ones counted."""
    if is_own_part(view):
        return SILENT
    counts = Counter(host.state for host in view.hosts)
    if not counts:
        return "no hosts"
    order = (DEAD, SUSPECT, NO_AGENT, OUTSIDE, BEHIND, STARTING)
    return ", ".join(f"{counts[state]} {state}" for state in order if counts[state]) or IN_SYNC
