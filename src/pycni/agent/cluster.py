"""The hosts that share one prefix of etcd, as this host follows them: a copy of what they say, brought to the kernel.

A change comes from etcd to the thread of the mirror, which itself speaks to the kernel: no other thread is waited for.
Whatever may wait for etcd's answers is the other half's, `standing`.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from pycni.agent.followed import Change, Followed
from pycni.agent.journal import Journal
from pycni.agent.repairs import Repairs
from pycni.agent.standing import Standing, parse_member
from pycni.etcd.client import Client
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.mirror import Mirror
from pycni.etcd.schema import Keys, SchemaError
from pycni.firewall.rules import Element
from pycni.host.link_events import Change as Event
from pycni.host.rtnl import Netlink
from pycni.ipam.etcd_state import HostState
from pycni.plugins.overlay.following import older_data
from pycni.plugins.overlay.joining import lock_of
from pycni.plugins.overlay.site import Joined, keep_joined, read_joined

INFINITY = float("inf")
PATIENCE_S = 1.0  # of an ADD, for what etcd says of its network


class Cluster:
    """See the module. *connection*: the `etcd` object as JSON text. *directory*: of the host's store. *ring* is called
    when `compare_due` should be. *dead_after_s*, *ttl_s*: as in the agent's configuration."""

    def __init__(
        self,
        prefix: str,
        connection: str,
        directory: str,
        journal: Journal,
        *,
        ring: Callable[[], None],
        ttl_s: int,
        dead_after_s: Callable[[], float],
    ) -> None:
        conf = EtcdConf.parse_text(connection)
        self.keys = Keys(prefix)
        self.connection = connection
        self.state = HostState(directory, prefix)
        self.node = self.state.node()
        self.networks: dict[str, Followed] = {}
        self.idle_since = time.monotonic()  # since when it has no network, where it has none
        self.applied, self.applied_at = 0, 0.0  # the revision of which the kernel holds everything, and since when
        self._journal = journal
        self._ring = ring
        self._seen = 0  # the revision that all tables know
        self._complete = False
        self.lock = threading.RLock()
        self._news = threading.Condition(self.lock)
        self._netlink = Netlink()
        self._repairs = Repairs(self.state, self._netlink, self._note, self._moved, self._smallest_uplink)
        # A client of its own, which can be moved; the connections are those of the calls.
        self._client = client = Client(conf, open_client(conf).callers)
        first, end = self.keys.shared
        self.mirror = Mirror(client, first, self._changed, end)
        self.standing = Standing(self, client, journal, ttl_s=ttl_s, dead_after_s=dead_after_s)
        self.mirror.start()
        self.standing.start()

    def close(self) -> None:
        """The kernel keeps what it has."""
        self.standing.stop()
        self.mirror.stop()
        self._netlink.close()

    # -- which networks ------------------------------------------------------------------------------------------------

    def follow(self, joined: Joined) -> bool:
        """As `plugins.overlay.following.Follower.follow`; CniError as its `admit`."""
        self._reach_by(joined.connection)  # this host has just joined by it
        self.standing.admit()
        if self.mirror.gone_back:
            raise older_data(joined.prefix, self.mirror.gone_back, "restart the agents if the data are right")
        with self.lock:
            network = self.networks.get(joined.network)
            if network is not None and network.joined == joined and network.in_step:
                return True
            if network is None or _is_other(network.joined, joined):
                network = self.networks[joined.network] = Followed(joined, self._netlink)
                # Not what etcd said before this host was a member: until then nobody waits for it to follow a fence.
                network.awaits_member = True
                self.standing.joined(joined.network, joined.local)
            network.joined = joined
            if network.is_awaited and not self.mirror.stale_since:
                network.is_awaited = self._news.wait_for(lambda: self._is_member(joined), PATIENCE_S)
            if self.networks.get(joined.network) is not network:
                return False  # it was left meanwhile
            self._begin(network)
            return network.in_step

    def _reach_by(self, connection: str) -> None:
        """Etcd is reached by this `etcd` object from now on, whatever network it came with: what is followed and held
        goes on over it."""
        conf = EtcdConf.parse_text(connection)
        with self.lock:
            if conf == self._client.conf:
                return
            self._client.move(open_client(conf))
            self.connection = connection
        self.mirror.renew()

    def try_others(self, connections: Sequence[str]) -> None:
        """Where etcd is not heard: try the next one of *connections*, as the networks of this host have them. They
        differ where the members or the password were changed while no agent ran."""
        confs = {EtcdConf.parse_text(each): each for each in connections}
        if self.mirror.stale_since and confs:
            order = [*confs]
            at = order.index(self._client.conf) + 1 if self._client.conf in confs else 0
            self._reach_by(confs[order[at % len(order)]])

    def adopt(self, joined: Joined) -> None:
        """Follow a network that this host was found to take part in, as soon as etcd says what there is."""
        with self.lock:
            if joined.network in self.networks:
                return
        # Not while the last DEL takes it away.
        with self.state.lock(lock_of(joined.network)), self.lock:
            there = read_joined(self.state, joined.network)
            if there is not None and not there.left and joined.network not in self.networks:
                network = self.networks[joined.network] = Followed(there, self._netlink)
                self._begin(network)

    def leave(self, network: str) -> None:
        with self.lock:
            self._drop(network)
        self.standing.left(network)

    def _drop(self, network: str) -> None:
        if self.networks.pop(network, None) is not None:
            self.idle_since = time.monotonic()
            self._settle()

    @property
    def joined(self) -> tuple[Joined, ...]:
        with self.lock:
            return tuple(network.joined for network in self.networks.values())

    def problems(self) -> tuple[str, ...]:
        with self.lock:
            return tuple(problem for network in self.networks.values() for problem in network.problems)

    def fenced_at(self, revision: int) -> None:
        """This host came back from a fence: its networks are taken part in behind it."""
        with self.lock:
            for network in self.networks.values():
                network.joined = network.joined.replace(fence=revision)
                keep_joined(self.state, network.joined)

    def _is_member(self, joined: Joined) -> bool:
        return self._complete and self.mirror.get(self.keys.member(self.node, joined.network)) is not None

    def _begin(self, network: Followed) -> None:
        joined = network.joined
        if not network.loaded and self._complete and (not network.awaits_member or self._is_member(joined)):
            network.load(self._everything(joined.network))
        self._compare(network)

    # -- what etcd says ------------------------------------------------------------------------------------------------

    def _changed(self, keys: frozenset[str]) -> None:
        """The copy has changed: called by the mirror, in its thread."""
        with self.lock:
            try:
                if self._complete:
                    self._hand_out(keys)
                else:
                    self._complete = True
                    for network in [*self.networks.values()]:
                        self._begin(network)
            except Exception as failure:  # a bug must not end the following for ever, without a word
                traceback.print_exception(failure)
                for name, broken in self.networks.items():
                    self.networks[name] = Followed(broken.joined, self._netlink)
                    self.networks[name].postpone()
            self._seen = self.mirror.revision
            self._settle()
            self._news.notify_all()
            due = self._due()
        if due != INFINITY:
            self._ring()
        self.standing.heard(keys)

    def _hand_out(self, keys: Iterable[str]) -> None:
        """Tell each network what concerns it."""
        changes: dict[str, list[Change]] = {}
        for change in self._parsed((key, self.mirror.get(key)) for key in keys):
            for name in self._concerned(change[0]):
                changes.setdefault(name, []).append(change)
        for name, those in changes.items():
            network = self.networks[name]
            if network.loaded:
                network.change(those)
            else:
                self._begin(network)

    def _concerned(self, parts: tuple[str, ...]) -> Collection[str]:
        if parts[0] == "fence":
            return self.networks
        name = {"ep": 1, "block": 1, "member": 2}.get(parts[0])
        return (parts[name],) if name and parts[name] in self.networks else ()

    def _everything(self, network: str) -> Iterator[Change]:
        keys = self.keys
        for prefix in (keys.endpoints(network), keys.blocks(network), keys.all_members, keys.fences):
            yield from self._parsed(self.mirror.items(prefix).items())

    def _parsed(self, found: Iterable[tuple[str, Any]]) -> Iterator[Change]:
        for key, kv in found:
            try:
                yield self.keys.parse(key), kv
            except SchemaError:
                continue  # `pycni etcd check` names it

    def _settle(self) -> None:
        if self._complete and all(network.settled for network in self.networks.values()):
            self.applied, self.applied_at = self._seen, time.time()

    # -- what the kernel has -------------------------------------------------------------------------------------------

    def compare(self) -> None:
        """Look at everything as a whole, and put right what is not as it should be."""
        with self.lock:
            for network in [*self.networks.values()]:
                self._begin(network)
            self._settle()

    def compare_due(self) -> float:
        """Try those again that failed, as their time has come; when the next is due (time.monotonic()), inf if none."""
        with self.lock:
            for network in [*self.networks.values()]:
                if network.retry_at <= time.monotonic():
                    self._begin(network)
            self._settle()
            return self._due()

    def happened(self, changes: list[Event] | None, more: Callable[[], list[Event] | None]) -> list[Event] | None:
        """The kernel says that *changes* were made, by whomever; None: that it could not say all. *more* says what came
        meanwhile, which is returned."""
        with self.lock:
            # Nothing of this cluster changes while it is looked at: what was said last of an entry is how it is.
            later = more()
            everything = None if changes is None or later is None else [*changes, *later]
            for network in [*self.networks.values()]:
                if everything is None or network.is_hit(everything):
                    self._answer(network)
                elif any(map(network.is_of_uplink, everything)):
                    self._repairs.follow_uplink(network)
            self._settle()
        return later

    def guard_changed(self, changes: Sequence[tuple[bool, Element]]) -> None:
        """Elements of the tunnels' table went (True) or came, by whomever."""
        with self.lock:
            for network in [*self.networks.values()]:
                if network.is_let_in(changes):
                    self._answer(network)
            self._settle()
            due = self._due()
        if due != INFINITY:
            self._ring()

    def _due(self) -> float:
        """When the next comparison that was put off is to be made (time.monotonic()), inf if none."""
        return min((network.retry_at for network in self.networks.values()), default=INFINITY)

    def _answer(self, network: Followed) -> None:
        """Somebody meddled: compare; of many changes in a row one comparison sees all."""
        if network.is_early():
            network.postpone()
        else:
            self._compare(network)

    def is_idle(self, linger_s: float) -> bool:
        """Whether it has had no network, and nobody asked for it, for *linger_s* seconds."""
        with self.lock:
            return not self.networks and time.monotonic() - self.idle_since >= linger_s

    def touch(self) -> None:
        """Somebody is about to use it."""
        with self.lock:
            self.idle_since = time.monotonic()

    def _compare(self, network: Followed) -> None:
        if not self._repairs.put_right(network):
            self._drop(network.joined.network)

    def _moved(self, network: str, former: str) -> None:
        """This host's tunnel is another; *former* was its address, "" where it still is."""
        if former:
            # The connections to etcd may come from there, too, and TCP would wait for minutes.
            for caller in self._client.callers:
                caller.close()
        self.standing.moved(network, former)

    def _smallest_uplink(self, network: str) -> int:
        """Of the other hosts of *network*, in bytes; 0 where none is known."""
        found = self.mirror.items(self.keys.all_members).values()
        others = [parse_member(kv) for kv in found if kv.key.endswith(f"/{network}") and f"/{self.node}/" not in kv.key]
        return min((each.mtu for each in others if each is not None and each.mtu), default=0)

    def _note(self, level: str, event: str, network: str, **more: Any) -> None:
        self._journal.note(level, event=event, network=network, prefix=self.keys.prefix, **more)


def _is_other(one: Joined, two: Joined) -> bool:
    """Whether more of a network has changed than can change in place."""
    names = ("mode", "vni", "port", "vxlan", "bridge", "node", "overhead")  # the last one: tunnels of another family
    return any(getattr(one, name) != getattr(two, name) for name in names)
