"""The host's end of the container's veth pair: the one link that both directions pass."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.host import rtnl
from pycni.host.traffic_control import stop_shaping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.result import Result
    from pycni.host.link_facts import Link
    from pycni.plugins.bandwidth.conf import BandwidthConf


def find_host_link(host: rtnl.Netlink, container: int, ifname: str) -> Link | None:
    """The peer of the container's interface *ifname*; None where there is no such pair. *container*: a descriptor."""
    with rtnl.in_namespace(container) as inside:
        link = inside.link(ifname)
    if link is None or link.kind != "veth" or not link.peer_index:
        return None
    peer = host.link(link.peer_index)
    # An index counts in its own namespace only: a pair of the container's own has one that is another link's here.
    return peer if peer is not None and (peer.kind, peer.peer_index) == ("veth", link.index) else None


def give_back(host: rtnl.Netlink, link: Link, conf: BandwidthConf) -> None:
    """The host's end as it was before *conf* was applied to it: other queueing disciplines are somebody else's."""
    if conf.egress is not None:
        stop_shaping(host, link.index, incoming=True)
    if conf.ingress is not None:
        stop_shaping(host, link.index, incoming=False)


def host_link_of(host: rtnl.Netlink, container: int, ifname: str, previous: Result) -> Link:
    """As find_host_link; CniError 7 unless it is there and among the interfaces of the result *previous*."""
    link = find_host_link(host, container, ifname)
    if link is None:
        raise CniError(
            Code.INVALID_CONFIG,
            f"container interface {ifname} has no veth peer",
            "bandwidth limits veth pairs whose other end is in the host's namespace",
        )
    if all(interface.sandbox or interface.name != link.name for interface in previous.interfaces):
        raise CniError(
            Code.INVALID_CONFIG,
            "no veth peer of container interface found in host ns",
            f"{ifname} is paired with {link.name}, which is none of prevResult.interfaces",
        )
    return link
