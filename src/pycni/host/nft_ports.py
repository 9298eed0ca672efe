"""What only published ports need of the nftables backend: who has a port, and mappings with conditions.

Loaded where there is such a thing, so that other calls do not pay for it.
"""

from __future__ import annotations

import errno
import os
from ipaddress import ip_network

from pycni.cni.errors import CniError, Code
from pycni.firewall.elements import PROTOCOLS
from pycni.firewall.nft_text import MAIN, render_elements
from pycni.firewall.ports import (
    CONDITIONAL,
    EXCLUSIVE,
    chain_of,
    conditional_elements,
    render_conditional,
)
from pycni.firewall.rules import comment_of
from pycni.host.nft_messages import delete_chain, delete_elements, flush_chain, in_groups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from pycni.firewall.rules import AttachmentRules, Element
    from pycni.host.nfnetlink import Nfnetlink

WHERE = f"{MAIN.family} {MAIN.name}"


def refuse_taken(kernel: Nfnetlink, elements: Iterable[Element]) -> None:
    """CniError 100 if one of *elements*, which cannot be added, is a port that another attachment has."""
    for element in elements:
        if element.set not in EXCLUSIVE:
            continue
        found = kernel.holder(MAIN, element) or _overlapping(kernel, element)
        if found is not None and found.comment != element.comment:
            raise CniError(
                Code.PORT_TAKEN,
                f"host port {described(element)} is taken by {found.comment or 'an element that nobody owns'}",
                "choose another port or remove that container; what a lost one left goes with "
                f"nft delete element {WHERE} {found.set} '{{ {' . '.join(found.key)} }}'",
            )


def described(element: Element) -> str:
    """The host port of an element of the maps: "8080/tcp", "192.0.2.1 8000-8099/udp", "[2001:db8::1] 53/udp"."""
    proto, *address, ports = element.key[:3] if len(element.key) > 2 else element.key
    if not address or "/" in address[0]:
        return f"{ports}/{proto}"
    return f"[{address[0]}] {ports}/{proto}" if ":" in address[0] else f"{address[0]} {ports}/{proto}"


def _overlapping(kernel: Nfnetlink, element: Element) -> Element | None:
    """Another's element of an interval map that has a packet in common with *element*, in every field of the key: the
    look-up only asks for its begin."""
    for other in kernel.elements(MAIN, element.set):
        if other.comment != element.comment and all(map(_meet, element.key, other.key)):
            return other
    return None


def _meet(one: str, other: str) -> bool:
    """Whether two fields have a value in common: protocols, ports or ranges of them, addresses or prefixes."""
    if one == other:
        return True
    low, _, high = one.partition("-")
    their_low, _, their_high = other.partition("-")
    if low.isdecimal():
        return int(low) <= int(their_high or their_low) and int(their_low) <= int(high or low)
    return one not in PROTOCOLS and ip_network(one).overlaps(ip_network(other))


def add_conditional(kernel: Nfnetlink, attachment: AttachmentRules) -> None:
    """Put the mappings of *attachment* that have conditions in place; it may have the very same already.

    CniError 100 where another has a port, 7 where nft does not understand the conditions; OSError ENOENT where the
    table is gone.
    """
    elements = conditional_elements(attachment)
    if not elements:
        return
    from pycni.host import nft

    _delete_elements(kernel, [one for one in kernel.find(MAIN, elements) if one and one.comment == elements[0].comment])
    added = render_elements(MAIN, elements).replace("add element", "create element")
    try:
        nft.run_text(render_conditional(WHERE, attachment) + added)
    except OSError as failure:
        if failure.errno == errno.EEXIST:
            refuse_taken(kernel, elements)
        if failure.errno == errno.ENOENT and not kernel.has_table(MAIN.family, MAIN.name):
            raise
        words = " ".join(attachment.conditions4 or attachment.conditions6)
        if not words:  # the rules are all our own
            raise
        raise CniError(
            Code.INVALID_CONFIG,
            f"the conditions of {attachment.owner} cannot be used: {words}",
            f"{failure.strerror or failure}; they are the words of an nft rule before its verdict",
        ) from failure


def delete_conditional(kernel: Nfnetlink, attachment: AttachmentRules) -> None:
    """Take the conditional mappings of *attachment* away; elements that are another's by now stay."""
    elements = conditional_elements(attachment)
    if not elements:
        return
    comment = comment_of(attachment.owner)
    _delete_elements(kernel, [one for one in kernel.find(MAIN, elements) if one and one.comment == comment])
    _delete_chain(kernel, chain_of(attachment.owner))


def missing_conditional(kernel: Nfnetlink, attachment: AttachmentRules) -> list[str]:
    """What of them is not in the kernel, in words."""
    elements = conditional_elements(attachment)
    out = [
        f"{one.set} {' . '.join(one.key)} in table {WHERE}"
        for one, found in zip(elements, kernel.find(MAIN, elements), strict=True)
        if found is None or found.data != one.data
    ]
    rules = render_conditional(WHERE, attachment).count("add rule")
    if elements and kernel.chain_use(MAIN.family, MAIN.name, chain_of(attachment.owner)) < rules + len(elements):
        out.append(f"rules of chain {chain_of(attachment.owner)} in table {WHERE}")
    return out


def collect_conditional(kernel: Nfnetlink, owners: Collection[str]) -> list[str]:
    """Remove the chains of all attachments but *owners* (whose elements are gone already); their names."""
    keep = {chain_of(owner) for owner in owners}
    out = []
    for chain in kernel.chains(MAIN.family):
        name = chain.get(3, b"").rstrip(b"\0").decode(errors="replace")
        if chain.get(1) == MAIN.name.encode() + b"\0" and name.startswith(CONDITIONAL) and name not in keep:
            _delete_chain(kernel, name)
            out.append(f"{WHERE}: chain {name}")
    return out


def _delete_elements(kernel: Nfnetlink, elements: list[Element]) -> None:
    _run(kernel, [delete_elements(MAIN, group) for group in in_groups(elements)])


def _delete_chain(kernel: Nfnetlink, name: str) -> None:
    if kernel.has_chain(MAIN.family, MAIN.name, name):
        _run(kernel, [flush_chain(MAIN, name), delete_chain(MAIN.family, MAIN.name, name)])


def _run(kernel: Nfnetlink, messages: list[object]) -> None:
    failed = kernel.batch(messages) if messages else {}  # type: ignore[arg-type]
    for number in failed.values():
        if number != errno.ENOENT:
            raise OSError(number, f"{WHERE}: {os.strerror(number)}")
