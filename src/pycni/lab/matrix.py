"""Every container to every other: what is to be expected, and what was seen.

What is expected follows from the networks. On a common network everybody reaches everybody: on all hosts if it spans
them, on one host otherwise. From network to network nothing is expected where one of them is isolated, and anything
may be where none is. The same address on the bridges of two hosts is two containers, so nobody is asked across.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from pycni.cni.value import Value
from pycni.lab.picture import Picture
from pycni.lab.pings import Echoes, Probe, ping

YES, NO, OPEN = "yes", "no", "open"  # what is expected of a pair


class Pair(Value):
    """One address of one container, asked for from another; *source* and *target* are HOST/CONTAINER."""

    source: str
    target: str
    network: str  # the target's
    address: str  # "": it has none
    expected: str = YES

    @property
    def family(self) -> int:
        return 0 if not self.address else 6 if ":" in self.address else 4


class Seen(Value):
    """What became of a pair."""

    pair: Pair
    echoes: Echoes

    @property
    def lost(self) -> int:
        return self.echoes.sent - len(self.echoes.rtts_ms)

    @property
    def reached(self) -> bool:
        return bool(self.echoes.rtts_ms)

    @property
    def wrong(self) -> bool:
        """Whether it is not as expected: no answer, a lost echo, or an answer where none may come."""
        if self.pair.expected == YES:
            return not self.reached or self.lost > 0
        return self.pair.expected == NO and self.reached

    def as_json(self) -> dict[str, Any]:
        rtts = self.echoes.rtts_ms
        times = {"min": min(rtts), "median": statistics.median(rtts), "max": max(rtts)} if rtts else None
        rounded = {name: round(ms, 3) for name, ms in times.items()} if times else None
        pair = self.pair
        return {
            "from": pair.source,
            "to": pair.target,
            "network": pair.network,
            "address": pair.address,
            "family": pair.family,
            "expected": pair.expected,
            "sent": self.echoes.sent,
            "lost": self.lost,
            "rtt_ms": rounded,
            "wrong": self.wrong,
        }


class Matrix(Value):
    """All that was seen; *names* are the containers in their order."""

    names: tuple[str, ...]
    seen: tuple[Seen, ...]

    @property
    def wrong(self) -> tuple[Seen, ...]:
        return tuple(each for each in self.seen if each.wrong)

    def cells(self) -> dict[tuple[str, str], tuple[Seen, ...]]:
        """What was seen of each two containers."""
        found: dict[tuple[str, str], list[Seen]] = {}
        for each in self.seen:
            found.setdefault((each.pair.source, each.pair.target), []).append(each)
        return {key: tuple(several) for key, several in found.items()}

    def as_json(self) -> dict[str, Any]:
        expected = [each for each in self.seen if each.pair.expected == YES]
        summary = {"containers": len(self.names), "pairs": len(self.seen), "expected": len(expected)}
        return {"summary": {**summary, "wrong": len(self.wrong)}, "pairs": [each.as_json() for each in self.seen]}


def pairs_of(picture: Picture, *, families: Sequence[int] = (4, 6)) -> list[Pair]:
    """Who is to be asked for whom, source by source."""
    spans = {each.name: each.spans for each in picture.networks}
    isolated = {each.name for each in picture.networks if each.isolated}
    places = [(host.name, container) for host in picture.hosts for container in host.containers]
    pairs = []
    for host, source in places:
        own = {plug.network for plug in source.plugs}
        for other_host, target in places:
            if (host, source.name) == (other_host, target.name) or not own:
                continue
            for plug in target.plugs:
                if other_host != host and not spans[plug.network]:
                    continue
                expected = YES if plug.network in own else NO if isolated & {*own, plug.network} else OPEN
                names = f"{host}/{source.name}", f"{other_host}/{target.name}"
                addresses = [each for each in plug.addresses if (6 if ":" in each else 4) in families]
                if not plug.addresses and expected == YES:
                    addresses = [""]
                pairs += [Pair(*names, plug.network, address, expected) for address in addresses]
    return pairs


def names_of(picture: Picture) -> tuple[str, ...]:
    return tuple(f"{host.name}/{container.name}" for host in picture.hosts for container in host.containers)


def measure(
    picture: Picture,
    namespaces: dict[str, str],
    *,
    count: int = 3,
    timeout_s: float = 1.0,
    families: Sequence[int] = (4, 6),
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Matrix:
    """Ping all of it. *namespaces*: the path of each HOST/CONTAINER; *count* echoes where an answer is expected."""
    pairs = pairs_of(picture, families=families)
    asked = [pair for pair in pairs if pair.address]
    probes = [Probe(pair.source, pair.address, count if pair.expected == YES else 1) for pair in asked]
    echoes = ping(namespaces, probes, timeout_s=timeout_s, progress=lambda done: progress(done, len(probes)))
    found = dict(zip(asked, echoes, strict=True))
    nothing = Echoes(0)
    return Matrix(names_of(picture), tuple(Seen(pair, found.get(pair, nothing)) for pair in pairs))
