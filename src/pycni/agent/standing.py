"""Where this host stands in a cluster: that it is there, with which addresses, how far it follows; and what it does
about hosts that are not there any more. All that waits for answers of etcd is done here, on threads of its own.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pycni
from pycni.agent.absent import LOOK_S, Absent
from pycni.agent.journal import Journal
from pycni.agent.returning import come_back
from pycni.cni.addresses import parse_address
from pycni.cni.errors import CniError, Code
from pycni.etcd import members, presence, requests
from pycni.etcd.claims import Fenced
from pycni.etcd.client import Client, Silent, Unavailable
from pycni.etcd.lease import Keeper
from pycni.etcd.records import Member, Node, Sync
from pycni.etcd.requests import KeyValue
from pycni.etcd.schema import SchemaError
from pycni.plugins.overlay.joining import member_of
from pycni.plugins.overlay.site import Joined
from pycni.store.boot import boot_id, own_process, process_alive

if TYPE_CHECKING:
    from pycni.agent.cluster import Cluster

ADMIT_S = 1.0  # that an ADD waits for etcd's first word on whether this host is the one it says
RETRY_S = 1.0
FIRST_REWRITE_S, LONGEST_REWRITE_S = 10.0, 300.0  # between corrections of what another machine says in our name


class Standing:
    """See the module. refused: why this host may not take part, "" where it may. absent: the hosts that are gone."""

    def __init__(
        self, cluster: Cluster, client: Client, journal: Journal, *, ttl_s: int, dead_after_s: Callable[[], float]
    ) -> None:
        self.refused = ""
        self._cluster = cluster
        self._client = client
        self._keys = cluster.keys
        self._journal = journal
        self._dead_after_s = dead_after_s
        self._name = os.uname().nodename
        self.absent = Absent(client, cluster.keys, cluster.mirror, node=cluster.node, name=self._name, note=self._note)
        self._keeper = Keeper(client, ttl_s, self._establish, self._lease_changed)
        self._asked = threading.Event()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._joining = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="overlay-standing", daemon=True)
        self._announced: Node | None = None  # what is under the lease
        self._fenced = False  # somebody was declared dead: what this host follows is to be told at once
        self._said: dict[str, set[str]] = {}  # of each network the tunnel addresses that this process has had
        self._rewrite: dict[str, tuple[float, float]] = {}  # network: when, and how long to wait after it
        self._failures: tuple[str, ...] = ()  # what could not be said
        self._refusal = ""  # what etcd says to the record of this host, where it does not take it
        self._stale = False

    def start(self) -> None:
        self._keeper.start()
        self._thread.start()

    def stop(self) -> None:
        """End the lease: this host is not there any more, which changes nothing for its containers."""
        self._stop.set()
        self._wake.set()
        self._thread.join()
        self._keeper.stop()

    def heard(self, keys: frozenset[str]) -> None:
        """*keys* have changed in etcd."""
        fences, own = self._keys.fences, self._keys.members(self._cluster.node)
        fenced = any(key.startswith(fences) for key in keys)
        self._fenced |= fenced
        if fenced or any(key.startswith(own) for key in keys):
            self._wake.set()

    def admit(self) -> None:
        """As `plugins.overlay.following.Follower.admit`."""
        self._wait_for_word()
        if self.refused:
            raise CniError(Code.TRY_AGAIN, "this host may not take part", self.refused)

    def why_not(self) -> str:
        """Why nothing may be done in this host's name now, "" where it may."""
        self._wait_for_word()
        return self.refused or ("" if self._keeper.held else "etcd has not said that this host is the one it says")

    def joined(self, network: str, local: str) -> None:
        """This host takes part in *network* now, with the tunnel address *local*."""
        self._said.setdefault(network, set()).add(local)
        self._wake.set()

    def moved(self, network: str, former: str) -> None:
        """The tunnel of this host is another; *former* was its address, "" where it still is."""
        self._said.setdefault(network, set()).add(former)
        self._wake.set()

    def _wait_for_word(self) -> None:
        """Of etcd, whether this host is the one it says: once, if there is none."""
        if not self._asked.wait(ADMIT_S):
            self._asked.set()

    def left(self, network: str) -> None:
        """Waits until nothing more is written about *network*."""
        with self._joining:
            self._said.pop(network, None)
            self._rewrite.pop(network, None)

    def problems(self) -> tuple[str, ...]:
        """What hinders this host, in words."""
        own = [self.refused, self._refusal, *self._failures]
        return tuple(filter(None, [*own, *self._cluster.problems()]))

    @property
    def held(self) -> bool:
        """Whether the host's record is in etcd, under a lease that is kept."""
        return self._keeper.held

    def syncs(self) -> tuple[KeyValue, ...]:
        """How far each host follows; nothing where etcd does not answer."""
        try:
            return self._client.read(self._keys.syncs).found
        except CniError:
            return ()

    # -- being there ---------------------------------------------------------------------------------------------------

    def _establish(self, client: Client, lease: int) -> None:
        """Called by the lease's keeper at each renewal."""
        node, record = self._cluster.node, self._record()
        try:
            presence.announce(
                client, self._keys, node, record, lease, is_former=partial(is_former, record), sync=self._sync()
            )
        except presence.Double as failure:
            if not self.refused:
                self._note("error", "overlay-refused", msg=str(failure))
            self.refused = str(failure)
            raise
        except Silent:
            raise
        except CniError as failure:  # a full etcd, a missing permission: whoever calls is told so by etcd itself
            if self._refusal != str(failure):
                self._note("warning", "overlay-unsaid", msg=str(failure))
            self._refusal = str(failure)
            raise
        finally:
            self._asked.set()
        self._announced, self._refusal = record, ""
        if self.refused:
            self.refused = ""
            self._note("warning", "overlay-admitted")

    def _record(self) -> Node:
        joined = self._cluster.joined
        pid, started = own_process()
        return Node(
            name=self._name,
            boot=boot_id(),
            pid=pid,
            started=started,
            vtep4=next((each.local for each in joined if ":" not in each.local), ""),
            vtep6=next((each.local for each in joined if ":" in each.local), ""),
            mtu=min((each.uplink_mtu for each in joined), default=0),
            port=next((each.port for each in joined), 0),
            version=pycni.__version__,
        )

    def _sync(self) -> Sync:
        return Sync(self._cluster.applied, round(self._cluster.applied_at, 3), self._cluster.problems())

    def _lease_changed(self, held: bool, reason: str) -> None:
        self._note("info" if held else "warning", "overlay-lease", held=held, msg=reason)
        self._wake.set()

    # -- what etcd is to know ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        look_at = retry_at = 0.0
        while not self._stop.is_set():
            self._wake.clear()
            now = time.monotonic()
            try:
                if self._keeper.held and now >= retry_at:
                    retry_at = now + RETRY_S
                    retry_at = 0.0 if self._say() else retry_at
                if now >= look_at:
                    look_at = now + LOOK_S
                    look_at = now + self._look()
            except Exception as failure:  # a bug must not end this for ever, without a word
                traceback.print_exception(failure)
            # Without a lease nothing is tried again: when it is back, that wakes this thread.
            due = min(look_at, retry_at) if retry_at and self._keeper.held else look_at
            self._wake.wait(max(0.01, due - time.monotonic()))

    def _say(self) -> bool:
        """Everything that etcd is to know and does not; False where some of it could not be said. One network that is
        refused keeps nothing else back."""
        failures: list[str] = []
        try:
            if self._cluster.mirror.synced.is_set():
                self._attempt(failures, "return", come_back, self._client, self._cluster, self._note)
                for joined in () if failures else self._cluster.joined:
                    self._attempt(failures, f"network {joined.network}", self._take_part, joined)
            if self._record() != self._announced:
                self._attempt(failures, "record", self._establish, self._client, self._keeper.lease)
            self._attempt(failures, "report", self._report)
        except Unavailable:
            pass  # nothing else would be heard, either
        for failure in failures:
            if failure not in self._failures:
                self._note("warning", "overlay-unsaid", msg=failure)
        self._failures = tuple(failures)
        return not failures and not self._fenced

    def _attempt(self, failures: list[str], what: str, act: Callable[..., object], *args: object) -> None:
        """Do *act*; what it fails with becomes one of *failures*. Raises Unavailable all the same."""
        try:
            act(*args)
        except (CniError, OSError) as failure:
            failures.append(f"{what}: {failure}")
            if isinstance(failure, Unavailable):
                raise

    def _report(self) -> None:
        """Where somebody was declared dead, say so as soon as the kernel has followed."""
        if not self._fenced:
            return
        self._fenced = False  # before the look: the next fence may come at any time
        fences = self._cluster.mirror.items(self._keys.fences).values()
        try:
            if self._cluster.applied < max((kv.mod_revision for kv in fences), default=0):
                self._fenced = True
            else:
                presence.report(self._client, self._keys, self._cluster.node, self._sync(), self._keeper.lease)
        except CniError:
            self._fenced = True
            raise

    def _take_part(self, joined: Joined) -> None:
        """See to it that the host's `member` key says how things are, unless the network was left meanwhile."""
        with self._joining:
            if joined in self._cluster.joined:
                self._take_part_now(joined)

    def _take_part_now(self, joined: Joined) -> None:
        cluster = self._cluster
        key = self._keys.member(cluster.node, joined.network)
        found = cluster.mirror.get(key)
        there = parse_member(found)
        said = self._said.setdefault(joined.network, {there.vtep if there is not None else ""})
        said.add(joined.local)
        member = member_of(joined, agent=True)
        fence = cluster.state.fence()
        if members.is_in_place(found, fence, member):
            return
        if there is not None and there.vtep not in said:
            if not self._is_time(joined.network):
                return
            self._note("error", "overlay-double", network=joined.network, local=joined.local, other=there.vtep)
        # The kernel may hold what it did before this host's key went, or was fenced, and must have followed since.
        outcome = members.join(
            self._client, self._keys, cluster.node, fence, joined.network, member, followed=cluster.applied
        )
        if not isinstance(outcome, Fenced) and there is not None and there.vtep != joined.local:
            self._give_up_address(there.vtep)

    def _is_time(self, network: str) -> bool:
        """Two machines that write over each other's words would keep all others busy."""
        at, wait_s = self._rewrite.get(network, (0.0, FIRST_REWRITE_S))
        now = time.monotonic()
        if at and now < at + wait_s:
            return False
        self._rewrite[network] = now, min(wait_s * 2, LONGEST_REWRITE_S) if at else wait_s
        return True

    def _give_up_address(self, former: str) -> None:
        """Another host may have *former* from now on."""
        node = self._cluster.node.encode()
        key = self._keys.vtep(parse_address(former))
        self._client.txn(requests.txn([requests.has_value(key, node)], [requests.delete(key)]))

    def _look(self) -> float:
        """Look for hosts that are gone, and whether etcd is silent; after how many seconds to look again."""
        self._note_silence()
        return self.absent.look(self._dead_after_s()) if self._keeper.held and not self.refused else LOOK_S

    def _note_silence(self) -> None:
        since = self._cluster.mirror.stale_since
        if bool(since) != self._stale:
            self._stale = bool(since)
            event = "overlay-silent" if since else "overlay-heard"
            self._note("warning" if since else "info", event, msg=self._cluster.mirror.reason)

    def _note(self, level: str, event: str, **more: object) -> None:
        self._journal.note(level, event=event, prefix=self._keys.prefix, **more)


def is_former(record: Node, other: Node) -> bool:
    """Whether *other* was written by a process of this machine that runs no more. *record*: this process's own.

    After a reboot that is believed of a record with this machine's tunnel address: two machines with one address would
    reach nobody.
    """
    if other.boot == record.boot:
        return not process_alive(other.pid, other.started)
    return bool({record.vtep4, record.vtep6} & {other.vtep4, other.vtep6} - {""})


def parse_member(found: KeyValue | None) -> Member | None:
    """None for no record, and for a damaged one: it is its own host's to mend."""
    try:
        return Member.parse(found.value, found.key) if found is not None else None
    except SchemaError:
        return None
