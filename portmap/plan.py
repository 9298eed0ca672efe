"""What one ADD of the portmap plugin does to the host, decided from values alone.

A mapping becomes *services*, one for each family of host addresses: by the kernel (NAT) where that can be, by the
userland proxy where it cannot or where the configuration wants it. Services then become claims on ports, rules,
bindings for whoever holds the ports, and operations.
"""

from __future__ import annotations

from pycni.change.claims import Claim, first_clash
from pycni.change.ops import ApplyFirewall, EnsureSysctl
from pycni.change.publishing import EnsureHairpin, EnsureLoopbackRoute, RemoveLoopbackRoute
from pycni.cni.errors import CniError, Code
from pycni.cni.result import PublishedPort
from pycni.cni.value import Value
from pycni.firewall.rules import AttachmentRules, NetworkRules, PortMapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.change.ops import Op
    from pycni.cni.addresses import Interface as AddressWithPrefix
    from pycni.cni.names import Attachment
    from pycni.cni.result import Result
    from pycni.portmap.conf import Mapping, PortmapConf

# Settings of links, as the store remembers them. Each is "1" where it is on.
ROUTE_LOCALNET = "route_localnet"
PROXIED_PORTS = 64  # a longer range gets the proxy only by name: by hostIP or "proxy": "always"
LOOPBACK_ROUTE = "route of ::1"
HAIRPIN = "hairpin mode"


class HostFacts(Value):
    """What an ADD needs to know of the host."""

    links: dict[int, str]  # family to the host link behind which the container's address is; none where it is routed
    serves_proxy: bool = False  # there is an agent with a userland proxy
    ipv6: bool = True  # this kernel has IPv6
    bridged4: bool = False  # br_netfilter shows bridged frames to iptables and to us
    bridged6: bool = False
    host_link: str = ""  # the host's end of the container's veth pair
    is_port: bool = False  # that is a port of a bridge

    def loopback6(self, conf: PortmapConf) -> bool:
        """Whether NAT can serve ::1. Where br_netfilter looks at bridged frames, answers are translated back before
        IPv6 has received them, and that drops ::1 on any link but lo."""
        return conf.snat and not self.bridged6


class Service(Value):
    """One mapping for one family of host addresses."""

    mapping: Mapping
    family: int  # of the host's addresses
    address: str  # of the container: of the other family only where the proxy serves alone
    kernel: bool
    proxied: bool
    chosen: bool = False  # the host port was left to us

    @property
    def claim(self) -> Claim:
        one = self.mapping
        return Claim(self.family, one.proto, one.host_ip, one.low, one.high)

    @property
    def is_extra(self) -> bool:
        """Whether this is what a mapping without hostIP is given where there is a proxy: the family of addresses that
        the container does not have."""
        return not self.mapping.family and (":" in self.address) != (self.family == 6)


def container_addresses(result: Result, ifname: str) -> tuple[AddressWithPrefix, ...]:
    """All addresses of the container's interface: of an interface named *ifname* in a sandbox, or of one that the
    result does not tell."""
    found = []
    for ip in result.ips:
        if ip.interface is not None and ip.interface < len(result.interfaces):
            interface = result.interfaces[ip.interface]
            if interface.name != ifname or not interface.sandbox:
                continue
        found.append(ip.address)
    return tuple(found)


def published_addresses(found: Iterable[AddressWithPrefix]) -> dict[int, AddressWithPrefix]:
    """Family to the first of its addresses, to which ports lead (reference: getContainerIPs)."""
    first: dict[int, AddressWithPrefix] = {}
    for address in found:
        first.setdefault(address.version, address)
    return first


def merged(mappings: Iterable[Mapping]) -> tuple[Mapping, ...]:
    """*mappings* with those that continue or overlap each other joined: a hundred neighbours are one run to rules and
    records."""
    runs: list[Mapping] = []
    kinds: dict[Mapping, int] = {}  # a mapping without its ports, but with their distance → position in runs
    for one in sorted(mappings, key=lambda one: one.low):
        kind = one.replace(low=0, high=0, port=one.port - one.low)
        at = kinds.get(kind, -1)
        if at >= 0 and runs[at].low and one.low <= runs[at].high + 1:  # a port to choose is no neighbour of port 1
            runs[at] = runs[at].replace(high=max(runs[at].high, one.high))
        else:
            kinds[kind] = len(runs)
            runs.append(one)
    return tuple(runs)


def services(conf: PortmapConf, given: dict[int, AddressWithPrefix], facts: HostFacts) -> tuple[Service, ...]:
    """Who serves what. CniError 107 for what only the proxy could do, where it was asked for by name and there is none;
    7 for a container without address, or for two mappings that want the same port."""
    if not given:
        raise CniError(
            Code.INVALID_CONFIG,
            "there is no address to publish ports for",
            "prevResult has none of the interface in CNI_IFNAME: give the plugin before portmap an ipam",
        )
    addresses = {family: str(address.ip) for family, address in given.items()}
    found = []
    for mapping in merged(conf.mappings):
        for family in (mapping.family,) if mapping.family else (4, 6):
            one = _service(conf, mapping, family, addresses, facts)
            if one is not None:
                found.append(one)
    distinct = needed(found)
    refuse_clash(distinct)
    return distinct


