"""A host with two container networks and the outside world, for the firewall tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from netns_fixtures import Answer, EchoServer, Host, Namespace, Outside, tcp_peer_seen
from pycni.firewall.rules import AttachmentRules, NetworkRules
from pycni.host.firewall import open_firewall

if TYPE_CHECKING:
    from pycni.host.firewall import Firewall

T = TypeVar("T")


@dataclass
class Net:
    """One bridge with the gateway addresses .1 / ::1."""

    lab: Lab
    name: str
    bridge: str
    number: int  # 10.NUMBER.0.0/24, fd00:NUMBER::/64
    isolate: bool = True

    @property
    def rules(self) -> NetworkRules:
        subnets = (f"10.{self.number}.0.0/24", f"fd00:{self.number}::/64")
        return NetworkRules(self.name, (self.bridge,), self.isolate, subnets)


@dataclass
class Box:
    """A container: its namespace, its host link, its addresses."""

    net: Net
    ns: Namespace
    host_link: str
    mac: str
    v4: str
    v6: str
    server: EchoServer

    @property
    def rules(self) -> AttachmentRules:
        return AttachmentRules(f"{self.net.name}/{self.ns.name}/eth0", (self.v4, self.v6))

    def address(self, family: int) -> str:
        return self.v4 if family == 4 else self.v6

    def reaches(self, other: Box | Outside, family: int = 4, deadline_s: float = 2.0) -> Answer | None:
        """Whom the other's server saw; None if nothing came through."""
        try:
            return tcp_peer_seen(self.ns, other.address(family), 7777, deadline_s=deadline_s)
        except OSError:
            return None


@dataclass
class Lab:
    """Links and addresses only: no rule is made here."""

    host: Host
    outside: Outside
    closing: Callable[[Callable[[], None]], object]
    boxes: int = 0
    nets: list[Net] = field(default_factory=list)

    def net(self, name: str, *, isolate: bool = True) -> Net:
        made = Net(self, name, f"br{len(self.nets)}", len(self.nets) + 1, isolate)
        self.nets.append(made)
        self.host.ip_batch(
            f"link add {made.bridge} type bridge",
            f"addr add 10.{made.number}.0.1/24 dev {made.bridge}",
            f"addr add fd00:{made.number}::1/64 dev {made.bridge} nodad",
            f"link set {made.bridge} up",
        )
        return made

    def box(self, net: Net) -> Box:
        self.boxes += 1
        number = self.boxes + 10
        ns = self.host.container(f"c{self.boxes}")
        link, mac = f"veth{self.boxes}", f"02:00:00:00:00:{number:02x}"
        made = f"link add {link} index {5000 + number} type veth peer name eth0 netns {ns.pid}"
        self.host.ip_batch(made, f"link set {link} master {net.bridge} up")
        v4, v6 = f"10.{net.number}.0.{number}", f"fd00:{net.number}::{number:x}"
        ns.ip_batch(
            "link set lo up",
            f"link set eth0 address {mac} up",
            f"addr add {v4}/24 dev eth0",
            f"addr add {v6}/64 dev eth0 nodad",
            f"route add default via 10.{net.number}.0.1",
            f"route add default via fd00:{net.number}::1",
        )
        server = EchoServer(ns)
        self.closing(server.close)
        return Box(net, ns, link, mac, v4, v6, server)

    def act(self, work: Callable[[Firewall], T], backend: str = "nftables") -> T:
        """What *work* returns, given the firewall of the host."""

        def inside() -> T:
            firewall = open_firewall(backend)
            try:
                return work(firewall)
            finally:
                firewall.close()

        return self.host.in_namespace(inside)

    def add(self, *boxes: Box, backend: str = "nftables", macs: bool = False) -> None:
        for box in boxes:
            rules = box.rules.replace(macs=((box.host_link, box.mac),)) if macs else box.rules
            self.add_rules(box.net.rules, rules, backend)

    def add_rules(self, network: NetworkRules, attachment: AttachmentRules, backend: str = "nftables") -> None:
        self.act(lambda firewall: firewall.apply_add(network, attachment), backend)

    def delete(self, box: Box, others: Sequence[NetworkRules] = (), backend: str = "nftables") -> None:
        """Delete the rules of *box*, and those of its network that none of *others* needs."""
        self.act(lambda firewall: firewall.apply_delete(box.rules, box.net.rules, others), backend)

    def ruleset(self) -> str:
        return self.host.run(["nft", "list", "ruleset"]).stdout

    def tables(self) -> str:
        return self.host.run(["nft", "list", "tables"]).stdout
