"""MAC addresses that follow from what they belong to. Pure.

An address that is used again, on whatever host, has the MAC it had before: no neighbour cache is ever wrong. A tunnel
device that is made anew has the MAC that its peers know, and the gateway is the same on every host, so a container that
moves does not notice. All of them are unicast and locally administered (IEEE 802: the two lowest bits of the first
byte are 10).
"""

from __future__ import annotations

from pycni.cni.names import sha256_hex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.cni.addresses import Address

_OF_IPV4 = b"\x02\x42"  # and the four bytes of the address
_OF_IPV6 = b"\x06"  # and 40 bits of a hash
_OF_TUNNEL = b"\x0a"
_OF_LEASE = b"\x12"


def endpoint_mac(addresses: Iterable[Address]) -> bytes:
    """The MAC of a container with these addresses, or of a gateway: that of the first IPv4 address, else of the first.

    b"" for no address at all.
    """
    known = list(addresses)
    for address in known:
        if address.version == 4:
            return _OF_IPV4 + address.packed
    return _OF_IPV6 + _hashed(str(known[0])) if known else b""


def lease_mac(host: str, pool: str, address: Address) -> bytes:
    """The MAC of a container whose first address is *address*, out of *pool* of *host*: no other one of this host has
    it, and none of another, with which it may share a link."""
    return _OF_LEASE + _hashed(f"{host}/{pool}/{address}")


def tunnel_mac(node: str, vni: int) -> bytes:
    """The MAC of the VXLAN device of the host *node* with this network identifier."""
    return _OF_TUNNEL + _hashed(f"{node}/{vni}")


def _hashed(text: str) -> bytes:
    return bytes.fromhex(sha256_hex(text.encode())[:10])
