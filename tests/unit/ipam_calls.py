"""ADD, DEL and the others of our IPAM as a test states them: a container, keys of `ipam`, a store."""

from __future__ import annotations

import json
from typing import Any

from pycni.cni.conf import NetConf, parse_conf
from pycni.cni.env import Call
from pycni.cni.result import Result
from pycni.ipam import plugin
from pycni.store import Store


def netconf(ipam: dict[str, Any] | None, *, version: str = "1.1.0", command: str = "ADD", **top: Any) -> NetConf:
    """A network config "net1" with *ipam*, which keeps its data directory out of the machine's own."""
    config: dict[str, Any] = {"cniVersion": version, "name": "net1", "type": "bridge", **top}
    if ipam is not None:
        config["ipam"] = {"type": "host-local", "dataDir": "/nonexistent", **ipam}
    return parse_conf(json.dumps(config).encode(), command)


def call(container: str = "", *, command: str = "ADD", ifname: str = "eth0", args: str = "", netns: str = "") -> Call:
    return Call(command, container_id=container, netns=netns, ifname=ifname, args=args)


def add(
    store: Store,
    container: str,
    ipam: dict[str, Any],
    *,
    args: str = "",
    netns: str = "",
    ifname: str = "eth0",
    **top: Any,
) -> Result:
    return plugin.add(call(container, args=args, netns=netns, ifname=ifname), netconf(ipam, **top), store)


def add_addresses(store: Store, container: str, ipam: dict[str, Any], **more: Any) -> list[str]:
    """What ADD gives, without prefix lengths."""
    return [str(each.address.ip) for each in add(store, container, ipam, **more).ips]


def delete(store: Store, container: str, ipam: dict[str, Any], *, ifname: str = "eth0", mac: bytes = b"") -> None:
    asked = call(container, command="DEL", ifname=ifname).replace(mac=mac)
    plugin.delete(asked, netconf(ipam, command="DEL"), store)


def leased(store: Store) -> dict[str, str]:
    """Address to container id, of all leases."""
    return {str(each.address): each.container_id for each in store.leases.all()}
