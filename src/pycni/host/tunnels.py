"""The operations of pycni.change.tunnels carried out."""

from __future__ import annotations

import errno
import os
from _socket import AF_INET, AF_INET6, inet_pton

from pycni.change import ops, tunnels
from pycni.cni.errors import CniError, Code
from pycni.cni.names import bridge_alias
from pycni.host import messages, vxlan, vxlan_messages
from pycni.host.vxlan_messages import MDB_RTR_TYPE_PERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pycni.change.ops import Op
    from pycni.host.apply import Kernel
    from pycni.host.link_facts import Link
    from pycni.host.vxlan import VxlanFacts

OUR_ALIASES = bridge_alias("")
# Outer Ethernet is not counted in an MTU: IP, UDP and VXLAN headers, and the inner Ethernet header.
OVERHEAD = {4: 20 + 8 + 8 + 14, 6: 40 + 8 + 8 + 14}


def _ensure_vxlan(kernel: Kernel, op: tunnels.EnsureVxlan) -> Op | None:
    link = kernel.host.link(op.name)
    there = vxlan.read_vxlan(kernel.host, op.name) if link is not None else None
    if link is not None and (there is None or not _is_ours(there, op)):
        raise _not_ours(op, link.kind, link.alias)
    if there is not None and not _can_become(there, op):
        _delete_vxlan(kernel, tunnels.DeleteVxlan(op.name))
        there = None
    made = False
    if there is None:
        made = _create(kernel, op)
        there = vxlan.read_vxlan(kernel.host, op.name)
        if there is None or not _is_ours(there, op):
            raise CniError(Code.INTERNAL, f"link {op.name} was replaced while it was made", "try again")
    try:
        _adjust(kernel, op, there)
    except BaseException:
        if made:
            _delete_vxlan(kernel, tunnels.DeleteVxlan(op.name))
        raise
    return tunnels.DeleteVxlan(op.name) if made else None


def _is_ours(there: VxlanFacts, op: tunnels.EnsureVxlan) -> bool:
    """A device takes no alias at its creation, so one whose maker died right afterwards is known by its MAC, which is
    derived from node and VNI; as is one that somebody gave another alias. An alias of ours names another network."""
    is_named = there.alias.startswith(OUR_ALIASES)
    return there.alias == op.alias or (not is_named and bool(op.mac) and there.mac == op.mac)


def _can_become(there: VxlanFacts, op: tunnels.EnsureVxlan) -> bool:
    """Whether the kernel can change the device into what is wanted, with all its entries."""
    fixed = (there.vni, there.port, there.version, there.proxy, there.group)
    return fixed == (op.vni, op.port, 6 if ":" in op.local else 4, op.proxy, op.group)


def _create(kernel: Kernel, op: tunnels.EnsureVxlan) -> bool:
    """Whether the device was made here: another ADD may be faster."""
    uplink = _uplink(kernel, op)
    _refuse_mtu(op, uplink)
    request = vxlan_messages.new_vxlan(
        op.name,
        vni=op.vni,
        port=op.port,
        local=_packed(op.local),
        link=uplink.index if uplink is not None else 0,
        mac=op.mac,
        mtu=op.mtu,
        learning=op.learning,
        proxy=op.proxy,
        group=_packed(op.group) if op.group else b"",
    )
    try:
        kernel.host.request(request)
    except FileExistsError as failure:
        if kernel.host.link(op.name) is None:
            raise _vni_taken(kernel, op, failure) from failure
        return False
    except OSError as failure:
        if failure.errno == errno.EOPNOTSUPP:
            raise CniError(
                Code.KERNEL_LACKS, "this kernel has no VXLAN devices (CONFIG_VXLAN)", f"EOPNOTSUPP: {failure.strerror}"
            ) from failure
        raise
    return True


def _adjust(kernel: Kernel, op: tunnels.EnsureVxlan, there: VxlanFacts) -> None:
    """Give the device all that can be given in place, and bring it up."""
    uplink = _uplink(kernel, op)
    link = uplink.index if uplink is not None else 0
    if (there.link, there.mtu) != (link, op.mtu):
        _refuse_mtu(op, uplink)
    local = _packed(op.local) if there.local != op.local else b""
    # Of a device that is to have no underlay link any more the kernel keeps the one it had.
    if local or (link and link != there.link) or there.learning != op.learning:
        learning = op.learning if there.learning != op.learning else None
        kernel.host.request(vxlan_messages.change_vxlan(there.index, local=local, link=link, learning=learning))
    if op.mtu and there.mtu != op.mtu:
        _set_mtu(kernel, there, op.mtu)
    if there.alias != op.alias:
        kernel.host.request(messages.set_link(there.index, alias=op.alias))
    if op.mac and there.mac != op.mac:
        kernel.host.request(messages.set_link(there.index, mac=op.mac))
    _join_bridge(kernel, op, there)
    if not there.up:
        _switch_off_link_local(kernel, there.index)
        _bring_up(kernel, op, there)


