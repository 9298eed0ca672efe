"""One of many processes that take addresses at the same time: `python -m tests.etcd.racer CONF FIRST LAST COUNT NAME`.

Prints a JSON line: {"ips": […], "calls": round trips, "codes": [error codes]}.
"""

from __future__ import annotations

import json
import sys
import time
from ipaddress import ip_address
from typing import Any

from pycni.cni.conf import Keys as ConfKeys
from pycni.cni.errors import CniError
from pycni.etcd.claims import Claimed, Taker, Want, claim
from pycni.etcd.conf import EtcdConf
from pycni.etcd.records import OwnEndpoint
from pycni.etcd.requests import Answer, Request
from pycni.etcd.schema import Keys
from pycni.etcd.space import Space
from tests.etcd.place import gateway_client


def main(conf_text: str, first: str, last: str, count: str, name: str) -> None:
    conf = EtcdConf.parse(ConfKeys(json.loads(conf_text), "etcd"))
    space = Space(4, ((int(ip_address(first)), int(ip_address(last))),))
    told: dict[str, Any] = {"ips": [], "calls": 0, "codes": []}
    with gateway_client(conf) as client:
        send = client.call

        def counted(method: str, body: Request, timeout_s: float = 1.0) -> Answer:
            told["calls"] += 1
            return send(method, body, timeout_s)

        client.call = counted  # type: ignore[method-assign]
        client.get("/connected")
        told["calls"] = 0
        sys.stdin.readline()  # all begin together
        began = time.monotonic()
        for at in range(int(count)):
            own = OwnEndpoint(id=f"{name}-{at}", ips=())
            taker = Taker(f"node{name}", 0, "net1", f"{name}c{at}", "eth0", own)
            try:
                outcome = claim(client, Keys(conf.prefix), taker, [Want(space)], timeout_s=10.0)
                assert isinstance(outcome, Claimed), outcome
                told["ips"] += map(str, outcome.ips)
            except CniError as failure:
                told["codes"].append(failure.code)
        told["seconds"] = time.monotonic() - began
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
