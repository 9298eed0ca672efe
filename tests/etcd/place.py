"""Clients of a test's etcd, by either transport."""

from __future__ import annotations

import itertools
from typing import Any

from netns_fixtures import Etcd
from pycni.cni.conf import Keys
from pycni.etcd.client import Client
from pycni.etcd.conf import EtcdConf
from pycni.etcd.failure import Unreachable
from pycni.etcd.gateway import Gateway
from pycni.etcd.requests import Answer, Request


def keys_of(etcd: Etcd, *, certificate: str = "host1", **more: Any) -> dict[str, Any]:
    """The `etcd` object of a config for *etcd*; *certificate*: the client's name, where there is TLS."""
    keys: dict[str, Any] = {"endpoints": etcd.endpoints, "prefix": "/pycni/test", **more}
    if etcd.authority is not None:
        cert, key = etcd.authority.client(certificate)
        keys |= {"ca": str(etcd.authority.ca), "cert": str(cert), "key": str(key)}
    return keys


def conf_of(etcd: Etcd, **more: Any) -> EtcdConf:
    return EtcdConf.parse(Keys(keys_of(etcd, **more), "etcd"))


def gateway_client(conf: EtcdConf) -> Client:
    return Client(conf, [Gateway(endpoint, conf) for endpoint in conf.endpoints])


def grpc_client(conf: EtcdConf) -> Client:
    from pycni.etcd.grpc_endpoint import GrpcEndpoint

    return Client(conf, [GrpcEndpoint(endpoint, conf) for endpoint in conf.endpoints])


TRANSPORTS = {"gateway": gateway_client, "grpc": grpc_client}


def lossy_client(conf: EtcdConf, lost: tuple[int, ...]) -> Client:
    """A client whose requests of the numbers *lost* (from 1) are carried out, and answered into the void."""
    number = itertools.count(1)

    class Lossy(Gateway):
        def call(self, method: str, body: Request, timeout_s: float) -> Answer:
            answer = super().call(method, body, timeout_s)
            if next(number) in lost:
                raise Unreachable("the answer was lost")
            return answer

    return Client(conf, [Lossy(endpoint, conf) for endpoint in conf.endpoints])
