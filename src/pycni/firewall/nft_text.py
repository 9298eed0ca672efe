"""The nftables backend as text: two tables, each a constant number of rules over sets and maps.

`Table` is the one description of a table: the text that makes it, the types of its sets (from which
`pycni.host.nft_messages` encodes elements) and the name of the empty chain that says which version of it is in the
kernel.
"""

from __future__ import annotations

from binascii import crc32

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.firewall.rules import Element


class SetType(Value):
    """A set: the types of its key's fields; *interval* if each field is a prefix or a range; *data*: of a map, the
    types of what a key leads to."""

    name: str
    fields: tuple[str, ...]
    interval: bool = False
    data: tuple[str, ...] = ()

    def render(self) -> str:
        flags = " flags interval;" if self.interval else ""
        kind, leads_to = ("map", f" : {' . '.join(self.data)}") if self.data else ("set", "")
        return f"    {kind} {self.name} {{ type {' . '.join(self.fields)}{leads_to};{flags} }}\n"


_markers: dict[int, str] = {}


class Table(Value):
    """One nft table: `family` `name`, its sets, its chains: the hook ("" for one that is only jumped to) and the rules
    of each."""

    family: str
    name: str
    sets: tuple[SetType, ...]
    chains: dict[str, tuple[str, ...]]

    def render(self) -> str:
        """The text that makes the table where it is not."""
        out = [f"table {self.family} {self.name} {{\n", *(one.render() for one in self.sets)]
        for name, rules in self.chains.items():
            out.append(f"    chain {name} {{\n")
            out += [f"        {rule}\n" for rule in rules if rule]
            out.append("    }\n")
        return "".join(out) + "}\n"

    def marker(self) -> str:
        """The chain whose existence says that this very text is in the kernel, complete."""
        known = _markers.get(id(self))
        if known is None:
            known = f"base_{crc32(self.render().encode()):08x}"
            if self is MAIN or self is GUARD:  # which last as long as their ids
                _markers[id(self)] = known
        return known

    def least_use(self, chain: str) -> int:
        """How many rules at least are in *chain* and jump to it while the table is whole.

        Of the administrator's rules, whose text is not ours to count, one.
        """
        rules = self.chains[chain][1:]
        return min(len(rules), 1) + 1 if chain == "admin" else len(rules)

    def set_named(self, name: str) -> SetType | None:
        """The set *name*, None if this version has no such set."""
        return next((s for s in self.sets if s.name == name), None)


# What host ports lead to. Of a single port both families have hp4/hp6 (every address of the host) and hp4ip/hp6ip (one
# address); of a range with the same numbers in the container hr4/hr6, one element whatever its length. Where a range
# has one host address, or clients are limited, the key has those too: hs4/hs6 and (same numbers) hsr4/hsr6.
# cond4/cond6 lead to a chain of the attachment whose mappings have conditions.
_PORT_SETS = tuple(
    one
    for version, address in ((4, "ipv4_addr"), (6, "ipv6_addr"))
    for one in (
        SetType(f"cond{version}", ("inet_proto", address, "inet_service"), interval=True, data=("verdict",)),
        SetType(f"hp{version}ip", ("inet_proto", address, "inet_service"), data=(address, "inet_service")),
        SetType(
            f"hs{version}",
            ("inet_proto", address, "inet_service", address),
            interval=True,
            data=(address, "inet_service"),
        ),
        SetType(f"hsr{version}", ("inet_proto", address, "inet_service", address), interval=True, data=(address,)),
        SetType(f"hp{version}", ("inet_proto", "inet_service"), data=(address, "inet_service")),
        SetType(f"hr{version}", ("inet_proto", "inet_service"), interval=True, data=(address,)),
        SetType(f"published{version}", (address,), data=("verdict",)),
        SetType(f"direct{version}", (address,)),
    )
)


def _port_rules(version: int) -> tuple[str, ...]:
    """From the narrowest to the widest key."""
    nat, family, ip = ("dnat ip to", "ipv4", "ip") if version == 4 else ("dnat ip6 to", "ipv6", "ip6")
    # nft wants to know of a transport protocol before it lets "dnat" set a port from a key of more than three fields.
    transport = "meta l4proto { tcp, udp, sctp }"
    port = f"meta l4proto . {ip} daddr . th dport"
    return (
        f"{port} vmap @cond{version}",
        f"{nat} {port} map @hp{version}ip",
        f"{transport} {nat} {port} . {ip} saddr map @hs{version}",
        f"{transport} {nat} {port} . {ip} saddr map @hsr{version}",
        f"meta nfproto {family} {nat} meta l4proto . th dport map @hp{version}",
        f"meta nfproto {family} {nat} meta l4proto . th dport map @hr{version}",
    )


