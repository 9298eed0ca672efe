"""Compare what the store says with what the kernel has, put back what is ours, report the rest.

Whole state against whole state, never increments: what was missed once is found the next time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from pycni.agent.changed import changes
from pycni.agent.ports import AgentPorts
from pycni.agent.restoring import restore_links
from pycni.agent.settings import restore_settings
from pycni.attach.begin import EveryoneElse
from pycni.attach.liveness import is_abandoned, is_dead
from pycni.cni.errors import CniError
from pycni.cni.value import Value
from pycni.exe.plugins import release_record
from pycni.firewall.rules import NetworkRules
from pycni.host import firewalld, nfnetlink, rtnl
from pycni.host.firewall import missing_rules, open_firewall
from pycni.host.forward import closed_forward
from pycni.store import Store
from pycni.store.attachments import Record
from pycni.store.boot import own_process


class Reconciled(Value):
    """What one comparison did and found."""

    at: float  # seconds since the epoch
    ms: float
    attachments: int
    restored: tuple[str, ...] = ()  # bridges, gateway addresses, firewall elements: were missing and are back
    released: tuple[str, ...] = ()  # attachments whose namespace is gone
    foreign: tuple[str, ...] = ()  # changes by others that only they can explain: reported, not touched
    failures: tuple[str, ...] = ()


DEL_S = 0.3  # from a DEL's first to its last step, with many others at it

Alone = Callable[[Record], AbstractContextManager[None]]


class DeadSince:
    """When each dead attachment was first seen so; another one of the same id is told apart by its creation."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, float], float] = {}

    def is_due(self, record: Record, grace_s: float, now: float) -> bool:
        """Whether the runtime had *grace_s* to DEL *record* itself."""
        return now - self._seen.setdefault((record.attachment.owner, record.created), now) >= grace_s

    def forget_all_but(self, dead: Iterable[Record]) -> None:
        keys = {(record.attachment.owner, record.created) for record in dead}
        self._seen = {key: since for key, since in self._seen.items() if key in keys}


def reconcile(
    store: Store,
    grace_s: float,
    now: float,
    dead_since: DeadSince,
    alone: Alone,
    *,
    ports: AgentPorts,
    refused: Callable[[Record], str],
) -> Reconciled:
    """One comparison. *grace_s*: how long an attachment whose namespace is gone is left to the runtime's own DEL;
    *alone*: keeps this process from working on the same attachment meanwhile; *ports*: what it holds; *refused*: why a
    dead attachment is to be left alone, "" where it is not."""
    began = time.monotonic()
    failures: list[str] = []
    with rtnl.Netlink() as host:
        dead = [record for record in store.attachments.all() if is_dead(record, host) or _was_left(record)]
    dead_since.forget_all_but(dead)
    due = [
        record
        for record in dead
        if is_abandoned(record) or _was_left(record) or dead_since.is_due(record, grace_s, now)
    ]
    whys = [(record, refused(record)) for record in due]
    failures += [f"{record.attachment.owner} is not released: {why}" for record, why in whys if why]
    due = [record for record, why in whys if not why]
    released = tuple(record.attachment.owner for record in due if _release(store, record, alone, failures))
    held = ports.now()
    records = store.attachments.all()
    failures += ports.compare(store, held, records, alone)
    restored = (*restore_links(store, failures), *restore_rules(store, records, failures))
    restored = (*restored, *restore_settings(store, records, failures))
    return Reconciled(
        at=now,
        ms=round((time.monotonic() - began) * 1000, 2),
        attachments=sum(not record.attachment.part for record in records),
        restored=restored,
        released=released,
        foreign=foreign_changes(store, dead),
        failures=tuple(failures),
    )


def _was_left(record: Record) -> bool:
    """Deleted by this process, which failed in the middle; or it is at it, then `alone` waits and finds it gone."""
    return record.state == "deleting" and (record.pid, record.pid_start) == own_process()


def _release(store: Store, record: Record, alone: Alone, failures: list[str]) -> bool:
    """Release a dead attachment; False where somebody else has, or where it failed."""
    with alone(record):
        if not store.attachments.claim(record):
            return False
        try:
            release_record(store, record)
        except (CniError, OSError) as failure:
            failures.append(str(failure))
            return False
        return True


