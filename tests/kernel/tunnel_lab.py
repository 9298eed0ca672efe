"""Hosts on one segment with the operations of pycni.change.tunnels and containers behind them, for tests."""

from __future__ import annotations

from contextlib import ExitStack
from ipaddress import ip_address
from typing import Any, cast

from netns_fixtures import Container, Host, Underlay, wait_until
from netns_fixtures.uplink import NO_DAD, unlike_index, wait_until_running
from pycni.change.forwarding import Entry, FdbEntry, NeighbourEntry, PortEntry, RouteEntry
from pycni.change.ops import EnsureBridge, Op
from pycni.change.tunnels import EnsureVxlan
from pycni.host import forwarding, vxlan
from pycni.host.apply import Kernel
from pycni.host.vxlan import VxlanFacts

VNI, PORT = 100, 4789
VXLAN, BRIDGE, ALIAS = "vxlan100", "ovl100", "pycni net1"


class Site:
    """One of the hosts: its end of the tunnel, `number` from 1."""

    def __init__(self, underlay: Underlay, host: Host, family: int, closing: ExitStack) -> None:
        self.underlay = underlay
        self.host = host
        self.number = underlay.hosts.index(host) + 1
        self.local = underlay.address(host, family)
        self.mtu = underlay.mtu - (50 if family == 4 else 70)
        self.mac = f"0a:00:00:00:00:{self.number:02x}"
        self.kernel = host.in_namespace(lambda: Kernel(None, cast(Any, None)))
        closing.callback(self.kernel.close)
        wait_until(self._knows_its_addresses)

    def _knows_its_addresses(self) -> bool:
        """The kernel adds the local routes of IPv6 a moment after the link came up: too late for a snapshot before."""
        local = self.kernel.host.routes(table=255, family=10)
        link = self.kernel.host.link("eth0")
        mine = [route.dst.network_address for route in local if link is not None and route.oif == link.index]
        return any(one.is_link_local for one in mine) and ip_address(self.underlay.address(self.host, 6)) in mine

    def vxlan(self, **changes: Any) -> EnsureVxlan:
        """The operation that makes this host's device, with *changes*."""
        op = EnsureVxlan(
            name=VXLAN,
            vni=VNI,
            port=PORT,
            local=self.local,
            uplink="eth0",
            mac=bytes.fromhex(self.mac.replace(":", "")),
            mtu=self.mtu,
            bridge="",
            alias=ALIAS,
        )
        return op.replace(**changes)

    def do(self, *plan: Op) -> list[Op | None]:
        return [self.kernel.do(op) for op in plan]

    def facts(self, name: str = VXLAN) -> VxlanFacts | None:
        return vxlan.read_vxlan(self.kernel.host, name)

    def have(self, name: str = VXLAN) -> VxlanFacts:
        """As facts, of a device that must be there."""
        found = self.facts(name)
        assert found is not None, f"no VXLAN device {name}"
        return found

    def entries(self) -> frozenset[Entry]:
        return forwarding.read_entries(self.kernel.host, VXLAN)

    def change(self, add: list[Entry], remove: list[Entry] | None = None) -> tuple[str, ...]:
        return forwarding.change_entries(self.kernel.host, VXLAN, add, remove or [])

    def shown(self, name: str = VXLAN) -> dict[str, Any]:
        """What `ip -d link` says of a device."""
        (link,) = self.host.ip_json("-d", "link", "show", "dev", name)
        return link

    def fdb(self) -> list[str]:
        """The lines of `bridge fdb` about the tunnel's device."""
        lines = self.host.run(["bridge", "fdb", "show", "dev", VXLAN]).stdout.splitlines()
        return sorted(" ".join(line.split()) for line in lines)

    def bridged(self, **changes: Any) -> None:
        """The device as a port of a bridge."""
        self.do(EnsureBridge(BRIDGE, b"", self.mtu, ALIAS), self.vxlan(bridge=BRIDGE, **changes))

    def routed(self, *gateways: str) -> None:
        """The device on its own, beside a bridge with *gateways* (address/length); the host forwards."""
        self.host.sysctl("net/ipv4/ip_forward", "1")
        self.host.sysctl("net/ipv6/conf/all/forwarding", "1")
        self.do(EnsureBridge(BRIDGE, b"", self.mtu, ALIAS), self.vxlan(proxy=False))
        for one in gateways:
            self.host.ip("addr", "add", one, "dev", BRIDGE, *(("nodad",) if ":" in one else ()))

    def container(self, name: str, *addresses: str, mac: str = "", gateways: tuple[str, ...] = ()) -> Container:
        """A container on this host's bridge."""
        made = self.host.container(name)
        made.run(["sh", "-c", NO_DAD[0]])
        own = f"address {mac}" if mac else ""
        self.host.ip_batch(
            f"link add v{name} index {unlike_index()} mtu {self.mtu} type veth "
            f"peer name eth0 mtu {self.mtu} {own} netns {made.pid}",
            f"link set v{name} master {BRIDGE} up",
        )
        made.ip_batch(*(f"addr add {one} dev eth0" for one in addresses), "link set eth0 up")
        made.ip_batch(*(f"route add default via {one}" for one in gateways))
        wait_until_running(made, "eth0")
        wait_until(lambda: getattr(self.kernel.host.link(f"v{name}"), "forwarding", False))
        return made


def l2_entries(mac: str, vtep: str, *addresses: str) -> list[Entry]:
    """What leads to a container that is elsewhere, on one subnet over all hosts."""
    return [FdbEntry(mac, vtep), PortEntry(mac), *(NeighbourEntry(one, mac) for one in addresses)]


def routed_entries(site: Site, *routes: tuple[str, str]) -> list[Entry]:
    """What leads to the blocks (prefix, next hop) of the host of *site*."""
    out: list[Entry] = [FdbEntry(site.mac, site.local)]
    for prefix, via in routes:
        out += [NeighbourEntry(via, site.mac), RouteEntry(prefix, via)]
    return out
