"""`pycni peers` and `pycni networks`: which hosts share which networks, and who of them knows what."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Sequence

from pycni.cli.clusters import ClusterView, is_own_part, prefix_of, read_clusters, read_endpoints
from pycni.cli.failure import FAILED, NOT_FOUND, OK, USAGE, Failure, warn
from pycni.cli.known import NETWORKS, Known
from pycni.cli.networks import NetworkList, read_directory
from pycni.cli.state import see_all
from pycni.cli.tables import age, counted, paint, print_table
from pycni.etcd.overview import BEHIND, DEAD, NO_AGENT, OUTSIDE, STARTING, SUSPECT, HostView, NetworkView
from pycni.plugins.overlay.conf import ROUTED

PEERS = ("HOST", "TUNNEL", "STATE", "KNOWS", "SAID", "MTU", "SINCE")
ENDPOINTS = ("HOST", "CONTAINER", "IFNAME", "ADDRESSES", "MAC", "AGE")
_MEANS = {
    SUSPECT: "its agent is not heard of any more: it ended, or the host is cut off or gone",
    NO_AGENT: "nobody there follows what changes elsewhere: run `pycni agent`",
    DEAD: "was declared dead: nothing is sent to it; `pycni etcd forget` frees what it had",
    OUTSIDE: "has addresses and takes no part: its ADD is going on, or was killed",
    STARTING: "has not said yet what it knows",
}


def peers(given: Namespace) -> int:
    """For each network a table of its hosts. Exit code 1 where etcd could not be asked."""
    if given.endpoints:
        return _list_endpoints(given)
    clusters = read_clusters(given.conf_dir, given.network)
    _refuse_unknown(given.network, clusters)
    if given.json:
        print(json.dumps([one.as_json() for one in clusters], indent=4))
        return _code(clusters)
    if not clusters:
        print("this host takes part in no network over several hosts")
    now = time.time()
    for at, (cluster, network) in enumerate((one, each) for one in clusters for each in one.networks):
        print(("\n" if at else "") + _headline(network))
        routed = network.mode == ROUTED  # how many containers a host has in its blocks, it alone knows
        rows = [_host_row(host, cluster.node, now, routed=routed) for host in network.hosts]
        columns = (*PEERS[:2], "BLOCKS" if routed else "CONTAINERS", *PEERS[2:])
        print_table(columns, rows, right=(columns[2], "KNOWS", "MTU"))
        _tell_problems(network, cluster)
    _tell_clusters(clusters, now)
    return _code(clusters)


def _list_endpoints(given: Namespace) -> int:
    """One row for each container of a network."""
    if given.network is None:
        raise Failure("--endpoints: of which network?", exit_code=USAGE, next_step="pycni peers NETWORK --endpoints")
    found = read_endpoints(given.conf_dir, given.network)
    clusters = read_clusters(given.conf_dir, given.network)
    _refuse_unknown(given.network, clusters)
    if given.json:
        print(json.dumps([one.as_dict() for one in found], indent=4))
        return OK
    names = {host.node: host.name for one in clusters for network in one.networks for host in network.hosts}
    now = time.time()
    rows = [
        (
            names.get(one.node) or one.node[:12],
            one.container,
            one.ifname,
            "\n".join(one.ips),
            one.mac,
            age(now - one.created),
        )
        for one in found
    ]
    if not rows:
        print(f"no container of network {given.network} has an address of its own in etcd")
        return OK
    print_table(ENDPOINTS, rows, right=("AGE",))
    return OK


def _refuse_unknown(network: str | None, clusters: Sequence[ClusterView]) -> None:
    """Where every cluster answers, and none has it."""
    if network and not any(one.networks or one.reason for one in clusters):
        step = "`pycni networks` shows what there is"
        raise Failure(f"no network {network} is in etcd", exit_code=NOT_FOUND, next_step=step)


def _code(clusters: Iterable[ClusterView]) -> int:
    return FAILED if any(one.reason for one in clusters) else OK


def _headline(network: NetworkView) -> str:
    about = [network.mode, f"VNI {network.vni}", *network.subnets, f"in {network.prefix}"]
    if network.mode == ROUTED:
        has = counted(sum(len(host.blocks) for host in network.hosts), "block")
    else:
        has = counted(network.containers, "container")
    return f"network {network.name}: {', '.join(about)}; {has}{' here' if is_own_part(network) else ''}"


def _host_row(host: HostView, this: str, now: float, *, routed: bool) -> tuple[str, ...]:
    name = host.name or host.node[:12]
    return (
        f"{name} (this)" if host.node == this else name,
        host.vtep,
        str(len(host.blocks) if routed else host.containers),
        f"behind by {host.missing}" if host.state == BEHIND else host.state,
        str(host.revision or ""),
        f"{age(now - host.at)} ago" if host.at else "",
        str(host.mtu or ""),
        age(now - host.since) if host.since else "",
    )


def _tell_problems(network: NetworkView, cluster: ClusterView) -> None:
    for host in network.hosts:
        name = host.name or host.node[:12]
        for text in host.problems:
            print(f"  {paint('problem', 'red', sys.stdout)}  {name}: {text}")
        if host.state in _MEANS:
            print(f"  {paint(host.state, 'yellow', sys.stdout)}  {name} ({host.node}): {_MEANS[host.state]}")


def _tell_clusters(clusters: Iterable[ClusterView], now: float) -> None:
    for one in clusters:
        since = f", since {age(now - one.stale_since)}" if one.stale_since else ""
        if one.reason:
            shown = "as it was last" if one.networks else "nothing is known"
            if one.networks and all(map(is_own_part, one.networks)):
                shown = "nothing is known but this host's own part"
            print(f"{paint('etcd', 'red', sys.stdout)}  {one.prefix}: {one.reason}{since}; {shown}")
        for text in one.problems:
            print(f"{paint('problem', 'red', sys.stdout)}  this host, {one.prefix}: {text}")


# -- networks ----------------------------------------------------------------------------------------------------------


def networks(given: Namespace) -> int:
    """The second word decides; without one, the list."""
    if given.networks_command is not None:
        from pycni.cli.network_records import create, remove

        return {"create": create, "remove": remove}[given.networks_command](given)
    return _list_networks(given)


def _list_networks(given: Namespace) -> int:
    """One row for each network: those of this host's configuration, and those that its clusters have besides."""
    clusters = read_clusters(given.conf_dir)
    configured, broken = read_directory(given.conf_dir)
    for path, why in broken:
        warn(f"{path} is left out: {why}")
    shared = {each.name: each for one in clusters for each in one.networks}
    here = Counter(seen.record.attachment.network for seen in see_all())
    silent = {one.prefix for one in clusters if one.reason}
    found = [Known(one, shared.get(one.name), here[one.name], prefix_of(one) in silent) for one in configured]
    found += [Known(None, each, here[each.name]) for each in shared.values() if _is_new(each, configured)]
    if given.json:
        print(json.dumps([one.as_json() for one in found], indent=4))
        return _code(clusters)
    rows = [one.row() for one in found]
    if not rows:
        print(f"no network is configured in {given.conf_dir}, and none is shared with other hosts")
    else:
        print_table(NETWORKS, rows, right=("VNI", "HOSTS", "CONTAINERS"))
    _tell_clusters(clusters, time.time())
    return _code(clusters)


def _is_new(view: NetworkView, configured: Iterable[NetworkList]) -> bool:
    return all(view.name != one.name for one in configured)


HANDLERS = {"peers": peers, "networks": networks}
