"""Take part in a network, and keep what that comes to on the host.

The first ADD of a network on a host tells etcd (`enrolling`). The others find the same as before and ask nothing, which
is why in mode `routed` they work without etcd.
"""

from __future__ import annotations

import os
import time
from ipaddress import ip_network

from pycni.cni import json_text
from pycni.cni.errors import CniError, Code
from pycni.cni.keys import Keys
from pycni.cni.macs import tunnel_mac
from pycni.cni.names import Attachment
from pycni.etcd.records import Member
from pycni.ipam.conf import parse_sets
from pycni.ipam.etcd_site import Site
from pycni.plugins.overlay import plan
from pycni.plugins.overlay.site import (
    MULTICAST,
    WITHOUT_ETCD,
    Joined,
    find_joined,
    host_state,
    keep_joined,
    lock_of,
    read_joined,
)
from pycni.plugins.overlay.underlay import find_way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.result import Result
    from pycni.host.rtnl import Netlink
    from pycni.ipam.etcd_state import HostState
    from pycni.plugins.overlay.conf import OverlayConf
    from pycni.plugins.overlay.underlay import Way
    from pycni.store import Store

__all__ = ["join", "joined_again", "joined_as", "lock_of", "member_of", "subnets_of"]


def join(store: Store, call: Call, netconf: NetConf, conf: OverlayConf, host: Netlink) -> Joined:
    """This host takes part in the network *netconf* when this returns.

    CniError 7 where the configuration is not that of the other hosts, 11 where etcd does not answer or another host has
    this one's address, 102 where VNI or subnets are another network's.
    """
    state = host_state(store, conf.etcd.prefix if conf.etcd is not None else WITHOUT_ETCD)
    way = find_way(host, conf)
    way.tunnel_mtu(conf.mtu, subnets_of(netconf))  # refuses
    _refuse_overlaps(netconf, conf, way)
    with state.lock(lock_of(netconf.name)):
        _refuse_other_cluster(store, netconf.name, state)
        there = read_joined(state, netconf.name)
        if there is not None and _is_as(there, netconf, conf, way, state.fence()):
            return there
        if conf.mode == MULTICAST:
            joined = joined_as(netconf, conf, way, state, vni=conf.vni, others=())
        else:
            from pycni.plugins.overlay.enrolling import enrol  # not an ordinary ADD's

            joined = enrol(Site(call, netconf, store), netconf, conf, way, host=host, there=there)
        if there is not None and not there.left:
            joined = joined.replace(addresses=there.addresses)
            _make_room(store, call, there, joined)
        keep_joined(state, joined)
    if there is not None and there.fence != joined.fence:
        from pycni.plugins.overlay.lost_blocks import give_up_blocks

        give_up_blocks(store, joined.network)
        return read_joined(state, joined.network) or joined
    return joined


def _make_room(store: Store, call: Call, there: Joined, joined: Joined) -> None:
    """Take away what the network was on this host with another configuration. CniError 7 while containers use it."""
    fields = ("vxlan", "port", "bridge", "mode", "group")
    if all(getattr(there, field) == getattr(joined, field) for field in fields):
        return
    own = Attachment(joined.network, call.container_id, call.ifname)
    if any(record.attachment != own for record in store.attachments.all(network=joined.network, part="")):
        was = ", ".join(f"{field} {getattr(there, field)}" for field in fields if getattr(there, field))
        raise CniError(
            Code.INVALID_CONFIG,
            f"network {joined.network} is another one on this host: {was}",
            "a changed configuration is taken once its last container here is gone",
        )
    from pycni.plugins.overlay.leaving import take_away

    take_away(there)


def joined_again(
    store: Store, call: Call, netconf: NetConf, conf: OverlayConf, host: Netlink, *, joined: Joined, lease: Result
) -> Joined:
    """*joined* as it is after *lease* was given: this host may have learnt that it was declared dead, or have got a
    block more."""
    if conf.mode == MULTICAST:
        return joined
    state = host_state(store, joined.prefix)
    if state.fence() != joined.fence:
        joined = join(store, call, netconf, conf, host)
    if plan.tunnel_addresses(joined, lease) != joined.addresses:
        with state.lock(lock_of(joined.network)):
            there = read_joined(state, joined.network) or joined
            joined = there.replace(addresses=plan.tunnel_addresses(there, lease))
            keep_joined(state, joined)
    return joined


