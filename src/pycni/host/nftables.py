"""The nftables backend: elements into a table with a constant number of rules.

The fast path is one transaction: it touches the chain that marks this version of the table, and adds elements.
ENOENT says that the table is not there or is another version's; only then is the table made, under a lock.
"""

from __future__ import annotations

import errno
import os
from fcntl import LOCK_EX, flock

from pycni.firewall.nft_text import GUARD, MAIN, render_rebuild
from pycni.firewall.rules import (
    comment_of,
    guard_elements,
    odd_elements,
    own_elements,
    shared_elements,
    unused_elements,
)
from pycni.host.firewall import refused
from pycni.host.forward import close_all_forward, close_forward, open_forward
from pycni.host.nfnetlink import (
    Nfnetlink,
    add_chain,
    add_element,
    delete_chain,
    delete_element,
    delete_table,
    open_nfnetlink,
    touch_chain,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.firewall.nft_text import Table
    from pycni.firewall.rules import AttachmentRules, Element, NetworkRules
    from pycni.host.firewall import Everyone
    from pycni.host.nfnetlink import Message

TRIES = 32  # each try of a transaction settles at least one reason of its failure; more means somebody undoes our work


def usable() -> bool:
    """Whether nftables can be used here: the kernel has nf_tables, and something is there that makes the table.

    The table itself is proof enough, and the cheapest to look for.
    """
    try:
        with open_nfnetlink() as kernel:
            if kernel.has_table(MAIN.family, MAIN.name):
                return True
            if not kernel.has_nf_tables():
                return False
    except OSError:
        return False
    from pycni.host import nft

    return nft.installed()


def delete_tables(kernel: Nfnetlink) -> None:
    """Delete the tables of pycni, each where it is."""
    for table in (MAIN, GUARD):
        if kernel.has_table(table.family, table.name):
            for number in kernel.batch([delete_table(table.family, table.name)]).values():
                if number != errno.ENOENT:
                    raise OSError(number, f"table {table.family} {table.name}: {os.strerror(number)}")


class NftFirewall:
    """See Firewall. One netlink socket, of the namespace of the thread that made the object."""

    name = "nftables"

    def __init__(self) -> None:
        try:
            self._kernel = open_nfnetlink()
        except OSError as failure:
            raise refused(failure, "nftables cannot be used") from failure

    def close(self) -> None:
        self._kernel.close()

    # ---- ADD -----------------------------------------------------------------------------------------------------

    def apply_add(self, network: NetworkRules, attachment: AttachmentRules, everyone: Everyone | None = None) -> None:
        try:
            wanted = _Addition(network, attachment)
            for table in wanted.tables:
                # Asked, not found out by the transaction: the kernel ends a failed one by waiting for an RCU grace
                # period (nf_tables_abort), 12 ms against 0.03.
                if not self._kernel.has_chain(table.family, table.name, table.marker()):
                    self._ensure(table, everyone)
            for _ in range(TRIES):
                lacking = self._add(wanted, marked=True)
                if lacking is None:
                    break
                self._ensure(lacking, everyone)
            else:
                raise OSError(errno.EAGAIN, "somebody keeps removing the table")
            if network.forward:
                open_forward(self._kernel, network)
        except OSError as failure:
            raise refused(failure, f"the rules of {attachment.owner} cannot be added") from failure

    def _add(self, wanted: _Addition, *, marked: bool) -> Table | None:
        """Add all elements of *wanted*; the table to make first, where it is not there in this version."""
        for _ in range(TRIES):
            steps = wanted.steps(marked=marked)
            failed = self._kernel.batch([message for _, _, message in steps])
            if not failed:
                return None
            for position, number in failed.items():
                table, element, _ = steps[position]
                if number == errno.ENOENT and element in wanted.replaced:
                    wanted.replaced.clear()  # what was to be replaced went meanwhile
                elif number == errno.ENOENT and (element is None or not marked):
                    return table  # the marker, or all of it
                elif number == errno.EEXIST and element is not None:
                    wanted.resolve(element)
                else:
                    raise OSError(number, f"{table.family} {table.name}: {os.strerror(number)}")
        raise OSError(errno.EAGAIN, "the ruleset keeps changing")

    def _ensure(self, table: Table, everyone: Everyone | None) -> None:
        """Make *table*, with all elements that an older version of it holds and all that *everyone* needs."""
        # An flock on the network namespace itself: it excludes exactly those who work on the same ruleset, and needs
        # no file of ours. Whoever adds elements without this lock has touched the marker in the same transaction.
        lock = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            flock(lock, LOCK_EX)
            if self._kernel.has_chain(table.family, table.name, table.marker()):
                return  # another process was faster
            from pycni.host import nft  # not on the way of every other ADD

            if self._kernel.has_table(table.family, table.name):
                nft.run_text(render_rebuild(table, self._withdraw(table)))
            else:
                nft.run_text(table.render())  # without a deletion there is no RCU grace period to wait for
            for network, attachment in everyone() if everyone else ():
                if self._add(_Addition(network, attachment, only=table), marked=False) is not None:
                    return  # somebody flushed it meanwhile: the caller finds no marker and begins again
            self._kernel.batch([add_chain(table, table.marker())])
        finally:
            os.close(lock)

    def _withdraw(self, table: Table) -> list[Element]:
        """Take the marker of another version off *table*, then read what is in its sets: nobody can add any more."""
        for chain in self._kernel.chains(table.family):
            name = chain.get(3, b"").rstrip(b"\0").decode()
            if chain.get(1) == table.name.encode() + b"\0" and name.startswith("base_"):
                self._kernel.batch([delete_chain(table.family, table.name, name)])
        return [element for spec in table.sets for element in self._kernel.elements(table, spec.name)]

    # ---- DEL -----------------------------------------------------------------------------------------------------

    def apply_delete(
        self, attachment: AttachmentRules, network: NetworkRules | None = None, others: Iterable[NetworkRules] = ()
    ) -> None:
        try:
            self._delete(MAIN, self._owned(attachment))
            if attachment.macs:
                self._delete(GUARD, [one for one in guard_elements(attachment) if self._is_own(GUARD, one)])
            if network is not None:
                self._delete(MAIN, self._present(unused_elements(network, others)))
                close_forward(self._kernel, network, others)
        except OSError as failure:
            raise refused(failure, f"the rules of {attachment.owner} cannot be removed") from failure

    def _owned(self, attachment: AttachmentRules) -> list[Element]:
        """The elements of *attachment* in the kernel: by its addresses, and only where the comment is its owner.

        An address may belong to somebody else by now: an IPAM of another make frees it before its rules are gone.
        """
        out = []
        for element in own_elements(attachment):
            odd, own = (element.replace(set=element.set.replace("masq", name)) for name in ("odd", "own"))
            own = own.replace(key=own.key * 2)
            held = self._kernel.holder(MAIN, own)
            out += [one for one in (element, odd) if self._is_own(MAIN, one)]
            out += [held] if held is not None and held.comment == element.comment else []
        return out

    def _is_own(self, table: Table, element: Element) -> bool:
        found = self._kernel.element(table, element)
        return found is not None and found.comment == element.comment

    def _present(self, elements: Iterable[Element]) -> list[Element]:
        # Deleting from an interval set by a key whose range is not there takes the range that holds its first
        # address (nft_pipapo_deactivate looks up one point), so look before.
        return [one for one in elements if self._kernel.element(MAIN, one) is not None]

    def _delete(self, table: Table, elements: Iterable[Element]) -> None:
        """Delete *elements* in one transaction; those that are gone already are left out of it."""
        left = list(elements)
        for _ in range(TRIES):
            failed = self._kernel.batch([delete_element(table, one) for one in left]) if left else {}
            if not failed:
                return
            for number in failed.values():
                if number != errno.ENOENT:
                    raise OSError(number, f"{table.family} {table.name}: {os.strerror(number)}")
            left = [one for position, one in enumerate(left) if position not in failed]

    def remove_all(self) -> None:
        try:
            delete_tables(self._kernel)
            close_all_forward(self._kernel)
        except OSError as failure:
            raise refused(failure, "the tables of pycni cannot be removed") from failure

    # ---- CHECK, GC -----------------------------------------------------------------------------------------------

    def missing(self, network: NetworkRules, attachment: AttachmentRules) -> tuple[str, ...]:
        out = []
        for table in (MAIN, GUARD) if attachment.macs else (MAIN,):
            if not self._kernel.has_chain(table.family, table.name, table.marker()):
                out.append(f"table {table.family} {table.name} of this version")
            else:
                out += [f"rules of chain {chain}" for chain in self._short_chains(table)]
        for element in (*shared_elements(network), *own_elements(attachment)):
            if self._kernel.element(MAIN, element) is None and not self._stands_apart(network, attachment, element):
                out.append(f"{element.set} {' . '.join(element.key)} in table inet pycni")
        for element in guard_elements(attachment):
            if self._kernel.element(GUARD, element) is None:
                out.append(f"{element.set} {' . '.join(element.key)} in table bridge pycni")
        return tuple(out)

    def _short_chains(self, table: Table) -> list[str]:
        """The chains of *table* with fewer rules than they were made with (`nft flush table` leaves the chains)."""
        use = self._kernel.chain_use
        return [name for name, rules in table.chains.items() if use(table.family, table.name, name) < len(rules) - 1]

    def _stands_apart(self, network: NetworkRules, attachment: AttachmentRules, element: Element) -> bool:
        """Whether *element* is rightly absent: a subnet that overlaps another one is told address by address."""
        if not element.set.startswith(("local", "masq")):
            return False
        subnets = element.key[:1] if element.set.startswith("local") else network.subnets
        apart = [one for subnet in subnets for one in odd_elements(network, attachment, subnet)]
        apart = [one for one in apart if element.set.startswith("local") or one.key[0] == element.key[0]]
        return bool(apart) and all(self._kernel.element(MAIN, one) is not None for one in apart)

    def repair(self) -> None:
        for table in (MAIN, GUARD):
            if self._kernel.has_chain(table.family, table.name, table.marker()) and self._short_chains(table):
                # What has no marker is made anew, with the elements it has.
                self._kernel.batch([delete_chain(table.family, table.name, table.marker())])

    def owners(self) -> frozenset[str]:
        return frozenset(one.comment for table, one in self._everything() if one.comment)

    def _everything(self) -> list[tuple[Table, Element]]:
        sets = [(table, spec.name) for table in (MAIN, GUARD) for spec in table.sets]
        return [(table, one) for table, name in sets for one in self._kernel.elements(table, name)]

    def collect(self, wanted: Iterable[tuple[NetworkRules, AttachmentRules]]) -> tuple[str, ...]:
        alive = list(wanted)
        owners = {comment_of(attachment.owner) for _, attachment in alive}
        needed = {one for network, _ in alive for one in shared_elements(network)}
        out = []
        for table in (MAIN, GUARD):
            stale = [
                one
                for owner, one in self._everything()
                if owner is table and (one.comment not in owners if one.comment else one not in needed)
            ]
            self._delete(table, stale)
            where = f"{table.family} {table.name}"
            out += [f"{where}: {one.set} {' . '.join(one.key)} {one.comment}".rstrip() for one in stale]
        if not alive:
            self.remove_all()
        return tuple(out)


class _Addition:
    """The elements of one ADD, and what is learnt while adding them."""

    def __init__(self, network: NetworkRules, attachment: AttachmentRules, only: Table | None = None) -> None:
        self._network = network
        self._attachment = attachment
        self._elements = {MAIN.family: [*shared_elements(network), *own_elements(attachment)]}
        self._elements[GUARD.family] = list(guard_elements(attachment))
        self.tables = [table for table in (MAIN, GUARD) if self._elements[table.family] and only in (None, table)]
        self.replaced: set[Element] = set()

    def steps(self, *, marked: bool) -> list[tuple[Table, Element | None, Message]]:
        """The transaction: (table, element, message). Own elements must be new, so that none has a stale owner."""
        out: list[tuple[Table, Element | None, Message]] = []
        for table in self.tables:
            if marked:
                out.append((table, None, touch_chain(table, table.marker())))
            for one in self._elements[table.family]:
                if one in self.replaced:
                    out.append((table, one, delete_element(table, one)))
                out.append((table, one, add_element(table, one, exclusive=bool(one.comment))))
        return out

    def resolve(self, element: Element) -> None:
        """*element* is refused as existing: replace one of the same key, stand apart where ranges overlap."""
        if element.comment:
            self.replaced.add(element)
            return
        subnet = element.key[0]
        apart = odd_elements(self._network, self._attachment, subnet)
        out = {one.key for one in apart}
        elements = self._elements[MAIN.family]
        elements.remove(element)
        self._elements[MAIN.family] = [one for one in elements if one.key not in out] + list(apart)
