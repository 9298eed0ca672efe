"""The state of this host in one SQLite file: attachments (write-ahead records), address leases, host ports."""

from __future__ import annotations

import os

from pycni.cni.errors import CniError, Code
from pycni.store.attachments import Attachments, Record
from pycni.store.db import Database
from pycni.store.leases import Lease, Leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _sqlite3 import Connection
    from typing import Any

    from pycni.store.host_ports import HostPorts

__all__ = ["STATE_DIR", "Lease", "Record", "Store", "keep_open", "open_store", "open_usable_store"]

STATE_DIR = "/var/lib/pycni"


class Store(Database):
    """The open state file with its tables: `store.attachments`, `store.leases`, `store.host_ports`.

    See `Database` for the rules of use.
    """

    def __init__(self, path: str, lock: int, connection: Connection, boot: str) -> None:
        super().__init__(path, lock, connection, boot)
        self.attachments = Attachments(self)
        self.leases = Leases(self)

    @property
    def host_ports(self) -> HostPorts:
        from pycni.store.host_ports import HostPorts  # most calls have nothing to do with ports

        return HostPorts(self)


class KeptStore(Store):
    """One that outlives its `with`: the process that keeps it is resident."""

    def __exit__(self, *_: object) -> None:
        pass


_kept: Any = None  # a thread-local with the attributes `store` and `file`, once keep_open() was called


def keep_open() -> None:
    """From now on each thread keeps the store it opens: opening is half a millisecond of a call that has three."""
    global _kept  # noqa: PLW0603 - a property of the process: the agent is resident, an executable is not
    from _thread import _local

    _kept = _local()


def open_store(path: str = f"{STATE_DIR}/pycni.db") -> Store:
    """Open the state of this host; the file and its directory (mode 0700) are made where missing.

    Raises CniError (IO) where the directory cannot be used, for a file of a newer pycni, and for one damaged since the
    machine booted; PermissionError for who may not look. One damaged by the end of the former boot is moved aside, with
    a word on stderr.
    """
    if _kept is None:
        return Store.opened(path)
    kept: KeptStore | None = getattr(_kept, "store", None)
    if kept is not None and (kept.path, _kept.file) == (path, _file(path)):
        return kept
    if kept is not None:
        kept.close()  # somebody removed the file, or put another in its place
    _kept.store = KeptStore.opened(path)
    _kept.file = _file(path)
    return _kept.store  # type: ignore[no-any-return]


def open_usable_store() -> Store:
    """`open_store` for STATUS: CniError (NOT_AVAILABLE) where an ADD could not write it."""
    try:
        store = open_store()
        try:
            store.refuse_full()
        except BaseException:
            store.__exit__()
            raise
    except CniError as failure:
        raise CniError(Code.NOT_AVAILABLE, failure.msg, failure.details) from failure
    return store


def _file(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
