"""Kernel parameters below /proc/sys; those of net/ are the ones of the calling thread's namespace (`netns.inside`)."""

from __future__ import annotations

import errno
import os

from pycni.host import netns

ROOT = "/proc/sys/"
# net/ipv4, net/ipv6 and others of `netns.home`, once each was used. All namespaces' lie in one list of
# names (proc_sys_compare, proc_sysctl.c), the oldest last: next to 3000 containers 0.6 ms to find one by its path.
_directories: dict[str, int] = {}
READ_BYTES = 1 << 14  # a list of ports can be long, and the kernel gives no second part of it (proc_do_large_bitmap)


def read(key: str) -> str | None:
    """The value of *key* ("net/ipv4/ip_forward") without its newline; None if this kernel or link has no such key."""
    # By descriptor: a file object costs twice as much.
    try:
        fd = _open(key, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, READ_BYTES).decode().strip()
    finally:
        os.close(fd)


def write(key: str, value: str) -> None:
    """Set *key*, unless it has that value already; OSError (ENOENT: no such key, EINVAL: no such value)."""
    before = read(key)
    # The kernel separates several values by tabs. Not writing what is there saves its work (a write to a forwarding
    # key takes RTNL) and lets a read-only /proc/sys do where all is as it should be.
    if before is None or before.split() != value.split():
        write_only(key, value)


def write_only(key: str, value: str) -> None:
    """As write, for a key that cannot be read ("net/ipv4/route/flush")."""
    fd = _open(key, os.O_WRONLY)
    try:
        os.write(fd, value.encode() or b"\n")  # in one write: each write is a whole value, an empty one none at all
    finally:
        os.close(fd)


def _open(key: str, flags: int) -> int:
    parts = key.split("/")
    if ".." in parts or not parts[0] or "\0" in key:
        raise OSError(errno.EINVAL, "not a key below /proc/sys", key)
    if len(parts) < 3 or netns.home() is None:
        return os.open(ROOT + key, flags | os.O_CLOEXEC)
    kind = "/".join(parts[:2])
    if kind not in _directories:
        _directories[kind] = os.open(ROOT + kind, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return os.open("/".join(parts[2:]), flags | os.O_CLOEXEC, dir_fd=_directories[kind])
