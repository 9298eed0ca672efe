"""Leases whose container is gone although nobody called DEL: a crash, a reboot, a runtime that forgot."""

from __future__ import annotations

import os

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.env import Call
    from pycni.store.leases import Lease, Pool


class Here(Value):
    """From where a lease is judged: this boot, and the mount namespace ("device:inode") that paths are looked up in."""

    boot_id: str
    mount_ns: str


def here(boot_id: str) -> Here:
    return Here(boot_id, identity("/proc/self/ns/mnt"))


def identity(path: str) -> str:
    """ "device:inode" of what *path* leads to; "" if it is not there or cannot be looked at."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def namespace_of(call: Call) -> str:
    """The identity of the caller's namespace; "" where CNI_NETNS does not lead to it from here.

    A caller with other mounts hands its namespace over as a descriptor, and its path means nothing (or something else)
    in ours.
    """
    by_path = identity(call.netns) if call.netns else ""
    if call.netns_fd >= 0:
        found = os.fstat(call.netns_fd)
        return by_path if by_path == f"{found.st_dev}:{found.st_ino}" else ""
    return by_path


def is_dead(lease: Lease, seen_from: Here) -> bool:
    """Whether the container of *lease* is surely gone: another boot, or its namespace is not at its path any more.

    The second is only said in the mount namespace in which the path was given (/run/netns and /proc of another one may
    look different), and only of a lease that knows its namespace: one imported from host-local does not.
    """
    return _is_gone(lease.boot_id, lease.netns, lease.netns_id, lease.mount_ns, seen_from)


def release_dead(pool: Pool, seen_from: Here) -> int:
    """End the leases of *pool* whose container is gone; how many. Looks at every lease, one stat each."""
    dead = [each[0] for each in pool.whereabouts() if _is_gone(*each[1:], seen_from)]
    pool.release_keys(dead)
    return len(dead)


def _is_gone(boot_id: str, netns: str, netns_id: str, mount_ns: str, seen_from: Here) -> bool:
    if boot_id != seen_from.boot_id:
        return True
    if not netns_id or mount_ns != seen_from.mount_ns:
        return False
    try:
        found = os.stat(netns)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return True
    except OSError:  # not allowed to look: no verdict
        return False
    return f"{found.st_dev}:{found.st_ino}" != netns_id
