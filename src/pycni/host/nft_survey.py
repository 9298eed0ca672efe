"""What of the nftables backend is in the kernel, against what should be: CHECK, GC, the agent's comparison."""

from __future__ import annotations

from pycni.firewall.nft_text import GUARD, MAIN
from pycni.firewall.rules import comment_of, guard_elements, has_own_chain, odd_elements, own_elements, shared_elements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pycni.firewall.nft_text import Table
    from pycni.firewall.rules import AttachmentRules, Element, NetworkRules
    from pycni.host.nfnetlink import Nfnetlink


def missing(
    kernel: Nfnetlink, tables: Iterable[Table], network: NetworkRules, attachment: AttachmentRules
) -> list[str]:
    """What of these rules is not in the kernel, in words; *tables*: those they stand in."""
    out = []
    for table in tables:
        if not kernel.has_chain(table.family, table.name, table.marker()):
            out.append(f"table {table.family} {table.name} of this version")
        else:
            out += [f"rules of chain {chain}" for chain in short_chains(kernel, table)]
    members = (*shared_elements(network), *own_elements(attachment))
    for element, found in zip(members, kernel.find(MAIN, members), strict=True):
        if found is None:
            if not _stands_apart(kernel, network, attachment, element):
                out.append(_in_words(MAIN, element))
        elif found.data != element.data:
            out.append(f"{_in_words(MAIN, element)} leads elsewhere")
    guards = guard_elements(attachment)
    out += [_in_words(GUARD, one) for one, found in zip(guards, kernel.find(GUARD, guards), strict=True) if not found]
    if has_own_chain(attachment):
        from pycni.host.nft_ports import missing_conditional

        out += missing_conditional(kernel, attachment)
    return out


def _in_words(table: Table, element: Element) -> str:
    return f"{element.set} {' . '.join(element.key)} in table {table.family} {table.name}"


def short_chains(kernel: Nfnetlink, table: Table) -> list[str]:
    """The chains of *table* with fewer rules than they were made with (`nft flush table` leaves the chains)."""
    use = kernel.chain_use
    return [name for name in table.chains if use(table.family, table.name, name) < table.least_use(name)]


def _stands_apart(kernel: Nfnetlink, network: NetworkRules, attachment: AttachmentRules, element: Element) -> bool:
    """Whether *element* is rightly absent: a subnet that overlaps another one is told address by address."""
    if not element.set.startswith(("local", "masq")):
        return False
    subnets = element.key[:1] if element.set.startswith("local") else network.subnets
    apart = [one for subnet in subnets for one in odd_elements(network, attachment, subnet)]
    apart = [one for one in apart if element.set.startswith("local") or one.key[0] == element.key[0]]
    return bool(apart) and None not in kernel.find(MAIN, apart)


def everything(kernel: Nfnetlink) -> list[tuple[Table, Element]]:
    """Every element of both tables."""
    sets = [(table, spec.name) for table in (MAIN, GUARD) for spec in table.sets]
    return [(table, one) for table, name in sets for one in kernel.elements(table, name)]


def stale(kernel: Nfnetlink, alive: Sequence[tuple[NetworkRules, AttachmentRules]]) -> dict[str, list[Element]]:
    """The elements that none of *alive* needs, by the family of their table."""
    owners = {comment_of(attachment.owner) for _, attachment in alive}
    needed = {one for network, _ in alive for one in shared_elements(network)}
    out: dict[str, list[Element]] = {MAIN.family: [], GUARD.family: []}
    for table, one in everything(kernel):
        if one.comment not in owners if one.comment else one not in needed:
            out[table.family].append(one)
    return out
