"""Which kernel entries lead to the containers of the other hosts of a network, from what etcd says of it. Pure.

A `PeerTable` is fed with keys and values of etcd, all of them at first and then what changed, in any order, and answers
with what is to be added and removed. It is indexed by host and by what the kernel tells entries apart by, so one change
costs the same beside 20 endpoints and beside 20 000.
"""

from __future__ import annotations

from pycni.change.forwarding import FdbEntry, NeighbourEntry, PortEntry, RouteEntry
from pycni.cni.addresses import parse_address, parse_mac
from pycni.cni.value import Value
from pycni.etcd.records import Block, Endpoint, Member
from pycni.etcd.schema import SchemaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycni.change.forwarding import Entry
    from pycni.etcd.requests import KeyValue

    Slot = tuple[str, str]
    Claim = tuple[int, str, Entry | None]  # create revision and name of who wants it, and what
    Lack = tuple[Entry | str, int]  # an entry, or a tunnel address of which packets are taken; see `PeerTable.since`


class Delta(Value):
    """What a change comes to: `add` is to be there before `remove` is taken away.

    An entry that takes another's place (the same MAC behind another host) is in `add` alone: the kernel replaces it.
    """

    add: frozenset[Entry] = frozenset()
    remove: frozenset[Entry] = frozenset()
    vteps_add: frozenset[str] = frozenset()
    vteps_remove: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.add or self.remove or self.vteps_add or self.vteps_remove)

    @property
    def fresh(self) -> tuple[NeighbourEntry, ...]:
        """Endpoints that are new or have another MAC: what a container waits for, or knows wrongly."""
        return tuple(entry for entry in self.add if isinstance(entry, NeighbourEntry))


def slot_of(entry: Entry) -> Slot:
    """What the kernel holds only once on a device: an entry added there takes the place of the one before."""
    if isinstance(entry, NeighbourEntry):
        return "neighbour", entry.address
    if isinstance(entry, RouteEntry):
        return "route", entry.prefix
    return "fdb" if isinstance(entry, FdbEntry) else "port", entry.mac


def difference(wanted: frozenset[Entry], actual: frozenset[Entry]) -> Delta:
    """What makes *wanted* of *actual*, which the kernel was found to hold."""
    add = wanted - actual
    replaced = {slot_of(entry) for entry in add}
    # A tunnel's FDB may have several hosts behind one MAC; one that is not added now cannot replace the others.
    return Delta(add=add, remove=frozenset(entry for entry in actual - wanted if slot_of(entry) not in replaced))


