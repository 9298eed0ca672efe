"""The underlay and the networks of a lab's file: prefixes that do not overlap, links that lead somewhere."""

from __future__ import annotations

import ipaddress

from pycni.lab.document import Fields, Node, Problems
from pycni.lab.topology import DEFAULT_MTU, LinkSpec, NetworkSpec, Segment

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MODES = ("l2", "routed", "multicast")
TYPES = ("bridge", "overlay")
HIGHEST_VNI = (1 << 24) - 1  # 24 bits (RFC 7348), and 0 is "allocated"
LOWEST_MTU, HIGHEST_MTU = 1280, 65535  # IPv6 asks for 1280 at least (RFC 8200)
DEFAULT_SEGMENT = "lan"
DEFAULT_IPV4, DEFAULT_IPV6 = "192.0.2.0/24", "2001:db8:a::/64"


class Prefixes:
    """The prefixes that segments and networks have so far: no two overlap, or a host would not know the way."""

    def __init__(self) -> None:
        self._taken: list[tuple[Network, str]] = []  # and whose

    def read(self, fields: Fields, key: str, version: int, owner: str, default: str = "") -> str:
        """The prefix under *key* in its usual form, "" where there is none or a wrong one."""
        text = fields.text(key, default)
        if not text:
            return ""
        try:
            network: Network = ipaddress.ip_network(text)
        except ValueError as failure:
            fields.wrong(key, f"{text!r} is no prefix: {failure}")
            return ""
        if network.version != version:
            fields.wrong(key, f"{text} is no IPv{version} prefix")
            return ""
        if network.num_addresses < 4:
            fields.wrong(key, f"{text} has no room for two hosts")
            return ""
        for other, whose in self._taken:
            if other.version == network.version and other.overlaps(network):
                fields.wrong(key, f"{text} overlaps {other} of {whose}")
                return ""
        self._taken.append((network, owner))
        return str(network)


class Underlay:
    """Segments, and who has which address there."""

    def __init__(self, prefixes: Prefixes, problems: Problems, *, alone: bool) -> None:
        self.prefixes = prefixes
        self.problems = problems
        self.alone = alone  # only a single segment has default prefixes: two with the same could not be told apart
        self.segments: dict[str, Segment] = {}
        self._taken: dict[tuple[str, str], str] = {}  # (segment, address) -> machine

    def add_default(self) -> None:
        """The segment of a file that has none."""
        self.segment(DEFAULT_SEGMENT, Fields(Node({}, 1, "underlay"), self.problems))

    def segment(self, name: str, fields: Fields) -> Segment:
        """The segment of that entry, which links can lead to from now on."""
        default = self.alone and not fields.has("ipv4") and not fields.has("ipv6")
        made = Segment(
            name=name,
            ipv4=self.prefixes.read(fields, "ipv4", 4, f"segment {name}", DEFAULT_IPV4 if default else ""),
            ipv6=self.prefixes.read(fields, "ipv6", 6, f"segment {name}", DEFAULT_IPV6 if default else ""),
            mtu=fields.integer("mtu", LOWEST_MTU, HIGHEST_MTU, DEFAULT_MTU),
        )
        if not (made.ipv4 or made.ipv6 or fields.get("ipv4") or fields.get("ipv6")):
            self.problems.add(fields.node, "needs ipv4 or ipv6, a prefix such as 192.0.2.0/24")
        self.segments[name] = made
        return made

    def links(self, fields: Fields, machine: str, *, least: int = 1) -> tuple[LinkSpec, ...]:
        """The links under that key of a machine's entry; without it one, to the first segment."""
        nodes = fields.items("links")
        if not nodes and self.segments:
            nodes = (Node(next(iter(self.segments)), fields.node.line, fields.node.where),)
        links = tuple(link for at, node in enumerate(nodes) if (link := self._link(node, f"eth{at}", machine)))
        names = [link.segment for link in links]
        if len(set(names)) < len(names):
            fields.wrong("links", "two links lead to the same segment")
        if len(links) < least and len(nodes) < least:
            fields.wrong("links", f"a router needs {least} links")
        return links

    def _link(self, node: Node, ifname: str, machine: str) -> LinkSpec | None:
        if isinstance(node.value, str):
            node = Node({"segment": node}, node.line, node.where)
        fields = Fields(node, self.problems)
        name = fields.text("segment")
        segment = self.segments.get(name)
        if segment is None:
            known = ", ".join(self.segments) or "none"
            fields.wrong("segment", f"there is no segment {name!r}; there are {known}")
            segment = Segment(name=name)
        link = LinkSpec(
            segment=name,
            ifname=ifname,
            ipv4=self._address(fields, "ipv4", segment, segment.ipv4, machine),
            ipv6=self._address(fields, "ipv6", segment, segment.ipv6, machine),
            mtu=fields.integer("mtu", LOWEST_MTU, HIGHEST_MTU, segment.mtu),
        )
        fields.finish()
        return link if name in self.segments else None

    def _address(self, fields: Fields, key: str, segment: Segment, prefix: str, machine: str) -> str:
        text = fields.text(key)
        if not text:
            return ""
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            fields.wrong(key, f"{text!r} is no address")
            return ""
        network = ipaddress.ip_network(prefix) if prefix else None
        if network is None or address not in network:
            fields.wrong(key, f"{text} is not in {prefix or 'any prefix'} of segment {segment.name}")
            return ""
        if address == network.network_address or (address.version == 4 and address == network.broadcast_address):
            fields.wrong(key, f"{text} is no host's address: it is the first or the last of {prefix}")
            return ""
        holder = self._taken.setdefault((segment.name, str(address)), machine)
        if holder != machine:
            fields.wrong(key, f"{text} is already that of {holder}")
        return str(address)


def read_network(prefixes: Prefixes, name: str, fields: Fields) -> NetworkSpec:
    """The pycni network of that entry."""
    kind = fields.word("type", TYPES, "bridge")
    if fields.has("mode") and kind == "bridge":
        fields.wrong("mode", "is for networks of type overlay")
    if fields.has("vni") and kind == "bridge":
        fields.wrong("vni", "is for networks of type overlay")
    config = fields.child("config")
    made = NetworkSpec(
        name=name,
        type=kind,
        mode=fields.word("mode", MODES, "l2"),
        ipv4=prefixes.read(fields, "ipv4", 4, f"network {name}"),
        ipv6=prefixes.read(fields, "ipv6", 6, f"network {name}"),
        vni=fields.integer("vni", 1, HIGHEST_VNI, 0),
        ports=fields.flag("ports", False),
        config=config.node.plain or {} if config and isinstance(config.node.value, dict | None) else {},
    )
    if not (fields.get("ipv4") or fields.get("ipv6")):
        fields.problems.add(fields.node, "needs ipv4 or ipv6, a prefix such as 10.1.0.0/16")
    if made.mode == "multicast" and not made.vni:
        fields.problems.add(fields.node, "a multicast overlay needs a vni: there is no etcd to allocate one")
    return made