def _is_as(there: Joined, netconf: NetConf, conf: OverlayConf, way: Way, fence: int) -> bool:
    """Whether *there* is what joining anew would come to; but for a smaller MTU of another host."""
    wanted = _shape(netconf, conf, way)
    return (
        not there.left
        and (conf.vni or there.vni) == there.vni
        and (conf.mtu or there.mtu) == there.mtu
        and there.fence == fence
        and all(getattr(there, field) == value for field, value in wanted.items())
        and there.bridge == (conf.bridge or plan.bridge_name(there.vni))
    )


def _shape(netconf: NetConf, conf: OverlayConf, way: Way) -> dict[str, object]:
    """Those fields of Joined that follow from configuration and host alone."""
    return {
        "network": netconf.name,
        "mode": conf.mode,
        "port": conf.port,
        "uplink": way.uplink,
        "local": str(way.local),
        "uplink_mtu": way.mtu,
        "fixed_mtu": bool(conf.mtu),
        "subnets": subnets_of(netconf),
        "group": str(conf.group or ""),
        "offload": conf.offload,
        "connection": json_text.dumps(netconf.keys.object("etcd").as_dict()) if conf.etcd is not None else "",
        "prefix": conf.etcd.prefix if conf.etcd is not None else "",
    }


def joined_as(
    netconf: NetConf, conf: OverlayConf, way: Way, state: HostState, *, vni: int, others: tuple[int, ...]
) -> Joined:
    """How the network is here with the identifier *vni*; *others*: the MTUs of the other hosts' uplinks."""
    shape: dict[str, object] = _shape(netconf, conf, way)
    return Joined(
        vni=vni,
        vxlan=plan.vxlan_name(vni),
        bridge=conf.bridge or plan.bridge_name(vni),
        mtu=way.tunnel_mtu(conf.mtu, subnets_of(netconf), others),
        node=state.node(),
        fence=state.fence(),
        **shape,  # type: ignore[arg-type]
    )


def member_of(joined: Joined, *, agent: bool) -> Member:
    """What etcd says of this host in *joined*; *agent*: whether one keeps it up to date."""
    return Member(
        name=os.uname().nodename,
        vtep=joined.local,
        mac=tunnel_mac(joined.node, joined.vni).hex(":"),
        mtu=joined.uplink_mtu,
        port=joined.port,
        agent=agent,
        created=time.time(),
    )


def subnets_of(netconf: NetConf) -> tuple[str, ...]:
    """The subnets of the network, () for one whose addresses are of another's IPAM plugin. What the runtime asks for
    this container (ipRanges) is none of it."""
    try:
        sets = parse_sets(netconf.replace(runtime=Keys({})))
    except CniError:
        return ()
    return tuple(dict.fromkeys(str(each.subnet) for ranges in sets for each in ranges.ranges))


def _refuse_overlaps(netconf: NetConf, conf: OverlayConf, way: Way) -> None:
    """CniError 7 where a subnet would take the underlay, or the network, for its own."""
    own = tuple(map(ip_network, subnets_of(netconf)))
    behind = conf.gateway.subnets if conf.gateway is not None else ()
    for subnet in (*own, *behind):
        if way.local in subnet:
            raise CniError(
                Code.INVALID_CONFIG,
                f"subnet {subnet} contains {way.local}, from which this host reaches the others",
                "choose one that is used nowhere else",
            )
    for outer in behind:
        for inner in own:
            if outer.version == inner.version and outer.overlaps(inner):
                raise CniError(
                    Code.INVALID_CONFIG,
                    f"gatewayBridge's subnet {outer} overlaps with {inner} of network {netconf.name}",
                    "choose another",
                )


def _refuse_other_cluster(store: Store, network: str, state: HostState) -> None:
    there = find_joined(os.path.dirname(store.path), network)
    if there is not None and not there.left and read_joined(state, network) is None:
        raise CniError(
            Code.INVALID_CONFIG,
            f"this host has a network {network} of {there.prefix or 'no cluster'} already",
            "give one of them another name",
        )
