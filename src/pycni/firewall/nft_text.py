"""The nftables backend as text: two tables, each a constant number of rules over sets.

`Table` is the one description of a table: the text that makes it, the types of its sets (from which
`pycni.host.nfnetlink` encodes elements) and the name of the empty chain that says which version of it is in the kernel.
"""

from __future__ import annotations

from binascii import crc32

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.firewall.rules import Element


class SetType(Value):
    """A set: the types of its key's fields; *interval* if each field is a prefix."""

    name: str
    fields: tuple[str, ...]
    interval: bool = False

    def render(self) -> str:
        flags = " flags interval;" if self.interval else ""
        return f"    set {self.name} {{ type {' . '.join(self.fields)};{flags} }}\n"


class Table(Value):
    """One nft table: `family` `name`, its sets, its base chains (the hook and the rules of each)."""

    family: str
    name: str
    sets: tuple[SetType, ...]
    chains: dict[str, tuple[str, ...]]

    def render(self) -> str:
        """The text that makes the table where it is not."""
        out = [f"table {self.family} {self.name} {{\n", *(one.render() for one in self.sets)]
        for name, (hook, *rules) in self.chains.items():
            out.append(f"    chain {name} {{\n        {hook}\n")
            out += [f"        {rule}\n" for rule in rules]
            out.append("    }\n")
        return "".join(out) + "}\n"

    def marker(self) -> str:
        """The chain whose existence says that this very text is in the kernel, complete."""
        return f"base_{crc32(self.render().encode()):08x}"

    def set_named(self, name: str) -> SetType | None:
        """The set *name*, None if this version has no such set."""
        return next((s for s in self.sets if s.name == name), None)


# postrouting stands after srcnat (100): whoever translates at the standard priority (port mapping, an administrator's
# SNAT rule) has decided first, and nat rules see a connection's packet only until one of them has decided.
# Multicast is never masqueraded, as in the reference plugins.
# forward stands just before filter (0): a verdict "accept" there only ends our chain, "drop" is final. DNAT first:
# a published port of another network is meant to be reached.
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
    ),
    chains={
        "postrouting": (
            "type nat hook postrouting priority srcnat + 10; policy accept;",
            "ip daddr 224.0.0.0/4 return",
            "ip6 daddr ff00::/8 return",
            "ip saddr @masq4 ip saddr . ip daddr != @local4 masquerade",
            "ip6 saddr @masq6 ip6 saddr . ip6 daddr != @local6 masquerade",
            "ip saddr @odd4 ip saddr . ip daddr != @own4 masquerade",
            "ip6 saddr @odd6 ip6 saddr . ip6 daddr != @own6 masquerade",
        ),
        "forward": (
            "type filter hook forward priority filter - 5; policy accept;",
            "ct status dnat accept",
            "iifname . oifname @same accept",
            "iifname @bridges oifname @isolated drop",
            "iifname @isolated oifname @bridges drop",
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
    key = " . ".join(
        f'"{part}"' if field == "ifname" else part for part, field in zip(element.key, spec.fields, strict=True)
    )
    return f'{key} comment "{element.comment}"' if element.comment else key
