"""iptables of one family and variant: what `pycni.host.iptables_firewall` and `pycni.host.forward` work with.

Changes are `iptables-restore --noflush` transactions under a lock; whether rules are in place is asked of nf_tables
directly (iptables-nft keeps its rules there) in constant time, or of `iptables-legacy -S`.
"""

from __future__ import annotations

import errno
import os
from fcntl import LOCK_EX, flock

from pycni.firewall.iptables_text import (
    ADMIN,
    ANSWER,
    ISOLATED,
    OPEN,
    PASS,
    PREFIX,
    admin_chains,
    count_uses,
    render_install,
    render_purge,
    render_remnant,
    render_remove,
    unused_chains,
)
from pycni.host.forward import legacy_tables
from pycni.host.program import find, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pycni.firewall.iptables_text import Unit
    from pycni.host.nfnetlink import Nfnetlink

WAIT = ("-w", "30")  # seconds for /run/xtables.lock: kube-proxy on a big legacy ruleset holds it for some
VERSIONS = {"ip": 4, "ip6": 6}
COMMANDS = {"ip": "iptables", "ip6": "ip6tables"}


def installed() -> bool:
    """Whether this host has iptables of some variant."""
    return find("iptables-restore") is not None


def variant_here(kernel: Nfnetlink) -> str:
    """ "nft" or "legacy": what this host's iptables rules are made with.

    The installed default, unless only legacy tables are in use: rules of both kinds on one host are hard to read and
    apply in an order nobody expects.
    """
    default = default_variant()
    only_legacy = legacy_tables("ip") and not any(kernel.has_table("ip", table) for table in ("nat", "filter"))
    if only_legacy and find("iptables-legacy-restore"):
        return "legacy"
    return default


def default_variant() -> str:
    """The variant of the program `iptables`."""
    program = find("iptables-restore")
    if program is None:
        raise OSError(errno.ENOSYS, "iptables-restore is not installed")
    target = os.path.realpath(program)
    if "legacy" in target or "nft" in target:
        return "legacy" if "legacy" in target else "nft"
    return "nft" if "nf_tables" in run((program, "--version"))[1] else "legacy"  # "iptables-restore v1.8.9 (nf_tables)"


