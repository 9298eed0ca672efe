"""The iptables backend: a constant number of rules per network, nothing per container.

Containers of a network that masquerades are its subnet, less the host's own addresses in it. Who else has an address
of that subnet and is routed through this host is masqueraded too: the price of not having a rule per container.
"""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.firewall.iptables_text import forward_units, units_of
from pycni.host.firewall import refused
from pycni.host.forward import close_all_forward, close_forward, open_forward
from pycni.host.iptables import VERSIONS, Iptables, variant_here
from pycni.host.nfnetlink import Nfnetlink
from pycni.host.nftables import delete_tables
from pycni.host.program import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.firewall.iptables_text import Unit
    from pycni.firewall.rules import AttachmentRules, NetworkRules
    from pycni.host.firewall import Everyone


class IptablesFirewall:
    """See Firewall; of the namespace of the thread that made the object."""

    name = "iptables"

    def __init__(self) -> None:
        try:
            self._kernel = Nfnetlink()
            self._variant = variant_here(self._kernel)
        except OSError as failure:
            raise refused(failure, "iptables cannot be used") from failure

    def close(self) -> None:
        self._kernel.close()

    def _tools(self, network: NetworkRules | None = None, addresses: Iterable[str] = ()) -> list[Iptables]:
        """One tool per family: IPv6 only where ip6tables is installed; CniError 103 if *network*, or a container with
        these *addresses*, cannot do without."""
        families = ["ip"]
        if find("ip6tables-restore"):
            families.append("ip6")
        elif network is not None and any(":" in address for address in (*network.subnets, *addresses)):
            raise CniError(
                Code.FIREWALL,
                f"network {network.network} has IPv6 addresses, but ip6tables-restore is not installed",
                'install iptables, or set "ipMasqBackend": "nftables"',
            )
        return [Iptables(self._kernel, family, self._variant) for family in families]

    def apply_add(self, network: NetworkRules, attachment: AttachmentRules, everyone: Everyone | None = None) -> None:
        if attachment.macs:
            raise CniError(
                Code.FIREWALL,
                "macspoofchk needs the nftables backend",
                'set "ipMasqBackend": "nftables" or drop macspoofchk',
            )
        try:
            addresses = (*attachment.sources, *(one.address for one in attachment.ports), *attachment.direct_guard)
            for tool in self._tools(network, addresses):
                tool.install(units_of(network, VERSIONS[tool.family]))
                if attachment.ports or attachment.direct_guard:
                    from pycni.host import iptables_ports

                    iptables_ports.install(tool, network, attachment, everyone)
            if network.forward:
                open_forward(self._kernel, network, attachment)
        except OSError as failure:
            raise refused(failure, f"the rules of {attachment.owner} cannot be added") from failure

    def apply_delete(
        self, attachment: AttachmentRules, network: NetworkRules | None = None, others: Iterable[NetworkRules] = ()
    ) -> None:
        others = tuple(others)
        try:
            for tool in self._tools():
                if attachment.ports or attachment.direct_guard:
                    from pycni.host import iptables_ports

                    iptables_ports.remove(tool, attachment)
                if network is None:
                    continue
                version = VERSIONS[tool.family]
                needed = {unit for other in others for unit in units_of(other, version)}
                tool.remove([unit for unit in units_of(network, version) if unit not in needed])
            if network is not None:
                close_forward(self._kernel, network, others)
        except OSError as failure:
            raise refused(failure, f"the rules of {attachment.owner} cannot be removed") from failure

    def remove_all(self) -> None:
        try:
            for tool in self._tools():
                tool.purge()
            close_all_forward(self._kernel)
            delete_tables(self._kernel)  # of attachments from before a change of backend
        except OSError as failure:
            raise refused(failure, "the chains of pycni cannot be removed") from failure

    def missing(self, network: NetworkRules, attachment: AttachmentRules) -> tuple[str, ...]:
        out = []
        for tool in self._tools():
            units = tool.absent(units_of(network, VERSIONS[tool.family]))
            if attachment.ports or attachment.direct_guard:
                from pycni.host import iptables_ports

                units += tuple(iptables_ports.absent(tool, network, attachment))
            out += [f"chain {unit.chain} in table {tool.family} {unit.table}" for unit in units]
        return tuple(out)

    def repair(self) -> None:
        pass  # apply_add looks at every chain it needs

    def owners(self) -> frozenset[str]:
        return frozenset(name for tool in self._tools() for name in tool.owned_networks())

    def collect(self, wanted: Iterable[tuple[NetworkRules, AttachmentRules]]) -> tuple[str, ...]:
        alive = list(wanted)
        networks = {network for network, _ in alive}
        out: list[str] = []
        for tool in self._tools():
            needed = [unit for network in networks for unit in self._units(tool, network)]
            for network, attachment in alive:
                if attachment.ports or attachment.direct_guard:
                    from pycni.host import iptables_ports

                    needed += iptables_ports.kept(tool, network, attachment)
            out += [f"{tool.family} {chain}" for chain in tool.purge(needed)]
        return tuple(out)

    def _units(self, tool: Iptables, network: NetworkRules) -> tuple[Unit, ...]:
        return (*units_of(network, VERSIONS[tool.family]), *forward_units(network))
