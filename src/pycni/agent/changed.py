"""What others changed of the links that an attachment stands on: gone, down, off its bridge. Pure.

`pycni list` and `pycni doctor` show it as the attachment's state, the agent names it under `foreign`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycni.cni.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pycni.host.link_facts import Link
    from pycni.store import Record

LINK_GONE, BRIDGE_GONE, OFF_BRIDGE = "link gone", "bridge gone", "off bridge"
BRIDGE_DOWN, LINK_DOWN = "bridge down", "link down"
CHANGED = (LINK_GONE, BRIDGE_GONE, OFF_BRIDGE, BRIDGE_DOWN, LINK_DOWN)  # the one that takes most to mend first
_WORDS = {
    LINK_GONE: "host link {link} is gone",
    BRIDGE_GONE: "bridge {bridge} is gone",
    OFF_BRIDGE: "host link {link} is not on bridge {bridge}",
    BRIDGE_DOWN: "bridge {bridge} is down",
    LINK_DOWN: "host link {link} is down",
}


class Change(Value):
    """*state*: one of CHANGED. *link*: the host link that it is about, "" where it is the bridge."""

    state: str
    bridge: str
    link: str = ""

    def __str__(self) -> str:
        return _WORDS[self.state].format(link=self.link, bridge=self.bridge)


def changes(record: Record, links: Mapping[str, Link]) -> list[Change]:
    """What is not as the ADD of *record* left it, in the order of CHANGED; *links*: all of the host, by name."""
    # A chained plugin records what leads to the container, which for a routed pair is the pair itself.
    name_of_bridge = "" if record.bridge in record.host_links else record.bridge
    bridge = links.get(name_of_bridge)
    found = []
    if name_of_bridge and (bridge is None or not bridge.up):
        found.append(Change(BRIDGE_GONE if bridge is None else BRIDGE_DOWN, name_of_bridge))
    for at, name in enumerate(record.host_links):
        link = links.get(name)
        if link is None:
            found.append(Change(LINK_GONE, record.bridge, name))
            continue
        # The record's bridge is that of the first link; the second one of an overlay is on its gateway bridge.
        if at == 0 and bridge is not None and link.master != bridge.index:
            found.append(Change(OFF_BRIDGE, record.bridge, name))
        if not link.up:
            found.append(Change(LINK_DOWN, record.bridge, name))
    return sorted(found, key=lambda change: CHANGED.index(change.state))
