"""What one ADD of the firewall plugin does, decided from values alone."""

from __future__ import annotations

from pycni.change.ops import ApplyFirewall, SetPort
from pycni.change.zones import TrustSources
from pycni.cni.errors import CniError, Code
from pycni.firewall.rules import AttachmentRules, NetworkRules
from pycni.plugins.firewall.conf import ADMIN_CHAIN, ISOLATED, OPEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.change.ops import Op
    from pycni.cni.names import Attachment
    from pycni.cni.result import Result
    from pycni.host.link_facts import Link
    from pycni.plugins.firewall.conf import FirewallConf


def host_links(previous: Result) -> tuple[str, ...]:
    """The names of the host's interfaces in the result of the plugins before."""
    return tuple(dict.fromkeys(one.name for one in previous.interfaces if one.name and not one.sandbox))


def routing_links(links: Iterable[Link]) -> tuple[str, ...]:
    """Those of the host's *links* through which it routes for the container: a bridge, its VLAN's interface, a veth on
    no bridge. Never a device of the machine itself (these have no kind): a rule for it would open the host's uplink.
    Nor that of the bandwidth plugin, where it stands before: what is led through it comes in by the container's link.
    """
    return tuple(link.name for link in links if link.kind not in ("", "ifb") and not link.master)


def ports_to_close(conf: FirewallConf, links: Iterable[Link]) -> tuple[str, ...]:
    """The container's bridge ports that have to get the flag `isolated`: those that have it already are not ours.

    Rules see only what the host routes, and bridged frames only with br_netfilter; the flag makes the bridge itself
    refuse frames from one such port to another, whatever the protocol.
    """
    return ports(links) if conf.policy == ISOLATED else ()


def ports(links: Iterable[Link], *, isolated: bool = False) -> tuple[str, ...]:
    """The bridge ports among *links* that have the flag `isolated`, or have it not."""
    links = tuple(links)
    bridges = {link.index for link in links if link.kind == "bridge"}
    return tuple(link.name for link in links if link.master in bridges and bool(link.isolated) is isolated)


def network_rules(conf: FirewallConf, attachment: Attachment, backend: str, routing: tuple[str, ...]) -> NetworkRules:
    """What the containers of the network share. CniError 7 where a policy has nothing to stand on.

    "open" adds no rule that drops, and takes none away: whether pycni's bridges are isolated from each other is the
    bridge plugin's key.
    """
    if conf.policy != OPEN and not routing:
        raise CniError(
            Code.INVALID_CONFIG,
            f'interface needs to be set for ingress policy "{conf.policy}", make sure to chain "firewall" plugin with'
            ' "bridge"',
            "no interface of prevResult without a sandbox is a bridge or another link of this host",
        )
    closed = conf.policy != OPEN
    return NetworkRules(
        network=attachment.network,
        bridges=routing if closed else (),
        isolate=closed,
        apart=conf.policy == ISOLATED,
        passing=routing,
        opens=backend == "iptables",
        admin_chain=(conf.admin_chain or ADMIN_CHAIN) if backend == "iptables" else "",
    )


def attachment_rules(
    conf: FirewallConf, attachment: Attachment, previous: Result, closing: tuple[str, ...], *, firewalld: bool
) -> AttachmentRules:
    """What is the container's own: its addresses in firewalld's zone, its bridge ports."""
    sources = tuple(dict.fromkeys(str(ip.address.ip) for ip in previous.ips))
    return AttachmentRules(
        owner=attachment.owner, sources=sources, zone=conf.zone if firewalld else "", closed_ports=closing
    )


def plan_add(network: NetworkRules, attachment: AttachmentRules) -> tuple[Op, ...]:
    """Every operation of the ADD in order: what closes comes before what opens."""
    ops: list[Op] = [SetPort(port, hairpin=None, isolated=True) for port in attachment.closed_ports]
    ops.append(ApplyFirewall(network, attachment))
    if attachment.zone and attachment.sources:
        ops.append(TrustSources(attachment.zone, attachment.sources))
    return tuple(ops)
