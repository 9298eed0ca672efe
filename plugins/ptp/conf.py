"""The ptp plugin's configuration as a value."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value
from pycni.firewall.choose import check_backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from pycni.cni.conf import NetConf

MAX_MTU = 65535  # linux/if_ether.h ETH_MAX_MTU


class PtpConf(Value):
    """What the network's configuration asks of the ptp plugin. Keys are explained in docs/ptp.md."""

    mtu: int  # bytes; 0: as the uplink
    masquerade: bool
    backend: str  # of the firewall: "" chooses, "none" leaves it alone

    @classmethod
    def parse(cls, conf: NetConf) -> Self:
        """CniError 7 for a value out of range, or without an IPAM plugin: a routed link needs addresses."""
        keys = conf.keys
        if not conf.ipam.text("type"):
            raise CniError(
                Code.INVALID_CONFIG,
                "ipam.type is missing: ptp routes to addresses, which an IPAM plugin gives",
                'add "ipam": {"type": "host-local", …}',
            )
        ours = keys.text("backend")
        return cls(
            mtu=keys.integer("mtu", 0, MAX_MTU) or 0,
            masquerade=keys.boolean("ipMasq"),
            backend=check_backend(ours or keys.text("ipMasqBackend"), may_be_none=bool(ours)),
        )
