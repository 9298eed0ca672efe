"""The allocator against a naive one that keeps lists of addresses."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.conf import NetConf
from pycni.cni.env import Call
from pycni.cni.errors import CniError, Code
from pycni.ipam import plugin
from pycni.ipam.conf import parse_ipam
from pycni.ipam.ranges import RangeSet, address
from pycni.store import Store, open_store
from tests.unit.ipam_calls import call, netconf

Owner = tuple[str, str]
Address = IPv4Address | IPv6Address

# One set of three ranges (two of a subnet, and not in numeric order), a second set in the same subnet, and IPv6.
IPAM: dict[str, Any] = {
    "ranges": [
        [
            {"subnet": "10.2.0.0/28", "rangeStart": "10.2.0.3", "rangeEnd": "10.2.0.5"},
            {"subnet": "10.1.0.0/29"},
            {"subnet": "10.2.0.0/28", "rangeStart": "10.2.0.9", "rangeEnd": "10.2.0.10"},
        ],
        [{"subnet": "10.2.0.0/28", "rangeStart": "10.2.0.11"}, {"subnet": "10.3.0.0/30"}],
        [{"subnet": "fd00::/124", "gateway": "fd00::7"}],
    ],
    "exclude": ["10.1.0.4/31", "10.2.0.4", "fd00::8/125"],
}
SETS = parse_ipam(netconf(IPAM)).sets
ALLOWED = [[address(one.version, n) for _, a, b in one.pieces for n in range(a, b + 1)] for one in SETS]
OWNERS = st.tuples(st.sampled_from([f"c{at}" for at in range(14)]), st.sampled_from(["eth0", "eth1"]))
ADDS = st.tuples(st.just("ADD"), OWNERS, st.none() | st.sampled_from([each for one in ALLOWED for each in one]))
DELETES = st.tuples(st.just("DEL"), OWNERS, st.none())


class Naive:
    """What is documented, in the plainest way."""

    def __init__(self) -> None:
        self.live: dict[Address, Owner] = {}
        self.rested: list[tuple[Address, Owner]] = []  # oldest first
        self.used: set[Address] = set()

    def add(self, owner: Owner, wanted: Address | None) -> list[Address] | None:
        """One of every set, None if it cannot be."""
        chosen = [self._choose(ranges, allowed, owner, wanted) for ranges, allowed in zip(SETS, ALLOWED, strict=True)]
        found = [each for each in chosen if each is not None]
        if len(found) < len(chosen):
            return None
        for each in found:
            self.live[each] = owner
            self.used.add(each)
            self.rested = [one for one in self.rested if one[0] != each]
        return found

    def _choose(self, ranges: RangeSet, allowed: list[Address], owner: Owner, wanted: Address | None) -> Address | None:
        if wanted in allowed:
            return None if wanted in self.live else wanted
        if any(self.live.get(each) == owner for each in allowed):
            return None  # duplicate
        rested = [each for each in self.rested if each[0] in allowed]
        former = [each for each, last_owner in rested if last_owner == owner]
        if former:
            return former[-1]
        highest = max((at for at, each in enumerate(allowed) if each in self.used), default=-1)
        around = allowed[highest + 1 :] + allowed[: highest + 1]
        unused = [each for each in around if each not in self.used]
        return unused[0] if unused else rested[0][0] if rested else None

    def delete(self, owner: Owner) -> None:
        gone = sorted(
            (each for each in self.live if self.live[each] == owner), key=lambda each: (each.version, int(each))
        )
        for each in gone:
            del self.live[each]
            self.rested.append((each, owner))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(str(tmp_path_factory.mktemp("store") / "pycni.db")) as opened:
        yield opened


NUMBERS = count()


def outcome(one: Call, conf: NetConf, store: Store) -> list[Address] | None:
    try:
        return [each.address.ip for each in plugin.add(one, conf, store).ips]
    except CniError as exc:
        if exc.code in (Code.EXHAUSTED, Code.ADDRESS_TAKEN, Code.ALREADY_ATTACHED):
            return None
        raise


@given(steps=st.lists(ADDS | DELETES, max_size=60))
def test_every_history_gives_the_documented_addresses(
    store: Store, steps: list[tuple[str, Owner, Address | None]]
) -> None:
    """Never an address twice, refused only when the naive one refuses, and in exactly its order."""
    network = f"net{next(NUMBERS)}"  # an empty pool for every example
    naive = Naive()
    for verb, (container, ifname), wanted in steps:
        conf = netconf(IPAM, name=network, runtimeConfig={"ips": [str(wanted)] if wanted else []})
        if verb == "DEL":
            plugin.delete(call(container, command="DEL", ifname=ifname), conf, store)
            naive.delete((container, ifname))
            continue
        expected = naive.add((container, ifname), wanted)
        assert outcome(call(container, ifname=ifname), conf, store) == expected
        live = {each.address: (each.container_id, each.ifname) for each in store.leases.all(network)}
        assert live == naive.live


def test_history_is_bounded_and_what_fell_out_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for three released rows, a pool of six still gives all six before it is full."""
    monkeypatch.setattr("pycni.store.leases.HISTORY", 3)
    conf = netconf({"ranges": [[{"subnet": "10.1.0.0/29", "gateway": "10.9.0.1"}]]})
    with open_store(str(tmp_path / "pycni.db")) as store:
        for at in range(20):
            plugin.add(call(f"c{at}"), conf, store)
            plugin.delete(call(f"c{at}", command="DEL"), conf, store)
            ((rows,),) = store.query("SELECT count(*) FROM leases")
            assert rows <= 4
        got = {plugin.add(call(f"d{at}"), conf, store).ips[0].address.ip for at in range(6)}
        assert got == {ip_address(f"10.1.0.{last}") for last in range(1, 7)}
        with pytest.raises(CniError):
            plugin.add(call("d7"), conf, store)
