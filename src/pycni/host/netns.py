"""Network namespaces: open one, name it, run a function inside one."""

from __future__ import annotations

import _thread
import fcntl
import os
import sys

from pycni.cni.errors import CniError, Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

CLONE_NEWNET = 0x40000000
NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
OWN = "/proc/thread-self/ns/net"

_move: Callable[[int], None] | None = None


def open_netns(path: str) -> int:
    """A descriptor (close-on-exec) of the network namespace at *path*, for the caller to close.

    CniError 8 if *path* is missing, is no namespace at all, or one of another kind.
    """
    try:
        # O_NONBLOCK: a FIFO would otherwise be waited for.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as failure:  # ValueError: a NUL byte in the path
        reason = os.strerror(failure.errno or 0) if isinstance(failure, OSError) else str(failure)
        raise CniError(Code.NETNS, f'failed to open netns "{path}": {reason.lower()}') from failure
    try:
        _check_netns(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def identity(fd: int) -> str:
    """The "device:inode" of a namespace: its own while it exists; the kernel gives the number of a dead one anew."""
    return _identity(os.fstat(fd))


def own_identity() -> str:
    """`identity` of the calling thread's namespace."""
    return _identity(os.stat(OWN))


def exists(path: str, identity: str) -> bool:
    """Whether *path* still is the namespace with that `identity`."""
    try:
        return _identity(os.stat(path)) == identity
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):  # the last: /proc/PID/ns/net of a zombie
        return False


def inside(fd: int, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """What *function* answers, or raises, when run inside the namespace of *fd*.

    It runs on a thread of its own that ends with it: setns moves the calling thread only, and a thread that failed to
    move back would do everything after in the wrong namespace. Sockets opened inside stay inside, and /proc/sys/net is
    that of the thread's namespace. An interrupt (KeyboardInterrupt) of the caller is held until *function* has ended.
    """
    ended = _thread.allocate_lock()
    ended.acquire()
    outcome: list[Any] = []  # the answer, or None and the exception
    _thread.start_new_thread(_run, (_setns(), fd, lambda: function(*args, **named), outcome, ended))
    try:
        ended.acquire()
    except BaseException:
        ended.acquire()
        raise
    if len(outcome) == 1:
        answer: T = outcome.pop()
        return answer
    failure = outcome.pop()
    try:
        raise failure
    finally:
        del failure  # its traceback holds this frame: the cycle would keep all that hangs on it open until a collection


def _run(move: Callable[[int], None], fd: int, work: Callable[[], T], outcome: list[Any], ended: LockType) -> None:
    try:
        move(fd)
        outcome.append(work())
    except BaseException as failure:
        outcome.extend((None, failure))
    finally:
        ended.release()


def _identity(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


def _check_netns(fd: int, path: str) -> None:
    # All namespace files are inodes of the kernel's one nsfs mount (fs/nsfs.c), so its device tells them.
    if os.fstat(fd).st_dev != os.stat(OWN).st_dev:
        raise CniError(Code.NETNS, f'unknown FS magic on "{path}": {_fs_magic(fd):x}', "it is not a namespace")
    if fcntl.ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET:
        raise CniError(Code.NETNS, f'"{path}" is not a network namespace', "it is a namespace of another kind")


def _fs_magic(fd: int) -> int:
    """f_type of struct statfs, its first word; os.fstatvfs has no such field."""
    import ctypes

    found = (ctypes.c_long * 32)()
    if ctypes.CDLL(None, use_errno=True).fstatfs(fd, found):
        raise OSError(ctypes.get_errno(), f"fstatfs: {os.strerror(ctypes.get_errno())}")
    return int(found[0]) & 0xFFFFFFFF


def _setns() -> Callable[[int], None]:
    """What moves the calling thread into the network namespace of a descriptor; OSError EINVAL if it is none."""
    global _move  # noqa: PLW0603 - a library handle, looked up once
    if _move is None:
        _move = _find_setns()
    return _move


def _find_setns() -> Callable[[int], None]:
    if sys.version_info >= (3, 12):
        return lambda fd: os.setns(fd, CLONE_NEWNET)
    import ctypes

    setns = ctypes.CDLL(None, use_errno=True).setns

    def move(fd: int) -> None:
        if setns(fd, CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}")

    return move
