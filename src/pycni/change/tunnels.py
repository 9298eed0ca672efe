"""Operations on VXLAN devices (see ops); carried out by pycni.host.tunnels."""

from __future__ import annotations

from pycni.change.ops import DeleteBridge, Op


class EnsureVxlan(Op):
    """A VXLAN device of the host, up, and a port of `bridge` if that is given.

    Where it exists with these attributes nothing is done; another `local`, `uplink`, `mtu`, `mac` or bridge is set in
    place; a device of ours (its alias is `alias`) with another VNI, port, group or address family is made anew, empty.
    CniError 7 where name, VNI or UDP port are somebody else's. Its inverse is a DeleteVxlan if it made the device.
    """

    name: str
    vni: int
    port: int  # UDP
    local: str  # IPv4 or IPv6 address of the tunnel's own end: it decides the family of all others
    uplink: str  # ifname: the device goes when that link goes, and its MTU is limited by it; "": none
    mac: bytes
    mtu: int  # bytes; the kernel takes at most that of the uplink less 50 (IPv6: 70); 0: the kernel's choice
    bridge: str  # "": no bridge port, its packets are routed
    alias: str
    learning: bool = False  # from what arrives; only with a group, where nobody writes entries
    proxy: bool = True  # answer ARP and ND from its neighbour entries, and pass none on
    group: str = ""  # multicast address that unknown and broadcast frames go to; "": they are dropped


class DeleteVxlan(DeleteBridge):
    """The device with all its entries; already gone is fine.

    A kind of DeleteBridge: as an inverse it is left out, as that is, where other attachments rely on the device.
    """


class SetTunnelMtu(Op):
    """The MTU, in bytes, of a VXLAN device and of the bridge it is a port of, if it is."""

    name: str
    mtu: int


class EnsureOffload(Op):
    """Checksum offload of a VXLAN device: `mode` "on", "off", or "auto": off where the driver of `uplink`, or this
    kernel, is known to spoil what is in tunnels, else as it is."""

    name: str
    mode: str
    uplink: str
