"""The socket that the agent listens on: made here, one agent to a path, or by systemd; and who may reach it."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import socket
import stat
import struct

from pycni.cni.errors import CniError, Code

SO_PEERGROUPS = 59  # asm-generic/socket.h, since Linux 4.13; Python has no name for it
MOST_GROUPS = 256  # what fits into the 1024 bytes that socket.getsockopt takes


class Listener:
    """A listening socket at *path*. `close` takes the file away too, if this process made it."""

    def __init__(self, sock: socket.socket, path: str, lock: int = -1) -> None:
        self.sock = sock
        self.path = path
        self._lock = lock  # -1: systemd's socket, which stays when the agent ends
        self._file = _identity(path)

    @property
    def own(self) -> bool:
        return self._lock >= 0

    @classmethod
    def activated(cls, sock: socket.socket) -> Listener:
        """The one that systemd made. CniError 4 where it is no listening Unix stream socket."""
        kind = sock.family, sock.type & ~socket.SOCK_NONBLOCK, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if kind != (socket.AF_UNIX, socket.SOCK_STREAM, 1):
            hint = "see ListenStream in pycni-agent.socket"
            raise CniError(Code.ENVIRONMENT, "descriptor 3 is no listening Unix stream socket", hint)
        return cls(sock, sock.getsockname())

    @classmethod
    def made(cls, path: str) -> Listener:
        """A new one that only root can reach, in place of a dead agent's; OSError EADDRINUSE where one lives."""
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        # Between the look at an old file and bind(2) another agent could do the same: the lock lets only one go on.
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            _lock_or_refuse(lock, path)
            _remove_dead(path)
            before = os.umask(0o177)  # never reachable by others, not even between bind and chmod
            try:
                sock.bind(path)
            finally:
                os.umask(before)
            sock.listen(socket.SOMAXCONN)
        except BaseException:
            sock.close()
            os.close(lock)
            raise
        return cls(sock, path, lock)

    def admit(self, group: str) -> None:
        """Let the members of *group* connect besides root; "": nobody. CniError 7 for a group that does not exist."""
        try:
            gid = grp.getgrnam(group).gr_gid if group else 0
        except KeyError:
            self._grant(0, 0o600)
            raise CniError(Code.INVALID_CONFIG, f"readers is {group!r}, a group that does not exist") from None
        self._grant(gid, 0o660 if group else 0o600)

    def _grant(self, gid: int, mode: int) -> None:
        if self._file is None or _identity(self.path) != self._file:
            return  # an abstract address, or the file is somebody else's by now
        os.chmod(self.path, 0o600)  # nobody of the former group while it changes hands
        os.chown(self.path, 0, gid)
        os.chmod(self.path, mode)

    def retire(self) -> None:
        """From now on nobody new comes: callers find no agent and carry out their calls themselves."""
        if self.own and _identity(self.path) == self._file:
            os.unlink(self.path)

    def close(self) -> None:
        self.retire()
        self.sock.close()
        if self.own:
            os.close(self._lock)
            self._lock = -1


def _lock_or_refuse(lock: int, path: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(lock, 20, 0).decode()
        raise OSError(errno.EADDRINUSE, f"another agent serves {path}" + (f": pid {pid}" if pid else "")) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def _remove_dead(path: str) -> None:
    """Remove the socket of an agent that is no more; OSError EADDRINUSE where one accepts, EEXIST for another file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its queue is full, so it listens
        except ConnectionRefusedError:
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise OSError(errno.EEXIST, f"{path} is there and is no socket") from None
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, f"systemd or another agent listens on {path}")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except (OSError, ValueError):  # ValueError: a NUL, as in an abstract address
        return None
    return status.st_dev, status.st_ino


# -- who is at the other end -------------------------------------------------------------------------------------------


def peer_uid(client: socket.socket) -> int:
    """The user of the process at the other end, as the kernel knows it (unix(7), SO_PEERCRED)."""
    return _peer(client)[1]


def is_member(client: socket.socket, group: str) -> bool:
    """Whether the process at the other end had *group* among its groups, supplementary ones included, at connect()."""
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return False
    return gid == _peer(client)[2] or gid in _supplementary(client)


def _peer(client: socket.socket) -> tuple[int, int, int]:
    layout = struct.Struct("iII")  # struct ucred (linux/socket.h): pid, uid, gid
    pid, uid, gid = layout.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size))
    return pid, uid, gid


def _supplementary(client: socket.socket) -> tuple[int, ...]:
    try:
        data = client.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MOST_GROUPS * 4)
    except OSError:  # ERANGE: more of them than that; ENOPROTOOPT: an older kernel. The main group has been asked.
        return ()
    return struct.unpack(f"{len(data) // 4}I", data)
