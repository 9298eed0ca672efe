"""Intentions: what a network and an attachment want from the packet filter, and the set elements that say it.

The nftables backend has a constant number of rules; everything that comes and goes with containers is an element of a
set. Elements are of two kinds: *own* ones belong to one attachment and carry its owner as comment, *shared* ones
(bridges, subnets) belong to every attachment that needs them and go with the last.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv6Address

COMMENT_LIMIT = 128  # bytes; nft refuses a longer comment (NFTNL_UDATA_COMMENT_MAXLEN)


class NetworkRules(Value):
    """What the attachments of one network share."""

    network: str
    bridges: tuple[str, ...] = ()  # the host links that route for the containers: ("cni0",) or ("cni0.100",)
    isolate: bool = True  # False: containers of other pycni bridges may reach these and be reached
    subnets: tuple[str, ...] = ()  # "10.1.0.0/24": where a container that masquerades keeps its own address
    forward: bool = True  # traffic is routed through the host: a FORWARD policy of DROP matters
    loopback: tuple[str, ...] = ()  # links whose containers publish on 127.0.0.0/8: route_localnet is on there
    trusted: tuple[str, ...] = ()  # links from which guarded containers are reached directly
    apart: bool = False  # nor do the containers behind one of the bridges reach each other
    passing: tuple[str, ...] = ()  # further links whose traffic passes where the FORWARD policy is DROP
    opens: bool = False  # iptables: it passes before the rules of others in FORWARD, too
    admin_chain: str = ""  # iptables: the user's chain that is asked before ours
    together: bool = False  # `bridges` are of one network: what comes by one of them may go on by another
    outward: tuple[str, ...] = ()  # of `bridges` those that `together` is not about, and `apart` alone is
    masquerades: bool = True  # whether iptables masquerades `subnets` as a whole; nftables goes by container


class PortMapping(Value):
    """Host ports that lead to one container: `low` to `port`, `low` + n to `port` + n."""

    proto: str  # "tcp", "udp", "sctp"
    host_ip: str  # one address of the host, "" for every one of the container address's family
    low: int
    high: int  # host ports, inclusive
    address: str  # of the container; its family is the mapping's
    port: int
    snat: bool = True  # masquerade the host's loopback clients, and clients on the container's own bridge
    masq_all: bool = False  # masquerade every client
    sources: tuple[str, ...] = ()  # prefixes of the clients that may come in; () for all
    spare_loopback: bool = False  # of all IPv6 addresses: but ::1, which stays with whoever listens on the host


class AttachmentRules(Value):
    """What one attachment owns."""

    owner: str  # "network/container_id/ifname", and "/part" of a chained plugin
    masquerade: tuple[str, ...] = ()  # container addresses, both families mixed: "10.1.0.5", "fd00::5"
    macs: tuple[tuple[str, str], ...] = ()  # (host link, the one source MAC it may send from): macspoofchk
    ports: tuple[PortMapping, ...] = ()
    conditions4: tuple[str, ...] = ()  # words of a rule (of the backend's language) that IPv4 mappings depend on
    conditions6: tuple[str, ...] = ()
    direct_guard: tuple[str, ...] = ()  # container addresses that others reach by published ports only
    mark_masq_bit: int = 13  # iptables: the bit of the mark that says "masquerade"
    external_set_mark_chain: str = ""  # iptables: the chain that sets such a mark, in place of ours
    sources: tuple[str, ...] = ()  # all addresses of the container, where a firewall lets them pass
    zone: str = ""  # of firewalld, which the sources belong to; "": firewalld is not told
    closed_ports: tuple[str, ...] = ()  # bridge ports that this attachment has given the flag `isolated`


class Element(Value):
    """One element of a set: *key* has a text for each field of the set's type; *data*: what a map's key leads to."""

    set: str
    key: tuple[str, ...]
    comment: str = ""
    data: tuple[str, ...] = ()


def comment_of(owner: str) -> str:
    """*owner* as a comment: itself, or where it is longer than nft takes, its head and a hash of the whole."""
    if len(owner.encode()) <= COMMENT_LIMIT:
        return owner
    from hashlib import sha256  # rare: 1 ms that an ordinary call need not pay

    return owner.encode()[: COMMENT_LIMIT - 33].decode(errors="ignore") + "~" + sha256(owner.encode()).hexdigest()[:32]


def check_link(name: str) -> str:
    """*name* if nft and iptables take it literally; CniError 7 if it would be a pattern or break the text."""
    if not name or len(name.encode()) > 15 or any(char in '"\\*+\n\t /' for char in name):
        raise CniError(Code.INVALID_CONFIG, f"{name!r} cannot be named in a firewall rule: choose another link name")
    return name


def shared_elements(network: NetworkRules) -> tuple[Element, ...]:
    """The elements that every attachment of *network* needs and none owns."""
    out = []
    for link in network.bridges:
        check_link(link)
        out.append(Element("bridges", (link,)))
        out += [Element("same", (link, other)) for other in (link, *friends_of(network, link))]
        if network.isolate:
            out.append(Element("isolated", (link,)))
        if is_apart(network, link):
            out.append(Element("apart", (link, link)))
    for subnet in network.subnets:
        out.append(Element(f"local{ip_network(subnet).version}", (as_key(subnet),) * 2))
    out += [Element("same", (check_link(link),) * 2) for link in network.passing if link not in network.bridges]
    out += [Element("loopback", (check_link(link),)) for link in network.loopback]
    out += [Element("trusted", (check_link(link),)) for link in network.trusted]
    return tuple(out)


def friends_of(network: NetworkRules, link: str) -> tuple[str, ...]:
    """The other bridges of *network* to which packets from *link* may go on."""
    if not network.together or link in network.outward:
        return ()
    return tuple(other for other in network.bridges if other != link and other not in network.outward)


def is_apart(network: NetworkRules, link: str) -> bool:
    """Whether the containers behind *link*, one of the bridges, do not reach each other by it."""
    return network.apart and (not network.outward or link in network.outward)


def as_key(subnet: str) -> str:
    """*subnet* as a field of a key; one of a single address is that address: "10.1.0.5/32" → "10.1.0.5"."""
    network = ip_network(subnet)
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def own_elements(attachment: AttachmentRules) -> tuple[Element, ...]:
    """The elements of table `inet pycni` that belong to *attachment* alone."""
    comment = comment_of(attachment.owner)
    sets = ("masq", attachment.masquerade), ("direct", attachment.direct_guard)
    out = [
        Element(f"{name}{address.version}", (str(address),), comment)
        for name, addresses in sets
        for address in map(ip_address, addresses)
    ]
    if attachment.ports:
        from pycni.firewall.ports import port_elements  # not on the way of an ADD without

        out += port_elements(attachment)
    return tuple(out)


def has_own_chain(attachment: AttachmentRules) -> bool:
    """Whether some of the mappings of *attachment* stand in a chain of its own."""
    if not attachment.ports:
        return False
    from pycni.firewall.ports import is_conditional

    return any(is_conditional(attachment, one) for one in attachment.ports)


def odd_elements(network: NetworkRules, attachment: AttachmentRules, subnet: str) -> tuple[Element, ...]:
    """In place of own_elements: the addresses of *attachment* in *subnet*, each with that subnet to itself.

    Two elements of an interval set must not overlap, so a subnet nested in another one cannot stand in `local4`
    beside it. Such containers stand in `odd4` and, address by address, in `own4`, where nothing overlaps.
    """
    comment = comment_of(attachment.owner)
    out = []
    for address in map(ip_address, attachment.masquerade):
        if _subnet_of(address, network.subnets) == as_key(subnet):
            out.append(Element(f"odd{address.version}", (str(address),), comment))
            out.append(Element(f"own{address.version}", (str(address), as_key(subnet)), comment))
    for address in sorted({ip_address(one.address) for one in attachment.ports}, key=str):
        if _subnet_of(address, network.subnets) == as_key(subnet):
            out.append(Element(f"own{address.version}", (str(address), as_key(subnet)), comment))
    return tuple(dict.fromkeys(out))


def _subnet_of(address: IPv4Address | IPv6Address, subnets: Iterable[str]) -> str:
    """The smallest of *subnets* that holds *address*, "" where none does."""
    holding = [network for network in map(ip_network, subnets) if address in network]
    return as_key(str(max(holding, key=lambda network: network.prefixlen))) if holding else ""


def guard_elements(attachment: AttachmentRules) -> tuple[Element, ...]:
    """The elements of table `bridge pycni` that bind the host links of *attachment* to their MAC address."""
    comment = comment_of(attachment.owner)
    out = []
    for link, mac in attachment.macs:
        out.append(Element("macs", (check_link(link), mac.lower()), comment))
        out.append(Element("guarded", (link,), comment))
    return tuple(out)


def unused_elements(network: NetworkRules, others: Iterable[NetworkRules]) -> tuple[Element, ...]:
    """The shared elements of *network* that none of the *others* needs."""
    needed = {element for other in others for element in shared_elements(other)}
    return tuple(element for element in shared_elements(network) if element not in needed)
