"""Operations that bring back what somebody else took from links of ours; carried out by pycni.host.rejoining."""

from __future__ import annotations

from pycni.change.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.addresses import Address


class JoinBridge(Op):
    """A link of the host becomes a port of the bridge; one that is gone by now stays so."""

    link: str
    bridge: str


class SetMac(Op):
    """The MAC of a link of the host, 6 bytes; that its *addresses* have it is told to everybody on the link."""

    link: str
    mac: bytes
    addresses: tuple[Address, ...]
