"""What this host must remember about a cluster even while etcd is away, in files beside the store.

- `node`: the host's id, drawn once. Not its name or address: those change, and are copied with a disk image.
- `<cluster>/fence`: the revision of the last fence (pycni.etcd.nodes) that this host has seen.
- `<cluster>/blocks-<network>`: the blocks that this host has in a network, where it has blocks.
- `<cluster>/overlay-<network>`: how this host takes part in an overlay network (pycni.plugins.overlay.site).
- `<cluster>/pending/*`: what has to be given back as soon as etcd answers, one file each, written before the call that
  could not do it is answered.
- `<cluster>/locks/*`: held while a call works on one attachment.
"""

from __future__ import annotations

import fcntl
import os

from pycni.cni import json_text
from pycni.cni.addresses import parse_prefix
from pycni.cni.errors import CniError, Code
from pycni.cni.names import sha256_hex
from pycni.cni.value import Value
from pycni.etcd.records import Held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_OVERLAY = "overlay-"


class Pending(Value):
    """An attachment whose addresses are to be given back: the taking that had *id*, or, where id is "", was made at
    *created*. at: since when this is pending, seconds since the epoch. connection: the `etcd` object of its config."""

    network: str
    container_id: str
    ifname: str
    id: str
    created: float
    at: float
    connection: str


class HostState:
    """The files for the cluster *prefix* below *directory*, that of the store. OSError where they cannot be used."""

    def __init__(self, directory: str, prefix: str) -> None:
        self._root = directory
        self.directory = f"{directory}/etcd/{sha256_hex(prefix.encode())[:16]}"

    def node(self) -> str:
        """The id of this host, 32 hexadecimal digits."""
        path = f"{self._root}/node"
        found = _read(path).strip()
        if not found:
            os.makedirs(self._root, mode=0o700, exist_ok=True)
            fresh = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
            _write(fresh, f"{os.urandom(16).hex()}\n")
            try:
                os.link(fresh, path)  # unlike rename: the first one stays
            except FileExistsError:
                pass
            finally:
                os.unlink(fresh)
            found = _read(path).strip()
        if len(found) != 32 or found.strip("0123456789abcdef"):
            raise CniError(Code.IO, f"{path} holds no host id", "restore it; without it this host's addresses are lost")
        return found

    def fence(self) -> int:
        text = _read(f"{self.directory}/fence").strip()
        return int(text) if text.isdigit() else 0

    def set_fence(self, revision: int) -> None:
        self._put("fence", str(revision))

    def blocks(self, network: str) -> Held:
        text = _read(f"{self.directory}/blocks-{network}")
        if not text:
            return Held()
        raw = json_text.loads(text)
        return Held(tuple(map(parse_prefix, raw["blocks"])), raw["revision"])

    def set_blocks(self, network: str, held: Held) -> None:
        told = {"blocks": list(map(str, held.blocks)), "revision": held.revision}
        self._put(f"blocks-{network}", json_text.dumps(told))

    def overlay(self, network: str) -> str:
        return _read(f"{self.directory}/{_OVERLAY}{network}")

    def set_overlay(self, network: str, text: str) -> None:
        self._put(f"{_OVERLAY}{network}", text)

    def drop_overlay(self, network: str) -> None:
        _unlink(f"{self.directory}/{_OVERLAY}{network}")

    @staticmethod
    def overlays(directory: str) -> list[tuple[str, str]]:
        """The name of every overlay network, of all clusters, and what was kept of it."""
        found = []
        for cluster in _names(f"{directory}/etcd"):
            folder = f"{directory}/etcd/{cluster}"
            names = sorted(name for name in _names(folder) if name.startswith(_OVERLAY))
            found += [(name[len(_OVERLAY) :], _read(f"{folder}/{name}")) for name in names]
        return found

    def lock(self, owner: str) -> OwnerLock:
        """`with state.lock(owner)`: alone with this attachment, among all processes and threads of the host."""
        return OwnerLock(self._path(f"locks/{sha256_hex(owner.encode('utf-8', 'surrogateescape'))[:32]}"))

    def add_pending(self, pending: Pending) -> None:
        """Remember it, on the disk when this returns."""
        name = sha256_hex(json_text.dumps([pending.network, pending.container_id, pending.ifname]).encode())[:32]
        self._put(f"pending/{name}-{os.urandom(4).hex()}", json_text.dumps(pending.as_dict()))

    def pending(self) -> list[tuple[str, Pending]]:
        """All there is, with the name to `forget` each by, oldest first."""
        found = _read_pending(f"{self.directory}/pending")
        return sorted(found, key=lambda each: each[1].at)

    @staticmethod
    def pending_connections(directory: str) -> list[str]:
        """The `etcd` objects by which something is to be given back, of each cluster the latest."""
        latest = []
        for cluster in _names(f"{directory}/etcd"):
            found = _read_pending(f"{directory}/etcd/{cluster}/pending")
            if found:
                latest.append(max(found, key=lambda each: each[1].at)[1].connection)
        return latest

    def forget(self, name: str) -> None:
        _unlink(f"{self.directory}/pending/{name}")

    def _put(self, name: str, text: str) -> None:
        path = self._path(name)
        fresh = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
        _write(fresh, text)
        os.rename(fresh, path)

    def _path(self, name: str) -> str:
        path = f"{self.directory}/{name}"
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return path


class OwnerLock:
    """A file that is locked while it is there: it goes with the lock, so that no call leaves one behind."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> None:
        while self._fd < 0:
            self._try(fcntl.LOCK_EX)

    def take_now(self) -> bool:
        """The same without waiting; whether nobody else has it. Ends with `__exit__` as well."""
        try:
            self._try(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return self._fd >= 0

    def __exit__(self, *_: Any) -> None:
        if self._fd >= 0:
            os.unlink(self._path)
            os.close(self._fd)
            self._fd = -1

    def _try(self, how: int) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, how)
            try:
                same = os.path.samestat(os.fstat(fd), os.stat(self._path))
            except FileNotFoundError:
                same = False
        except BaseException:
            os.close(fd)
            raise
        if same:
            self._fd = fd
        else:
            os.close(fd)  # whoever had it has removed it: the next one is another file


def _read_pending(folder: str) -> list[tuple[str, Pending]]:
    found = []
    for name in _names(folder):
        if "." in name:
            continue  # half written
        try:
            found.append((name, Pending(**json_text.loads(_read(f"{folder}/{name}")))))
        except (ValueError, TypeError):
            continue  # done by another process meanwhile, or damaged: GC finds what it meant
    return found


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)  # it may hold a password
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
