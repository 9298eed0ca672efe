"""Kernel parameters below /proc/sys; those of net/ are the ones of the calling thread's namespace (`netns.inside`)."""

from __future__ import annotations

import errno
import os

ROOT = "/proc/sys/"


def read(key: str) -> str | None:
    """The value of *key* ("net/ipv4/ip_forward") without its newline; None if this kernel or link has no such key."""
    try:
        with open(_path(key)) as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def write(key: str, value: str) -> None:
    """Set *key*, unless it has that value already; OSError (ENOENT: no such key, EINVAL: no such value)."""
    before = read(key)
    # The kernel separates several values by tabs. Not writing what is there saves its work (a write to a forwarding
    # key takes RTNL) and lets a read-only /proc/sys do where all is as it should be.
    if before is None or before.split() != value.split():
        write_only(key, value)


def write_only(key: str, value: str) -> None:
    """As write, for a key that cannot be read ("net/ipv4/route/flush")."""
    fd = os.open(_path(key), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode() or b"\n")  # in one write: each write is a whole value, an empty one none at all
    finally:
        os.close(fd)


def _path(key: str) -> str:
    if ".." in key.split("/") or key.startswith("/") or "\0" in key:
        raise OSError(errno.EINVAL, "not a key below /proc/sys", key)
    return ROOT + key
