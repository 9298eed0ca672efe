"""The host ports of all attachments: held by sockets of the agent's for as long as it runs, re-taken when it starts."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pycni.agent.held import (
    Held,
    Key,
    Port,
    as_proxied,
    bindings_of,
    close_all,
    key_of,
    left_to_runtime,
    of_served,
    refuse,
    serve,
    single_ports,
    take,
)
from pycni.agent.journal import Journal
from pycni.agent.proxy import ProxyKeeper
from pycni.cni.errors import CniError, Code
from pycni.cni.names import Attachment
from pycni.host import listeners
from pycni.portmap import holding
from pycni.portmap.holding import Binding
from pycni.portmap.proxy.client import ProxyError
from pycni.store import Record, Store, open_store, proxied

if TYPE_CHECKING:
    from pycni.portmap.proxy.client import ProxyClient

Alone = Callable[[Record], AbstractContextManager[None]]
DESCRIPTORS_STEP = 256


class AgentPorts(holding.Holder):
    """The holder of a process that stays. From any thread."""

    serves_proxy = True

    def __init__(self, journal: Journal, allow: Callable[[int], None]) -> None:
        """*allow* makes room for that number of descriptors."""
        self.proxy = ProxyKeeper(journal, needed=self._any_proxied, replay=self._replay)
        self._journal = journal
        self._allow = allow
        self._held: dict[str, Held] = {}
        self._lock = threading.Lock()  # of the table; never held while the proxy is asked
        self._sockets = 0
        self.room = 0  # how many sockets there are descriptors for

    def adopt(self) -> None:
        """Take over what a proxy serves that an agent before us has started."""
        for mapping in self.proxy.adopt():
            binding = of_served(mapping)
            with self._lock:
                held = self._held.setdefault(mapping["owner"], Held())
                held.active = True
                held.ports[key_of(binding)] = Port(binding, None, served=True)

    def reserve(self, owner: str, bindings: Sequence[Binding]) -> None:
        attachment = Attachment.parse(owner)
        cni_args = _cni_args(attachment) if attachment is not None else ""
        kept = []
        for binding in bindings:
            if not binding.held:
                holding.check_run(binding, owner)
            elif left_to_runtime(binding, cni_args):
                holding.try_all(binding, owner)
            else:
                kept.append(binding)
        wanted = single_ports(kept)
        self._let_go_of_others(owner, wanted)
        self._acquire(owner, wanted)
        if attachment is not None and any(binding.proxied for binding in bindings):
            with open_store() as store:
                proxied.put(store, attachment, (as_proxied(binding) for binding in bindings if binding.proxied))

    def activate(self, owner: str) -> None:
        with self._lock:
            held = self._held.get(owner)
            if held is None:
                return
            held.active = True
            idle = [port for port in held.ports.values() if port.binding.proxied and not port.served]
        if idle:
            self.proxy.use(lambda proxy: serve(proxy, owner, idle))

    def release(self, owner: str) -> None:
        with self._lock:
            held = self._held.pop(owner, None)
        if held is not None:
            self._give_back(owner, held)

    def close(self) -> None:
        """The agent ends: its sockets go with it, the proxy stays where it serves something."""
        self.proxy.end()

    def has(self, owner: str, binding: Binding) -> bool:
        """Whether sockets own all of the binding's ports: ours, or the proxy's."""
        wanted = single_ports([binding])
        with self._lock:
            held = self._held.get(owner)
            have = held.ports if held is not None else {}
            return bool(wanted) and all(key in have and have[key].owned for key in wanted)

    def counts(self) -> dict[str, int]:
        """How many single ports are held by sockets, and how many are served by the proxy."""
        with self._lock:
            every = [port for held in self._held.values() for port in held.ports.values()]
        return {"held": sum(port.owned for port in every), "proxied": sum(port.served for port in every)}

    # -- upkeep --------------------------------------------------------------------------------------------------------

    def now(self) -> dict[str, Held]:
        """Who has something; see compare()."""
        with self._lock:
            return dict(self._held)

    def compare(self, store: Store, before: Mapping[str, Held], records: Iterable[Record], alone: Alone) -> list[str]:
        """Give back what nobody has published any more, take what is missing; what could not be taken, as text.

        *before*: what now() said before *records* were read. A record is written before its ports are reserved, so
        what was held then and is in no record is left over.
        """
        failures = []
        by_proxy = proxied.read_all(store)
        recorded = {record.attachment.owner: record for record in records}
        for owner, held in before.items():
            if owner not in recorded:
                with self._lock:
                    left = self._held.get(owner) is held and self._held.pop(owner)
                if left:
                    failures += self._try_to_give_back(owner, left)
        for owner, record in recorded.items():
            published = bindings_of(record, by_proxy.get(record.attachment, ()))
            wanted = [one for one in published if not left_to_runtime(one, record.cni_args)]
            if record.state != "ready" or self._is_complete(owner, wanted):
                continue
            try:
                with alone(record):
                    now = store.attachments.get(record.attachment)
                    if now is not None and (now.state, now.created) == ("ready", record.created):
                        failures += self._hold_what_can_be(owner, wanted)
                        self.activate(owner)
            except (CniError, OSError) as failure:
                failures.append(f"{owner}: {failure}")
        return failures

    def _try_to_give_back(self, owner: str, held: Held) -> list[str]:
        try:
            self._give_back(owner, held)
        except CniError as failure:
            return [f"{owner}: {failure}"]
        return []

    def _hold_what_can_be(self, owner: str, bindings: Sequence[Binding]) -> list[str]:
        """For an attachment that is there: a port that a stranger took meanwhile keeps none of the others from it."""
        failures = []
        wanted = single_ports(bindings)
        self._let_go_of_others(owner, wanted)
        for key, binding in wanted.items():
            try:
                self._acquire(owner, {key: binding})
            except CniError as failure:
                failures.append(f"{owner}: {failure}")
        return failures

    def _is_complete(self, owner: str, bindings: Sequence[Binding]) -> bool:
        wanted = single_ports(bindings)
        with self._lock:
            held = self._held.get(owner)
        return not wanted if held is None else not held.lacks(wanted)

    # -- sockets -------------------------------------------------------------------------------------------------------

    def _let_go_of_others(self, owner: str, wanted: Mapping[Key, Binding]) -> None:
        """Release what *owner* has if some of it is not *wanted*: it is left from a call that is over."""
        with self._lock:
            held = self._held.get(owner)
        if held is not None and not held.continues(wanted):
            self.release(owner)

    def _acquire(self, owner: str, wanted: Mapping[Key, Binding]) -> None:
        while True:
            with self._lock:
                in_the_way = self._take(owner, wanted)
            if in_the_way is None:
                return
            self._give_way(*in_the_way)

    def _take(self, owner: str, wanted: Mapping[Key, Binding]) -> tuple[Binding, str] | None:
        """Take those of *wanted* that are not taken yet, all or none; the first that another owner of ours has, and who
        that is, if one is in the way."""
        held = self._held.get(owner) or Held()
        new: dict[Key, Port] = {}
        self._make_room(len(wanted))
        try:
            for key, binding in wanted.items():
                if key in held.ports and held.ports[key].owned:
                    continue
                try:
                    new[key] = Port(binding, listeners.hold(*key))
                except OSError as failure:
                    other = self._owner_of(key) if failure.errno == errno.EADDRINUSE else ""
                    if other:
                        close_all(new)
                        return binding, other
                    refuse(binding, failure, owner)
        except BaseException:
            close_all(new)
            raise
        held.ports.update(new)
        self._sockets += sum(port.socket is not None for port in new.values())
        if held.ports:
            self._held[owner] = held
        return None

    def _owner_of(self, key: Key) -> str:
        """Who has a port that excludes that one; "" for nobody of ours. Only asked after a conflict."""
        family, proto, host_ip, number = key
        for owner, held in self._held.items():
            for other_family, other_proto, other_ip, other_number in held.ports:
                same = (other_family, other_proto, other_number) == (family, proto, number)
                if same and (not host_ip or other_ip in ("", host_ip)):
                    return owner
        return ""

    def _give_way(self, binding: Binding, owner: str) -> None:
        """Release what a DEL has left that this process never heard of; CniError 100 where the owner is attached."""
        attachment = Attachment.parse(owner)
        with open_store() as store:
            if attachment is not None and store.attachments.get(attachment) is not None:
                raise CniError(
                    Code.PORT_TAKEN,
                    f"host port {binding.shown()} is taken by container {attachment.container_id}"
                    f" on network {attachment.network}: choose another one or remove that",
                    f"`pycni ports` shows it; its attachment is {owner}",
                )
        self.release(owner)

    def _give_back(self, owner: str, held: Held) -> None:
        try:
            if any(port.binding.proxied for port in held.ports.values()):
                self.proxy.remove(owner)
        finally:
            close_all(held.ports)
            with self._lock:
                self._sockets -= sum(port.socket is not None for port in held.ports.values())

    def _make_room(self, more: int) -> None:
        if self._sockets + more > self.room:
            self.room = self._sockets + more + DESCRIPTORS_STEP
            self._allow(self.room)

    # -- the proxy -----------------------------------------------------------------------------------------------------

    def _any_proxied(self) -> bool:
        with self._lock:
            held = list(self._held.values())
        return any(one.active and port.binding.proxied for one in held for port in one.ports.values())

    def _replay(self, proxy: ProxyClient) -> None:
        """Give a new proxy what its predecessor served: with its sockets, in which clients wait, where we have them."""
        with self._lock:
            active = [(owner, held) for owner, held in self._held.items() if held.active]
        for owner, held in active:
            for port in held.ports.values():
                if port.binding.proxied:
                    port.served = False
                    self._serve_again(proxy, owner, port)

    def _serve_again(self, proxy: ProxyClient, owner: str, port: Port) -> None:
        try:
            if port.socket is None:  # adopted: only the proxy that is gone had it
                self._make_room(1)
                port.socket = take(port.binding, owner)
                self._sockets += 1
            serve(proxy, owner, [port])
        except (CniError, ProxyError) as failure:  # with this one; the others are served all the same
            self._journal.note("error", event="port-not-served", owner=owner, msg=str(failure))


def _cni_args(attachment: Attachment) -> str:
    """What the runtime said in the ADD whose record stands."""
    with open_store() as store:
        record = store.attachments.get(attachment)
    return record.cni_args if record is not None else ""
