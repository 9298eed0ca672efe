"""iptables rules as text for `iptables-restore --noflush`: by network and bridge, never by container.

A *unit* is one chain of ours with its rules and the rules elsewhere that jump to it. The chain's name carries a hash of
all that, so a unit is in place exactly when its chain is referred to by as many rules as the unit has; nothing has to
be compared rule by rule, and a changed configuration is another unit.
"""

from __future__ import annotations

from binascii import crc32
from ipaddress import ip_network

from pycni.cni.value import Value
from pycni.firewall.rules import check_link, friends_of, is_apart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from pycni.firewall.rules import NetworkRules

PREFIX = "PYCNI-"
ISOLATED, OPEN = "PYCNI-ISOLATED", "PYCNI-OPEN"  # what may not be reached from isolated, and from open bridges
ADMIN = "J"  # the kind of unit that only jumps to a chain of the user's: stands before all of ours
PASS, ANSWER = "W", "F"  # the kinds that accept: behind all of ours that drop, and at the end of FORWARD
PORTS = "PYCNI-PORTS"  # what asks the chains of published ports (table nat)
MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}


class Hook(Value):
    """A rule that jumps to a unit's chain; *first*: before everything else in *chain*."""

    chain: str
    match: str
    first: bool = False


class Unit(Value):
    """One chain of ours in *table* and what jumps to it. Rules and matches are what follows `-A CHAIN`."""

    table: str
    kind: str
    rules: tuple[str, ...]
    hooks: tuple[Hook, ...]
    name: str = ""

    @property
    def chain(self) -> str:
        """The chain's name: PYCNI-<kind>-<name, or hash of the rest> (at most 28 characters are allowed)."""
        if self.name:
            return f"{PREFIX}{self.kind}-{self.name}"
        text = "\n".join((self.table, *self.rules, *(f"{hook.chain} {hook.match} {hook.first}" for hook in self.hooks)))
        return f"{PREFIX}{self.kind}-{crc32(text.encode()):08x}"

    @property
    def uses(self) -> int:
        """How many rules are in the chain and jump to it while the unit is in place."""
        return len(self.rules) + len(self.hooks)


def units_of(network: NetworkRules, version: int) -> tuple[Unit, ...]:
    """The units of *network* for the IP *version* 4 or 6: masquerade, isolation, what passes, the user's own chain."""
    return (
        *masquerade_units(network, version),
        *isolation_units(network),
        *(loopback_units(network) if version == 4 else ()),
        *_accepting_units(PASS, network.passing if network.opens else (), first=True),
        *admin_units(network),
    )


def masquerade_units(network: NetworkRules, version: int) -> tuple[Unit, ...]:
    """One unit for each subnet; its containers are masqueraded except to the subnet itself and to multicast."""
    return tuple(
        Unit(
            "nat",
            "M",
            (
                f"-d {subnet} -j RETURN",
                f"-d {MULTICAST[version]} -j RETURN",
                # The gateway address is in the subnet, but it is the host's: only containers are masqueraded.
                "-m addrtype --src-type LOCAL -j RETURN",
                "-j MASQUERADE",
            ),
            (Hook("POSTROUTING", f"-s {subnet} {quoted_comment(network.network)}"),),
        )
        for subnet in (network.subnets if network.masquerades else ())
        if ip_network(subnet).version == version
    )


def isolation_units(network: NetworkRules) -> tuple[Unit, ...]:
    """Two units for each bridge: where its packets may not go, and who may not send to it; a third keeps its own
    containers apart, whose packets come by here where the host routes them, or br_netfilter shows bridged ones.

    From an isolated bridge no other bridge of ours is reached, from an open one no isolated one; what a port mapping
    has translated passes. The first unit stands at the head of FORWARD, so no accept rule comes before it.
    """
    out = []
    for link in map(check_link, network.bridges):
        out.append(Unit("filter", "D", ("-j DROP",), tuple(Hook(chain, f"-o {link}") for chain in _guards(network))))
        target = ISOLATED if network.isolate else OPEN
        within = (f"-o {check_link(other)} -j RETURN" for other in friends_of(network, link))
        rules = ("-m conntrack --ctstate DNAT -j RETURN", *within, f"-j {target}")
        out.append(
            Unit(
                "filter",
                "S",
                rules,
                (Hook("FORWARD", f"-i {link} ! -o {link} {quoted_comment(network.network)}", first=True),),
            )
        )
        if is_apart(network, link):
            rules = ("-m conntrack --ctstate DNAT -j RETURN", "-j DROP")
            hook = Hook("FORWARD", f"-i {link} -o {link} {quoted_comment(network.network)}", first=True)
            out.append(Unit("filter", "A", rules, (hook,)))
    return tuple(out)