def needed(found: Iterable[Service]) -> tuple[Service, ...]:
    """*found* without those that a wider one does anyway, with the same ports for the same clients: runtimes merge
    lists of which one names an address of the host, and the other none."""
    reach: dict[tuple[object, ...], int] = {}  # (what is done, at which host address, by proxy alone) → last port
    out = []
    for one in sorted(found, key=lambda one: (one.mapping.low, -one.mapping.high, one.mapping.host_ip)):
        each = one.mapping
        does = one.family, one.address, each.proto, each.port - each.low, each.sources, each.proxy_protocol
        alone = not one.kernel
        if each.high > max(reach.get((does, "", alone), -1), reach.get((does, each.host_ip, alone), -1)):
            reach[does, each.host_ip, alone] = reach[does, each.host_ip, one.proxied] = each.high
            out.append(one)
    return tuple(out)


def refuse_clash(found: Iterable[Service]) -> None:
    """CniError 7 where two of the attachment's own want the same port; those without a port yet do not count."""
    clash = first_clash(one.claim for one in found if one.mapping.low)
    if clash is not None:
        raise CniError(
            Code.INVALID_CONFIG,
            f"portMappings ask twice for the same host port: {clash[0]} and {clash[1]}",
            "a port on all addresses of the host cannot lead elsewhere on one of them",
        )


def _service(
    conf: PortmapConf, mapping: Mapping, family: int, addresses: dict[int, str], facts: HostFacts
) -> Service | None:
    """None where nobody serves this family, and nobody asked for it by name."""
    if mapping.sources:
        mapping = mapping.replace(sources=tuple(one for one in mapping.sources if (":" in one) == (family == 6)))
        if not mapping.sources:
            return None  # nobody of this family is let in
    by_name = mapping.family == family
    if family == 6 and not facts.ipv6:
        if by_name:
            raise CniError(
                Code.KERNEL_LACKS,
                f"hostIP {mapping.host_ip or '::'}: this host has no IPv6",
                "the kernel was built or booted (ipv6.disable=1) without it: give an IPv4 address",
            )
        return None
    same = addresses.get(family)
    if _only_proxy(conf, mapping, family, same, facts):
        address = same or next(iter(addresses.values()))
        by_name = by_name or same is not None
        can = _can_proxy(conf, mapping, facts, by_name=by_name)
        return Service(mapping, family, address, kernel=False, proxied=True) if can else None
    assert same is not None
    left_over = family == 6 and not mapping.host_ip and not facts.loopback6(conf)  # ::1
    left_over = left_over and not mapping.sources and not _is_long(mapping)
    proxied = left_over and facts.serves_proxy and conf.proxy != "never" and mapping.proto != "sctp"
    return Service(mapping, family, same, kernel=True, proxied=proxied)


def _is_long(mapping: Mapping) -> bool:
    """Whether a listening socket for each port is more than anybody wants who did not ask for it."""
    return mapping.high - mapping.low >= PROXIED_PORTS


def _only_proxy(conf: PortmapConf, mapping: Mapping, family: int, same: str | None, facts: HostFacts) -> bool:
    """Whether NAT cannot do it, or must not."""
    if same is None or mapping.proxy_protocol or (conf.proxy == "always" and mapping.proto != "sctp"):
        return True
    return mapping.host_ip == "::1" and not facts.loopback6(conf)


def _can_proxy(conf: PortmapConf, mapping: Mapping, facts: HostFacts, *, by_name: bool) -> bool:
    """Whether the proxy serves *mapping*; CniError where it was asked for *by_name* and cannot."""
    if conf.proxy == "never" or (_is_long(mapping) and not by_name):
        return False
    what = f"{mapping.host_ip or 'every address'}:{_ports(mapping)}/{mapping.proto}"
    if mapping.sources or mapping.proto == "sctp":
        if by_name:
            reason = "it does not look at sources" if mapping.sources else "it does not speak sctp"
            raise CniError(
                Code.INVALID_CONFIG,
                f"{what} can be served by the userland proxy only, and {reason}",
                'give the container an address of that family, or leave it out with "proxy": "never"',
            )
        return False
    if not facts.serves_proxy and by_name:
        raise CniError(
            Code.NEEDS_AGENT,
            f"{what} can be served by the userland proxy only, which lives in the agent, and no agent runs",
            'start it (systemctl start pycni-agent, or pycni agent), or leave the mapping out with "proxy": "never"',
        )
    return facts.serves_proxy


def _ports(mapping: Mapping) -> str:
    return f"{mapping.low}" if mapping.low == mapping.high else f"{mapping.low}-{mapping.high}"


