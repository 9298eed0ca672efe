"""The bandwidth plugin's configuration as a value."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from pycni.cni.conf import NetConf
    from pycni.cni.keys import Keys

KEYS = ("ingressRate", "ingressBurst", "egressRate", "egressBurst", "shapedSubnets", "unshapedSubnets")
MIN_RATE = 8  # bits a second: the kernel counts whole bytes
MAX_RATE = 2**63 - 1  # bits a second: what both we and the kernel can count
MAX_BURST = 8 * (2**32 - 1)  # bits: the kernel's field has 32 bits of bytes


class Limit(Value):
    """What one direction may carry."""

    rate: int  # bits a second
    burst: int  # bits


class BandwidthConf(Value):
    """The limits of one container's interface; None: as fast as it goes. Keys are explained in docs/chained.md."""

    ingress: Limit | None = None  # towards the container
    egress: Limit | None = None  # from it

    @property
    def limited(self) -> bool:
        return self.ingress is not None or self.egress is not None

    @classmethod
    def parse(cls, conf: NetConf) -> Self:
        """The network's own keys where it has any, else those of the capability; never a mixture (as the reference).

        CniError 7 for a rate without burst or a value out of range, 2 for limits by subnet.
        """
        own = any(conf.keys.has(key) for key in KEYS)
        keys = conf.keys if own else conf.runtime.object("bandwidth")
        for key in ("shapedSubnets", "unshapedSubnets"):
            if keys.texts(key):
                raise CniError(
                    Code.UNSUPPORTED_FIELD,
                    f"{keys.path(key)} is not supported: a limit counts all of a container's traffic",
                    "remove it, or limit by subnet with rules of your own on the host link",
                )
        return cls(ingress=_limit(keys, "ingress"), egress=_limit(keys, "egress"))


def _limit(keys: Keys, direction: str) -> Limit | None:
    # The texts are the reference's, which orchestrators' tests compare.
    rate_key, burst_key = f"{direction}Rate", f"{direction}Burst"
    rate = keys.integer(rate_key, 0, MAX_RATE) or 0
    burst = keys.integer(burst_key, 0, 2**64 - 1) or 0
    if rate and not burst:
        raise CniError(
            Code.INVALID_CONFIG, "if rate is set, burst must also be set", f"{keys.path(burst_key)} is missing or 0"
        )
    if burst and not rate:
        raise CniError(
            Code.INVALID_CONFIG, "if burst is set, rate must also be set", f"{keys.path(rate_key)} is missing or 0"
        )
    if burst >= MAX_BURST:
        raise CniError(
            Code.INVALID_CONFIG, "burst cannot be more than 4GB", f"{keys.path(burst_key)} is {burst} bits: use less"
        )
    if rate and rate < MIN_RATE:
        raise keys.wrong(rate_key, f"is {rate}, less than the {MIN_RATE} bits a second that are a byte")
    return Limit(rate, burst) if rate else None