def loopback_units(network: NetworkRules) -> tuple[Unit, ...]:
    """One unit for each link with route_localnet: who is behind it does not reach what listens on 127.0.0.1, and does
    not speak to the host from there. Only answers of published ports do, when they are translated back: ESTABLISHED
    would also let in what is forged for a flow of the host with itself."""
    other = f"-m conntrack ! --ctstate DNAT {quoted_comment(network.network)}"
    ways = ("-d 127.0.0.0/8", "-s 127.0.0.0/8")
    return tuple(
        Unit("filter", "L", ("-j DROP",), tuple(Hook("INPUT", f"-i {link} {way} {other}", first=True) for way in ways))
        for link in map(check_link, network.loopback)
    )


def _guards(network: NetworkRules) -> tuple[str, ...]:
    return (ISOLATED, OPEN) if network.isolate else (ISOLATED,)


def admin_units(network: NetworkRules) -> tuple[Unit, ...]:
    """The unit that asks the user's chain first of all. One for all networks that name the same chain, which itself is
    the user's: made where it is missing, and never emptied."""
    if not network.admin_chain:
        return ()
    hook = Hook("FORWARD", quoted_comment(network.admin_chain), first=True)
    return (Unit("filter", ADMIN, (f"-j {network.admin_chain}",), (hook,)),)


def forward_units(network: NetworkRules) -> tuple[Unit, ...]:
    """One unit for each link that lets its containers through a FORWARD chain whose policy is DROP.

    Appended to FORWARD: whatever an administrator drops there stays dropped, only the policy is answered.
    New connections from outside pass where a port mapping has translated them.
    """
    return _accepting_units(ANSWER, (*network.bridges, *network.passing), first=False)


def _accepting_units(kind: str, links: Iterable[str], *, first: bool) -> tuple[Unit, ...]:
    """What lets the containers behind each of *links* out, and the answers and published ports in."""
    return tuple(
        Unit(
            "filter",
            kind,
            (f"-i {link} -j ACCEPT", f"-o {link} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"),
            (Hook("FORWARD", quoted_comment(link), first),),
        )
        for link in map(check_link, dict.fromkeys(links))
    )


def render_install(units: Iterable[Unit], new_chains: Iterable[str] = (), lines: Sequence[str] = ()) -> str:
    """Text that puts *units* in place whose hooks are not there; *new_chains* of table filter are made before.

    Declaring a chain (`:NAME`) empties it under --noflush, so what is left of the unit does not double. *lines*: what
    `-S` says of table filter, so that users' chains stay before the units, and what accepts behind what drops.
    """
    out = []
    behind = _head_length(lines)
    for table, of_table in _by_table(units):
        members = sorted(of_table, key=lambda unit: (unit.kind != PASS, unit.kind == ADMIN))
        out.append(f"*{table}\n")
        out += [f":{unit.chain} - [0:0]\n" for unit in members]
        if table == "filter":
            out += [f"-N {name}\n" for name in new_chains]
        for unit in members:
            out += [f"-A {unit.chain} {rule}\n" for rule in unit.rules]
            out += [_put(unit, hook, behind) for hook in unit.hooks]
        if table == "filter" and any(hook.first for unit in members for hook in unit.hooks):
            out += [f"-D{line[2:]}\n-I{line[2:]}\n" for line in lines if _jumps_to(line, ADMIN)]
        out.append("COMMIT\n")
    return "".join(out)


def render_remove(units: Iterable[Unit]) -> str:
    """Text that takes *units* away that are wholly in place."""
    out = []
    for table, members in _by_table(units):
        out.append(f"*{table}\n")
        for unit in members:
            out += [f"-D {_jump(unit, hook)}\n" for hook in unit.hooks]
            out += [f"-F {unit.chain}\n", f"-X {unit.chain}\n"]
        out.append("COMMIT\n")
    return "".join(out)


