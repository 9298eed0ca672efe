"""The iptables backend's chains of single attachments: published ports and guarded addresses.

Loaded where there is such a thing, so that other calls do not pay for it.
"""

from __future__ import annotations

import os

from pycni.firewall.iptables_ports import entry_unit, port_units
from pycni.firewall.iptables_text import PORTS, render_remnant, render_remove
from pycni.host.iptables import VERSIONS, lock_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycni.firewall.iptables_text import Unit
    from pycni.firewall.rules import AttachmentRules, NetworkRules
    from pycni.host.firewall import Everyone
    from pycni.host.iptables import Iptables

TRIES = 4


def install(tool: Iptables, network: NetworkRules, attachment: AttachmentRules, everyone: Everyone | None) -> None:
    """Put the chains of *attachment* in place; where the entry was gone, those of *everyone* too."""
    version = VERSIONS[tool.family]
    units = list(port_units(network, attachment, version))
    if not any(unit.table == "nat" for unit in units):
        tool.install(units)
        return
    entry = entry_unit(version)
    for tried in range(TRIES):
        _make_ports_chain(tool)
        try:
            if not tool.absent([entry]):
                tool.install(units)
            elif everyone is None:
                tool.install([*units, entry])
            else:
                with everyone as rules:
                    others = [unit for one in rules for unit in port_units(*one, version)]
                    tool.install(tuple(dict.fromkeys((*units, *others, entry))))
        except OSError:  # somebody flushed it meanwhile
            if tried == TRIES - 1:
                raise
        else:
            if not tool.absent([entry]):  # else the DEL of the last of all others has just taken it away
                return


def _make_ports_chain(tool: Iptables) -> None:
    if tool.has_chain("nat", PORTS):
        return
    try:
        tool.restore(f"*nat\n-N {PORTS}\nCOMMIT\n")
    except OSError:
        if not tool.has_chain("nat", PORTS):  # else another process was faster
            raise


def remove(tool: Iptables, attachment: AttachmentRules) -> None:
    """Take the chains of *attachment* away, whole or in pieces; the entry with the last that came by it."""
    units = _owned(tool, attachment)
    present = tool.present(units) if units else []
    if not present:
        return
    lock = lock_rules()
    try:
        tool.restore(render_remove(present))
    except OSError:  # somebody removed a part of them
        tool.remove_remnants(present)
    finally:
        os.close(lock)
    if any(unit.table == "nat" for unit in present):
        _remove_unused_entry(tool)


def _remove_unused_entry(tool: Iptables) -> None:
    entry = entry_unit(VERSIONS[tool.family])
    if tool.use_of("nat", PORTS) > 1:  # 1: the entry's jump, where nobody has removed it
        return
    text = render_remnant(entry, tool.listing("nat")) if tool.absent([entry]) else render_remove([entry])
    try:
        # Whole or not at all: the kernel deletes no chain that has got a rule meanwhile.
        tool.restore(text.replace("COMMIT\n", f"-X {PORTS}\nCOMMIT\n"))
    except OSError:
        return


def absent(tool: Iptables, network: NetworkRules, attachment: AttachmentRules) -> Sequence[Unit]:
    """The units that *attachment* lacks."""
    units = port_units(network, attachment, VERSIONS[tool.family])
    entry = [entry_unit(VERSIONS[tool.family])] if any(unit.table == "nat" for unit in units) else []
    return tool.absent([*entry, *units]) if units else ()


def kept(tool: Iptables, network: NetworkRules, attachment: AttachmentRules) -> tuple[Unit, ...]:
    """All units that *attachment* needs."""
    units = port_units(network, attachment, VERSIONS[tool.family])
    return (*units, entry_unit(VERSIONS[tool.family])) if units else ()


def _owned(tool: Iptables, attachment: AttachmentRules) -> Sequence[Unit]:
    from pycni.firewall.rules import NetworkRules

    return port_units(NetworkRules(""), attachment, VERSIONS[tool.family])
