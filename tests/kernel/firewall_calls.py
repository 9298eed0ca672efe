"""Two networks, their attachments, and calls of the nftables backend inside a host."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from netns_fixtures import Namespace
from pycni.firewall.nft_text import GUARD, MAIN
from pycni.firewall.rules import AttachmentRules, NetworkRules
from pycni.host.nfnetlink import Nfnetlink
from pycni.host.nftables import NftFirewall

if TYPE_CHECKING:
    from collections.abc import Callable

NET1 = NetworkRules("net1", ("br0",), True, ("10.1.0.0/24", "fd00:1::/64"))
NET2 = NetworkRules("net2", ("br1",), False, ("10.2.0.0/24",))


def attachment(number: int, network: NetworkRules = NET1, *, guarded: bool = False) -> AttachmentRules:
    prefix = network.subnets[0].removesuffix("0/24")
    macs = ((f"veth{number}", f"02:00:00:00:00:{number:02x}"),) if guarded else ()
    return AttachmentRules(f"{network.network}/c{number}/eth0", (f"{prefix}{number}", f"fd00:1::{number:x}"), macs)


def act(host: Namespace, work: Callable[[NftFirewall], Any]) -> Any:
    """What *work* returns with a firewall of *host*'s network namespace."""

    def inside() -> Any:
        firewall = NftFirewall()
        try:
            return work(firewall)
        finally:
            firewall.close()

    return host.in_namespace(inside)


def add(host: Namespace, network: NetworkRules, one: AttachmentRules) -> None:
    act(host, lambda firewall: firewall.apply_add(network, one))


def listed(host: Namespace) -> str:
    return host.run(["nft", "list", "ruleset"]).stdout


def elements(host: Namespace) -> set[tuple[str, ...]]:
    def read(firewall: NftFirewall) -> set[tuple[str, ...]]:
        with Nfnetlink() as kernel:
            sets = [(table, spec.name) for table in (MAIN, GUARD) for spec in table.sets]
            found = [one for table, name in sets for one in kernel.elements(table, name)]
        return {(one.set, *one.key, one.comment) for one in found}

    return act(host, read)  # type: ignore[no-any-return]


def environment() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/usr/sbin"}
