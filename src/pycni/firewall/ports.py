"""Port mappings as elements of the nftables maps, and as the rules of those that have conditions.

Mappings of an attachment with conditions stand in a chain of its own, to which an element of cond4/cond6 leads; all
others are elements alone. Conditions are words of a rule of the user's own, or the sources of a long run.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import collapse_addresses, ip_address, ip_network

from pycni.firewall.rules import Element, comment_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Network, IPv6Network

    from pycni.firewall.rules import AttachmentRules, PortMapping

ANY = {4: "0.0.0.0/0", 6: "::/0"}
# A longer run to other numbers, for some clients, is one rule with a map of its own. As elements, one for each port, it
# would cost time with the square of its length: hs4 and hs6 are interval sets, which the kernel searches for each.
LONG_RUN = 64
# Of these a key belongs to one owner: that it is there already means that the port is taken.
EXCLUSIVE = frozenset(
    f"{name}{version}{end}" for name in ("cond", "hp", "hs", "hsr", "hr") for version in (4, 6) for end in ("", "ip")
)


def version_of(mapping: PortMapping) -> int:
    """4 or 6."""
    return 6 if ":" in mapping.address else 4


def conditions_of(attachment: AttachmentRules, version: int) -> tuple[str, ...]:
    """The words that the mappings of that IP *version* depend on."""
    return attachment.conditions6 if version == 6 else attachment.conditions4


def is_conditional(attachment: AttachmentRules, mapping: PortMapping) -> bool:
    """Whether *mapping*, one of *attachment*'s, stands in the chain of that."""
    if conditions_of(attachment, version_of(mapping)):
        return True
    return bool(mapping.sources) and mapping.low != mapping.port and mapping.high - mapping.low >= LONG_RUN


def port_elements(attachment: AttachmentRules) -> list[Element]:
    """The elements of *attachment*'s mappings, those with conditions left out; none is in another's way."""
    comment = comment_of(attachment.owner)
    out: list[Element] = []
    for address in dict.fromkeys(mapping.address for mapping in attachment.ports):
        chain = _masquerade_of([mapping for mapping in attachment.ports if mapping.address == address])
        version = 6 if ":" in address else 4
        out.append(Element(f"published{version}", (str(ip_address(address)),), comment, (f"goto {chain}",)))
    for mapping in attachment.ports:
        if not is_conditional(attachment, mapping):
            out += _mapping_elements(mapping, version_of(mapping), comment)
    return list(dict.fromkeys(out))


def _masquerade_of(mappings: list[PortMapping]) -> str:
    """The chain that says which clients of an address are masqueraded: its mappings have one answer together."""
    if any(mapping.masq_all for mapping in mappings):
        return "everybody"
    return "hairpin" if any(mapping.snat for mapping in mappings) else "as_it_is"


def _mapping_elements(mapping: PortMapping, version: int, comment: str) -> Iterator[Element]:
    if mapping.spare_loopback:
        # a narrower key is found before: translated to where it goes anyway
        itself = mapping.replace(host_ip="::1", address="::1", port=mapping.low, sources=(), spare_loopback=False)
        yield from _mapping_elements(itself, version, comment)
    same_ports = mapping.low == mapping.port
    address, host_ip = _as_nft_has_it(mapping.address), mapping.host_ip and _as_nft_has_it(mapping.host_ip)
    if mapping.sources or (mapping.host_ip and same_ports and mapping.high > mapping.low):
        host = host_ip or ANY[version]
        for source in sources_of(mapping, version):
            if same_ports:
                key = (mapping.proto, host, _range(mapping), source)
                yield Element(f"hsr{version}", key, comment, (address,))
                continue
            for port, target in _pairs(mapping):
                yield Element(f"hs{version}", (mapping.proto, host, port, source), comment, (address, target))
    elif same_ports and mapping.high > mapping.low:
        yield Element(f"hr{version}", (mapping.proto, _range(mapping)), comment, (address,))
    else:
        name, host_key = (f"hp{version}ip", (host_ip,)) if host_ip else (f"hp{version}", ())
        for port, target in _pairs(mapping):
            yield Element(name, (mapping.proto, *host_key, port), comment, (address, target))


@lru_cache(maxsize=64)  # of many ports of one container
def _as_nft_has_it(address: str) -> str:
    return str(ip_address(address))


def sources_of(mapping: PortMapping, version: int) -> list[str]:
    """The clients of *mapping* as prefixes none of which holds another."""
    networks: list[IPv4Network | IPv6Network] = [ip_network(one) for one in mapping.sources or (ANY[version],)]
    merged = collapse_addresses(networks)  # type: ignore[type-var]
    return [str(one.network_address) if one.num_addresses == 1 else str(one) for one in merged]


def _range(mapping: PortMapping) -> str:
    return str(mapping.low) if mapping.low == mapping.high else f"{mapping.low}-{mapping.high}"


def _pairs(mapping: PortMapping) -> Iterator[tuple[str, str]]:
    """(host port, container port) of each."""
    for number in range(mapping.high - mapping.low + 1):
        yield str(mapping.low + number), str(mapping.port + number)


def conditional_elements(attachment: AttachmentRules) -> list[Element]:
    """The elements of cond4 and cond6 that lead to the chain of *attachment*."""
    comment = comment_of(attachment.owner)
    out = []
    for mapping in attachment.ports:
        if is_conditional(attachment, mapping):
            version = version_of(mapping)
            key = (mapping.proto, mapping.host_ip or ANY[version], _range(mapping))
            out.append(Element(f"cond{version}", key, comment, (f"jump {chain_of(attachment.owner)}",)))
    return list(dict.fromkeys(out))


def chain_of(owner: str) -> str:
    """The name of the chain in which *owner*'s mappings with conditions stand."""
    from hashlib import sha256  # rare: 1 ms that an ordinary call need not pay

    return f"{CONDITIONAL}{sha256(owner.encode()).hexdigest()[:24]}"


CONDITIONAL = "cond_"


def render_conditional(table: str, attachment: AttachmentRules) -> str:
    """The commands that make the chain of *attachment* with the rules of its mappings, in place of what it has."""
    chain = chain_of(attachment.owner)
    out = [f"add chain {table} {chain}\n", f"flush chain {table} {chain}\n"]
    for mapping in attachment.ports:
        if is_conditional(attachment, mapping):
            version = version_of(mapping)
            rule = _conditional_rule(mapping, version, conditions_of(attachment, version))
            out.append(f"add rule {table} {chain} {rule}\n")
    return "".join(out)


def _conditional_rule(mapping: PortMapping, version: int, words: tuple[str, ...]) -> str:
    ip = "ip6" if version == 6 else "ip"
    parts = [f"meta l4proto {mapping.proto}", f"th dport {_range(mapping)}"]
    if mapping.host_ip:
        parts.append(f"{ip} daddr {mapping.host_ip}")
    if mapping.sources:
        parts.append(f"{ip} saddr {{ {', '.join(sources_of(mapping, version))} }}")
    if mapping.spare_loopback:
        parts.append("ip6 daddr != ::1")
    parts += words
    address = f"[{mapping.address}]" if version == 6 else mapping.address
    if mapping.low == mapping.high:
        parts.append(f"dnat {ip} to {address}:{mapping.port}")
    elif mapping.low == mapping.port:
        parts.append(f"dnat {ip} to {mapping.address}")
    else:
        pairs = ", ".join(f"{port} : {target}" for port, target in _pairs(mapping))
        parts.append(f"dnat {ip} to {address} : th dport map {{ {pairs} }}")
    return " ".join(parts)
