"""Which pairs a claim speaks of, and where a name is to be found: pure, from the picture of the lab."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from pycni.lab.errors import NOT_FOUND, LabError
from pycni.lab.matrix import OPEN, YES, Pair, names_of, pairs_of
from pycni.lab.naming import matching
from pycni.lab.picture import Picture, PictureHost, Plug, Station, Wire
from pycni.lab.scenario import Expectation


def chosen_pairs(picture: Picture, claim: Expectation) -> list[Pair]:
    """The pairs of a reach or unreachable; LabError where there is none, since that would hold for nothing.

    Between containers those of a common network; all that match, where none of them has a network in common.
    """
    families = (claim.family,) if claim.family else (4, 6)
    if "/" in claim.source and "/" in claim.target:
        pairs = [each for each in pairs_of(picture, families=families) if _meant(each, claim)]
        common = [each for each in pairs if each.expected == YES]
        pairs = common or pairs
    else:
        sources = _matched(picture, claim.source)
        pairs = [each for each in _to_machines(picture, claim, sources) if family_of(each.address) in families]
    if not pairs:
        raise LabError(
            f"{claim.words}: there is no such pair",
            next_step="containers are asked for on networks that both ends can reach; is the pattern right?",
        )
    return pairs


def _meant(pair: Pair, claim: Expectation) -> bool:
    if claim.network and pair.network != claim.network:
        return False
    return bool(matching([pair.source], claim.source) and matching([pair.target], claim.target))


def _matched(picture: Picture, pattern: str) -> list[str]:
    return matching([*names_of(picture), *machines_of(picture)], pattern)


def _to_machines(picture: Picture, claim: Expectation, sources: list[str]) -> Iterator[Pair]:
    """Pairs of which one end is a machine of the underlay."""
    for target in _matched(picture, claim.target):
        for source in sources:
            if source != target:
                for network, address in addresses_of(picture, target):
                    if not claim.network or claim.network == network:
                        yield Pair(source, target, network, address, OPEN)


def is_address(text: str) -> bool:
    """Whether it is one rather than the name of a machine or container, which may have dots."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def family_of(address: str) -> int:
    return 6 if ":" in address else 4


def machines_of(picture: Picture) -> dict[str, PictureHost | Station]:
    """Hosts, routers and members of etcd by name."""
    stations: dict[str, PictureHost | Station] = {each.name: each for each in picture.stations}
    return {**stations, **{each.name: each for each in picture.hosts}}


def plugs_of(picture: Picture, name: str) -> tuple[Plug, ...]:
    """The interfaces of HOST/CONTAINER; LabError where there is none of that name."""
    host, _, container = name.partition("/")
    for each in picture.hosts:
        for found in each.containers if each.name == host else ():
            if found.name == container:
                return found.plugs
    raise LabError(f"lab {picture.name} has no container {name}", exit_code=NOT_FOUND)


def wires_of(picture: Picture, name: str) -> tuple[Wire, ...]:
    """The cables of a machine; LabError where there is none of that name."""
    found = machines_of(picture).get(name)
    if found is None:
        raise LabError(f"lab {picture.name} has no host {name!r}", exit_code=NOT_FOUND)
    return found.wires


def addresses_of(picture: Picture, name: str) -> list[tuple[str, str]]:
    """(network or segment, address) of HOST or HOST/CONTAINER."""
    if "/" in name:
        return [(plug.network, address) for plug in plugs_of(picture, name) for address in plug.addresses]
    return [(wire.segment, address) for wire in wires_of(picture, name) for address in wire.addresses]


def address_of(picture: Picture, name: str, seen_from: str, family: int = 0) -> str:
    """Where *seen_from* finds *name*: on a network or segment that both have, if there is one; IPv4 unless *family*.

    LabError where it has no such address. An address stands for itself.
    """
    if is_address(name):
        return name
    return nearest(picture, name, {network for network, _ in addresses_of(picture, seen_from)}, family)[1]


def nearest(picture: Picture, name: str, near: set[str], family: int = 0) -> tuple[str, str]:
    """(network or segment, address) of *name*, on one of *near* if it is on any; else as `address_of`."""
    found = [each for each in addresses_of(picture, name) if not family or family_of(each[1]) == family]
    if not found:
        raise LabError(f"{name} has no {f'IPv{family} ' if family else ''}address")
    return min(found, key=lambda each: (each[0] not in near, family_of(each[1])))