def open_choices(found: Iterable[Service]) -> dict[tuple[str, int], list[Service]]:
    """(protocol, container port) to the services that still need a host port: all of one key get the same one."""
    out: dict[tuple[str, int], list[Service]] = {}
    for one in found:
        if not one.mapping.low:
            out.setdefault((one.mapping.proto, one.mapping.port), []).append(one)
    return out


def with_port(one: Service, port: int) -> Service:
    """*one* at the host port *port*, chosen by us."""
    return one.replace(mapping=one.mapping.replace(low=port, high=port), chosen=True)


def numbered(found: Iterable[Service], chosen: dict[tuple[str, int], int]) -> tuple[Service, ...]:
    """*found* with the chosen host ports filled in."""
    return tuple(
        one if one.mapping.low else with_port(one, chosen[one.mapping.proto, one.mapping.port]) for one in found
    )


def settings(conf: PortmapConf, found: Iterable[Service], facts: HostFacts) -> tuple[tuple[str, str], ...]:
    """(link, setting) of all that has to be on: for clients on the host's loopback, and for the container itself."""
    out = []
    for one in found:
        link, where = facts.links.get(one.family), one.mapping.host_ip
        if not one.kernel or not conf.snat:
            continue
        if link and one.family == 4 and (not where or where.startswith("127.")):
            out.append((link, ROUTE_LOCALNET))
        if link and one.family == 6 and where in ("", "::1") and facts.loopback6(conf):
            out.append((link, LOOPBACK_ROUTE))
        if facts.is_port and (facts.bridged6 if one.family == 6 else facts.bridged4):
            # translated inside the bridge, a container's packet to its own published port leaves where it came in
            out.append((facts.host_link, HAIRPIN))
    return tuple(dict.fromkeys(out))


def network_rules(
    conf: PortmapConf,
    network: str,
    addresses: dict[int, AddressWithPrefix],
    wanted: Iterable[tuple[str, str]],
    facts: HostFacts,
) -> NetworkRules:
    """*wanted*: the settings."""
    return NetworkRules(
        network=network,
        isolate=False,  # whether networks are kept apart, their bridge plugin says
        # whose clients the container answers directly, so that their own address must not be what it sees
        subnets=tuple(str(address.network) for address in addresses.values()) if conf.snat else (),
        loopback=tuple(link for link, setting in wanted if setting == ROUTE_LOCALNET),
        trusted=conf.trusted if not conf.direct_access else (),
        passing=tuple(dict.fromkeys(facts.links.values())),
        masquerades=False,  # that is the interface plugin's to say
    )


def attachment_rules(
    conf: PortmapConf,
    attachment: Attachment,
    found: Iterable[Service],
    everything: Iterable[AddressWithPrefix],  # that the container has
    *,
    loopback6: bool,
) -> AttachmentRules:
    """*loopback6*: whether NAT can serve clients on ::1. Else their packets stay with the host: with the proxy, or they
    are refused at once, where translated ones would be lost, and clients of "localhost" wait before they try IPv4."""
    ports = tuple(
        PortMapping(
            one.mapping.proto,
            one.mapping.host_ip,
            one.mapping.low,
            one.mapping.high,
            one.address,
            one.mapping.port,
            conf.snat,
            conf.masq_all,
            one.mapping.sources,
            spare_loopback=one.family == 6 and not one.mapping.host_ip and not loopback6,
        )
        for one in found
        if one.kernel
    )
    return AttachmentRules(
        owner=attachment.owner,
        ports=ports,
        conditions4=conf.conditions4,
        conditions6=conf.conditions6,
        direct_guard=() if conf.direct_access else tuple(dict.fromkeys(str(address.ip) for address in everything)),
        mark_masq_bit=conf.mark_masq_bit,
        external_set_mark_chain=conf.external_set_mark_chain,
    )


def plan_add(network: NetworkRules, attachment: AttachmentRules, wanted: Iterable[tuple[str, str]]) -> tuple[Op, ...]:
    """Every operation of the ADD in order. The rules come first: among them is what guards 127.0.0.0/8 where
    route_localnet is on."""
    return (ApplyFirewall(network, attachment), *(set_to(link, setting, on=True) for link, setting in wanted))


def set_to(link: str, setting: str, *, on: bool) -> Op:
    """What switches *setting* of *link* on, or back off: then also where the link is gone."""
    if setting == ROUTE_LOCALNET:
        return EnsureSysctl(f"net/ipv4/conf/{link}/route_localnet", "1" if on else "0", optional=not on)
    if setting == HAIRPIN:
        return EnsureHairpin(link, on)
    return EnsureLoopbackRoute(link) if on else RemoveLoopbackRoute(link)


def published(found: Iterable[Service]) -> tuple[PublishedPort, ...]:
    """The mappings of *found* in the words of the runtime's own list, one for both families."""
    ports = (PublishedPort(one.mapping.low, one.mapping.port, one.mapping.proto, one.mapping.host_ip) for one in found)
    return tuple(dict.fromkeys(ports))
