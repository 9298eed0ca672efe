"""What one host's kernel holds so that frames and packets reach the containers of other hosts, as values.

An entry belongs to one VXLAN device, which the caller names beside it. Texts are in the canonical form (MACs with small
hexadecimal digits and colons, addresses and prefixes as `ipaddress` prints them), so that equal entries are equal
values: what `pycni.host.forwarding` reads from the kernel compares with what peers.py wants.
"""

from __future__ import annotations

from pycni.cni.value import Value

# The protocol number of our routes (rtm_protocol), so that a comparison with the kernel is of ours alone: it is none of
# those in iproute2's rt_protos, which routing daemons use.
PROTOCOL = 112


class FdbEntry(Value):
    """Frames to `mac` go through the tunnel to the host whose tunnel address is `vtep` (NTF_SELF, permanent)."""

    mac: str
    vtep: str


class PortEntry(Value):
    """`mac` is behind the tunnel: an entry of the bridge that the VXLAN device is a port of (NTF_MASTER, static).

    Without it the bridge would send frames to `mac` to every container, too, because the port learns nothing.
    """

    mac: str


class NeighbourEntry(Value):
    """`address` (IPv4 or IPv6) has `mac`: permanent, on the VXLAN device, which answers ARP and ND from it."""

    address: str
    mac: str


class RouteEntry(Value):
    """`prefix` is reached by `via` through the VXLAN device, which has no address of that subnet (onlink).

    `src`: what the host itself sends from, of its own addresses; "": the kernel's choice.
    """

    prefix: str
    via: str
    src: str = ""


Entry = FdbEntry | PortEntry | NeighbourEntry | RouteEntry
