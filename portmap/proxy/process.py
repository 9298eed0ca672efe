"""From the command line to the loop: control socket, limits, privileges, signals."""

from __future__ import annotations

import _signal
import _socket
import ctypes
import gc
import os
import sys
from _socket import socket as Socket
from fcntl import LOCK_EX, LOCK_NB, flock
from resource import RLIMIT_NOFILE, getrlimit, setrlimit

from pycni.cni import json_text
from pycni.portmap.proxy.control import Control
from pycni.portmap.proxy.engine import Engine, Stop
from pycni.portmap.proxy.limits import MOST_DESCRIPTORS, Limits
from pycni.portmap.proxy.service import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

USAGE = "usage: __main__.py --control PATH|FD [--uid N]"
BACKLOG = 16
PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h


def main(argv: list[str]) -> int:
    """Serve until told to stop; the exit code. Another proxy with the same control path is an error."""
    given = dict(zip(argv[::2], argv[1::2], strict=False))
    control = given.pop("--control", "")
    uid = given.pop("--uid", "0")
    if given or not control or not uid.isdecimal() or len(argv) % 2:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        listener = Socket(fileno=int(control)) if control.isdecimal() else listen(control)
    except OSError as failure:
        print(f"pycni proxy: {control}: {failure.strerror or failure}", file=sys.stderr)
        return 1
    started_as = os.getuid()
    descriptors = raise_descriptors()
    load_everything()
    leave_session()
    drop_privileges(int(uid))
    serve(listener, descriptors, frozenset((0, started_as)))
    return 0


def listen(path: str) -> Socket:
    """A listening socket at *path* that only its owner may connect to. BlockingIOError if a proxy lives there."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    flock(lock, LOCK_EX | LOCK_NB)  # until this process ends: the descriptor is never closed
    try:
        os.unlink(path)  # whose that was has ended
    except FileNotFoundError:
        pass
    listener = Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    mask = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen(BACKLOG)
    return listener


def raise_descriptors() -> int:
    """As many as may be had, up to MOST_DESCRIPTORS; how many that are."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    for wanted in ((MOST_DESCRIPTORS, max(MOST_DESCRIPTORS, hard)), (min(MOST_DESCRIPTORS, hard), hard)):
        try:
            setrlimit(RLIMIT_NOFILE, wanted)
        except (OSError, ValueError):
            continue
        return wanted[0]
    return soft


def load_everything() -> None:
    """What would be imported later, while it can be read: an interpreter below /root is closed to others."""
    json_text.loads(json_text.dumps({}))


def leave_session() -> None:
    """What ends the agent's session shall not end the connections of its containers."""
    try:
        os.setsid()
    except PermissionError:
        pass  # this is a session's leader already


def drop_privileges(uid: int) -> None:
    """For good: exec gives nothing back, and with the last uid 0 go all capabilities, capabilities(7)."""
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getuid() == 0 and uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    os.chdir("/")


def terminate(_signal_number: int, _frame: object) -> NoReturn:
    _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)
    raise Stop


def serve(listener: Socket, descriptors: int, uids: frozenset[int]) -> None:
    """Until SIGTERM, `stop`, or nobody needs it. Then every connection is reset: an end would say that all was sent."""
    engine = Engine()
    service = Service(engine, Limits(), descriptors)
    try:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())  # of the process that started this one
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
        _signal.signal(_signal.SIGTERM, terminate)
        Control(engine, service, listener, uids)
        # Nothing here is in a cycle that has to be found: a connection that ends is let go at once.
        gc.collect()
        gc.freeze()
        gc.disable()
        engine.run()
    except Stop:
        service.close()
        engine.close_all()
