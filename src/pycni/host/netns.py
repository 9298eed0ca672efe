"""Network namespaces: open one, name it, run a function inside one."""

from __future__ import annotations

import fcntl
import os
import sys

# The C module: the one around it makes enums of all signals at every start, 2 ms.
from _signal import SIG_BLOCK, SIG_SETMASK, SIGKILL, pthread_sigmask, valid_signals
from _thread import _local

import pycni
from pycni.cni.errors import CniError, Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

CLONE_NEWNET = 0x40000000
NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
OWN = "/proc/thread-self/ns/net"

_move: Callable[[int], None] | None = None
_home: tuple[int, str] | None = None  # descriptor and identity, where pycni.stays_home
_visit = _local()  # of each thread; has an attribute while it is elsewhere


def home() -> tuple[int, str] | None:
    """Descriptor and `identity` of the namespace that the calling thread is in, where that is the one that all threads
    of this process live in (`pycni.stays_home`) and not one it visits: it need not be looked up each time."""
    global _home  # noqa: PLW0603 - a property of the process
    if not pycni.stays_home or hasattr(_visit, "elsewhere"):
        return None
    if _home is None:
        fd = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        _home = fd, identity(fd)
    return _home


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
    known = home()
    return known[1] if known is not None else _identity(os.stat(OWN))


def exists(path: str, identity: str) -> bool:
    """Whether *path* still is the namespace with that `identity`."""
    try:
        return _identity(os.stat(path)) == identity
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):  # the last: /proc/PID/ns/net of a zombie
        return False


def inside(fd: int, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """What *function* answers, or raises, when run inside the namespace of *fd*.

    setns moves the calling thread only, and moves it back before this returns. Sockets opened inside stay inside, and
    /proc/sys/net is that of the thread's namespace. Signals to the calling thread are held until *function* has ended:
    a KeyboardInterrupt on the way back would leave the thread where it is. (A thread made for each visit would be as
    safe, and costs a fifth of an ADD: 0.12 ms each, and more where other threads want the interpreter.)
    """
    move = _setns()
    known = home()
    back = known[0] if known is not None else os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        before = pthread_sigmask(SIG_BLOCK, valid_signals())
        try:
            move(fd)
            try:
                return _elsewhere(function, *args, **named)
            finally:
                _go_home(move, back)
        finally:
            pthread_sigmask(SIG_SETMASK, before)
    finally:
        if known is None:
            os.close(back)


def _elsewhere(function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    if hasattr(_visit, "elsewhere"):  # a visit from a visit
        return function(*args, **named)
    _visit.elsewhere = True
    try:
        return function(*args, **named)
    finally:
        del _visit.elsewhere


def _go_home(move: Callable[[int], None], back: int) -> None:
    try:
        move(back)
    except OSError:
        # Whatever this thread did next would be done to the container. A process that dies here leaves its record in
        # the store, and the next call cleans up.
        os.kill(os.getpid(), SIGKILL)


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
    # The C module: the package around it makes types for everything, 1.5 ms, and this needs one.
    import _ctypes

    class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # it is no generic at run time
        _type_ = "i"

    class Function(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = Int

    program: Any = None  # its own symbols; the stub knows of files only
    setns = Function(_ctypes.dlsym(_ctypes.dlopen(program, 0), "setns"))

    def move(fd: int) -> None:
        if setns(fd, CLONE_NEWNET):
            number = _ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}")

    return move
