"""Port mappings of the iptables backend: a few chains for each attachment that has some, and one entry for all.

Packets to an address of the host come by ENTRY to the chain PORTS, which asks the chains of the attachments: those of
mappings with a host address first. Who is to be masqueraded is marked there, and masqueraded in POSTROUTING.
An attachment's chains are named after its owner, so that a DEL finds them without the network's rules.
"""

from __future__ import annotations

from hashlib import sha256
from ipaddress import ip_address, ip_network

from pycni.firewall.iptables_text import PORTS, Hook, Unit, quoted_comment
from pycni.firewall.ports import ANY, conditions_of, sources_of, version_of
from pycni.firewall.rules import check_link, comment_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pycni.firewall.rules import AttachmentRules, NetworkRules, PortMapping

LOOPBACK = {4: "127.0.0.0/8", 6: "::1/128"}
_ADDRESS_WORDS = frozenset(("-s", "--source", "--src", "-d", "--destination", "--dst"))
_PROTOCOL_WORDS = frozenset(("-p", "--protocol", "--proto"))


def entry_unit(version: int) -> Unit:
    """What leads to PORTS. What is published on 127.0.0.0/8 is for this host alone, whose packets come by OUTPUT."""
    local = "-m addrtype --dst-type LOCAL"
    outside = f"! -d {LOOPBACK[4]} {local}" if version == 4 else f"! -s fe80::/10 {local}"
    return Unit("nat", "E", (f"-j {PORTS}",), (Hook("PREROUTING", outside), Hook("OUTPUT", local)))


def port_units(network: NetworkRules, attachment: AttachmentRules, version: int) -> tuple[Unit, ...]:
    """The units of *attachment* for that IP *version*; with other *network* rules they have the same chains and hooks,
    so any will do to remove them."""
    mappings = [one for one in attachment.ports if version_of(one) == version]
    narrow = [one for one in mappings if one.host_ip]
    wide = [one for one in mappings if not one.host_ip]
    owner = quoted_comment(comment_of(attachment.owner))
    out = []
    for kind, members in (("H", narrow), ("P", wide)):
        if members:
            rules = [rule for one in members for rule in _rules(one, network, attachment, version)]
            matches = _matches(conditions_of(attachment, version), members)
            hooks = tuple(Hook(PORTS, f"{one} {owner}".strip(), first=kind == "H") for one in matches)
            out.append(_owned(attachment, "nat", kind, rules, hooks))
    if mappings and not attachment.external_set_mark_chain:
        # No further: what masquerades a network would hide the clients of its neighbours.
        rules = [f"-m mark --mark {_mark(attachment)} -j MASQUERADE", "-j ACCEPT"]
        addresses = dict.fromkeys(one.address for one in mappings)
        matches = [f"-d {address} -m conntrack --ctstate DNAT {owner}" for address in addresses]
        hooks = tuple(Hook("POSTROUTING", match, first=True) for match in matches)
        out.append(_owned(attachment, "nat", "Q", rules, hooks))
    return (*out, *guard_units(network, attachment, version))


def guard_units(network: NetworkRules, attachment: AttachmentRules, version: int) -> tuple[Unit, ...]:
    """The unit that keeps others than trusted links and the container's own from the guarded addresses."""
    addresses = [one for one in attachment.direct_guard if ip_address(one).version == version]
    if not addresses:
        return ()
    friends = map(check_link, (*network.bridges, *network.passing, *network.trusted))
    passing = [f"-i {link} -j RETURN" for link in dict.fromkeys(friends)]
    rules = ["-m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j RETURN", *passing, "-j DROP"]
    owner = quoted_comment(comment_of(attachment.owner))
    hooks = tuple(Hook("FORWARD", f"-d {address} {owner}", first=True) for address in addresses)
    return (_owned(attachment, "filter", "G", rules, hooks),)


def _owned(attachment: AttachmentRules, table: str, kind: str, rules: Iterable[str], hooks: tuple[Hook, ...]) -> Unit:
    return Unit(table, kind, tuple(rules), hooks, sha256(attachment.owner.encode()).hexdigest()[:16])


def _rules(mapping: PortMapping, network: NetworkRules, attachment: AttachmentRules, version: int) -> list[str]:
    """What marks and translates the packets of *mapping*."""
    to_host = f" -d {mapping.host_ip}" if mapping.host_ip else ""
    last = f":{mapping.high}" if mapping.high > mapping.low else ""
    match = f"-p {mapping.proto}{to_host} --dport {mapping.low}{last}"
    mark = f"-j {attachment.external_set_mark_chain or f'MARK --set-xmark {_mark(attachment)}'}"
    out = [f"-d {LOOPBACK[6]} {match} -j RETURN"] if mapping.spare_loopback else []
    if mapping.masq_all:
        out.append(f"{match} {mark}")
    elif mapping.snat:
        address = ip_address(mapping.address)
        subnets = [one for one in network.subnets if address in ip_network(one)]
        # The gateway address is in the subnet, but it is the host's: it is no secret to the container.
        out += [f"{match} -s {subnet} -m addrtype ! --src-type LOCAL {mark}" for subnet in subnets]
        out.append(f"{match} -s {LOOPBACK[version]} {mark}")
    for source in sources_of(mapping, version):
        client = f" -s {source}" if source != ANY[version] else ""
        for ports, target in _targets(mapping, version):
            out.append(f"-p {mapping.proto}{client}{to_host} --dport {ports} -j DNAT --to-destination {target}")
    return out


def _targets(mapping: PortMapping, version: int) -> list[tuple[str, str]]:
    """(host ports, where to): one for ports that stay the same, else one each, since `--to-destination` with a base
    port takes another port of the range where the one is busy."""
    if mapping.low == mapping.port:
        ports = str(mapping.low) if mapping.low == mapping.high else f"{mapping.low}:{mapping.high}"
        return [(ports, mapping.address)]
    address = f"[{mapping.address}]" if version == 6 else mapping.address
    count = mapping.high - mapping.low + 1
    return [(str(mapping.low + one), f"{address}:{mapping.port + one}") for one in range(count)]


def _mark(attachment: AttachmentRules) -> str:
    bit = f"{1 << attachment.mark_masq_bit:#x}"
    return f"{bit}/{bit}"


def _matches(words: Sequence[str], members: Iterable[PortMapping]) -> list[str]:
    """The conditions *words* of *members* as text, one for each rule that asks them. With the protocol, as in the
    reference: what matches ports (tcp, multiport) demands it. iptables takes but one: not where words have it."""
    texts = expanded(words)
    if not words or not _PROTOCOL_WORDS.isdisjoint(words):
        return texts
    protocols = dict.fromkeys(one.proto for one in members)
    return [f"-p {proto} {text}" for proto in protocols for text in texts]


def expanded(words: Sequence[str]) -> list[str]:
    """*words* as text, one for each rule that iptables makes of them: `-s A,B` is two."""
    out = [""]
    before = ""
    for word in words:
        parts = word.split(",") if before in _ADDRESS_WORDS else [word]
        out = [f"{one} {_quoted(part)}".strip() for one in out for part in parts]
        before = word
    return out


def _quoted(word: str) -> str:
    plain = word and not any(char in word for char in ' \t"\\')
    return word if plain else '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