def restore_rules(store: Store, records: tuple[Record, ...], failures: list[str]) -> tuple[str, ...]:
    """Put back whatever of the attachments' rules is missing; the first of a flushed table brings all others along."""
    restored: list[str] = []
    for record, stops in _ruled(records):
        try:
            restored += [f"{record.attachment.owner}: {what}" for what in _restore(store, record, stops)]
        except (CniError, OSError) as failure:
            failures.append(f"{record.attachment.owner}: {failure}")
    return tuple(restored)


def lost_rules(store: Store, records: Iterable[Record]) -> list[tuple[Record, tuple[str, ...]]]:
    """Those of *records* whose rules are not all there, and what is missing, in words. Nothing is put back."""
    found = []
    for record, stops in _ruled(records):
        missing = missing_rules(record.backend, record.network_rules, record.attachment_rules)
        missing = (*missing, *stops, *_lost_sources(record))
        now = store.attachments.get(record.attachment) if missing else None
        if now is not None and (now.state, now.created) == ("ready", record.created):  # no DEL has taken them
            found.append((record, missing))
    return found


def _ruled(records: Iterable[Record]) -> Iterator[tuple[Record, tuple[str, ...]]]:
    """The attachments that the packet filter should have rules of; the first of a network with what stops all of it."""
    ruled = [record for record in records if record.state == "ready" and record.backend not in ("", "none")]
    closed = _closed_networks(ruled)
    for record in ruled:
        yield record, closed.pop(record.network_rules, ())


def _closed_networks(records: Iterable[Record]) -> dict[NetworkRules, tuple[str, ...]]:
    """What stops forwarded traffic, for each way that networks are set up: ufw and others flush iptables at will."""
    networks = {record.network_rules for record in records if record.network_rules.forward}
    with nfnetlink.Nfnetlink() as kernel:
        return {network: stops for network in networks if (stops := closed_forward(kernel, network))}


def _restore(store: Store, record: Record, stops: tuple[str, ...]) -> tuple[str, ...]:
    firewall = open_firewall(record.backend)
    try:
        missing = (*firewall.missing(record.network_rules, record.attachment_rules), *stops)
        lost = _lost_sources(record)
        if missing or lost:
            # Under the store's lock, and only what is still attached: a DEL may have removed these rules just now.
            with store.transaction():
                now = store.attachments.get(record.attachment)
                if now is None or now.state != "ready":
                    return ()
                if missing:
                    firewall.repair()
                    firewall.apply_add(now.network_rules, now.attachment_rules, EveryoneElse(store, now))
                if lost:
                    firewalld.add(now.attachment_rules.zone, now.attachment_rules.sources)
        return (*missing, *lost)
    finally:
        firewall.close()


def _lost_sources(record: Record) -> tuple[str, ...]:
    """What firewalld has forgotten of *record*, as it does with each reload."""
    return firewalld.missing(record.attachment_rules.zone, record.attachment_rules.sources)


def foreign_changes(store: Store, dead: Iterable[Record]) -> tuple[str, ...]:
    """Host links that somebody else removed, took down or off their bridge, and bridges that are gone or down, although
    the container still lives."""
    first = _foreign_changes(store, dead)
    if not first:
        return ()
    # A DEL removes the link before its record says so: what it is about is not there when this looks again.
    time.sleep(DEL_S)
    again = set(_foreign_changes(store, dead))
    return tuple(words for words, created in first if (words, created) in again)


def _foreign_changes(store: Store, dead: Iterable[Record]) -> list[tuple[str, float]]:
    """In words, and when the attachment was made that it is about; 0 for those of a network."""
    gone = {record.attachment for record in dead}
    alive = [one for one in store.attachments.all() if one.state == "ready" and one.attachment not in gone]
    with rtnl.Netlink() as host:
        links = {link.name: link for link in host.links()}
    said: dict[str, float] = {}  # once: a bridge is one for many, and a link for all plugins of a chain
    for record in alive:
        for change in changes(record, links):
            owner = record.attachment.replace(part="").owner if change.link else f"network {record.attachment.network}"
            said.setdefault(f"{owner}: {change}", record.created if change.link else 0)
    return sorted(said.items(), key=lambda each: each[1] > 0)
