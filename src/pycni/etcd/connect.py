"""The client for a configuration: a short-lived one for an executable's call, one for the whole life of an agent."""

from __future__ import annotations

from pycni.etcd.client import Client
from pycni.etcd.failure import NotInstalled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pycni.etcd.client import Caller
    from pycni.etcd.conf import EtcdConf

_kept: Any = None  # the clients by configuration, and the lock for it, once keep_open() was called


class Kept(Client):
    """One that outlives its `with`: the process that keeps it is resident."""

    def __exit__(self, *_: object) -> None:
        pass


class Brief(Client):
    """One for a few requests; it leaves what it learnt about the endpoints to the next."""

    def __init__(
        self,
        conf: EtcdConf,
        callers: Sequence[Caller],
        first: int,
        others: Callable[[], Sequence[Caller]],
        hint: tuple[str, str],
    ) -> None:
        super().__init__(conf, callers, first, others)
        self._hint = hint

    def close(self) -> None:
        super().close()
        caller = self.caller
        learnt = str(caller.endpoint), getattr(caller, "token", "")
        if learnt != self._hint and (learnt[1] or self.current != 0 or self._hint[0]):
            from pycni.etcd.hints import write_hint

            write_hint(self.conf, *learnt)
            self._hint = learnt


def keep_open() -> None:
    """From now on this process keeps its clients, over gRPC: no request needs a new connection, and there are watches
    and leases. Nothing is imported or connected before the first use."""
    global _kept  # noqa: PLW0603 - a property of the process: the agent is resident, an executable is not
    from _thread import allocate_lock

    _kept = {}, allocate_lock()


def open_client(conf: EtcdConf) -> Client:
    """`with open_client(conf) as client`; connects at the first request."""
    if _kept is None:
        return _brief(conf)
    clients, lock = _kept
    with lock:
        if conf not in clients:
            try:
                clients[conf] = Kept(conf, _over_grpc(conf))
            except NotInstalled:
                return _brief(conf)  # enough for calls; what watches asks for the package by name
        kept: Client = clients[conf]
        return kept


def _brief(conf: EtcdConf) -> Client:
    from pycni.etcd.gateway import Gateway
    from pycni.etcd.hints import read_hint

    hint = read_hint(conf)
    callers = [Gateway(endpoint, conf, hint[1]) for endpoint in conf.endpoints]
    names = [str(endpoint) for endpoint in conf.endpoints]
    first = names.index(hint[0]) if hint[0] in names else 0
    return Brief(conf, callers, first, lambda: _over_grpc(conf), hint)


def _over_grpc(conf: EtcdConf) -> list[Caller]:
    from pycni.etcd.etcd3_package import load

    load()  # before grpc is imported: what is missing is named
    from pycni.etcd.grpc_endpoint import GrpcEndpoint

    return [GrpcEndpoint(endpoint, conf) for endpoint in conf.endpoints]
