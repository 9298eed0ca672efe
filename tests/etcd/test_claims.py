"""Addresses are given once, and given back once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from subprocess import PIPE

from netns_fixtures import Etcd, Namespace
from pycni.cni.errors import CniError, Code
from pycni.etcd import requests
from pycni.etcd.claims import AlreadyHeld, Claimed, Taker, Want, claim, give_back
from pycni.etcd.records import OwnEndpoint
from pycni.etcd.schema import Keys
from pycni.etcd.space import Space
from tests.etcd.place import conf_of, gateway_client, keys_of

ROOT = Path(__file__).parents[2]


def space(first: str, last: str) -> Space:
    return Space(ip_address(first).version, ((int(ip_address(first)), int(ip_address(last))),))


def taker(container: str, *, node: str = "node1") -> Taker:
    return Taker(node, 0, "net1", container, "eth0", OwnEndpoint(id=f"id-{container}", ips=()))


def test_sixteen_processes_race(cluster: Callable[..., Etcd], place: Namespace) -> None:
    """16 processes take all but 20 of 500 addresses at once: none twice, in at most 2 round trips on average."""
    conf = json.dumps(keys_of(cluster()))
    first, last, each = "10.1.0.1", "10.1.1.244", 30
    argv = [sys.executable, "-m", "tests.etcd.racer", conf, first, last, str(each)]
    env = {"PYTHONPATH": f"{ROOT}:{ROOT}/src"}
    racers = [place.popen([*argv, f"r{at}"], stdin=PIPE, stdout=PIPE, env=env) for at in range(16)]
    for one in racers:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    told = [json.loads(one.communicate()[0]) for one in racers]
    ips = [ip for one in told for ip in one["ips"]]
    assert [one["codes"] for one in told] == [[]] * 16
    assert len(ips) == 16 * each
    assert len(set(ips)) == len(ips)
    calls = sum(one["calls"] for one in told) / len(ips)
    print(f"{calls:.2f} round trips for an address, {len(ips) / max(one['seconds'] for one in told):.0f} addresses/s")
    assert calls <= 2.0


def test_giving_back_what_is_no_longer_ones_own(shared: Etcd, prefix: str) -> None:
    """An address that somebody else has by now (a restored backup, a hand in the data) stays theirs; so does what was
    taken anew under the same name."""
    keys = Keys(prefix)
    with gateway_client(conf_of(shared)) as client:
        mine = taker("c1")
        want = Want(space("10.1.0.2", "10.1.0.2"))
        assert claim(client, keys, mine, [want]) == Claimed((ip_address("10.1.0.2"),))
        own_key = keys.own_endpoint("node1", "net1", "c1", "eth0")
        old = client.get(own_key)
        assert old is not None
        outcome = claim(client, keys, mine.replace(own=mine.own.replace(id="other")), [want])
        assert isinstance(outcome, AlreadyHeld)
        assert outcome.key == old
        client.txn(requests.txn([], [requests.delete(keys.endpoint("net1", ip_address("10.1.0.2")))]))
        theirs = claim(client, keys, taker("c2", node="node2"), [want])
        assert theirs == Claimed((ip_address("10.1.0.2"),))
        assert give_back(client, keys, "net1", old)
        assert client.get(own_key) is None
        assert client.get(keys.endpoint("net1", ip_address("10.1.0.2"))) is not None
        assert not give_back(client, keys, "net1", old)


def test_only_one_of_many_gets_a_fixed_address(shared: Etcd, prefix: str) -> None:
    """Eight ask for the same address: one has it, the others are told who."""
    fixed = Want(space("10.1.0.2", "10.1.0.9"), ip_address("10.1.0.5"))

    def ask(at: int) -> str:
        with gateway_client(conf_of(shared)) as client:
            try:
                outcome = claim(client, Keys(prefix), taker(f"c{at}"), [fixed])
            except CniError as failure:
                assert failure.code == Code.ADDRESS_TAKEN
                return failure.details
            assert isinstance(outcome, Claimed)
            return "mine"

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(ask, range(8)))
    assert told.count("mine") == 1
    assert set(told) == {"mine", f"by container c{told.index('mine')}, interface eth0, on host node1"}
