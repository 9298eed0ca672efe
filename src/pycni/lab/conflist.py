"""The network configuration that every host of a lab gets: pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pycni.lab.topology import Lab, NetworkSpec

IFNAME_BYTES = 15
FIRST_LINK = "eth0"
GROUP, IPV6_GROUP = "239.1.1.1", "ff05::1:1"  # of administrative and site-local scope (RFC 2365, RFC 4291)
CONF_DIR = "/etc/cni/net.d"


def conflist_path(network: str) -> str:
    """Where a host has it."""
    return f"{CONF_DIR}/10-{network}.conflist"


def group_of(lab: Lab) -> str:
    """What tunnels of mode multicast send to in an addressed *lab*: IPv4 where all hosts' first links have it."""
    return GROUP if all(link.ipv4 for host in lab.hosts for link in host.links[:1]) else IPV6_GROUP


def conflist(network: NetworkSpec, etcd: Mapping[str, Any], group: str = GROUP) -> dict[str, Any]:
    """The list; *etcd* is the object that tells plugins how to reach etcd, empty where the lab has none; *group* as
    `group_of` says."""
    subnets = [prefix for prefix in (network.ipv4, network.ipv6) if prefix]
    plugin: dict[str, Any] = {
        "type": f"pycni-{network.type}",
        "isDefaultGateway": True,
        "ipMasq": True,
        "capabilities": {"ips": True, "mac": True},
        "ipam": {"type": "pycni-ipam", "ranges": [[{"subnet": subnet}] for subnet in subnets]},
    }
    if network.type == "bridge":
        plugin |= {"bridge": _bridge_name(network.name), "hairpinMode": True}
    else:
        plugin["mode"] = network.mode
        if network.vni:
            plugin["vni"] = network.vni
        if network.mode == "multicast":
            plugin |= {"group": group, "interface": FIRST_LINK}
            if etcd:
                plugin["ipam"]["etcd"] = dict(etcd)  # so that no two hosts give the same address
        else:
            plugin["etcd"] = dict(etcd)
    for key, value in network.config.items():
        old = plugin.get(key)
        plugin[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    plugins = [plugin]
    if network.ports:
        plugins.append({"type": "pycni-portmap", "capabilities": {"portMappings": True}})
    return {"cniVersion": "1.1.0", "name": network.name, "plugins": plugins}


def _bridge_name(network: str) -> str:
    name = f"br-{network}"
    return name if len(name) <= IFNAME_BYTES else f"br-{hashlib.sha256(network.encode()).hexdigest()[:10]}"
