"""What can be asked of etcd and what it answers, as values. Pure.

A request is a dict in the shape of etcd's protobuf messages (api/etcdserverpb/rpc.proto) with bytes and numbers as they
are, since both ways to send it start there: the gateway wants it as JSON, the etcd3 package's classes as arguments.
Keys are text everywhere: ours are ASCII.
"""

from __future__ import annotations

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

Request = dict[str, "Any"]
#: What `client.Client.call` takes: the gateway's path, and the name of the call in rpc.proto.
METHODS = {
    "txn": ("/v3/kv/txn", "KV", "Txn"),
    "range": ("/v3/kv/range", "KV", "Range"),
    "grant": ("/v3/lease/grant", "Lease", "LeaseGrant"),
    "revoke": ("/v3/lease/revoke", "Lease", "LeaseRevoke"),
    "keepalive": ("/v3/lease/keepalive", "Lease", "LeaseKeepAlive"),
    "status": ("/v3/maintenance/status", "Maintenance", "Status"),
}
PAGE = 1000  # keys of one answer: some hundred kilobytes, below every limit of etcd and gRPC


class KeyValue(Value):
    """One key at the revision of its answer; value is b"" where only keys were asked for."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int = 0


class Answer(Value):
    """Of a range or a transaction.

    revision: of the whole store when it was answered. found: what a range found; count: how many there are, which can
    be more. succeeded, parts: of a transaction: which branch ran, and the answer of each of its operations.
    """

    revision: int = 0
    found: tuple[KeyValue, ...] = ()
    count: int = 0
    succeeded: bool = False
    parts: tuple[Answer, ...] = ()
    lease: int = 0
    ttl_s: int = 0
    version: str = ""


def end_of(prefix: str) -> str:
    """The first key behind all that begin with *prefix*."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


# -- comparisons: the guards of a transaction --------------------------------------------------------------------------


def is_absent(key: str) -> Request:
    return {"key": key.encode(), "target": "CREATE", "result": "EQUAL", "create_revision": 0}


def created_at(key: str, revision: int) -> Request:
    """The very key that was created at *revision*, whatever its value is by now."""
    return {"key": key.encode(), "target": "CREATE", "result": "EQUAL", "create_revision": revision}


def unchanged(key: str, mod_revision: int) -> Request:
    return {"key": key.encode(), "target": "MOD", "result": "EQUAL", "mod_revision": mod_revision}


def has_value(key: str, value: bytes) -> Request:
    return {"key": key.encode(), "target": "VALUE", "result": "EQUAL", "value": value}


def none_between(first: str, end: str) -> Request:
    """There is no key in [first, end)."""
    return {**is_absent(first), "range_end": end.encode()}


def none_since(prefix: str, revision: int) -> Request:
    """No key below *prefix* was written after *revision*: holds also where there is none."""
    return {
        "key": prefix.encode(),
        "range_end": end_of(prefix).encode(),
        "target": "MOD",
        "result": "LESS",
        "mod_revision": revision + 1,
    }


# -- operations --------------------------------------------------------------------------------------------------------


def put(key: str, value: bytes, lease: int = 0) -> Request:
    return {"request_put": {"key": key.encode(), "value": value, "lease": lease}}


def delete(key: str, end: str = "") -> Request:
    return {"request_delete_range": {"key": key.encode(), "range_end": end.encode()}}


def get(key: str) -> Request:
    return {"request_range": {"key": key.encode()}}


def get_range(first: str, end: str, *, keys_only: bool = False, count_only: bool = False, limit: int = 0) -> Request:
    """Keys in [first, end), in order."""
    return {"request_range": range_request(first, end, keys_only=keys_only, count_only=count_only, limit=limit)}


def range_request(
    first: str, end: str, *, keys_only: bool = False, count_only: bool = False, limit: int = 0, revision: int = 0
) -> Request:
    """The body of a request of its own; *revision*: as it was then."""
    return {
        "key": first.encode(),
        "range_end": end.encode(),
        "keys_only": keys_only,
        "count_only": count_only,
        "limit": limit,
        "revision": revision,
    }


def txn(guards: Sequence[Request], then: Sequence[Request], otherwise: Sequence[Request] = ()) -> Request:
    """All of *then* if every guard holds, else all of *otherwise*."""
    return {"compare": list(guards), "success": list(then), "failure": list(otherwise)}


def nested(inner: Request) -> Request:
    """A transaction as an operation of another."""
    return {"request_txn": inner}