class Iptables:
    """iptables of one *family* ("ip", "ip6") and *variant* ("nft", "legacy")."""

    def __init__(self, kernel: Nfnetlink, family: str, variant: str) -> None:
        self._kernel = kernel
        self.family = family
        self.variant = variant

    def _program(self, suffix: str) -> str:
        command = COMMANDS[self.family]
        found = find(f"{command}-{self.variant}{suffix}")
        if found is None and default_variant() == self.variant:
            found = find(f"{command}{suffix}")
        if found is None:
            raise OSError(errno.ENOSYS, f"{command}-{self.variant}{suffix} is not installed")
        return found

    def restore(self, text: str) -> None:
        """Run *text* as one transaction per table; OSError with the tool's message."""
        status, _, message = run((self._program("-restore"), "--noflush", *WAIT), text)
        if status:
            denied = "Permission denied" in message or "must be root" in message
            raise OSError(
                errno.EPERM if denied else errno.EINVAL, f"{COMMANDS[self.family]}-restore: {message.strip()}"
            )

    def listing(self, table: str) -> list[str]:
        """What `-S` says of *table*; [] where legacy has no such table."""
        if self.variant == "legacy" and table not in legacy_tables(self.family):
            return []
        status, out, message = run((self._program(""), *WAIT, "-t", table, "-S"))
        if status:
            raise OSError(errno.EINVAL, f"{COMMANDS[self.family]} -S: {message.strip()}")
        return out.splitlines()

    def uses(self, units: Sequence[Unit]) -> dict[Unit, int]:
        """How many rules each of *units* has now, in its chain and jumping there."""
        if self.variant == "nft":
            return {unit: self._kernel.chain_use(self.family, unit.table, unit.chain) for unit in units}
        listings = {table: self.listing(table) for table in {unit.table for unit in units}}
        return {unit: count_uses(listings[unit.table], unit.chain) for unit in units}

    def use_of(self, table: str, chain: str) -> int:
        """How many rules a chain has and how many jump to it, together."""
        if self.variant == "nft":
            return self._kernel.chain_use(self.family, table, chain)
        return count_uses(self.listing(table), chain)

    def absent(self, units: Sequence[Unit]) -> tuple[Unit, ...]:
        """Those of *units* that are not wholly in place."""
        return tuple(unit for unit, count in self.uses(units).items() if count != unit.uses)

    def install(self, units: Sequence[Unit]) -> None:
        """Put *units* in place; nothing is executed where they are."""
        if not self.absent(units):
            return
        lock = lock_rules()
        try:
            wanted = self.absent(units)
            self._unhook(wanted)
            if wanted:
                self.restore(render_install(wanted, self._new_chains(wanted), self._lines_for(wanted)))
        finally:
            os.close(lock)

    def remove(self, units: Sequence[Unit]) -> None:
        """Take *units* away, whole or in pieces; nothing is executed where there is nothing."""
        lock = lock_rules()
        try:
            whole = [unit for unit, count in self.uses(units).items() if count == unit.uses]
            if whole:
                self.restore(render_remove(whole))
            self._drop_unused({rule[3:] for unit in units if unit.kind == ADMIN for rule in unit.rules})
            self.remove_remnants(self.present([unit for unit in units if unit not in whole]))
        finally:
            os.close(lock)

    def remove_remnants(self, units: Iterable[Unit]) -> None:
        """Take away what there is of *units*, of which somebody removed parts."""
        for unit in units:
            self.restore(render_remnant(unit, self.listing(unit.table)))

    def present(self, units: Sequence[Unit]) -> list[Unit]:
        """Those of *units* of which there is anything: the chain at least, if without a rule."""
        if self.variant == "nft":
            return [unit for unit in units if self._kernel.has_chain(self.family, unit.table, unit.chain)]
        listings = {table: self.listing(table) for table in {unit.table for unit in units}}
        return [unit for unit in units if f"-N {unit.chain}" in listings[unit.table]]

    def has_chain(self, table: str, chain: str) -> bool:
        if self.variant == "nft":
            return self._kernel.has_chain(self.family, table, chain)
        return f"-N {chain}" in self.listing(table)

    def purge(self, keep: Iterable[Unit] = ()) -> list[str]:
        """Remove every chain whose name begins with PYCNI-, but those of *keep*, and what jumps to it; their names."""
        kept = {unit.chain for unit in keep}
        removed: list[str] = []
        lock = lock_rules()
        try:
            for table in ("filter", "nat"):
                if self.variant == "nft" and not self._kernel.has_table(self.family, table):
                    continue
                lines = self.listing(table)
                text, chains = render_purge(table, lines, kept)
                removed += chains
                if text:
                    self.restore(text)
                    self._drop_unused(admin_chains(lines))
        finally:
            os.close(lock)
        return removed

    def _unhook(self, units: Iterable[Unit]) -> None:
        """Remove what jumps to the chains of *units*: found in the listing, because -D of what is not there fails."""
        for unit in units:
            lines = [line for line in self.listing(unit.table) if line.endswith(f" -j {unit.chain}")]
            if lines:
                deletions = "".join(f"-D{line[2:]}\n" for line in lines)
                self.restore(f"*{unit.table}\n{deletions}COMMIT\n")

    def _new_chains(self, units: Iterable[Unit]) -> list[str]:
        wanted = {hook.chain for unit in units for hook in unit.hooks if hook.chain in (ISOLATED, OPEN)}
        wanted |= {name for unit in units for name in (ISOLATED, OPEN) for rule in unit.rules if rule == f"-j {name}"}
        wanted |= {rule[3:] for unit in units if unit.kind == ADMIN for rule in unit.rules}
        there = {line[3:] for line in self.listing("filter") if line.startswith("-N ")} if wanted else set()
        return sorted(wanted - there)

    def _lines_for(self, units: Iterable[Unit]) -> list[str]:
        """The listing that says where in FORWARD *units* belong, where that matters."""
        return self.listing("filter") if any(hook.first for unit in units for hook in unit.hooks) else []

    def _drop_unused(self, chains: set[str]) -> None:
        """Remove the users' *chains* that nobody put a rule into."""
        for chain in unused_chains(self.listing("filter"), chains) if chains else ():
            try:
                self.restore(f"*filter\n-X {chain}\nCOMMIT\n")
            except OSError:
                pass  # somebody has put a rule there this moment: it stays

    def owned_networks(self) -> set[str]:
        """The networks named in the comments of our jumps."""
        out = set()
        for line in (*self.listing("nat"), *self.listing("filter")):
            _, found, rest = line.partition('--comment "pycni ')
            of_link = any(f"-j {PREFIX}{kind}-" in rest for kind in (ANSWER, PASS, ADMIN))  # no network in the comment
            if found and f"-j {PREFIX}" in rest and not of_link:
                out.add(rest.partition('"')[0])
        return out


def lock_rules() -> int:
    """An flock on the network namespace: whoever changes our chains in it (close the descriptor to let go)."""
    lock = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    flock(lock, LOCK_EX)
    return lock
