"""The difference between a lab that runs and the one that is wanted, as steps: pure. A new lab differs from nothing.

What runs is described by `Actual`, read from the state and from the processes that live.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pycni.cni.value import Value
from pycni.lab.addressing import Route, routes
from pycni.lab.conflist import conflist, group_of
from pycni.lab.topology import ContainerSpec, HostSpec, Lab, LinkSpec, Segment

# The order in which steps are carried out; those of one phase are done at the same time.
PHASES = (
    ("remove", "container"),
    ("stop", "agent"),
    ("remove", "host"),
    ("remove", "segment"),
    ("add", "segment"),
    ("add", "host"),
    ("change", "routes"),
    ("start", "etcd"),
    ("remove", "network"),
    ("add", "network"),
    ("start", "agent"),
    ("add", "container"),
)


class Step(Value):
    """*verb* and *kind* as in PHASES; *name* of a container is HOST/CONTAINER; *why* is "" for what is simply new."""

    verb: str
    kind: str
    name: str
    why: str = ""

    def __str__(self) -> str:
        sign = {"add": "+", "remove": "-", "change": "~", "start": "+", "stop": "-"}[self.verb]
        return f"{sign} {self.verb} {self.kind} {self.name}{f' ({self.why})' if self.why else ''}"


class Actual(Value):
    """What there is of a lab. *links* and *routes* by machine; *conflists* by network; the rest are names."""

    lab: Lab | None = None  # as its file was, without chosen addresses
    links: Mapping[str, tuple[LinkSpec, ...]] = {}
    routes: Mapping[str, tuple[Route, ...]] = {}
    conflists: Mapping[str, Mapping[str, Any]] = {}
    containers: frozenset[str] = frozenset()  # attached, HOST/CONTAINER
    dead: frozenset[str] = frozenset()  # machines without living holder
    agents: frozenset[str] = frozenset()  # hosts whose agent runs
    members: frozenset[str] = frozenset()  # etcd members that run

    __hash__ = None  # type: ignore[assignment]


def anew(actual: Actual, want: Lab) -> str:
    """Why nothing of what runs can stay; "" if something can."""
    have = actual.lab
    if have is None:
        return ""
    if (have.etcd is None) != (want.etcd is None):
        return "etcd is added" if want.etcd else "etcd is no longer wanted"
    if have.etcd and want.etcd:
        if _etcd_facts(have) != _etcd_facts(want):
            return "etcd is another"
        for member in want.etcd.hosts:
            if _addresses(actual.links.get(member.name, ())) != _addresses(member.links):
                return f"{member.name} has another address"  # its peers know it by that
    return ""


def plan(actual: Actual, want: Lab, etcd_connection: Mapping[str, Any]) -> tuple[Step, ...]:
    """What is to be done, in order. *want* is addressed; where `anew` says so, give an empty Actual."""
    return _Planner(actual, want, etcd_connection).steps()


class _Planner:
    def __init__(self, actual: Actual, want: Lab, etcd_connection: Mapping[str, Any]) -> None:
        self.actual = actual
        self.want = want
        self.connection = etcd_connection
        self.found: list[Step] = []

    def add(self, verb: str, kind: str, name: str, why: str = "") -> None:
        self.found.append(Step(verb=verb, kind=kind, name=name, why=why))

    def steps(self) -> tuple[Step, ...]:
        gone, fresh = self._machines()
        self._segments()
        changed = self._networks()
        self._processes(gone, fresh)
        self._containers(gone, fresh, changed)
        order = {phase: at for at, phase in enumerate(PHASES)}
        return tuple(sorted(self.found, key=lambda step: order[step.verb, step.kind]))

    def _segments(self) -> None:
        have = {each.name: each for each in self.actual.lab.segments} if self.actual.lab else {}
        want = {each.name: each for each in self.want.segments}
        for name in have.keys() - want.keys():
            self.add("remove", "segment", name)
        for name, segment in want.items():
            if name not in have:
                self.add("add", "segment", name, _segment_words(segment))

    def _machines(self) -> tuple[set[str], set[str]]:
        """Names of the machines that go, and of those that are made: a changed one is both."""
        have = {each.name: each for each in self.actual.lab.machines} if self.actual.lab else {}
        want = {each.name: each for each in self.want.machines}
        gone, fresh = set(), set()
        for name in self.actual.links:
            if name not in want or name not in have:
                gone.add(name)
                self.add("remove", "host", name, "it was not finished" if name in want else "")
        for name, machine in want.items():
            if name not in have or name not in self.actual.links:
                fresh.add(name)
                self.add("add", "host", name)
                continue
            why = self._why_anew(have[name], machine)
            if why:
                fresh.add(name)
                if name not in self.actual.dead:
                    gone.add(name)
                    self.add("remove", "host", name, why)
                self.add("add", "host", name, why)
            elif self.actual.routes.get(name, ()) != routes(self.want, machine):
                self.add("change", "routes", name)
        return gone, fresh

    def _why_anew(self, have: HostSpec, want: HostSpec) -> str:
        if have.name in self.actual.dead:
            return "its namespaces are gone"
        if have.role != want.role:
            return f"it was of another kind: {have.role}"
        before, after = self.actual.links[want.name], want.links
        if before != after:
            return _link_words(before, after)
        assert self.actual.lab is not None
        for link in want.links:
            segments = {each.name: each for each in self.actual.lab.segments}
            old, new = segments.get(link.segment), self.want.segment(link.segment)
            if old is None or (old.ipv4, old.ipv6) != (new.ipv4, new.ipv6):
                return f"segment {link.segment} changed"
        return "its sysctls changed" if have.sysctls != want.sysctls else ""

    def _networks(self) -> set[str]:
        """Writes and removes configurations; the names of those that changed."""
        changed = set()
        wanted = {each.name: conflist(each, self.connection, group_of(self.want)) for each in self.want.networks}
        for name in self.actual.conflists:
            if name not in wanted:
                self.add("remove", "network", name)
        for name, conf in wanted.items():
            old = self.actual.conflists.get(name)
            if old is None:
                self.add("add", "network", name)
            elif old != conf:
                changed.add(name)
                self.add("add", "network", name, "its configuration changed")
        return changed

    def _processes(self, gone: set[str], fresh: set[str]) -> None:
        have = {each.name: each for each in self.actual.lab.hosts} if self.actual.lab else {}
        for host in self.want.hosts:
            runs = host.name in self.actual.agents and host.name not in gone | fresh
            before = have.get(host.name)
            changed = before is not None and before.agent_config != host.agent_config
            if runs and (changed or not host.agent):
                self.add("stop", "agent", host.name, "its configuration changed" if host.agent else "")
                runs = False
            if host.agent and not runs:
                why = "it does not run" if before and before.agent and host.name not in fresh and not changed else ""
                self.add("start", "agent", host.name, why)
        for member in self.want.etcd.hosts if self.want.etcd else ():
            if member.name in fresh or member.name not in self.actual.members:
                known = self.actual.lab is not None and member.name not in fresh
                self.add("start", "etcd", member.name, "it does not run" if known else "")

    def _containers(self, gone: set[str], fresh: set[str], changed: set[str]) -> None:
        have = {each.path: each for each in self.actual.lab.containers} if self.actual.lab else {}
        want = {each.path: each for each in self.want.containers}
        staying = set()
        for path in sorted(self.actual.containers):
            host = path.partition("/")[0]
            if host in self.actual.dead:
                continue  # nothing can be detached where nothing is left
            why = self._why_detached(have.get(path), want.get(path), host in gone, changed)
            if why is None:
                staying.add(path)
                continue
            self.add("remove", "container", path, why)
            if path in want:
                self.add("add", "container", path, why)
                staying.add(path)
        for path, container in want.items():
            if path not in staying:
                back = path in have and container.host in fresh
                self.add("add", "container", path, "its host is made anew" if back else "")

    @staticmethod
    def _why_detached(
        have: ContainerSpec | None, want: ContainerSpec | None, host_goes: bool, changed: set[str]
    ) -> str | None:
        """None: it stays; "": nobody wants it any more."""
        if want is None:
            return ""
        if have is None:
            return "it was not finished"
        if host_goes:
            return "its host is made anew"
        touched = sorted(changed & {each.network for each in (*have.attachments, *want.attachments)})
        if touched:
            return f"network {touched[0]} changed"
        return "it changed" if have != want else None


def _etcd_facts(lab: Lab) -> tuple[object, ...]:
    assert lab.etcd is not None
    return lab.etcd.members, lab.etcd.tls, lab.etcd.prefix, [link.segment for link in lab.etcd.hosts[0].links]


def _addresses(links: Sequence[LinkSpec]) -> list[tuple[str, str]]:
    return [(link.ipv4, link.ipv6) for link in links]


def _segment_words(segment: Segment) -> str:
    return " ".join((*(prefix for prefix in (segment.ipv4, segment.ipv6) if prefix), f"mtu {segment.mtu}"))


def _link_words(before: Sequence[LinkSpec], after: Sequence[LinkSpec]) -> str:
    old, new = {each.segment: each for each in before}, {each.segment: each for each in after}
    for name, link in new.items():
        if name not in old:
            return f"a link to {name} is new"
        for key, value in link.as_dict().items():
            was = getattr(old[name], key)
            if was != value:
                return f"{key} on {name} was {was or 'none'}, becomes {value or 'none'}"
    return "a link is no longer wanted" if len(old) > len(new) else "its links are in another order"
