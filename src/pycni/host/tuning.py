"""The operations of pycni.change.tuning carried out, and the files that tuning reads and keeps."""

from __future__ import annotations

import errno
import os

from pycni.change import ops, tuning
from pycni.host import messages, sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pycni.change.ops import Op
    from pycni.host.apply import Kernel

_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.EINVAL, errno.EISDIR)
UNFINISHED = ".new"  # behind the name of a file that is being written


def read_file(path: str) -> str | None:
    """The text of *path*, None where there is no such file; bytes that are no UTF-8 come as U+FFFD."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_file(path: str, text: str) -> None:
    """Put *text* in place of whatever *path* held, for root only: a reader, or a crash, finds one of both, whole."""
    unfinished = path + UNFINISHED
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(unfinished, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        fd = os.open(unfinished, flags, 0o600)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
    os.rename(unfinished, path)


def remove_file(path: str) -> None:
    """Remove *path* and what an interrupted write of it left; already gone is fine."""
    for each in (path + UNFINISHED, path):
        try:
            os.unlink(each)
        except (FileNotFoundError, NotADirectoryError):
            pass


def read_sysctls(keys: Iterable[str]) -> dict[str, str | None]:
    """What the calling thread's namespace has under each key, None for one that is missing; without those that can
    only be written ("net/ipv4/route/flush")."""
    found = {}
    for key in keys:
        try:
            found[key] = sysctl.read(key)
        except OSError as failure:
            if failure.errno not in _UNREADABLE:
                raise
    return found


def _keep_file(kernel: Kernel, op: tuning.KeepFile) -> Op:
    before = read_file(op.path)
    write_file(op.path, op.text)
    return tuning.DropFile(op.path) if before is None else tuning.KeepFile(op.path, before)


def _drop_file(kernel: Kernel, op: tuning.DropFile) -> None:
    remove_file(op.path)


def _tune_sysctl(kernel: Kernel, op: tuning.TuneSysctl) -> Op | None:
    before = kernel.inside(_write_sysctl, op)
    return None if before is None else tuning.TuneSysctl(op.key, before)


def _write_sysctl(op: tuning.TuneSysctl) -> str | None:
    """What the key had before the write; None for one that cannot be read."""
    before = read_sysctls([op.key])
    if before:
        sysctl.write(op.key, op.value)
    else:
        sysctl.write_only(op.key, op.value)
    return before.get(op.key)


def _tune_link(kernel: Kernel, op: tuning.TuneLink) -> Op:
    link = kernel.link(ops.CONTAINER, op.link)
    change = messages.set_link(
        link.index,
        mac=op.mac,
        mtu=op.mtu,
        promisc=op.promiscuous,
        all_multicast=op.all_multicast,
        tx_queue=op.tx_queue,
    )
    kernel.socket(ops.CONTAINER).request(change)
    return tuning.TuneLink(
        op.link,
        mac=link.mac if op.mac else b"",
        mtu=link.mtu if op.mtu else 0,
        promiscuous=None if op.promiscuous is None else link.promiscuous,
        all_multicast=None if op.all_multicast is None else link.all_multicast,
        tx_queue=None if op.tx_queue is None else link.tx_queue,
    )


ACTS: dict[type[Op], Any] = {
    tuning.KeepFile: _keep_file,
    tuning.DropFile: _drop_file,
    tuning.TuneSysctl: _tune_sysctl,
    tuning.TuneLink: _tune_link,
}
