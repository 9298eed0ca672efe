"""The container's namespace of a call."""

from __future__ import annotations

import os

from pycni.cni.errors import CniError, Code
from pycni.host import netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.env import Call


def open_container(call: Call) -> int:
    """A descriptor of CNI_NETNS; CniError 8 where it is no namespace, or the plugin's own.

    The reference finds out about its own namespace after the work is done, and leaves all of it behind.
    """
    fd = os.dup(call.netns_fd) if call.netns_fd >= 0 else netns.open_netns(call.netns)
    if not call.netns_override and netns.identity(fd) == netns.own_identity():
        os.close(fd)
        raise CniError(
            Code.NETNS,
            f"plugin's netns and netns from CNI_NETNS should not be the same: {call.netns}",
            "give the container a network namespace of its own",
        )
    return fd
