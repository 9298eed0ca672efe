"""Which backend speaks for a network."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value

BACKENDS = ("nftables", "iptables", "none")


class Available(Value):
    """What this host has: whether a table can be made by nft, and whether iptables-restore is there."""

    nftables: bool
    iptables: bool


def check_backend(asked: str, *, may_be_none: bool = True) -> str:
    """*asked* if it is "", "nftables", "iptables" or (where it may be) "none"; CniError 7 else."""
    known = [name for name in BACKENDS if may_be_none or name != "none"]
    if asked and asked not in known:
        raise CniError(Code.INVALID_CONFIG, f'unknown ipmasq backend "{asked}"', f"known: {', '.join(known)}")
    return asked


def choose_backend(asked: str, available: Available) -> str:
    """The backend to use: what was *asked* for, or where nothing was, nftables before iptables.

    CniError 7 for an unknown name, 103 where the host lacks what the backend needs.
    """
    if check_backend(asked) == "none":
        return "none"
    if asked == "nftables" and not available.nftables:
        raise CniError(
            Code.FIREWALL, "nftables is not usable here", "install libnftables1 or nftables, or drop ipMasqBackend"
        )
    if asked == "iptables" and not available.iptables:
        raise CniError(Code.FIREWALL, "iptables is not usable here", "install iptables, or drop ipMasqBackend")
    if asked:
        return asked
    if not available.nftables and not available.iptables:
        raise CniError(
            Code.FIREWALL,
            "neither nftables nor iptables is usable here",
            'install libnftables1 (or nftables), or iptables; "backend": "none" leaves the firewall alone',
        )
    return "nftables" if available.nftables else "iptables"
