"""Several hosts on one segment: a switch in a namespace of its own, a cable per host, and scissors."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from .hosts import Host
from .namespace import Namespace
from .uplink import NO_DAD, Network, unlike_index, wait_until_running

BRIDGE = "segment"
_BLOCKING, _FORWARDING = "0", "3"  # BR_STATE_DISABLED and BR_STATE_FORWARDING in <linux/if_bridge.h>


class Underlay:
    """*hosts* joined by a bridge; the first has the first address of each network, and so on. No routes are added.

    Each host's end is called *ifname*. *mtu* is in bytes, IP header included, and the same on all cables.
    """

    def __init__(
        self,
        hosts: Sequence[Host] = (),
        *,
        name: str = "switch",
        ifname: str = "eth0",
        ipv4: str | None = "192.0.2.0/24",
        ipv6: str | None = "2001:db8:a::/64",
        mtu: int = 1500,
    ) -> None:
        self.switch = Namespace(name, setup=NO_DAD)
        self.ifname = ifname
        self.mtu = mtu
        self.hosts: list[Host] = []
        self._networks: list[Network] = [ipaddress.ip_network(text) for text in (ipv4, ipv6) if text]
        self.switch.ip_batch(f"link add {BRIDGE} mtu {mtu} type bridge", f"link set {BRIDGE} up")
        for host in hosts:
            self.add(host)

    def add(self, host: Host) -> None:
        """One more host, with the next address."""
        self.hosts.append(host)
        port = self.port(host)
        pair = f"{self.ifname} index {unlike_index()} mtu {self.mtu} type veth peer name {port} mtu {self.mtu}"
        lines = [f"link add {pair} netns {self.switch.pid}"]
        for network in self._networks:
            flag = " nodad" if network.version == 6 else ""
            address = self.address(host, network.version)
            lines.append(f"addr add {address}/{network.prefixlen} dev {self.ifname}{flag}")
        host.run(["sh", "-c", NO_DAD[0]])
        host.ip_batch(*lines, f"link set {self.ifname} up")
        self.switch.ip_batch(f"link set {port} master {BRIDGE} up")
        wait_until_running(host, self.ifname)

    def port(self, host: Host) -> str:
        """The switch's end of the cable of *host*: for tc, nft or a capture in the namespace `switch`."""
        return f"port{self.hosts.index(host) + 1}"

    def address(self, host: Host, family: int = 4) -> str:
        """The address of *host* on the segment; *family* is 4 or 6."""
        network = next(network for network in self._networks if network.version == family)
        return str(network[self.hosts.index(host) + 1])

    def cut(self, host: Host, *, carrier: bool = True) -> None:
        """Let nothing through between *host* and the others.

        With *carrier* its link stays up, as when a cable breaks behind its switch; without, the host sees it go down.
        """
        port = self.port(host)
        if carrier:
            self.switch.run(["bridge", "link", "set", "dev", port, "state", _BLOCKING])
        else:
            self.switch.ip("link", "set", port, "down")

    def heal(self, host: Host) -> None:
        """Undo `cut`, of either kind; harmless on a host that was not cut."""
        port = self.port(host)
        self.switch.ip("link", "set", port, "up")
        self.switch.run(["bridge", "link", "set", "dev", port, "state", _FORWARDING])
        wait_until_running(host, self.ifname)

    def delete(self) -> None:
        """Take the switch away, and with it every cable. The hosts stay."""
        self.switch.delete()
