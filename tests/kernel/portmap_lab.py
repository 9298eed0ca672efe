"""A host whose containers publish ports, and whom their servers see when a client asks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netns_fixtures import (
    Answer,
    CniRun,
    Container,
    EchoServer,
    Host,
    Namespace,
    Outside,
    needs,
    tcp_peer_seen,
    udp_peer_seen,
    wait_until,
)
from tests.kernel.bridge_lab import Conf, Lab, address_of, network

BRIDGED = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")
SHORT_S = 0.3  # how long to wait for what must not come
PROBES = {"tcp": tcp_peer_seen, "udp": udp_peer_seen}


def port(host_port: int | None, container_port: int = 7777, proto: str = "tcp", **keys: Any) -> Conf:
    """One entry of portMappings; the echo servers listen on 7777."""
    given = {"hostPort": host_port, "containerPort": container_port, "protocol": proto, **keys}
    return {key: value for key, value in given.items() if value is not None}


def portmap(*ports: Conf, net: str = "net", **keys: Any) -> Conf:
    """A configuration of the plugin as the runtime gives it."""
    runtime = {"runtimeConfig": {"portMappings": list(ports)}} if ports else {}
    return {"cniVersion": "1.1.0", "name": net, "type": "portmap", **runtime, **keys}


@dataclass
class Server:
    """A container with an address of a bridge network, and what its echo server sees."""

    ns: Container
    conf: Conf  # of the bridge network
    result: Conf
    echo: EchoServer
    alive: bool = True

    def address(self, family: int) -> str:
        return address_of(self.result, family)

    def end(self) -> None:
        """No process of it runs any more."""
        if self.alive:
            self.alive = False
            self.echo.close()

    def die(self) -> None:
        """And its namespace is gone, with the link: the kernel takes it away when nobody uses it, a moment later."""
        (link,) = [one["name"] for one in self.result["interfaces"] if one["name"].startswith("veth")]
        self.end()
        self.ns.delete()
        wait_until(lambda: link not in self.ns.host.links())


@dataclass
class PortLab:
    """Adds containers with a server in each; published ports are a second step."""

    lab: Lab
    closing: Callable[[Callable[[], None]], object]
    outside: Outside | None = None
    servers: list[Server] = field(default_factory=list)

    @property
    def host(self) -> Host:
        return self.lab.host

    def server(self, name: str, conf: Conf | None = None, *, port: int = 7777) -> Server:
        """A container on the network *conf* (default: cni1, 10.1.0.0/24 and fd00:1::/64)."""
        conf = conf or network()
        ns = self.host.container(name)
        result = self.lab.add(conf, ns)
        echo = EchoServer(ns, port)
        made = Server(ns, conf, result, echo)
        self.closing(made.end)
        self.servers.append(made)
        return made

    def call(self, command: str, conf: Conf, server: Server, **how: Any) -> CniRun:
        given = {**conf, "prevResult": server.result} if command in ("ADD", "CHECK") else conf
        return self.lab.call(command, given, server.ns, **how)

    def publish(self, server: Server, *ports: Conf, **keys: Any) -> Conf:
        """The result of an ADD that must work."""
        return self.call("ADD", self.conf_of(server, *ports, **keys), server).result()

    def refused(self, server: Server, *ports: Conf, **keys: Any) -> Conf:
        """The error of an ADD that must fail as the protocol wants it."""
        answer = self.call("ADD", self.conf_of(server, *ports, **keys), server)
        assert answer.error_code is not None, answer
        assert "Traceback" not in answer.stderr, answer
        return answer.json

    def withdraw(self, server: Server, **how: Any) -> None:
        """A DEL that must work, without telling it anything but names, and say nothing."""
        answer = self.lab.call("DEL", self.conf_of(server), server.ns, **how)
        assert answer.ok and answer.stdout == "", answer

    def check(self, server: Server, *ports: Conf, **keys: Any) -> CniRun:
        return self.call("CHECK", self.conf_of(server, *ports, **keys), server)

    @staticmethod
    def conf_of(server: Server, *ports: Conf, **keys: Any) -> Conf:
        return portmap(*ports, net=server.conf["name"], **keys)

    def host_address(self, family: int) -> str:
        assert self.outside is not None
        return self.outside.host_address(family)


def seen(client: Namespace, address: str, port: int, proto: str = "tcp", *, source: str = "") -> Answer | None:
    """Whom the server saw, None where the client got no answer in time."""
    try:
        return PROBES[proto](client, address, port, source=source)
    except OSError:
        return None


def is_silent(client: Namespace, address: str, port: int, proto: str = "tcp", *, source: str = "") -> bool:
    """Whether nobody answers: refused, or dropped."""
    try:
        PROBES[proto](client, address, port, source=source, deadline_s=SHORT_S)
    except OSError:
        return True
    return False


@dataclass
class Town:
    """A host with two networks and the world beyond. `server` publishes; all others are clients."""

    ports: PortLab
    outside: Outside
    server: Server  # on cni1
    neighbour: Server  # on cni1
    stranger: Server  # on cni2
    bridged: bool  # br_netfilter shows bridged frames to the rules

    @classmethod
    def built(cls, plugins: Path, stack: ExitStack, *, bridged: bool, **sysctls: str) -> Town:
        needs("root", "kernel:bridge", "kernel:veth", "kernel:nft_nat")
        host = Host("town", sysctls={**dict.fromkeys(BRIDGED, "1" if bridged else "0"), **sysctls})
        stack.callback(host.delete)
        outside = Outside(host)
        stack.callback(outside.delete)
        ports = PortLab(Lab(host, plugins), stack.callback, outside)
        one, two = network("net1", 1), network("net2", 2)
        servers = ports.server("c1", one), ports.server("c2", one), ports.server("c3", two)
        return cls(ports, outside, *servers, bridged)

    @property
    def host(self) -> Host:
        return self.ports.host

    def client(self, name: str) -> Namespace:
        """outside, host, itself (the server's container), neighbour, stranger."""
        if name in ("outside", "host"):
            found: Namespace = getattr(self, name)
            return found
        return {"itself": self.server, "neighbour": self.neighbour, "stranger": self.stranger}[name].ns

    def own_address(self, name: str, family: int) -> str:
        """The address that *name* has of its own."""
        if name == "outside":
            return self.outside.address(family)
        if name == "host":
            return self.outside.host_address(family)
        return {"itself": self.server, "neighbour": self.neighbour, "stranger": self.stranger}[name].address(family)


def route_loopback(client: Namespace, via: str, link: str = "eth0") -> None:
    """From now on *client* sends what is for 127.0.0.1 to *via*, as somebody would who wants to reach another's."""
    client.run(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet"])
    client.ip_batch("link set lo up")
    client.ip_batch("route del local 127.0.0.1 dev lo table local", "route del local 127.0.0.0/8 dev lo table local")
    client.ip_batch(f"route add 127.0.0.1/32 via {via} dev {link}")
