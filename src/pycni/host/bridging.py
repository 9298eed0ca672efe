"""The operations on bridges carried out."""

from __future__ import annotations

from pycni.change import ops
from pycni.cni.errors import CniError, Code
from pycni.host import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pycni.change.ops import Op
    from pycni.host import rtnl
    from pycni.host.apply import Kernel


def _ensure_bridge(kernel: Kernel, op: ops.EnsureBridge) -> Op | None:
    link = kernel.seen(ops.HOST, op.name)
    made = link is None and _create_bridge(kernel, op)
    link = link or kernel.link(ops.HOST, op.name)
    if link.kind != "bridge":
        raise CniError(
            Code.INVALID_CONFIG,
            f'failed to create bridge "{op.name}": "{op.name}" already exists but is not a bridge',
            f"it is a {link.kind or 'physical'} link: give the network another bridge name",
        )
    if not made:
        _adopt_bridge(kernel, op, link)
    if op.promiscuous and not link.promiscuous:
        kernel.host.request(messages.set_link(link.index, promisc=True))
        if not made:
            return ops.SetPromiscuous(op.name, on=False)
    return ops.DeleteBridge(op.name) if made else None


def _create_bridge(kernel: Kernel, op: ops.EnsureBridge) -> bool:
    try:
        kernel.host.request(
            messages.new_bridge(op.name, mac=op.mac, vlan_filtering=op.vlan_filtering, up=True),
            messages.set_link(op.name, mtu=op.mtu, alias=op.alias),
        )
    except FileExistsError:
        return False  # another ADD was faster
    except OSError as failure:
        if getattr(failure, "position", 0):  # it was made, and refuses its MTU
            kernel.delete_link(op.name)
        raise
    return True


def _adopt_bridge(kernel: Kernel, op: ops.EnsureBridge, link: rtnl.Link) -> None:
    if not link.up:
        kernel.host.request(messages.set_link(link.index, up=True))
    if not link.alias.startswith("pycni "):
        # A bridge takes the lowest MAC among its ports unless one was set (br_stp_if.c): containers that come and
        # go would change the gateway's address. Setting the one it has pins it.
        kernel.host.request(messages.set_link(link.index, mac=link.mac))
    if op.vlan_filtering and not link.vlan_filtering:
        raise CniError(
            Code.INVALID_CONFIG,
            f'bridge "{op.name}" exists without VLAN filtering',
            f"ip link set {op.name} type bridge vlan_filtering 1, or give this network another bridge",
        )


def _delete_bridge(kernel: Kernel, op: ops.DeleteBridge) -> None:
    link = kernel.host.link(op.name)
    if link is not None and not kernel.host.ports(link.index):
        kernel.delete_link(op.name)


def _set_promiscuous(kernel: Kernel, op: ops.SetPromiscuous) -> None:
    kernel.host.request(messages.set_link(kernel.index(ops.HOST, op.name), promisc=op.on))


def _ensure_vlan_gateway(kernel: Kernel, op: ops.EnsureVlanGateway) -> Op | None:
    if kernel.host.link(op.name) is not None:
        return None
    bridge = kernel.index(ops.HOST, op.bridge)
    kernel.host.request(messages.new_veth_pair_here(op.name, op.port, master=bridge, mtu=op.mtu, alias=op.alias))
    try:
        kernel.set_port_vlans(op.port_vlans)
    except OSError:
        kernel.delete_link(op.name)
        raise
    return ops.DeleteBridge(op.name)  # shared like the bridge: it has no ports, but others may rely on it


ACTS: dict[type[Op], Any] = {
    ops.EnsureBridge: _ensure_bridge,
    ops.DeleteBridge: _delete_bridge,
    ops.SetPromiscuous: _set_promiscuous,
    ops.EnsureVlanGateway: _ensure_vlan_gateway,
}
