"""One overlay network of this host: what its peers need in the kernel, brought there and kept there.

A change is applied as what it changes; a comparison of everything wanted with everything there comes first, and again
whenever somebody may have meddled. Entries are added before others are removed, and none is removed before the whole of
what etcd says is known. All methods are called with the lock of the network's `cluster` held.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from pycni.agent.uplink import Uplink
from pycni.change.forwarding import Entry
from pycni.cni.errors import CniError
from pycni.cni.value import Value
from pycni.etcd.requests import KeyValue
from pycni.firewall.rules import Element
from pycni.host import announce_peer, tunnel_guard
from pycni.host.apply import Kernel
from pycni.host.firewall import NoFirewall
from pycni.host.forwarding import change_entries, read_entries
from pycni.host.link_events import Change as Event
from pycni.host.rtnl import Netlink
from pycni.plugins.overlay.peers import Delta, PeerTable, difference, slot_of
from pycni.plugins.overlay.plan import device_ops
from pycni.plugins.overlay.site import L2, Joined

Change = tuple[tuple[str, ...], KeyValue | None]
Slot = tuple[str, str]
INFINITY = float("inf")
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 30.0
FEWEST_S = 0.2  # between two comparisons because of what somebody did


class Repair(Value):
    """What a comparison had to put right."""

    device: bool = False  # the VXLAN device was gone
    added: int = 0  # entries, and tunnel addresses of which packets are taken
    removed: int = 0

    def __bool__(self) -> bool:
        return bool(self.device or self.added or self.removed)


class Followed:
    """See the module. in_step: the kernel holds all that etcd says of the network, as far as `table` was told.
    settled: it holds at least nothing that etcd does not say any more."""

    def __init__(self, joined: Joined, netlink: Netlink) -> None:
        self.joined = joined
        self.table = PeerTable(joined.node, joined.network, joined.mode, joined.local)
        self.awaits_member = False  # what etcd says counts from when it says that this host is a member
        self.loaded = False  # the table was told everything once
        self.is_awaited = True  # an ADD may wait until it is
        self.in_step = False
        self.settled = False
        self.problems: tuple[str, ...] = ()
        self.uplink: Uplink | None = None  # as it was when it was last looked at
        self.index = 0  # of the device
        self.restored = 0  # comparisons that had something to put right, after the first
        self.begun = False  # the kernel was compared with a loaded table
        self.changed_at = 0.0  # when its entries changed last, seconds since the epoch
        self.retry_at = INFINITY  # when to compare again because it failed, time.monotonic()
        self._compared_at = 0.0  # time.monotonic()
        self._netlink = netlink
        self._retry_s = FIRST_RETRY_S

    def load(self, changes: Iterable[Change]) -> None:
        """The whole of what etcd says; the next comparison brings it to the kernel."""
        self.table.change(changes)
        self.loaded, self.is_awaited = True, False

    def change(self, changes: Iterable[Change]) -> None:
        """What has changed in etcd, at once in the kernel as well; where that fails a comparison is due."""
        delta = self.table.change(changes)
        if delta:
            self.settled = False
            if self.in_step:
                self._carry_out(delta, fresh=True)
            else:
                self.retry_at = min(self.retry_at, time.monotonic() + FIRST_RETRY_S)

    def compare(self) -> Repair:
        """Whatever the kernel lacks is put there; whatever it has too much is taken away, once the table is loaded.

        The first time that is no repair.
        """
        self.retry_at = INFINITY
        self._compared_at = time.monotonic()
        try:
            made = self.ensure_device()
            repair = self._compare_entries(made) if self.loaded else Repair(device=made)
        except (CniError, OSError) as failure:
            self.settled = self._netlink.link(self.joined.vxlan) is None  # nothing is sent then
            self._failed(f"{self.joined.vxlan}: {failure}")
            return Repair()
        if not self.begun:
            self.begun = self.loaded
            return Repair()
        self.restored += bool(repair)
        return repair

    def is_early(self) -> bool:
        """Whether it was compared just now."""
        return time.monotonic() < self._compared_at + FEWEST_S

    def postpone(self) -> None:
        """A comparison is due, but not just now."""
        self.retry_at = min(self.retry_at, time.monotonic() + FEWEST_S)

    def is_hit(self, changes: Iterable[Event]) -> bool:
        """Whether *changes*, the last ones that the kernel told of, leave something that is not as it should be."""
        entries: dict[Slot, Entry | None] = {}
        for each in changes:
            if each.entry is not None:
                if each.index == self.index:  # of a neighbour that is gone only the address is told
                    entries[slot_of(each.entry)] = None if each.gone else each.entry
            elif each.link is not None:
                if each.gone and each.index == self.index:
                    return True
                if not each.gone and each.link.name in (self.joined.vxlan, self.joined.uplink) and self._is_off(each):
                    return True
            elif each.gone and each.index == self.index:
                return True  # an address of the device's own
        return self.loaded and any(self.table.wanted_at(slot) != entry for slot, entry in entries.items())

    def is_let_in(self, changes: Iterable[tuple[bool, Element]]) -> bool:
        """Whether elements of the tunnels' table that went (True) or came leave others let in than the peers."""
        own, peers = (str(self.joined.port), str(self.joined.vni)), self.table.vteps()
        return self.loaded and any(
            gone if len(element.key) == len(own) else (element.key[2] in peers) == gone
            for gone, element in changes
            if element.key[:2] == own
        )

    def is_of_uplink(self, change: Event) -> bool:
        index = self.uplink.index if self.uplink is not None else 0
        return change.index == index and change.entry is None

    def _is_off(self, change: Event) -> bool:
        """Whether the device may have been changed, or the uplink is there again."""
        return change.index == self.index or not self.in_step

    def ensure_device(self) -> bool:
        """Whether it had to be made. Where it is as it should be nothing is done."""
        first, *others = device_ops(self.joined)
        kernel = Kernel(None, NoFirewall())
        try:
            made = kernel.do(first) is not None
            for op in others:
                kernel.do(op)
        finally:
            kernel.close()
        link = self._netlink.link(self.joined.vxlan)
        self.index = link.index if link is not None else 0
        return made

    def _compare_entries(self, made: bool) -> Repair:
        joined = self.joined
        vteps = self.table.vteps()
        there = tunnel_guard.read_peers(joined.port, joined.vni)
        if there is None:
            tunnel_guard.guard(joined.port, joined.vni, vteps)
        wanted = self.table.wanted()
        delta = difference(wanted, read_entries(self._netlink, joined.vxlan, wanted if self.begun else frozenset()))
        if there is not None:
            delta = delta.replace(vteps_add=vteps - there, vteps_remove=there - vteps)
        self.in_step, self.problems = True, ()
        self._carry_out(delta, fresh=False)
        unguarded = there is None
        return Repair(
            device=made,
            added=len(delta.add) + len(delta.vteps_add) + unguarded,
            removed=len(delta.remove) + len(delta.vteps_remove),
        )

    def _carry_out(self, delta: Delta, *, fresh: bool) -> None:
        """*fresh*: tell the local containers of endpoints that are new, which one of them may be waiting for."""
        joined = self.joined
        try:
            if delta.vteps_add and not tunnel_guard.change_peers(joined.port, joined.vni, delta.vteps_add):
                tunnel_guard.guard(joined.port, joined.vni, self.table.vteps() | delta.vteps_remove)
            failed = change_entries(self._netlink, joined.vxlan, delta.add, delta.remove)
            if delta.vteps_remove:
                tunnel_guard.change_peers(joined.port, joined.vni, (), delta.vteps_remove)
        except (CniError, OSError) as failure:
            failed = (str(failure),)
        if failed:
            self.settled = not (delta.remove or delta.vteps_remove)
            self._failed(*failed)
            return
        if fresh and delta.fresh and joined.mode == L2:
            self._announce(delta)
        self.settled = True
        self._retry_s = FIRST_RETRY_S
        if delta.add or delta.remove:
            self.changed_at = time.time()

    def _announce(self, delta: Delta) -> None:
        try:
            announce_peer.kick(self.joined.bridge, [(entry.address, entry.mac) for entry in delta.fresh])
        except OSError:
            pass  # it only saves the first packet's second

    def _failed(self, *problems: str) -> None:
        self.in_step, self.problems = False, problems
        self.retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)
