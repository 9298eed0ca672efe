"""What the kernel tells the agent's loop without being asked: that somebody took rules, bridges or addresses of ours
away, or let others into the tunnels."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pycni.agent.journal import Journal
from pycni.cni.names import Attachment
from pycni.firewall.tunnel_text import TUNNELS
from pycni.host import bridge_events, nft_events
from pycni.host.link_events import Change, LinkEvents
from pycni.host.netfilter_socket import own_ports
from pycni.host.rtnl import Link, Netlink
from pycni.store import open_store

if TYPE_CHECKING:
    from pycni.agent.overlay import Overlay

TABLE = "pycni"
DEL_S = 0.2  # after which the DEL of another process that removed elements has said so in the store
# Its table. Gone for a moment when it reloads, and what it was told of containers for good; new when it starts again,
# which after a stop is the first moment at which it can be told.
FIREWALLD = "firewalld"


class Notices:
    """Listens from the moment this is made, on the running loop, to `close`.

    look() asks for a comparison of everything, soon; apart(function, …) has it called on another thread; flushed() is
    told that the table of the containers' rules lost more than elements.
    """

    def __init__(
        self,
        journal: Journal,
        overlay: Overlay,
        *,
        look: Callable[[], None],
        apart: Callable[..., object],
        flushed: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._overlay = overlay
        self._look = look
        self._apart = apart
        self._flushed = flushed
        self._loop = asyncio.get_running_loop()
        self._lost_owners: set[str] = set()
        self._passed_over: frozenset[int] = frozenset()
        self._nft = self._listen_to_nft()
        self._links = self._listen_to_links()

    def close(self) -> None:
        if self._nft is not None:
            self._loop.remove_reader(self._nft)
            self._nft.close()
        if self._links is not None:
            self._loop.remove_reader(self._links.events)
            self._links.close()

    def _listen_to_links(self) -> LinkNotices | None:
        try:
            links = LinkNotices()
        except OSError as failure:
            self._journal.note("warning", event="no-link-events", msg=str(failure))
            return None
        self._loop.add_reader(links.events, self._link_event, links)
        return links

    def _link_event(self, links: LinkNotices) -> None:
        if links.lost():
            self._look()

    def _listen_to_nft(self) -> socket.socket | None:
        try:
            raw = nft_events.listen()
        except OSError as failure:
            self._journal.note("warning", event="no-nft-events", msg=str(failure))
            return None
        events = socket.socket(fileno=raw.detach())
        self._loop.add_reader(events, self._nft_event, events)
        return events

    def _nft_event(self, events: socket.socket) -> None:
        own = frozenset(own_ports)
        try:
            if own != self._passed_over:
                # The loop, awake for what an ADD did a moment ago, would take the interpreter from that ADD.
                nft_events.pass_over(events, own)
                self._passed_over = own
            lost = nft_events.losses(events.recv(1 << 18), TABLE, own)
        except BlockingIOError:
            return
        except OSError:
            self._look()  # ENOBUFS: notices were lost
            return
        if TUNNELS.name in lost.tables:
            self._apart(self._overlay.compare)
        elif lost.tunnels:
            self._apart(self._overlay.guard_changed, lost.tunnels)
        if TABLE in lost.tables:
            self._flushed()
        if TABLE in lost.tables or FIREWALLD in lost.gone | lost.made:
            self._look()
        elif lost.owners:
            if not self._lost_owners:
                self._loop.call_later(DEL_S, self._look_for_owners)
            self._lost_owners |= lost.owners

    def _look_for_owners(self) -> None:
        owners, self._lost_owners = self._lost_owners, set()
        if are_missed(owners):
            self._look()


def are_missed(owners: Iterable[str]) -> bool:
    """Whether removed elements were of somebody who is attached. Every DEL removes some, which is no reason to compare
    everything; that of a network's last attachment also some that nobody owns, ""."""
    if "" in owners:
        return True
    with open_store() as store:
        named = filter(None, map(Attachment.parse, owners))
        records = map(store.attachments.get, named)
        return any(record is not None and record.state == "ready" for record in records)


class LinkNotices:
    """What became of the links of this host that containers share."""

    def __init__(self) -> None:
        self.events: LinkEvents = bridge_events.listen()
        with Netlink() as host:
            self._known = {link.index: link for link in host.links() if is_shared(link)}

    def close(self) -> None:
        self.events.close()

    def lost(self) -> bool:
        """Whether what has happened since the last call took something away, or so much that nobody can say."""
        changes = self.events.read()
        return changes is None or take_in(self._known, changes)


def is_shared(link: Link) -> bool:
    """Whether it was made for a network: its alias names that, and no container (see cni/names)."""
    return link.alias.startswith("pycni ") and "/" not in link.alias


def take_in(known: dict[int, Link], changes: Iterable[Change]) -> bool:
    """Keep *known*, the shared links by index, up to date; whether one was deleted, got another MAC, came up again
    (addresses that went as it went down stay away) or lost an address."""
    is_loss = False
    for change in changes:
        before = known.get(change.index)
        if change.link is None:
            is_loss |= change.gone and before is not None
        elif change.gone:
            is_loss |= known.pop(change.index, None) is not None
        elif before is not None or is_shared(change.link):
            now = known[change.index] = change.link
            is_loss |= before is not None and (now.mac != before.mac or (now.up and not before.up))
    return is_loss
