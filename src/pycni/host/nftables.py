"""The nftables backend: elements into a table with a constant number of rules.

The fast path is one transaction: it touches the chain that marks this version of the table, and adds elements.
ENOENT says that the table is not there or is another version's; only then is the table made, under a lock.
"""

from __future__ import annotations

import errno
import os

from pycni.cni.errors import CniError
from pycni.firewall.nft_text import GUARD, MAIN, with_admin
from pycni.firewall.rules import Element, comment_of, guard_elements, has_own_chain, own_elements, unused_elements
from pycni.host.firewall import refused
from pycni.host.forward import close_all_forward, close_forward, open_forward
from pycni.host.nfnetlink import Nfnetlink, open_nfnetlink
from pycni.host.nft_messages import delete_chain, delete_elements, delete_table, in_groups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.firewall.nft_text import Table
    from pycni.firewall.rules import AttachmentRules, NetworkRules
    from pycni.host.firewall import Everyone
    from pycni.host.nft_addition import Addition

ADMIN_FILE = "/etc/pycni/admin.nft"  # rules of the administrator, for chain admin
TRIES = 32  # each try of a transaction settles at least one reason of its failure; more means somebody undoes our work


def open_usable() -> NftFirewall | None:
    """The backend, where nftables can be used here: the kernel has nf_tables, and something is there that makes the
    table. The table itself is proof enough, and the cheapest to look for.
    """
    try:
        kernel = open_nfnetlink()
    except OSError:
        return None
    try:
        has_table, marked = kernel.has_marked(MAIN)
        if has_table or (kernel.has_nf_tables() and _can_be_made()):
            return NftFirewall(kernel, seen=MAIN if marked else None)
    except OSError:
        pass
    kernel.close()
    return None


def _can_be_made() -> bool:
    from pycni.host import nft  # only before there is a table

    return nft.installed()


def main_table() -> Table:
    """Table inet pycni with the administrator's rules: where their file has changed it is another version."""
    try:
        with open(ADMIN_FILE, encoding="utf-8", errors="replace") as rules:
            return with_admin(MAIN, rules.read())
    except FileNotFoundError:
        return MAIN


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

    def __init__(self, kernel: Nfnetlink | None = None, *, seen: Table | None = None) -> None:
        """*seen*: a table that has been seen just now, in this version."""
        try:
            self._kernel = kernel or open_nfnetlink()
        except OSError as failure:
            raise refused(failure, "nftables cannot be used") from failure
        self._seen = seen

    def close(self) -> None:
        self._kernel.close()

    # ---- ADD -----------------------------------------------------------------------------------------------------

    def apply_add(self, network: NetworkRules, attachment: AttachmentRules, everyone: Everyone | None = None) -> None:
        try:
            wanted = _addition(network, attachment, main_table())
            for table in wanted.tables:
                # Asked, not found out by the transaction: the kernel ends a failed one by waiting for an RCU grace
                # period (nf_tables_abort), 12 ms against 0.03.
                if table != self._seen and not self._kernel.has_chain(table.family, table.name, table.marker()):
                    self._ensure(table, everyone)
            for _ in range(TRIES):
                lacking = self._add(wanted, marked=True)
                if lacking is None:
                    lacking = self._add_conditional(attachment, wanted.main)
                if lacking is None:
                    break
                self._ensure(lacking, everyone)
            else:
                raise OSError(errno.EAGAIN, "somebody keeps removing the table")
            if network.forward:
                open_forward(self._kernel, network, attachment)
        except OSError as failure:
            raise refused(failure, f"the rules of {attachment.owner} cannot be added") from failure

    def _add(self, wanted: Addition, *, marked: bool) -> Table | None:
        """Add all elements of *wanted*; the table to make first, where it is not there in this version."""
        for _ in range(TRIES):
            steps = wanted.steps(marked=marked)
            failed = self._kernel.batch([message for _, _, message in steps])
            if not failed:
                return None
            for position, number in failed.items():
                table, elements, _ = steps[position]
                if number == errno.ENOENT and wanted.replaced.intersection(elements):
                    wanted.replaced.clear()  # what was to be replaced went meanwhile
                elif number == errno.ENOENT and (not elements or not marked):
                    return table  # the marker, or all of it
                elif number == errno.EEXIST and elements:
                    self._resolve(wanted, table, elements)
                else:
                    raise OSError(number, f"{table.family} {table.name}: {os.strerror(number)}")
        raise OSError(errno.EAGAIN, "the ruleset keeps changing")

    def _resolve(self, wanted: Addition, table: Table, elements: list[Element]) -> None:
        """One of *elements* is refused as existing: replace those of the same key, stand apart where subnets overlap.

        CniError 100 where it is another's host port.
        """
        if not elements[0].comment:
            for one in elements:
                wanted.stand_apart(one)
            return
        if wanted.has_ports:
            from pycni.host.nft_ports import refuse_taken

            refuse_taken(self._kernel, elements)
        found = self._kernel.find(table, elements) if len(elements) > 1 else elements
        wanted.replaced.update(one for one, there in zip(elements, found, strict=True) if there is not None)

    def _add_conditional(self, attachment: AttachmentRules, table: Table) -> Table | None:
        """Add what stands in chains of the attachment; the table to make first, where somebody removed it."""
        if not has_own_chain(attachment):
            return None
        from pycni.host.nft_ports import add_conditional

        try:
            add_conditional(self._kernel, attachment)
        except OSError as failure:
            if failure.errno == errno.ENOENT:
                return table
            raise
        return None

    def _ensure(self, table: Table, everyone: Everyone | None) -> None:
        """Make *table*, with all elements that an older version of it holds and all that *everyone* needs."""
        from pycni.host.nft_making import make_table  # not on the way of every other ADD

        if everyone is None:
            make_table(self._kernel, table, lambda: True)
            return
        with everyone as rules:
            make_table(self._kernel, table, lambda: self._add_all(table, rules))

    def _add_all(self, table: Table, all_rules: Iterable[tuple[NetworkRules, AttachmentRules]]) -> bool:
        """Add what stands in *table* of each; False where somebody removed the table meanwhile."""
        for network, attachment in all_rules:
            wanted = _addition(network, attachment, table if table.family == MAIN.family else MAIN, only=table)
            try:
                lacking = self._add(wanted, marked=False)
                if lacking is None and table is wanted.main:
                    lacking = self._add_conditional(attachment, table)
            except CniError:
                continue  # a port that somebody else has got meanwhile: that attachment's CHECK says so
            if lacking is not None:
                return False
        return True

    # ---- DEL -----------------------------------------------------------------------------------------------------

    def apply_delete(
        self, attachment: AttachmentRules, network: NetworkRules | None = None, others: Iterable[NetworkRules] = ()
    ) -> None:
        try:
            if has_own_chain(attachment):
                from pycni.host.nft_ports import delete_conditional

                delete_conditional(self._kernel, attachment)
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
        comment = comment_of(attachment.owner)
        wanted = own_elements(attachment)
        owners = self._kernel.owners(MAIN, wanted)
        out = [one for one, owner in zip(wanted, owners, strict=True) if owner == comment]
        for address in dict.fromkeys((*attachment.masquerade, *(one.address for one in attachment.ports))):
            version = 6 if ":" in address else 4
            odd, own = Element(f"odd{version}", (address,), comment), Element(f"own{version}", (address, address))
            held = self._kernel.holder(MAIN, own)
            out += [
                one for one in (self._kernel.element(MAIN, odd), held) if one is not None and one.comment == comment
            ]
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
            groups = in_groups(left)
            failed = self._kernel.batch([delete_elements(table, group) for group in groups]) if left else {}
            if not failed:
                return
            for number in failed.values():
                if number != errno.ENOENT:
                    raise OSError(number, f"{table.family} {table.name}: {os.strerror(number)}")
            left = [one for one, found in zip(left, self._kernel.find(table, left), strict=True) if found is not None]

    def remove_all(self) -> None:
        try:
            delete_tables(self._kernel)
            close_all_forward(self._kernel)
        except OSError as failure:
            raise refused(failure, "the tables of pycni cannot be removed") from failure

    # ---- CHECK, GC -----------------------------------------------------------------------------------------------

    def missing(self, network: NetworkRules, attachment: AttachmentRules) -> tuple[str, ...]:
        from pycni.host.nft_survey import missing

        wanted = _addition(network, attachment, main_table())
        return tuple(missing(self._kernel, wanted.tables, network, attachment))

    def repair(self) -> None:
        from pycni.host.nft_survey import short_chains

        for table in (main_table(), GUARD):
            marked = self._kernel.has_chain(table.family, table.name, table.marker())
            if marked and short_chains(self._kernel, table):
                # What has no marker is made anew, with the elements it has.
                self._kernel.batch([delete_chain(table.family, table.name, table.marker())])

    def owners(self) -> frozenset[str]:
        from pycni.host.nft_survey import everything

        return frozenset(one.comment for _, one in everything(self._kernel) if one.comment)

    def collect(self, wanted: Iterable[tuple[NetworkRules, AttachmentRules]]) -> tuple[str, ...]:
        from pycni.host.nft_survey import stale

        alive = list(wanted)
        out = []
        for table, elements in stale(self._kernel, alive).items():
            self._delete(MAIN if table == MAIN.family else GUARD, elements)
            where = f"{table} {MAIN.name}"
            out += [f"{where}: {one.set} {' . '.join(one.key)} {one.comment}".rstrip() for one in elements]
        if not alive:
            self.remove_all()
        elif any(f"{MAIN.name}: cond" in one for one in out):
            from pycni.host.nft_ports import collect_conditional

            out += collect_conditional(self._kernel, {attachment.owner for _, attachment in alive})
        return tuple(out)


def _addition(network: NetworkRules, attachment: AttachmentRules, main: Table, only: Table | None = None) -> Addition:
    from pycni.host.nft_addition import Addition  # not for DEL

    return Addition(network, attachment, main, only)
