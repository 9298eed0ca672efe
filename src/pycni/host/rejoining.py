"""The operations of pycni.change.rejoining carried out."""

from __future__ import annotations

import errno

from pycni.change import rejoining
from pycni.change.ops import HOST
from pycni.host import announce_peer, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pycni.change.ops import Op
    from pycni.host.apply import Kernel


def _join_bridge(kernel: Kernel, op: rejoining.JoinBridge) -> None:
    bridge = kernel.link(HOST, op.bridge)
    try:
        kernel.host.request(messages.set_link(op.link, master=bridge.index))
    except OSError as failure:
        if failure.errno != errno.ENODEV:
            raise


def _set_mac(kernel: Kernel, op: rejoining.SetMac) -> None:
    kernel.host.request(messages.set_link(op.link, mac=op.mac))
    # Who asked meanwhile knows another one, and would use it for half a minute more (base_reachable_time).
    announce_peer.kick(op.link, [(str(address), op.mac.hex(":")) for address in op.addresses])


ACTS: dict[type[Op], Any] = {rejoining.JoinBridge: _join_bridge, rejoining.SetMac: _set_mac}
