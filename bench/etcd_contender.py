"""One host of bench/etcd_alloc.py: takes addresses or blocks, as fast as etcd gives them, when told to begin.

    python -m bench.etcd_contender '{"etcd": {…}, "transport": "gateway", "node": "h1",
                                     "pools": [["10.1.0.1", "10.1.255.254"]], "length": 0, "count": 40}'

Prints "ready" once it is connected, waits for a line, and prints a JSON object: the wall seconds of each taking and its
round trips, what it took, and errors.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

if not __package__:
    sys.exit("run bench/etcd_alloc.py")

from pycni.cni.conf import Keys as ConfKeys
from pycni.cni.errors import CniError
from pycni.etcd.blocks import BlockTaker, claim_block
from pycni.etcd.claims import Claimed, Fenced, Taker, Want, claim
from pycni.etcd.client import Client
from pycni.etcd.conf import EtcdConf
from pycni.etcd.gateway import Gateway
from pycni.etcd.records import Held, OwnEndpoint
from pycni.etcd.requests import Answer, Request
from pycni.etcd.schema import Keys
from pycni.etcd.space import Space

NETWORK, PATIENCE_S = "bench", 20.0


class Counted(Client):
    """A client that counts its round trips."""

    trips = 0

    def call(self, method: str, body: Request, timeout_s: float = 0.0) -> Answer:
        self.trips += 1
        return super().call(method, body, timeout_s)


def connect(given: dict[str, Any]) -> Counted:
    conf = EtcdConf.parse(ConfKeys(given["etcd"], "etcd"))
    if given["transport"] == "gateway":
        return Counted(conf, [Gateway(endpoint, conf) for endpoint in conf.endpoints])
    from pycni.etcd.grpc_endpoint import GrpcEndpoint

    return Counted(conf, [GrpcEndpoint(endpoint, conf) for endpoint in conf.endpoints])


def addresses(client: Client, given: dict[str, Any]) -> Iterator[Callable[[], list[str]]]:
    """Each takes one address of every pool."""
    keys, wants = Keys(client.conf.prefix), []
    for first, last in given["pools"]:
        pieces = ((int(ip_address(first)), int(ip_address(last))),)
        wants.append(Want(Space(ip_address(first).version, pieces)))
    for at in range(given["count"]):
        own = OwnEndpoint(id=os.urandom(8).hex(), ips=())
        taker = Taker(given["node"], 0, NETWORK, f"{given['node']}c{at}", "eth0", own)

        def take(taker: Taker = taker) -> list[str]:
            outcome = claim(client, keys, taker, wants, timeout_s=PATIENCE_S)
            assert isinstance(outcome, Claimed), outcome
            return [str(ip) for ip in outcome.ips]

        yield take


def blocks(client: Client, given: dict[str, Any]) -> Iterator[Callable[[], list[str]]]:
    """Each takes one more block of the first pool."""
    (first, last), *_ = given["pools"]
    taker = BlockTaker(given["node"], 0, NETWORK, ip_address(first).version, given["length"])
    space = Space(taker.version, ((int(ip_address(first)) >> taker.shift, int(ip_address(last)) >> taker.shift),))
    held = Held()

    def take() -> list[str]:
        nonlocal held
        before = set(held.blocks)
        outcome = claim_block(client, Keys(client.conf.prefix), taker, held, space, timeout_s=PATIENCE_S)
        assert not isinstance(outcome, Fenced)
        held = outcome
        return [str(block) for block in held.blocks if block not in before]

    for _ in range(given["count"]):
        yield take


def main(text: str) -> None:
    given = json.loads(text)
    told: dict[str, Any] = {"seconds": [], "trips": [], "taken": [], "errors": []}
    with connect(given) as client:
        client.get(f"{client.conf.prefix}/connected")
        print("ready", flush=True)
        sys.stdin.readline()
        told["began"] = time.monotonic()
        for take in (blocks if given["length"] else addresses)(client, given):
            before, began = client.trips, time.monotonic()
            try:
                told["taken"] += take()
            except CniError as failure:
                told["errors"].append(failure.msg)
            told["seconds"].append(time.monotonic() - began)
            told["trips"].append(client.trips - before)
        told["ended"] = time.monotonic()
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
