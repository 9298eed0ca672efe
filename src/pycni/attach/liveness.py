"""Which attachments are dead for certain. Where there is doubt they live: releasing is what cannot be taken back."""

from __future__ import annotations

from pycni.host import netns
from pycni.store.boot import boot_id, process_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.host import rtnl
    from pycni.store.attachments import Record


def is_abandoned(record: Record) -> bool:
    """Of another boot, or half made or half deleted by a process that is no more."""
    if record.boot_id != boot_id():
        return True
    return record.state != "ready" and not process_alive(record.pid, record.pid_start)


def has_vanished(record: Record, host: rtnl.Netlink) -> bool:
    """Whether the container's namespace is gone. *host*: a socket in the host's namespace.

    Its path alone does not tell: a runtime may keep it in a mount namespace of its own. But the kernel takes a veth
    pair away with the namespace of either end, so a link that is there speaks for the container.
    """
    if record.state != "ready" or netns.exists(record.netns, record.netns_id):
        return False
    return all(host.link(name) is None for name in record.host_links)


def is_dead(record: Record, host: rtnl.Netlink) -> bool:
    return is_abandoned(record) or has_vanished(record, host)
