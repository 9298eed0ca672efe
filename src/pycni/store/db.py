"""The one SQLite file of a host: opening, transactions, the two ways it can be found broken.

Measured reasons for every setting: docs/decisions/0003-store.md. In short:
- A plugin call is a process of its own, so open + transaction + close is what counts, not throughput. A rollback
  journal that stays (PERSIST) with synchronous=OFF does it in 0.6 ms; WAL needs 2 ms and more, because its last
  connection checkpoints, syncs and deletes files.
- synchronous=OFF loses nothing when a process is killed at any moment: what was written is in the page cache, and the
  journal takes back the unfinished. It may leave a damaged file after a power loss. All that is stored here is bound to
  the boot, so then it is history; the first opening after a boot checks the whole file and moves a damaged one aside.
- Writers queue on a flock. SQLite's own waiting polls with growing sleeps, unfair to whoever waits longest.
"""

from __future__ import annotations

# The C module itself: the sqlite3 package around it imports datetime, 2 ms, for converters that nothing here uses.
import _sqlite3 as sqlite3
import fcntl
import os
import sys

from pycni.cni.errors import CniError, Code, shown
from pycni.store.boot import boot_id
from pycni.store.schema import SCHEMA_VERSION, STEPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self

_DAMAGED = (11, 26)  # SQLITE_CORRUPT, SQLITE_NOTADB (sqlite3.h)
_BUSY_TIMEOUT_S = 10.0  # for a reader that meets a commit: microseconds in practice
_ROOM = 1 << 17  # bytes: some dozen pages of 4096 that an ADD changes, and what they were in the journal


class Database:
    """An open state file. Close it always, and never fork while it is open.

    A connection that is dropped without close() and then inherited by a forked child corrupts the file (POSIX locks
    belong to the process). posix_spawn is harmless: every descriptor here is close-on-exec.

    Raises `CniError` (IO) for what SQLite reports and where the directory cannot be used, but `PermissionError` for who
    may not look.
    """

    def __init__(self, path: str, lock: int, connection: sqlite3.Connection, boot: str) -> None:
        self.path = path
        self.boot_id = boot
        self._lock = lock
        self._connection = connection
        self._depth = 0

    @classmethod
    def opened(cls, path: str) -> Self:
        """Open the state file *path*, creating it (and its directory, mode 0700) where it is missing."""
        try:
            return cls._opened(path)
        except PermissionError:
            raise
        except OSError as exc:
            raise CniError(Code.IO, f"{path} cannot be used: {exc.strerror}", "pycni keeps its state there") from exc

    @classmethod
    def _opened(cls, path: str) -> Self:
        boot = boot_id()
        lock = _open_lock(f"{path}.lock")
        try:
            # The lock file holds the boot in which the state file was last checked.
            if os.pread(lock, 64, 0) != boot.encode():
                _first_use_in_boot(path, lock, boot)
            try:
                connection = _connect(path, lock)
            except sqlite3.Error as exc:
                raise _as_cni_error(path, exc) from exc
        except BaseException:
            os.close(lock)
            raise
        return cls(path, lock, connection, boot)

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of *sql*."""
        try:
            return self._connection.execute(sql, values).fetchall()
        except (sqlite3.Error, UnicodeEncodeError) as exc:
            raise _as_cni_error(self.path, exc) from exc

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Carry out *sql*, which must be inside a transaction; the number of rows changed."""
        try:
            return self._connection.execute(sql, values).rowcount
        except (sqlite3.Error, UnicodeEncodeError) as exc:
            raise _as_cni_error(self.path, exc) from exc

    def transaction(self) -> Transaction:
        """All or nothing: `with store.transaction(): ...`.

        Re-entrant: an inner one that fails takes back its own part only. Only the end of the outermost one writes.
        While it is open every other writer of the host waits, so no slow work and no foreign program inside.
        """
        return Transaction(self)

    @property
    def in_transaction(self) -> bool:
        return self._depth > 0

    def damage(self) -> str:
        """What is wrong with the file, "" if nothing is. Reads all of it, row against index too."""
        ((answer,),) = self.query("PRAGMA integrity_check(1)")
        return "" if answer == "ok" else str(answer)

    def refuse_full(self) -> None:
        """CniError (IO) where an ADD would find no room. DEL needs none: it writes where ADD has."""
        there = os.statvfs(self.path)
        free = there.f_bfree * there.f_frsize
        if there.f_blocks and free < _ROOM:  # a tmpfs without limit has 0 blocks
            raise CniError(
                Code.IO, f"{self.path} has no room to grow: {free} bytes are free", f"have {_ROOM} on its file system"
            )

    def close(self) -> None:
        """Close; what an open transaction did is taken back. Harmless when repeated."""
        self._connection.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin_level(self) -> None:
        if not self._depth:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                self.run("BEGIN IMMEDIATE")
            except BaseException:
                fcntl.flock(self._lock, fcntl.LOCK_UN)
                raise
        else:
            self.run(f"SAVEPOINT level{self._depth}")
        self._depth += 1

    def end_level(self, *, keep: bool) -> None:
        self._depth -= 1
        if self._depth:
            if not keep:
                self.run(f"ROLLBACK TO level{self._depth}")
            self.run(f"RELEASE level{self._depth}")
            return
        try:
            if keep:
                self.run("COMMIT")
        finally:
            # Also after a COMMIT that failed, for instance on a full disk; SQLite may have rolled back by itself.
            if self._connection.in_transaction:
                self.run("ROLLBACK")
            fcntl.flock(self._lock, fcntl.LOCK_UN)