def render_remnant(unit: Unit, lines: Iterable[str]) -> str:
    """Text that takes away what there is of *unit*, where *lines* is what `-S` says of its table: found in there,
    because -D of what is not there fails."""
    jumps = [f"-D{line[2:]}\n" for line in lines if line.endswith(f" -j {unit.chain}")]
    return f"*{unit.table}\n:{unit.chain} - [0:0]\n{''.join(jumps)}-X {unit.chain}\nCOMMIT\n"


def render_purge(table: str, lines: Sequence[str], keep: Collection[str] = ()) -> tuple[str, list[str]]:
    """Text that removes every chain of ours but those in *keep*, and what jumps to it; and the names of these chains.

    *lines* is what `iptables -S` says of *table*. ISOLATED, OPEN and PORTS stay as long as any chain is kept.
    """
    keep = {*keep, ISOLATED, OPEN, PORTS} if keep else set()
    listed = [line.split() for line in lines]
    chains = [words[1] for words in listed if words[0] == "-N" and words[1].startswith(PREFIX) and words[1] not in keep]
    if not chains:
        return "", []
    jumps = [
        "-D" + line[2:]
        for line, words in zip(lines, listed, strict=True)
        if words[0] == "-A" and words[1] not in chains and _target(words) in chains
    ]
    empty = [f":{chain} - [0:0]" for chain in chains]
    return "\n".join((f"*{table}", *empty, *jumps, *(f"-X {chain}" for chain in chains), "COMMIT", "")), chains


def admin_chains(lines: Iterable[str]) -> set[str]:
    """The users' chains that are asked, among what `-S` says of table filter."""
    listed = [line.split() for line in lines if line.startswith(f"-A {PREFIX}{ADMIN}-")]
    return {_target(words) for words in listed}


def unused_chains(lines: Iterable[str], chains: Collection[str]) -> list[str]:
    """Those of *chains* that have no rule, and that no rule refers to."""
    listed = [line.split() for line in lines]
    there = {words[1] for words in listed if words[0] == "-N"}
    used = {word for words in listed if words[0] == "-A" for word in (words[1], _target(words))}
    return sorted(there.intersection(chains) - used)


def count_uses(lines: Iterable[str], chain: str) -> int:
    """How many rules are in *chain* and jump to it, given what `iptables -S` says."""
    rules = [line.split() for line in lines if line.startswith("-A ")]
    return sum((words[1] == chain) + (_target(words) == chain) for words in rules)


def _head_length(lines: Iterable[str]) -> int:
    """How many rules FORWARD begins with up to the last of ours that may drop."""
    forward = [line for line in lines if line.startswith("-A FORWARD ")]
    ours = [
        number
        for number, line in enumerate(forward, 1)
        if f" -j {PREFIX}" in line and not _jumps_to(line, PASS) and not _jumps_to(line, ANSWER)
    ]
    return max(ours, default=0)


def _put(unit: Unit, hook: Hook, behind: int) -> str:
    if not hook.first:
        return f"-A {_jump(unit, hook)}\n"
    place = f" {behind + 1}" if unit.kind == PASS and behind else ""
    return f"-I {hook.chain}{place} {hook.match} -j {unit.chain}\n"


def _jumps_to(line: str, kind: str) -> bool:
    return line.startswith("-A ") and f" -j {PREFIX}{kind}-" in line


def _target(words: list[str]) -> str:
    return words[words.index("-j") + 1] if "-j" in words[:-1] else ""


def _jump(unit: Unit, hook: Hook) -> str:
    return f"{hook.chain} {hook.match} -j {unit.chain}"


def quoted_comment(text: str) -> str:
    """The match that puts *text*, a network or an owner, into a rule as comment."""
    return f'-m comment --comment "pycni {text}"'


def _by_table(units: Iterable[Unit]) -> list[tuple[str, list[Unit]]]:
    tables: dict[str, list[Unit]] = {}
    for unit in units:
        tables.setdefault(unit.table, []).append(unit)
    return sorted(tables.items())
