"""Make a table of the nftables backend: for the first ADD after boot, after a flush, an upgrade, or a change of the
administrator's rules."""

from __future__ import annotations

import errno
import os
from fcntl import LOCK_EX, flock

from pycni.cni.errors import CniError, Code
from pycni.firewall.nft_text import GUARD, MAIN, render_rebuild
from pycni.host import nft_compiled
from pycni.host.nft_messages import add_chain, delete_chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pycni.firewall.nft_text import Table
    from pycni.firewall.rules import Element
    from pycni.host.nfnetlink import Nfnetlink


def make_table(kernel: Nfnetlink, table: Table, fill: Callable[[], bool]) -> None:
    """Make *table* unless it is there in this version, with all elements that another version holds.

    *fill*: adds what else belongs there, False where the table is gone meanwhile: the caller finds no marker then, and
    begins again.
    """
    # An flock on the network namespace itself: it excludes exactly those who work on the same ruleset, and needs
    # no file of ours. Whoever adds elements without this lock has touched the marker in the same transaction.
    lock = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        flock(lock, LOCK_EX)
        if kernel.has_chain(table.family, table.name, table.marker()):
            return  # another process was faster
        if kernel.has_table(table.family, table.name):
            _run(table, render_rebuild(table, _withdraw(kernel, table)))
        else:
            _make(kernel, table)  # without a deletion there is no RCU grace period to wait for
        if fill():
            kernel.batch([add_chain(table, table.marker())])
    finally:
        os.close(lock)


def _make(kernel: Nfnetlink, table: Table) -> None:
    known = nft_compiled.load(table)
    if not known or kernel.batch(known):
        _run(table, table.render())
        nft_compiled.keep(kernel, table)


def _run(table: Table, text: str) -> None:
    from pycni.host import nft

    try:
        nft.run_text(text)
    except OSError as failure:
        if table in (MAIN, GUARD) or failure.errno in (errno.ENOSYS, errno.EPERM):
            raise
        # Going on without these rules would let through what they are there to stop.
        raise CniError(
            Code.FIREWALL,
            f"the administrator's rules of table {table.family} {table.name} cannot be used: "
            f"{failure.strerror or failure}",
            "mend /etc/pycni/admin.nft, or remove it; until then the table stays as it is, and no container is added",
        ) from failure


def _withdraw(kernel: Nfnetlink, table: Table) -> list[Element]:
    """Take the marker of another version off *table*, then read what is in its sets: nobody can add any more."""
    for chain in kernel.chains(table.family):
        name = chain.get(3, b"").rstrip(b"\0").decode()
        if chain.get(1) == table.name.encode() + b"\0" and name.startswith("base_"):
            kernel.batch([delete_chain(table.family, table.name, name)])
    # What leads to a chain of an attachment comes back with the attachment.
    lasting = [spec for spec in table.sets if not spec.name.startswith("cond")]
    return [element for spec in lasting for element in kernel.elements(table, spec.name)]