class Transaction:
    __slots__ = ("_store",)

    def __init__(self, store: Database) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._store.begin_level()

    def __exit__(self, kind: object, *_: object) -> None:
        self._store.end_level(keep=kind is None)


def _open_lock(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


def _connect(path: str, lock: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=PERSIST")
        connection.execute("PRAGMA synchronous=OFF")
        if _version(connection) != SCHEMA_VERSION:
            _prepare(connection, lock, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _prepare(connection: sqlite3.Connection, lock: int, path: str) -> None:
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        connection.execute("BEGIN IMMEDIATE")
        version = _version(connection)  # again: another process may just have made the tables
        if not 0 <= version <= SCHEMA_VERSION:
            raise CniError(
                Code.IO,
                f"{path} has format {version} and this pycni writes format {SCHEMA_VERSION}",
                "install the newest pycni everywhere",
            )
        for step in STEPS[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)


def _first_use_in_boot(path: str, lock: int, boot: str) -> None:
    """Check the whole file once after a boot, which may have followed a power loss, and move a damaged one aside."""
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        checked = os.pread(lock, 64, 0)
        if checked == boot.encode():
            return
        reason = _damage(path, used_before=bool(checked))
        if reason:
            for suffix in ("-journal", ""):  # the journal first: it must never be applied to the file made next
                if os.path.exists(path + suffix):
                    os.replace(path + suffix, f"{path}.damaged{suffix}")
            print(f"pycni: {path} is damaged ({reason}); moved to {path}.damaged, beginning anew", file=sys.stderr)
        os.pwrite(lock, boot.encode(), 0)
        os.ftruncate(lock, len(boot))
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)


def _damage(path: str, *, used_before: bool) -> str:
    """What is wrong with the state file, "" if nothing is or there is none."""
    if not os.path.exists(path):
        return ""
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        (answer,) = connection.execute("PRAGMA integrity_check(1)").fetchone()  # row against index too
        if answer != "ok":
            return str(answer)
        return "empty" if used_before and _version(connection) == 0 else ""
    except sqlite3.DatabaseError as exc:
        if _code(exc) in _DAMAGED:
            return str(exc)
        raise _as_cni_error(path, exc) from exc
    finally:
        connection.close()


def _as_cni_error(path: str, exc: sqlite3.Error | UnicodeEncodeError) -> CniError:
    if isinstance(exc, UnicodeEncodeError):  # bytes of the environment, or a lone "\\ud800" in the configuration
        return CniError(Code.INVALID_CONFIG, f"{shown(exc.object)} is not valid Unicode and cannot be stored")
    if _code(exc) in _DAMAGED:
        # Since this boot's check somebody else wrote into it. The leases in it are those of running containers,
        # so throwing them away is the operator's decision.
        advice = f"stop the containers of pycni's networks, then remove {path} and {path}-journal"
        return CniError(Code.IO, f"{path} was damaged since the machine booted: {exc}", advice)
    return CniError(Code.IO, f"{path}: {exc}")


def _code(exc: sqlite3.Error) -> int:
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF
