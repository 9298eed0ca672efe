"""What one ADD of the bandwidth plugin does to the host, decided from values alone."""

from __future__ import annotations

import sys

from pycni.change.shaping import CreateIfb, LimitRate, RedirectIngress, TokenBucket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.change.ops import Op
    from pycni.cni.names import Attachment
    from pycni.host.link_facts import Link
    from pycni.plugins.bandwidth.conf import BandwidthConf, Limit

PART = "bandwidth"  # of an attachment, see pycni.cni.names
ALIAS_HEAD = "pycni-bandwidth "
LATENCY_MS = 25  # how much may wait, besides a burst (the reference's)
ETHERNET_HEADER = 14  # bytes
MAX_UINT32 = 2**32 - 1


def ifb_name(network: str, container_id: str) -> str:
    """The device that what leaves the container is led through; the reference's name, so that either finds it."""
    return "bwp" + _sha512_hex((network + container_id).encode("utf-8", "surrogateescape"))[:12]


def ifb_alias(attachment: Attachment) -> str:
    """The ifalias of that device. Not one as of a link that makes an attachment, by which the GC of bridge goes."""
    return f"{ifb_alias_head(attachment.network)}{attachment.container_id}/{attachment.ifname}"[:255]


def ifb_alias_head(network: str) -> str:
    """What the ifalias of all these devices of a network begins with."""
    return f"{ALIAS_HEAD}{network}/"


def plan_add(conf: BandwidthConf, attachment: Attachment, host: Link) -> tuple[Op, ...]:
    """Every operation of the ADD in order. *host*: the host's end of the container's veth pair.

    What the container receives leaves by the host's end, so that is limited itself. What it sends comes in there, where
    nothing can wait: so it is led through a device of which it leaves. That one is ready before anything is led there.
    """
    ops: list[Op] = []
    if conf.ingress is not None:
        ops.append(LimitRate(host.name, bucket(conf.ingress, host.mtu)))
    if conf.egress is not None:
        ifb = ifb_name(attachment.network, attachment.container_id)
        ops += [
            CreateIfb(ifb, host.mtu, ifb_alias(attachment)),
            LimitRate(ifb, bucket(conf.egress, host.mtu)),
            RedirectIngress(host.name, ifb),
        ]
    return tuple(ops)


def bucket(limit: Limit, mtu: int) -> TokenBucket:
    """*limit* in the kernel's units, for a link of that *mtu*.

    A packet larger than the burst never passes (tbf_enqueue, sch_tbf.c), so a burst holds at least one full packet.
    """
    rate = limit.rate // 8
    burst = min(max(limit.burst // 8, mtu + ETHERNET_HEADER), MAX_UINT32)
    return TokenBucket(rate, burst, min(rate * LATENCY_MS // 1000 + burst, MAX_UINT32))


def _sha512_hex(data: bytes) -> str:
    # As pycni.cni.names does for the other hash: hashlib would load OpenSSL, 3 ms.
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha512
        else:
            from _sha512 import sha512
    except ImportError:  # an interpreter built without its own hashes
        from hashlib import sha512
    digest: str = sha512(data).hexdigest()
    return digest
