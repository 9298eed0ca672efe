"""What CHECK compares: the last result and what this host took part in against what the kernel and etcd have. Pure."""

from __future__ import annotations

from pycni.change.differences import container_link, missing_addresses, missing_routes, other_mac
from pycni.change.forwarding import FdbEntry, NeighbourEntry, PortEntry
from pycni.cni.macs import tunnel_mac
from pycni.cni.value import Value
from pycni.plugins.overlay.conf import MULTICAST, ROUTED
from pycni.plugins.overlay.plan import CONTAINER_END

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.change.forwarding import Entry
    from pycni.cni.addresses import Interface as AddressWithPrefix
    from pycni.cni.env import Call
    from pycni.cni.result import Result
    from pycni.host.link_facts import Link, RouteFacts
    from pycni.host.vxlan import VxlanFacts
    from pycni.plugins.overlay.peers import Lack
    from pycni.plugins.overlay.site import Joined


class CheckFacts(Value):
    """What there is; None for a link that is missing. host: every interface of the result that lives in the host."""

    bridge: Link | None
    vxlan: VxlanFacts | None
    host: dict[str, Link | None]
    inside: dict[str, Link | None]  # every interface of the result that lives in the container
    addresses: tuple[AddressWithPrefix, ...]  # of the container's links
    routes: tuple[RouteFacts, ...]  # of the container, in all tables
    gateways: tuple[AddressWithPrefix, ...]  # on the bridge
    rules: tuple[str, ...]  # firewall elements that are missing
    lacking: frozenset[Lack] = frozenset()  # what etcd asks for and the kernel has not
    flooding: bool = False  # a frame that nothing leads anywhere is sent to a host
    guarded: bool = True  # packets are taken of known hosts only
    forwarding: tuple[int, ...] = (4, 6)  # the families that this host forwards
    lost: tuple[str, ...] = ()  # what etcd should say and does not


def differences(call: Call, joined: Joined, previous: Result, facts: CheckFacts) -> tuple[str, ...]:
    """Everything that is not as ADD left it, in words."""
    return (
        *_bridge(joined, previous, facts),
        *_device(joined, facts),
        *container_link(call, previous, facts.inside.get(call.ifname)),
        *(f"{name} is down" for name, link in facts.inside.items() if link is not None and not link.up),
        *(f"{name} is missing in the container" for name in _missing_inside(call, facts)),
        *_host_links(joined, facts),
        *(
            text
            for name in facts.inside
            for text in missing_addresses(call.replace(ifname=name), previous, facts.addresses)
        ),
        *missing_routes(previous, facts.routes),
        *facts.rules,
        *_peers(joined, facts),
        *facts.lost,
    )


def _bridge(joined: Joined, previous: Result, facts: CheckFacts) -> list[str]:
    link = facts.bridge
    if link is None:
        return [f"bridge {joined.bridge} is missing"]
    if link.kind != "bridge":
        return [f"{joined.bridge} is not a bridge but {link.kind or 'a physical link'}"]
    wrong = [] if link.up else [f"bridge {joined.bridge} is down"]
    expected = next((each for each in previous.interfaces if each.name == joined.bridge and not each.sandbox), None)
    wrong += other_mac(expected, link)
    gateways = {ip.gateway for ip in previous.ips if ip.interface == CONTAINER_END and ip.gateway is not None}
    missing = gateways.difference(each.ip for each in facts.gateways)
    wrong += [f"gateway {each} is not on {joined.bridge}" for each in sorted(map(str, missing))]
    off = {each.version for each in gateways}.difference(facts.forwarding)
    return wrong + [f"this host does not forward IPv{version}" for version in sorted(off)]


def _device(joined: Joined, facts: CheckFacts) -> list[str]:
    there = facts.vxlan
    if there is None:
        return [f"VXLAN device {joined.vxlan} is missing"]
    wrong = [] if there.up else [f"{joined.vxlan} is down"]
    mac = tunnel_mac(joined.node, joined.vni)
    for what, is_so, wanted in (
        ("VNI", there.vni, joined.vni),
        ("UDP port", there.port, joined.port),
        ("local address", there.local, joined.local),
        ("MAC", there.mac.hex(":"), mac.hex(":")),
        ("MTU", there.mtu, joined.mtu),
        ("learning", there.learning, joined.mode == MULTICAST),
    ):
        if is_so != wanted:
            wrong.append(f"{joined.vxlan} has {what} {is_so}, not {wanted}")
    master = facts.bridge.index if facts.bridge is not None and joined.mode != ROUTED else 0
    if there.master != master:
        wrong.append(f"{joined.vxlan} is {'not ' if master else ''}a port of a bridge")
    return wrong


def _missing_inside(call: Call, facts: CheckFacts) -> list[str]:
    return [name for name, link in facts.inside.items() if link is None and name != call.ifname]


def _host_links(joined: Joined, facts: CheckFacts) -> list[str]:
    wrong = []
    for name, link in facts.host.items():
        if name in (joined.bridge, joined.vxlan):
            continue
        if link is None:
            wrong.append(f"host link {name} is missing")
        elif not link.up:
            wrong.append(f"host link {name} is down")
        elif link.kind == "veth" and not link.master:
            wrong.append(f"host link {name} is on no bridge")
    return wrong


def _peers(joined: Joined, facts: CheckFacts) -> list[str]:
    entries = [what for what, _ in facts.lacking if not isinstance(what, str)]
    wrong = [f"{_words(entry)} is missing on {joined.vxlan}" for entry in sorted(entries, key=repr)]
    if len(wrong) > 5:
        wrong = [*wrong[:5], f"and {len(wrong) - 5} more entries"]
    if facts.flooding:
        wrong.append(f"{joined.vxlan} floods: somebody added an entry for the MAC 00:00:00:00:00:00")
    if not facts.guarded:
        return [*wrong, f"packets of VNI {joined.vni} are taken from any host"]
    dropped = sorted(what for what, _ in facts.lacking if isinstance(what, str))
    return wrong + [f"packets of VNI {joined.vni} from {each} are dropped" for each in dropped]


def _words(entry: Entry) -> str:
    if isinstance(entry, FdbEntry):
        return f"FDB entry {entry.mac} to {entry.vtep}"
    if isinstance(entry, PortEntry):
        return f"bridge entry {entry.mac}"
    if isinstance(entry, NeighbourEntry):
        return f"neighbour entry {entry.address} {entry.mac}"
    return f"route {entry.prefix} via {entry.via}"
