"""Published ports in the firewall's lab: mappings of its boxes, and who asks for them from where."""

from __future__ import annotations

from netns_fixtures import Answer, Namespace, tcp_peer_seen, udp_peer_seen
from pycni.firewall.rules import AttachmentRules, NetworkRules, PortMapping
from tests.kernel.firewall_lab import Box, Lab, Net

BACKENDS = ["nftables", "iptables"]
FAMILIES = [4, 6]
SERVED = 7777  # where the server of a box listens


def mapped(box: Box, low: int, high: int = 0, *, family: int = 4, proto: str = "tcp", host_ip: str = "") -> PortMapping:
    """Host ports from *low* to the box's port SERVED and those behind it; a range to ports of the same numbers."""
    return PortMapping(proto, host_ip, low, high or low, box.address(family), low if high else SERVED)


def network_of(net: Net) -> NetworkRules:
    """What a chained plugin asks for: the network's own rules come from whoever made the link."""
    subnets = net.rules.subnets
    return NetworkRules(net.name, subnets=subnets, loopback=(net.bridge,), passing=(net.bridge,))


def rules_of(box: Box, *mappings: PortMapping) -> AttachmentRules:
    return AttachmentRules(f"{box.rules.owner}/portmap", ports=mappings)


def publish(lab: Lab, box: Box, *mappings: PortMapping, backend: str = "nftables") -> None:
    """As a port mapping plugin does it, with the settings of the link that belong to it."""
    let_loopback_through(lab, box.net)
    lab.add_rules(network_of(box.net), rules_of(box, *mappings), backend)


def let_loopback_through(lab: Lab, net: Net) -> None:
    """Packets from 127.0.0.0/8 and ::1 may leave by the bridge, and their answers come back."""
    lab.host.sysctl(f"net/ipv4/conf/{net.bridge}/route_localnet", "1")
    lab.host.sysctl("net/bridge/bridge-nf-call-iptables", "0")
    lab.host.sysctl("net/bridge/bridge-nf-call-ip6tables", "0")
    lab.host.run(
        ["ip", "-6", "route", "replace", "local", "::1/128", "dev", net.bridge, "table", "local", "metric", "4096"]
    )


def withdraw(lab: Lab, box: Box, *mappings: PortMapping, backend: str = "nftables") -> None:
    rules = rules_of(box, *mappings)
    lab.act(lambda firewall: firewall.apply_delete(rules, network_of(box.net), [box.net.rules]), backend)


def seen(client: Namespace, address: str, port: int, *, proto: str = "tcp", source: str = "") -> Answer | None:
    """Whom the server behind *address* *port* saw; None where there is no answer."""
    ask = {"tcp": tcp_peer_seen, "udp": udp_peer_seen}[proto]
    try:
        return ask(client, address, port, deadline_s=5.0, source=source)  # a SYN that is lost is sent again after 1 s
    except OSError:
        return None


def closed(client: Namespace, address: str, port: int, *, proto: str = "tcp", source: str = "") -> bool:
    """Whether there is no answer, within a time in which there would be one."""
    ask = {"tcp": tcp_peer_seen, "udp": udp_peer_seen}[proto]
    try:
        ask(client, address, port, deadline_s=0.3, source=source)
    except OSError:
        return True
    return False
