"""One endpoint by the `etcd3` package's client: for resident processes, which watch and keep leases."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import grpc

from pycni.etcd import etcd3_package
from pycni.etcd.conf import Endpoint, EtcdConf
from pycni.etcd.failure import AUTH_OFF, NO_USER, UNAUTHENTICATED, Rejected, Unreachable, sort_out
from pycni.etcd.requests import METHODS, Answer, KeyValue, Request

#: gRPC would wait up to 2 minutes before it tries a member again that was away. -1: a page of any size is taken; the
#: 4 MiB that Python's gRPC has by default are less than a host's death writes in one revision.
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # else a new client shares the old one's broken connection
]
MOST_SILENT = 3  # calls without an answer, one after the other: then the connection is given up


class GrpcEndpoint:
    """The etcd3 client of one endpoint, made at the first request and anew when its token has ended. Thread-safe."""

    def __init__(self, endpoint: Endpoint, conf: EtcdConf) -> None:
        self.endpoint = endpoint
        self._conf = conf
        self._client: Any = None
        self._lock = threading.Lock()
        self._silent = 0
        self._files: tuple[object, ...] = ()  # of the certificates that the client was made with
        self._rpc = etcd3_package.load().etcdrpc

    def call(self, method: str, body: Request, timeout_s: float) -> Answer:
        """The answer; raises the failures of `pycni.etcd.failure`."""
        _, service, name = METHODS[method]
        client = self.client(timeout_s)
        stub = {"KV": client.kvstub, "Lease": client.leasestub, "Maintenance": client.maintenancestub}[service]
        request = getattr(self._rpc, f"{name}Request")(**body)
        who = {"credentials": _credentials(client, self.endpoint), "metadata": client.metadata}
        try:
            if method == "keepalive":  # a stream in both directions, of which one message each is wanted
                answer = next(getattr(stub, name)(iter([request]), timeout_s, **who))
            else:
                answer = getattr(stub, name)(request, timeout_s, **who)
            self._silent = 0
            return _answer(answer)
        except grpc.RpcError as exc:
            if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self.note_silence()
            elif exc.code() is grpc.StatusCode.UNAVAILABLE:
                self.note_failure()
            raise failure_of(exc, with_user=bool(self._conf.user)) from None
        except ValueError as exc:
            raise _closed(exc) from None
        except StopIteration:
            raise Unreachable("the stream ended without an answer") from None

    def watch(self, requests: Iterator[Any], timeout_s: float) -> Any:
        """The stream of a watch (iterate it, `cancel()` it); *requests* of `watch_request` and `progress_request`.

        hasleader: a member that has lost the majority ends the stream; otherwise it would stay silent for ever.
        """
        client = self.client(timeout_s)
        metadata = (*(client.metadata or ()), ("hasleader", "true"))
        stub = self._rpc.WatchStub(client.channel)
        try:
            return stub.Watch(requests, credentials=_credentials(client, self.endpoint), metadata=metadata)
        except ValueError as exc:
            raise _closed(exc) from None

    def watch_request(self, first: str, end: str, revision: int) -> Any:
        create = {"key": first.encode(), "range_end": end.encode(), "start_revision": revision}
        return self._rpc.WatchRequest(create_request=create)

    def progress_request(self) -> Any:
        return self._rpc.WatchRequest(progress_request={})

    def client(self, timeout_s: float) -> Any:
        """The etcd3 client."""
        with self._lock:
            if self._client is None:
                self._client = self._connect(timeout_s)
            return self._client

    def authenticate(self, timeout_s: float) -> None:
        """Get a new token: the package's client keeps the one it was made with, for ever."""
        self.close()
        self.client(timeout_s)

    def note_silence(self) -> None:
        """Nothing was answered in time. A connection whose other end is gone without a word (this host has another
        address, a firewall on the way forgot it) stays open for TCP for many minutes, and gRPC would use no other.
        After some such silences it is closed, and the next call makes a new one."""
        self._silent += 1
        if self._silent >= MOST_SILENT:
            self._silent = 0
            self.close()

    def note_failure(self) -> None:
        """There is no connection. A client reads its certificates once: where they were renewed since, or etcd's
        authority was, it would be refused for ever. It is closed then, and the next call makes one that reads them."""
        if self._client is not None and self._files != _stamps(self._conf):
            self.close()

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _connect(self, timeout_s: float) -> Any:
        host = f"[{self.endpoint.host}]" if ":" in self.endpoint.host else self.endpoint.host
        options = {"host": host, "port": self.endpoint.port, "timeout": timeout_s, "grpc_options": _OPTIONS}
        if self.endpoint.tls:
            self._files = _stamps(self._conf)  # before they are read: what is renewed meanwhile is seen later
            options["ca_cert"] = self._conf.ca
            if self._conf.cert:
                options.update(cert_cert=self._conf.cert, cert_key=self._conf.key)
        client = etcd3_package.load().client
        try:
            if not self._conf.user:
                return client(**options)
            try:
                return client(**options, user=self._conf.user, password=self._conf.password)
            except grpc.RpcError as exc:
                if AUTH_OFF in (exc.details() or ""):
                    return client(**options)
                raise failure_of(exc, with_user=True) from None
        except OSError as exc:
            raise Unreachable(f"ca, cert or key: {exc.strerror or exc}") from None


def _credentials(client: Any, endpoint: Endpoint) -> Any:
    # Call credentials are refused on a clear text channel; there the token travels in the metadata alone.
    return client.call_credentials if endpoint.tls else None


def _stamps(conf: EtcdConf) -> tuple[object, ...]:
    """What is another as soon as a file of the certificates is."""
    found: list[object] = []
    for path in filter(None, (conf.ca, conf.cert, conf.key)):
        try:
            there = os.stat(path)
            found.append((there.st_dev, there.st_ino, there.st_mtime_ns))
        except OSError:
            found.append(None)
    return tuple(found)


def _closed(exc: ValueError) -> Unreachable:
    """Another thread has closed the connection (`close`) between our look at it and the request, for which grpc has but
    a ValueError. The next try makes a new one."""
    return Unreachable(str(exc), sent=False)


def failure_of(exc: Any, *, with_user: bool) -> Exception:
    """What a gRPC error means to us."""
    code, text = exc.code().value[0], exc.details() or exc.code().name
    if NO_USER in text and with_user:
        return Rejected(UNAUTHENTICATED, text)
    return sort_out(code, text)


def _answer(raw: Any) -> Answer:
    fields = raw.DESCRIPTOR.fields_by_name
    parts = []
    for part in raw.responses if "responses" in fields else ():
        parts.append(_answer(getattr(part, part.WhichOneof("response"))))
    return Answer(
        revision=raw.header.revision,
        found=tuple(map(key_value, raw.kvs)) if "kvs" in fields else (),
        count=raw.count if "count" in fields else 0,
        succeeded=raw.succeeded if "succeeded" in fields else False,
        parts=tuple(parts),
        lease=raw.ID if "ID" in fields else 0,
        ttl_s=raw.TTL if "TTL" in fields else 0,
        version=raw.version if "version" in fields else "",
    )


def key_value(raw: Any) -> KeyValue:
    return KeyValue(raw.key.decode("utf-8", "replace"), raw.value, raw.create_revision, raw.mod_revision, raw.lease)
