"""What one ADD puts into the tables of nftables, as messages of one transaction."""

from __future__ import annotations

from pycni.firewall.nft_text import GUARD, MAIN
from pycni.firewall.rules import guard_elements, odd_elements, own_elements, shared_elements
from pycni.host.nft_messages import add_elements, delete_elements, flush_chain, in_groups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.firewall.nft_text import Table
    from pycni.firewall.rules import AttachmentRules, Element, NetworkRules
    from pycni.host.nft_messages import Message


class Addition:
    """The elements of one ADD, and what is learnt while adding them."""

    def __init__(
        self, network: NetworkRules, attachment: AttachmentRules, main: Table, only: Table | None = None
    ) -> None:
        self._network = network
        self._attachment = attachment
        self._elements = {MAIN.family: [*shared_elements(network), *own_elements(attachment)]}
        self._elements[GUARD.family] = list(guard_elements(attachment))
        self.main = main
        self.tables = [table for table in (main, GUARD) if self._elements[table.family] and only in (None, table)]
        self.has_ports = bool(attachment.ports)
        self.replaced: set[Element] = set()

    def steps(self, *, marked: bool) -> list[tuple[Table, list[Element], Message]]:
        """The transaction: (table, elements, message). Own elements must be new, so that none has a stale owner."""
        out: list[tuple[Table, list[Element], Message]] = []
        for table in self.tables:
            if marked:
                out.append((table, [], flush_chain(table, table.marker())))
            for group in in_groups(self._elements[table.family]):
                old = [one for one in group if one in self.replaced]
                if old:
                    out.append((table, old, delete_elements(table, old)))
                out.append((table, group, add_elements(table, group, exclusive=bool(group[0].comment))))
        return out

    def stand_apart(self, element: Element) -> None:
        """The subnet of *element* overlaps another one's: tell it address by address."""
        apart = odd_elements(self._network, self._attachment, element.key[0])
        out = {one.key for one in apart if one.set.startswith("odd")}
        members = [
            one
            for one in self._elements[MAIN.family]
            if one != element and not (one.set.startswith("masq") and one.key in out)
        ]
        self._elements[MAIN.family] = members + [one for one in apart if one not in members]
