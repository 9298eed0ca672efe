"""Whether this kernel could encrypt tunnels, asked by trying: a policy is taken even where no packet could pass."""

from __future__ import annotations

import errno
import os
from struct import pack

from pycni.host import netlink
from pycni.host.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, attribute
from pycni.host.netlink_socket import NetlinkSocket

NETLINK_XFRM = 6
XFRM_MSG_NEWSA, XFRM_MSG_DELSA = 16, 17  # linux/xfrm.h
XFRMA_ALG_AEAD = 18
IPPROTO_ESP, AF_INET, AF_INET6 = 50, 2, 10
XFRM_MODE_TRANSPORT = 0
LIFE_S = 5  # in case this process dies before it has taken the trial back
_KEY = bytes(20)  # AES-128 and the salt of RFC 4106


def has_esp(version: int = 4) -> bool:
    """Whether ESP with AES-GCM works over IPv4 or IPv6 here.

    A security association of the calling thread's namespace is made and removed at once; no policy leads to it, so no
    packet ever uses it. OSError EPERM without CAP_NET_ADMIN.
    """
    family, loopback = (AF_INET, b"\x7f\0\0\1" + bytes(12)) if version == 4 else (AF_INET6, bytes(15) + b"\1")
    spi = os.urandom(3) + b"\xff"  # above 255, which are reserved
    identity = loopback + spi + pack("=Bxxx", IPPROTO_ESP)
    removal = netlink.message(XFRM_MSG_DELSA, NLM_F_ACK, loopback + spi + pack("=HBx", family, IPPROTO_ESP))
    try:
        with NetlinkSocket(NETLINK_XFRM) as socket:
            socket.request(_new(identity, loopback, family))
            socket.request(removal)
    except OSError as failure:
        if failure.errno == errno.EPERM:
            raise
        return False  # no such algorithm (ENOSYS), no ESP, or no XFRM at all (EPROTONOSUPPORT)
    return True


def _new(identity: bytes, source: bytes, family: int) -> bytes:
    """struct xfrm_usersa_info and the algorithm."""
    selector = bytes(40) + pack("=HBBBxxxiI", family, 0, 0, 0, 0, 0)
    forever = (1 << 64) - 1
    lifetime = pack("=8Q", forever, forever, forever, forever, 0, LIFE_S, 0, 0)
    rest = pack("=IIHBBB7x", 0, 0, family, XFRM_MODE_TRANSPORT, 0, 0)
    info = selector + identity + source + lifetime + bytes(32 + 12) + rest
    algorithm = b"rfc4106(gcm(aes))".ljust(64, b"\0") + pack("=II", 8 * len(_KEY), 128) + _KEY
    how = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    return netlink.message(XFRM_MSG_NEWSA, how, info, attribute(XFRMA_ALG_AEAD, algorithm))