# postrouting stands after srcnat (100): whoever translates at the standard priority (an administrator's SNAT rule) has
# decided first, and nat rules see a connection's packet only until one of them has decided.
# Multicast is never masqueraded, as in the reference plugins.
# A connection to a published port keeps its client's address: the answer comes back through this host anyway. But for
# clients whom the container would answer directly: those of its own subnet, and 127.0.0.1 and ::1, its own.
# forward stands just before filter (0): a verdict "accept" there only ends our chain, "drop" is final. DNAT first:
# a published port of another network is meant to be reached.
# early closes the holes of route_localnet: by that, whoever is behind the link could reach what listens on 127.0.0.1
# (CVE-2020-8558), and speak to the host as 127.0.0.5, which __fib_validate_source only refuses where some link has that
# very address. Before connection tracking, where answers to 127.0.0.1 still have other addresses.
MAIN = Table(
    family="inet",
    name="pycni",
    sets=(
        SetType("masq4", ("ipv4_addr",)),
        SetType("masq6", ("ipv6_addr",)),
        SetType("local4", ("ipv4_addr", "ipv4_addr"), interval=True),
        SetType("local6", ("ipv6_addr", "ipv6_addr"), interval=True),
        SetType("odd4", ("ipv4_addr",)),
        SetType("odd6", ("ipv6_addr",)),
        SetType("own4", ("ipv4_addr", "ipv4_addr"), interval=True),
        SetType("own6", ("ipv6_addr", "ipv6_addr"), interval=True),
        SetType("bridges", ("ifname",)),
        SetType("isolated", ("ifname",)),
        SetType("same", ("ifname", "ifname")),
        SetType("apart", ("ifname", "ifname")),
        *_PORT_SETS,
        SetType("loopback", ("ifname",)),
        SetType("trusted", ("ifname",)),
    ),
    chains={
        "admin": ("",),
        "early": (
            "type filter hook prerouting priority raw; policy accept;",
            "ip daddr 127.0.0.0/8 iifname @loopback drop",
            "ip saddr 127.0.0.0/8 iifname @loopback drop",
        ),
        "prerouting": (
            "type nat hook prerouting priority dstnat; policy accept;",
            # What is published on 127.0.0.0/8 is for this host alone, and its own packets come by output.
            "ip daddr 127.0.0.0/8 return",
            "fib daddr type local meta nfproto vmap { ipv4 : jump ports4, ipv6 : jump ports6 }",
        ),
        "output": (
            "type nat hook output priority -100; policy accept;",
            "fib daddr type local meta nfproto vmap { ipv4 : jump ports4, ipv6 : jump ports6 }",
        ),
        "ports4": ("", *_port_rules(4)),
        # A link-local client has no address that a container on another link could answer to.
        "ports6": ("", "ip6 saddr fe80::/10 return", *_port_rules(6)),
        "hairpin": (
            "",
            "ip saddr 127.0.0.0/8 masquerade",
            "ip6 saddr ::1 masquerade",
            "fib saddr type local return",
            "ip saddr . ip daddr @local4 masquerade",
            "ip6 saddr . ip6 daddr @local6 masquerade",
            "ip daddr . ip saddr @own4 masquerade",
            "ip6 daddr . ip6 saddr @own6 masquerade",
        ),
        "everybody": ("", "masquerade"),
        "as_it_is": ("", "return"),
        "postrouting": (
            "type nat hook postrouting priority srcnat + 10; policy accept;",
            "ip daddr 224.0.0.0/4 return",
            "ip6 daddr ff00::/8 return",
            "ct status dnat ip daddr vmap @published4",
            "ct status dnat ip6 daddr vmap @published6",
            "ip saddr @masq4 ip saddr . ip daddr != @local4 masquerade",
            "ip6 saddr @masq6 ip6 saddr . ip6 daddr != @local6 masquerade",
            "ip saddr @odd4 ip saddr . ip daddr != @own4 masquerade",
            "ip6 saddr @odd6 ip6 saddr . ip6 daddr != @own6 masquerade",
        ),
        "forward": (
            "type filter hook forward priority filter - 5; policy accept;",
            "jump admin",
            "ct status dnat accept",
            "iifname . oifname @apart drop",
            "iifname . oifname @same accept",
            "iifname @bridges oifname @isolated drop",
            "iifname @isolated oifname @bridges drop",
            "ip daddr @direct4 ct state != { established, related } iifname != @trusted drop",
            "ip6 daddr @direct6 ct state != { established, related } iifname != @trusted drop",
        ),
    },
)

# Priority -300 is dstnat of the bridge family: before ebtables' and everybody else's filter (-200) sees the frame.
GUARD = Table(
    family="bridge",
    name="pycni",
    sets=(SetType("macs", ("ifname", "ether_addr")), SetType("guarded", ("ifname",))),
    chains={
        "prerouting": (
            "type filter hook prerouting priority -300; policy accept;",
            "iifname @guarded iifname . ether saddr != @macs drop",
        ),
    },
)


def with_admin(table: Table, text: str) -> Table:
    """*table* with the administrator's rules *text* in its chain admin; *table* itself where there is no rule."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return table.replace(chains={**table.chains, "admin": ("", *lines)}) if lines else table


def render_rebuild(table: Table, elements: Iterable[Element]) -> str:
    """One transaction that puts *table* anew in place of whatever has its name, with *elements* in its sets.

    Without the marker chain: that is added when everything that belongs into the table is there.
    """
    where = f"{table.family} {table.name}"
    # "delete" of what is not there fails the transaction, and nft before 1.0.7 has no "destroy": so add, then delete.
    return f"add table {where}\ndelete table {where}\n{table.render()}{render_elements(table, elements)}"


def render_marker(table: Table) -> str:
    """The command that marks *table* as complete."""
    return f"add chain {table.family} {table.name} {table.marker()}\n"


def render_elements(table: Table, elements: Iterable[Element]) -> str:
    """An `add element` command for each of *elements*."""
    return "".join(f"add element {table.family} {table.name} {e.set} {{ {_element(table, e)} }}\n" for e in elements)


def _element(table: Table, element: Element) -> str:
    spec = table.set_named(element.set)
    if spec is None:
        raise KeyError(element.set)
    out = " . ".join(
        f'"{part}"' if field == "ifname" else part for part, field in zip(element.key, spec.fields, strict=True)
    )
    if element.comment:
        out += f' comment "{element.comment}"'
    return f"{out} : {' . '.join(element.data)}" if element.data else out
