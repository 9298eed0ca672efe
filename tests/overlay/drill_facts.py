"""What every kernel is to hold, from the records of etcd read as plain JSON, and what it holds, from `bridge`, `ip` and
`nft`: nothing of ours is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from netns_fixtures import Host, wait_until
from pycni.etcd.requests import KeyValue
from tests.overlay.overlay_lab import Conf, OverlayLab

DEADLINE_S = 30.0  # for a loaded machine; what is to be quick is asked for by the drill itself
PROTOCOL = "112"  # of our routes (docs/overlay-dataplane.md)
Fact = tuple[str, ...]

_LOOK = """
bridge fdb show dev {device}
echo =
ip -j neigh show dev {device} nud permanent
echo =
ip -j -4 route show dev {device} proto {protocol}
echo =
ip -j -6 route show dev {device} proto {protocol}
echo =
nft list table inet pycni_tunnels
"""


def wait_in_order(lab: OverlayLab, conf: Conf, deadline_s: float = DEADLINE_S, *, hosts: Sequence[Host] = ()) -> None:
    """Each kernel (of *hosts*) comes to hold what etcd says of that network, and nothing else."""
    differing: list[str] = []

    def in_order() -> bool:
        differing[:] = differences(lab, conf, hosts or lab.hosts)
        return not differing

    try:
        wait_until(in_order, deadline_s, f"kernels hold what etcd says of {conf['name']}")
    except AssertionError as failure:
        raise AssertionError(f"{failure}\n" + "\n".join(differing)) from None


def differences(lab: OverlayLab, conf: Conf, hosts: Sequence[Host]) -> list[str]:
    """What a kernel has and should not, or lacks, in words."""
    said, network = lab.keys(), conf["name"]
    if f"net/{network}" not in said:
        return [f"no network {network}"]
    device = f"vxlan{value_of(said[f'net/{network}'])['vni']}"
    out = []
    for host in hosts:
        member = said.get(f"member/{lab.node(host)}/{network}")
        there = [each for each in lab.devices(host) if each == device]
        if bool(member) != bool(there):
            out.append(f"{host.name}: member: {bool(member)}, device: {there}")
        elif member:
            wanted, actual = expected(said, lab.node(host), conf), programmed(host, device)
            out += [f"{host.name} lacks {fact}" for fact in sorted(wanted - actual)]
            out += [f"{host.name} has {fact}" for fact in sorted(actual - wanted)]
    return out


def expected(said: dict[str, KeyValue], node: str, conf: Conf) -> set[Fact]:
    """What the kernel of host *node* is to hold, as docs/overlay-dataplane.md has it."""
    network, mode = conf["name"], conf["mode"]
    vni, port = value_of(said[f"net/{network}"])["vni"], conf.get("port", 4789)
    peers = {}
    for key, kv in said.items():
        kind, _, rest = key.partition("/")
        if kind == "member" and rest.endswith(f"/{network}"):
            other = rest.partition("/")[0]
            fence = said.get(f"fence/{other}")
            if other != node and (fence is None or fence.mod_revision < kv.mod_revision):
                peers[other] = value_of(kv)
    facts: set[Fact] = {("guarded", str(port), str(vni))}
    facts |= {("vtep", str(port), str(vni), peer["vtep"]) for peer in peers.values()}
    for key, kv in said.items():
        if mode == "l2" and key.startswith(f"ep/{network}/") and (peer := peers.get(value_of(kv)["node"])):
            mac = value_of(kv)["mac"]
            facts |= {("fdb", mac, peer["vtep"]), ("port", mac), ("neighbour", address_of_key(key.split("/")[3]), mac)}
        elif mode == "routed" and key.startswith(f"block/{network}/") and not key.endswith("/length"):
            peer = peers.get(value_of(kv)["node"])
            first, _, length = key.split("/")[3].partition("-")
            via = address_of_key(first)
            if peer:
                facts |= {("route", f"{via}/{length}", via), ("neighbour", via, peer["mac"])}
    if mode == "routed":
        facts |= {("fdb", peer["mac"], peer["vtep"]) for peer in peers.values()}
    return facts


def programmed(host: Host, device: str) -> set[Fact]:
    """What the kernel of *host* holds for *device*, as iproute2 and nft say."""
    done = host.run(["sh", "-c", _LOOK.format(device=device, protocol=PROTOCOL)], check=False)
    fdb, neighbours, routes4, routes6, nft = done.stdout.split("=\n", 4)
    facts: set[Fact] = set()
    for words in map(str.split, fdb.splitlines()):
        if "dst" in words and "permanent" in words:
            facts.add(("fdb", words[0], words[words.index("dst") + 1]))
        elif "static" in words and "master" in words:
            facts.add(("port", words[0]))
    facts |= {("neighbour", each["dst"], each["lladdr"]) for each in json.loads(neighbours or "[]")}
    for each in [*json.loads(routes4 or "[]"), *json.loads(routes6 or "[]")]:
        if "gateway" in each:
            facts.add(("route", each["dst"], each["gateway"]))
    vni = device.removeprefix("vxlan")
    for port, number, rest in re.findall(r"(\d+) \. (0x[0-9a-f]+|\d+)((?: \. [0-9a-f.:]+)?)(?=[ ,\n])", nft):
        if str(int(number, 0)) == vni:
            facts.add(("vtep", port, vni, rest.removeprefix(" . ")) if rest else ("guarded", port, vni))
    return facts


def value_of(kv: KeyValue) -> Any:
    return json.loads(kv.value)


def address_of_key(digits: str) -> str:
    number = int(digits, 16)
    return str(IPv4Address(number) if len(digits) == 8 else IPv6Address(number))