def _join_bridge(kernel: Kernel, op: tunnels.EnsureVxlan, there: VxlanFacts) -> None:
    master = kernel.link(ops.HOST, op.bridge).index if op.bridge else 0
    if there.master != master:
        kernel.host.request(messages.set_link(there.index, master=master))
    flags = (int(op.learning), int(op.learning), MDB_RTR_TYPE_PERM)
    if master and (there.master != master or there.port_flags != flags):
        kernel.host.request(vxlan_messages.tunnel_port(there.index, learning=op.learning))


def _switch_off_link_local(kernel: Kernel, index: int) -> None:
    """Nobody could ask for an IPv6 address that the device makes up: its neighbours are those that are written."""
    try:
        kernel.host.request(messages.set_link(index, link_local=False))
    except OSError as failure:
        if failure.errno != errno.EAFNOSUPPORT:  # no IPv6 here
            raise


def _bring_up(kernel: Kernel, op: tunnels.EnsureVxlan, there: VxlanFacts) -> None:
    try:
        kernel.host.request(messages.set_link(there.index, up=True))
    except OSError as failure:
        # The socket is opened by this, not by the creation (vxlan_open, vxlan_core.c).
        if failure.errno != errno.EADDRINUSE:
            raise
        raise CniError(
            Code.INVALID_CONFIG,
            f"UDP port {op.port} is in use on this host by something else than VXLAN of this kind",
            f"`ss -ulpn sport = {op.port}` shows a program, `ip -d link show type vxlan` a device (gbp, external); "
            f"free it, or give the network another `port`",
        ) from failure


def _set_mtu(kernel: Kernel, there: VxlanFacts, mtu: int) -> None:
    kernel.host.request(messages.set_link(there.index, mtu=mtu))
    if there.master:
        kernel.host.request(messages.set_link(there.master, mtu=mtu))


def _set_tunnel_mtu(kernel: Kernel, op: tunnels.SetTunnelMtu) -> Op | None:
    there = vxlan.read_vxlan(kernel.host, op.name)
    if there is None or there.mtu == op.mtu:
        return None
    _set_mtu(kernel, there, op.mtu)
    return tunnels.SetTunnelMtu(op.name, there.mtu)


def _delete_vxlan(kernel: Kernel, op: tunnels.DeleteVxlan) -> None:
    there = vxlan.read_vxlan(kernel.host, op.name)
    if there is None:
        return
    try:
        kernel.host.request(messages.delete_link(there.index))
    except OSError as failure:
        if failure.errno != errno.ENODEV:
            raise


def _ensure_offload(_: Kernel, op: tunnels.EnsureOffload) -> None:
    from pycni.host import offload

    if op.mode == offload.AUTO and not offload.known_fault(offload.drivers_of(op.uplink), os.uname().release):
        return
    try:
        offload.switch(op.name, on=op.mode == offload.ON)
    except OSError as failure:
        if failure.errno != errno.EOPNOTSUPP:  # of a device that cannot have it any other way
            raise


def _uplink(kernel: Kernel, op: tunnels.EnsureVxlan) -> Link | None:
    """The underlay's link; None where none is wanted."""
    if not op.uplink:
        return None
    link = kernel.host.link(op.uplink)
    if link is None:
        raise CniError(
            Code.INVALID_CONFIG,
            f"the underlay's interface {op.uplink} does not exist",
            "`interface` of the network's configuration names the link that leads to the other hosts",
        )
    return link


def _packed(address: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address)


def _not_ours(op: tunnels.EnsureVxlan, kind: str, alias: str) -> CniError:
    whose = f"with the alias {alias!r}" if alias else "without an alias of ours"
    return CniError(
        Code.INVALID_CONFIG,
        f'link "{op.name}" exists already and is not this network\'s: it is a {kind or "physical"} link {whose}',
        f"remove it (ip link del {op.name}), or give the network another `vni`",
    )


def _vni_taken(kernel: Kernel, op: tunnels.EnsureVxlan, failure: OSError) -> CniError:
    holders = [one.name for one in vxlan.read_vxlans(kernel.host) if (one.vni, one.port) == (op.vni, op.port)]
    return CniError(
        Code.INVALID_CONFIG,
        f"VNI {op.vni} on UDP port {op.port} is taken on this host by {', '.join(holders) or 'another device'}",
        f"EEXIST: {failure.strerror}; remove that device, or give the network another `vni` or `port`",
    )


def _refuse_mtu(op: tunnels.EnsureVxlan, uplink: Link | None) -> None:
    """The kernel's own refusal (vxlan_config_validate) names no number, and it is silent when the link changes only."""
    overhead = OVERHEAD[6 if ":" in op.local else 4]
    if uplink is None or not op.mtu or op.mtu + overhead <= uplink.mtu:
        return
    raise CniError(
        Code.INVALID_CONFIG,
        f"mtu {op.mtu} is more than {uplink.mtu - overhead}, which is what a tunnel through {op.uplink} "
        f"(MTU {uplink.mtu}) takes",
        f"the headers around a frame are {overhead} bytes; leave `mtu` out, or raise that of {op.uplink} on all hosts",
    )


ACTS: dict[type[Op], Any] = {
    tunnels.EnsureVxlan: _ensure_vxlan,
    tunnels.DeleteVxlan: _delete_vxlan,
    tunnels.SetTunnelMtu: _set_tunnel_mtu,
    tunnels.EnsureOffload: _ensure_offload,
}
