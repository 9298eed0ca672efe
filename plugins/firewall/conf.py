"""The firewall plugin's configuration as a value: every key of the reference plugin."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code, shown
from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from pycni.cni.conf import NetConf
    from pycni.cni.keys import Keys

PLUGIN = "firewall"
BACKENDS = ("nftables", "iptables", "firewalld", "none")
OPEN, SAME_BRIDGE, ISOLATED = "open", "same-bridge", "isolated"
ADMIN_CHAIN = "CNI-ADMIN"
ZONE = "trusted"
MAX_CHAIN = 28  # linux/netfilter/x_tables.h: XT_EXTENSION_MAXNAMELEN, less the final zero
MAX_ZONE = 128  # firewalld itself takes 17 (iptables) or none at all (nftables); its own refusal comes back as it is
# Built-in chains and targets; what begins with PYCNI- is ours, and goes.
RESERVED = ("INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING", "ACCEPT", "DROP", "RETURN", "QUEUE", "REJECT")


class FirewallConf(Value):
    """What the network's configuration asks of the firewall plugin. Keys are explained in docs/firewall-plugin.md."""

    backend: str  # one of BACKENDS; "": what the host has
    policy: str  # OPEN, SAME_BRIDGE or ISOLATED
    zone: str  # of firewalld
    admin_chain: str  # of iptables; "": not named, so the default where iptables is the backend

    @property
    def rules_backend(self) -> str:
        """The packet filter of our own rules, "" for what the host has. Whoever names a chain of iptables means it."""
        if self.backend == "firewalld":
            return ""
        return self.backend or ("iptables" if self.admin_chain else "")

    @classmethod
    def parse(cls, conf: NetConf) -> Self:
        """CniError 7 for an unknown backend or policy, or a name that iptables or firewalld could not have."""
        keys = conf.keys
        backend = keys.text("backend")
        if backend and backend not in BACKENDS:
            raise CniError(
                Code.INVALID_CONFIG, f"unknown firewall backend {shown(backend)}", f"known: {', '.join(BACKENDS)}"
            )
        policy = keys.text("ingressPolicy") or OPEN
        if policy not in (OPEN, SAME_BRIDGE, ISOLATED):
            raise CniError(
                Code.INVALID_CONFIG,
                f"unknown ingress policy: {shown(policy)}",
                f"known: {OPEN}, {SAME_BRIDGE}, {ISOLATED}",
            )
        return cls(backend=backend, policy=policy, zone=_zone(keys), admin_chain=_admin_chain(keys))


def _zone(keys: Keys) -> str:
    zone = keys.text("firewalldZone") or ZONE
    if len(zone) > MAX_ZONE or not zone.isprintable() or any(char in "/\\\"' " for char in zone):
        raise keys.wrong("firewalldZone", f"is {shown(zone)}, not the name of a zone: firewall-cmd --get-zones")
    return zone


def _admin_chain(keys: Keys) -> str:
    chain = keys.text("iptablesAdminChainName")
    if not chain:
        return ""
    if len(chain.encode("utf-8", "replace")) > MAX_CHAIN:
        raise keys.wrong("iptablesAdminChainName", f"is {shown(chain)}: a chain's name has at most {MAX_CHAIN} bytes")
    plain = chain.isascii() and chain[0] not in ".-" and all(char.isalnum() or char in "_.-" for char in chain)
    if not plain or chain in RESERVED or chain.startswith("PYCNI-"):
        raise keys.wrong(
            "iptablesAdminChainName",
            f"is {shown(chain)}: letters, digits, _ . and - make a name; those of built-in chains, of targets and"
            " PYCNI-… are taken",
        )
    return chain
