"""Networks over several hosts: whether etcd answers, somebody follows it, and devices, guard and MTU are as joined."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address

from pycni.cli.agent_client import NoAgent, ask
from pycni.cli.doctor.finding import FAIL, OK, WARN, Finding
from pycni.cli.failure import Failure
from pycni.cli.tables import counted
from pycni.cni.conf import Keys as ConfKeys
from pycni.cni.value import Value
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.versions import warning
from pycni.host.inet_messages import RTN_LOCAL
from pycni.host.rtnl import Link, Netlink
from pycni.host.tunnel_guard import read_peers
from pycni.host.vxlan import VxlanFacts, read_vxlan
from pycni.plugins.overlay.site import Joined, all_joined, least_mtu
from pycni.store import STATE_DIR

CHECK, ETCD = "overlay networks", "etcd"
AGENT_DEADLINE_S = 5.0


class NetworkFacts(Value):
    """A network of this host beside its kernel. uplink: the link that has the tunnel's own address, None where none
    does. guarded: whether only known hosts may send; followed: whether an agent follows the other hosts."""

    joined: Joined
    device: VxlanFacts | None
    bridge: Link | None
    uplink: Link | None
    guarded: bool
    followed: bool


def check_etcd() -> Iterator[Finding]:
    """Every member of every cluster that this host takes part in."""
    connections = {joined.prefix: joined.connection for joined in all_joined(STATE_DIR)}
    for prefix, connection in connections.items():
        with open_client(EtcdConf.parse(ConfKeys(json.loads(connection), "etcd"))) as client:
            told = client.statuses()
        silent = [f"{endpoint}: {status}" for endpoint, status in told if isinstance(status, str)]
        for text in sorted({warning(status.version) for _, status in told if not isinstance(status, str)} - {""}):
            yield Finding(
                level=WARN, check=ETCD, found=f"{prefix}: {text}", action="upgrade one member after the other"
            )
        if not silent:
            yield Finding(level=OK, check=ETCD, found=f"{prefix}: {counted(len(told), 'member')}, all answer")
            continue
        yield Finding(
            level=FAIL if len(silent) == len(told) else WARN,
            check=ETCD,
            found=f"{prefix}: {len(silent)} of {counted(len(told), 'member')} silent: {'; '.join(silent)}",
            meaning="no container gets an address, and no change elsewhere arrives; running traffic goes on"
            if len(silent) == len(told)
            else "etcd stops with the majority of its members",
            action="see to these members; `pycni etcd check NETWORK` looks further",
        )
    if not connections:
        yield Finding(level=OK, check=ETCD, found="not used")


def check_networks() -> Iterator[Finding]:
    """The kernel's side of every network."""
    networks = all_joined(STATE_DIR)
    if not networks:
        yield Finding(level=OK, check=CHECK, found="none that etcd knows of")
        return
    followed = _followed()
    with Netlink() as kernel:
        problems = [finding for joined in networks for finding in judge(_read(kernel, joined, followed))]
    yield from problems
    if not problems:
        names = ", ".join(joined.network for joined in networks)
        yield Finding(level=OK, check=CHECK, found=f"{names}: devices, guard and MTU in order, followed by the agent")


def judge(facts: NetworkFacts) -> Iterator[Finding]:
    """What is wrong with one network."""
    joined, device, uplink = facts.joined, facts.device, facts.uplink
    name, again = joined.network, "pycni reconcile, with a running agent; or detach and attach a container"

    def finding(level: str, found: str, meaning: str, action: str) -> Finding:
        return Finding(level=level, check=CHECK, found=f"{name}: {found}", meaning=meaning, action=action)

    if not facts.followed:
        meaning = "what other hosts attach or detach is not followed here: new containers there are not reached"
        yield finding(
            WARN, "no agent follows the other hosts", meaning, "pycni agent, or pycni install --systemd --now"
        )
    cut = "containers here reach none of other hosts"
    if device is None:
        yield finding(FAIL, f"its device {joined.vxlan} is gone", cut, again)
    elif not device.up:
        yield finding(FAIL, f"its device {joined.vxlan} is down", cut, f"ip link set {joined.vxlan} up")
    elif (device.vni, device.port, device.local) != (joined.vni, joined.port, joined.local):
        found = f"{joined.vxlan} has VNI {device.vni}, UDP {device.port}, address {device.local}"
        yield finding(FAIL, f"{found}, not {joined.vni}, {joined.port}, {joined.local}", cut, again)
    if joined.bridge and facts.bridge is None:
        yield finding(FAIL, f"its bridge {joined.bridge} is gone", "its containers have no network", again)
    if not facts.guarded:
        meaning = "anybody who reaches this host can send packets into the network"
        yield finding(WARN, "no guard of its tunnel", meaning, again)
    if uplink is None:
        meaning = f"the address of its tunnel, {joined.local}, is not this host's any more: nothing arrives"
        yield finding(
            FAIL, f"{joined.local} is on no link", meaning, "with a running agent the tunnel follows; else attach anew"
        )
    elif device is not None and device.mtu + joined.overhead > uplink.mtu:
        fits = uplink.mtu - joined.overhead
        found = f"MTU {device.mtu} and {joined.overhead} for the tunnel are more than the {uplink.mtu} of {uplink.name}"
        smaller = fits >= least_mtu(joined.subnets)  # else the kernel would take IPv6 away with it
        action = f"ip link set {joined.vxlan} mtu {fits}" if smaller else f"raise the MTU of {uplink.name}"
        yield finding(FAIL, found, "full packets are lost: connections begin and then hang", action)


def _read(kernel: Netlink, joined: Joined, followed: frozenset[str]) -> NetworkFacts:
    route = kernel.route_to(ip_address(joined.local))
    local = route is not None and route.kind == RTN_LOCAL
    return NetworkFacts(
        joined,
        device=read_vxlan(kernel, joined.vxlan),
        bridge=kernel.link(joined.bridge) if joined.bridge else None,
        uplink=kernel.link(joined.uplink) if local and joined.uplink else None,
        guarded=read_peers(joined.port, joined.vni) is not None,
        followed=joined.network in followed,
    )


def _followed() -> frozenset[str]:
    """The networks that the running agent follows."""
    try:
        told = ask("overlay", timeout_s=AGENT_DEADLINE_S)
    except (NoAgent, Failure):
        return frozenset()
    return frozenset(one["network"] for cluster in told["clusters"] for one in cluster["local"])
