"""Operations on the rate of a link (see ops): token buckets, and the device that what comes in is led through."""

from __future__ import annotations

from pycni.change.ops import Op
from pycni.cni.value import Value


class TokenBucket(Value):
    """A rate limit as the kernel's tbf keeps it: what finds tokens passes, the rest waits for more."""

    rate: int  # bytes a second
    burst: int  # bytes that may pass at once
    limit: int  # bytes that may wait; more are dropped


class LimitRate(Op):
    """Limit what leaves through a link of the host. EEXIST where it has a queueing discipline of somebody else's."""

    link: str
    bucket: TokenBucket


class CreateIfb(Op):
    """The attachment's intermediate device: what is led there passes its queueing discipline and then goes on its way
    as if nothing had been."""

    name: str
    mtu: int  # bytes
    alias: str


class RedirectIngress(Op):
    """Lead everything that comes in by a link of the host, of whatever protocol, through an intermediate device."""

    link: str
    to: str


class StopShaping(Op):
    """Takes back what was done to a link of the host: RedirectIngress if *incoming*, else LimitRate. A link that is
    gone took it along."""

    link: str
    incoming: bool