class PeerTable:
    """The other hosts of *network* as *node*, whose end of the tunnels is *local*, has to know them; mode as in the
    network's record.

    Whose record cannot be read is as it was before, and named in `problems` (by key).
    """

    def __init__(self, node: str, network: str, mode: str, local: str) -> None:
        self._node = node
        self._network = network
        self._mode = mode
        self._family = parse_address(local).version
        self._hosts: dict[str, _Host] = {}
        self._holders: dict[str, str] = {}  # of each endpoint's address, or block, the host that has it
        self._slots: dict[Slot, dict[str, Claim]] = {}
        self._vteps: dict[str, set[str]] = {}  # of each tunnel address the hosts; another's is refused when they join
        self.problems: dict[str, str] = {}

    def change(self, changes: Iterable[tuple[tuple[str, ...], KeyValue | None]]) -> Delta:
        """Take in *changes*: keys, parsed by `schema.Keys.parse`, with what they hold now (None: nothing).

        Keys of other kinds and networks change nothing.
        """
        slots: dict[Slot, Entry | None] = {}
        vteps: dict[str, bool] = {}
        for parts, found in changes:
            try:
                self._take_in(parts, found, slots, vteps)
            except SchemaError as damage:
                self.problems["/".join(parts)] = damage.msg
            else:
                if self.problems:
                    self.problems.pop("/".join(parts), None)
        add, remove = set(), set()
        for slot, old in slots.items():
            new = self.wanted_at(slot)
            if new is not None and new != old:
                add.add(new)
            elif new is None and old is not None:
                remove.add(old)
        return Delta(
            add=frozenset(add),
            remove=frozenset(remove),
            vteps_add=frozenset(vtep for vtep, was in vteps.items() if not was and vtep in self._vteps),
            vteps_remove=frozenset(vtep for vtep, was in vteps.items() if was and vtep not in self._vteps),
        )

    def wanted(self) -> frozenset[Entry]:
        """All entries that this host's kernel is to hold."""
        return frozenset(filter(None, map(self.wanted_at, self._slots)))

    def wanted_at(self, slot: Slot) -> Entry | None:
        """The one of them at *slot*. Where two containers were given one MAC, that of the later one, on all hosts."""
        claims = self._slots.get(slot)
        return max(claims.values(), key=_rank)[2] if claims else None

    def since(self) -> frozenset[Lack]:
        """All entries and tunnel addresses that this host's kernel is to hold, each with the revision since which etcd
        asks for it: one that went and came again has another."""
        found: set[Lack] = set()
        for claims in self._slots.values():
            revision, claimer, entry = max(claims.values(), key=_rank)
            if entry is not None:
                holder = self._holders.get(claimer, claimer)
                found.add((entry, max(revision, self._hosts[holder].joined)))
        for vtep, nodes in self._vteps.items():
            found.add((vtep, max(self._hosts[node].joined for node in nodes)))
        return frozenset(found)

    @property
    def count(self) -> int:
        """How many there are, this host's own endpoints counted in."""
        return len(self._slots)

    def vteps(self) -> frozenset[str]:
        """The tunnel addresses of the other hosts, of which packets are taken."""
        return frozenset(self._vteps)

    # -- taking in -----------------------------------------------------------------------------------------------------

    def _take_in(
        self, parts: tuple[str, ...], found: KeyValue | None, slots: dict[Slot, Entry | None], vteps: dict[str, bool]
    ) -> None:
        kind = parts[0]
        if kind == "fence":
            self._set_host(parts[1], slots, vteps, fence=found.mod_revision if found else 0)
        elif kind == "member" and parts[2] == self._network:
            member = self._usable(Member.parse(found.value, found.key)) if found else None
            self._set_host(parts[1], slots, vteps, member=member, joined=found.mod_revision if found else 0)
        elif parts[1] != self._network:
            return
        elif kind == "ep" and self._mode == "l2":
            endpoint = Endpoint.parse(found.value, found.key) if found else None
            # One without a MAC is of a network that only takes its addresses from etcd.
            node, mac = (endpoint.node, _mac(endpoint.mac)) if endpoint and endpoint.mac else ("", "")
            self._set_holder(parts[2], node, (found.create_revision if found else 0, mac), slots)
        elif kind == "block" and len(parts) == 3 and self._mode == "routed":
            node = Block.parse(found.value, found.key).node if found else ""
            self._set_holder(parts[2], node, (found.create_revision if found else 0, ""), slots)

    def _set_host(
        self,
        node: str,
        slots: dict[Slot, Entry | None],
        vteps: dict[str, bool],
        *,
        fence: int | None = None,
        member: Member | None = None,
        joined: int | None = None,
    ) -> None:
        if node == self._node:
            return
        host = self._hosts.get(node) or _Host()
        vtep, mac = host.way
        fence = host.fence if fence is None else fence
        if joined is None:
            member, joined = host.member, host.joined
        now = _Host(member, joined, fence, host.has)
        if now.way != (vtep, mac):
            for name in (*host.has, ""):
                self._drop(node, host, name, slots)
            if vtep:
                vteps.setdefault(vtep, True)
                self._vteps[vtep].discard(node)
                if not self._vteps[vtep]:
                    del self._vteps[vtep]
            vtep = now.way[0]
            if vtep:
                vteps.setdefault(vtep, vtep in self._vteps)
                self._vteps.setdefault(vtep, set()).add(node)
            for name in (*now.has, ""):
                self._claim(node, now, name, slots)
        self._keep(node, now)

    def _set_holder(self, name: str, node: str, what: tuple[int, str], slots: dict[Slot, Entry | None]) -> None:
        """*name*, an address or block, is *node*'s now ("": nobody's); what: its create revision and MAC."""
        before = self._holders.pop(name, "")
        if before:
            host = self._hosts[before]
            self._drop(before, host, name, slots)
            del host.has[name]
            self._keep(before, host)
        if node:
            self._holders[name] = node
            host = self._hosts.setdefault(node, _Host())
            host.has[name] = what
            self._claim(node, host, name, slots)

    def _keep(self, node: str, host: _Host) -> None:
        if host.has or host.joined or host.fence:
            self._hosts[node] = host
        else:
            self._hosts.pop(node, None)

    def _usable(self, member: Member) -> Member:
        """As the kernel writes it; SchemaError for what it would refuse, for ever."""
        try:
            vtep = parse_address(member.vtep)
        except ValueError as exc:
            raise SchemaError(f"member {member.name}: {exc}") from None
        if vtep.version != self._family:
            raise SchemaError(
                f"member {member.name}: its tunnels end at {vtep}, those of this host at IPv{self._family}"
            )
        return member.replace(vtep=str(vtep), mac=_mac(member.mac) if self._mode == "routed" else "")

    # -- who wants which entry -----------------------------------------------------------------------------------------

    def _claim(self, node: str, host: _Host, name: str, slots: dict[Slot, Entry | None]) -> None:
        revision = host.has[name][0] if name else host.joined
        claimer = name or node
        for slot, entry in self._entries(node, host, name):
            slots.setdefault(slot, self.wanted_at(slot))
            self._slots.setdefault(slot, {})[claimer] = revision, claimer, entry

    def _drop(self, node: str, host: _Host, name: str, slots: dict[Slot, Entry | None]) -> None:
        for slot, _ in self._entries(node, host, name):
            slots.setdefault(slot, self.wanted_at(slot))
            claims = self._slots[slot]
            del claims[name or node]
            if not claims:
                del self._slots[slot]

    def _entries(self, node: str, host: _Host, name: str) -> Iterator[tuple[Slot, Entry | None]]:
        """What *host*'s endpoint or block *name* needs, or with "" the host itself. This host's own endpoints need that
        nothing is there: an entry for their MAC, from before they moved here, would lead away from them."""
        vtep, vtep_mac = host.way
        if self._mode == "l2" and name and (vtep or node == self._node):
            mac = host.has[name][1]
            for entry in (FdbEntry(mac, vtep), PortEntry(mac), NeighbourEntry(name, mac)):
                yield slot_of(entry), entry if vtep else None
        elif self._mode == "routed" and vtep and name:
            via = name.partition("/")[0]
            yield ("neighbour", via), NeighbourEntry(via, vtep_mac)
            yield ("route", name), RouteEntry(name, via)
        elif self._mode == "routed" and vtep:
            yield ("fdb", vtep_mac), FdbEntry(vtep_mac, vtep)


class _Host:
    """Another host. joined, fence: mod revisions of its member and fence keys, 0 where there are none. has: of each
    endpoint's address or block the create revision and the MAC."""

    __slots__ = "fence", "has", "joined", "member", "way"

    def __init__(
        self,
        member: Member | None = None,
        joined: int = 0,
        fence: int = 0,
        has: dict[str, tuple[int, str]] | None = None,
    ) -> None:
        self.member = member
        self.joined = joined
        self.fence = fence
        self.has: dict[str, tuple[int, str]] = {} if has is None else has
        #: Its tunnel address and MAC; empty where it takes part no more, or was declared dead since it joined.
        self.way = (member.vtep, member.mac) if member is not None and fence <= joined else ("", "")


def _mac(text: str) -> str:
    try:
        return parse_mac(text).hex(":")
    except ValueError as exc:
        raise SchemaError(str(exc)) from None


def _rank(claim: Claim) -> tuple[int, str]:
    return claim[:2]
