"""Hosts whose FORWARD policy is DROP (Docker, ufw, Kubernetes): let container traffic pass, or say what stops it.

Every base chain on the forward hook must let a packet through, so an accept in our own table cannot outvote the DROP
of another: rules have to stand in that chain. Those of iptables get ours, an nftables chain of others is named.
What only such hosts need is imported where it is used: every ADD comes by here.
"""

from __future__ import annotations

import errno

from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.firewall.rules import AttachmentRules, NetworkRules
    from pycni.host.nfnetlink import Nfnetlink

FORWARD_HOOK = 2  # NF_INET_FORWARD
# Where others put a policy of drop: Debian's and the wiki's nftables.conf, firewalld. One look-up each.
WELL_KNOWN = (("inet", "filter", "forward"), ("inet", "filter", "FORWARD"), ("inet", "firewalld", "filter_FORWARD"))


class Blocker(Value):
    """A chain on the forward hook whose policy is drop."""

    family: str
    table: str
    chain: str
    variant: str  # "nft": an iptables-nft chain, "legacy": an iptables-legacy chain, "": a plain nftables chain

    def __str__(self) -> str:
        kind = f" (iptables-{self.variant})" if self.variant else ""
        return f"chain {self.chain} of table {self.family} {self.table}{kind} has policy drop"


_KNOWN = (
    *(Blocker(family, "filter", "FORWARD", "nft") for family in ("ip", "ip6")),
    *(Blocker(family, table, chain, "") for family, table, chain in WELL_KNOWN),
)


def open_forward(kernel: Nfnetlink, network: NetworkRules, attachment: AttachmentRules) -> None:
    """Let what *network* routes pass where the FORWARD policy is DROP, and what comes to the ports of *attachment*:
    one question and two small files on a host where it is not.

    CniError 103 names the chain where that cannot be done.
    """
    for blocker in _known_blockers(kernel):
        if blocker.variant:
            _pass_through(kernel, network, blocker)
        else:
            _refuse_if_closed(kernel, network, blocker, attachment)


def closed_forward(kernel: Nfnetlink, network: NetworkRules) -> tuple[str, ...]:
    """What open_forward would have to do, or refuses to do, for *network* now: what CHECK says."""
    out: list[str] = []
    for blocker in _known_blockers(kernel):
        if blocker.variant:
            from pycni.firewall.iptables_text import forward_units
            from pycni.host.iptables import Iptables

            units = Iptables(kernel, blocker.family, blocker.variant).absent(forward_units(network))
            out += [f"{blocker}: chain {unit.chain} is missing or changed" for unit in units]
            continue
        try:
            _refuse_if_closed(kernel, network, blocker)
        except CniError as failure:
            out.append(failure.msg)
    return tuple(out)


def _pass_through(kernel: Nfnetlink, network: NetworkRules, blocker: Blocker) -> None:
    from pycni.firewall.iptables_text import forward_units
    from pycni.host.iptables import Iptables

    try:
        Iptables(kernel, blocker.family, blocker.variant).install(forward_units(network))
    except OSError as failure:
        if failure.errno != errno.ENOSYS:
            raise
        raise CniError(
            Code.FIREWALL,
            f"{blocker}: containers of {network.network} are cut off",
            f"install iptables ({failure.strerror}), or set the policy to ACCEPT",
        ) from failure


def _refuse_if_closed(
    kernel: Nfnetlink, network: NetworkRules, blocker: Blocker, attachment: AttachmentRules | None = None
) -> None:
    from pycni.firewall.foreign import can_accept

    # What is published on the host's loopback is forwarded from nowhere.
    published = attachment is not None and any(not one.host_ip.startswith(("127.", "::1")) for one in attachment.ports)

    rules = kernel.rules(blocker.family, blocker.table, blocker.chain)
    where = f"nft add rule {blocker.family} {blocker.table} {blocker.chain}"
    for link in (*network.bridges, *network.passing):
        if not any(can_accept(rule.get(4, b""), link) for rule in rules):
            raise CniError(
                Code.FIREWALL,
                f"{blocker} and no rule that accepts from {link}: containers of {network.network} are cut off",
                f"{where} iifname {link} accept; {where} oifname {link} ct state established,related accept",
            )
        if published and not any(can_accept(rule.get(4, b""), link, towards=True) for rule in rules):
            raise CniError(
                Code.FIREWALL,
                f"{blocker} and no rule that accepts towards {link}: published ports of {network.network} are cut off",
                f"{where} oifname {link} ct status dnat accept",
            )


def close_forward(kernel: Nfnetlink, network: NetworkRules, others: Iterable[NetworkRules]) -> None:
    """Remove what open_forward added for *network* and none of *others* needs."""
    having = _having_filter(kernel)
    if not having:
        return
    from pycni.firewall.iptables_text import forward_units
    from pycni.host.iptables import Iptables

    needed = {unit for other in others for unit in forward_units(other)}
    units = [unit for unit in forward_units(network) if unit not in needed]
    for family, variant in having:
        tool = Iptables(kernel, family, variant)
        if tool.present(units):
            tool.remove(units)


def close_all_forward(kernel: Nfnetlink) -> None:
    """Remove whatever of ours is in any iptables of this namespace."""
    having = _having_filter(kernel)
    if not having:
        return
    from pycni.firewall.iptables_text import PREFIX
    from pycni.host.iptables import Iptables

    for family, variant in having:
        if variant == "legacy" or any(PREFIX.encode() in chain.get(3, b"") for chain in kernel.chains(family)):
            Iptables(kernel, family, variant).purge()


def forward_blockers(kernel: Nfnetlink) -> tuple[Blocker, ...]:
    """Every chain on the forward hook with policy drop: a dump of all chains, for STATUS and doctor."""
    out = [one for one in _known_blockers(kernel) if one.variant]
    for family in ("inet", "ip", "ip6"):
        for chain in kernel.chains(family):
            table, name = (chain.get(kind, b"").rstrip(b"\0").decode(errors="replace") for kind in (1, 3))
            drops = chain.get(5) == bytes(4) and kernel.hook_of(chain) == FORWARD_HOOK
            if drops and Blocker(family, table, name, "nft") not in out:
                out.append(Blocker(family, table, name, ""))
    return tuple(out)


def _known_blockers(kernel: Nfnetlink) -> list[Blocker]:
    """The FORWARD chains of iptables whose policy is DROP, and those of WELL_KNOWN."""
    drops = kernel.policies_drop([(one.family, one.table, one.chain) for one in _KNOWN])
    out = [one for one, closed in zip(_KNOWN, drops, strict=True) if closed]
    for family in ("ip", "ip6"):
        if "filter" in legacy_tables(family):
            from pycni.host.iptables import Iptables

            if "-P FORWARD DROP" in Iptables(kernel, family, "legacy").listing("filter"):
                out.append(Blocker(family, "filter", "FORWARD", "legacy"))
    return out


def _having_filter(kernel: Nfnetlink) -> list[tuple[str, str]]:
    """(family, variant) of every iptables that has a table filter in this namespace."""
    out = [(family, "nft") for family in ("ip", "ip6") if kernel.has_chain(family, "filter", "FORWARD")]
    return out + [(family, "legacy") for family in ("ip", "ip6") if "filter" in legacy_tables(family)]


def legacy_tables(family: str) -> frozenset[str]:
    """The tables that legacy iptables has in this namespace; asking the tool instead would create them."""
    try:
        with open(f"/proc/thread-self/net/{family}_tables_names", "rb", buffering=0) as names:
            return frozenset(names.read().decode().split())
    except OSError:  # no legacy iptables in this kernel
        return frozenset()
