"""The world beyond a host: a namespace on the other end of its uplink, with a server that tells whom it sees."""

from __future__ import annotations

import fcntl
import ipaddress
import itertools
import socket
import struct

from .echo import PORT, Answer, EchoServer
from .hosts import Host
from .namespace import Namespace
from .probes import DEADLINE_S, tcp_peer_seen, udp_peer_seen
from .waiting import wait_until

# Duplicate address detection on a link with two ends would only delay the first packet by a second or two.
NO_DAD = ("[ ! -e /proc/sys/net/ipv6 ] || echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad",)

# The kernel reports a veth's carrier at once only if its ifindex differs from its peer's (linkwatch_urgent_event() in
# net/core/link_watch.c takes equal ones for "no lower device"). In two fresh namespaces both would be 2, and the link
# would be without IPv6 link-local address and "running" flag for a second.
unlike_index = itertools.count(1000).__next__

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Outside(Namespace):
    """Linked to *host* by a veth called *uplink* there and `eth0` here; the host's default routes lead here.

    It knows no way to anything behind the host: a packet with a container's own source address gets no answer, a
    masqueraded one does. Outside has the first address of each network, the host the second.
    """

    def __init__(
        self,
        host: Host,
        *,
        name: str = "outside",
        uplink: str = "uplink",
        ipv4: str | None = "198.51.100.0/24",
        ipv6: str | None = "2001:db8:ffff::/64",
        mtu: int = 1500,
        default_route: bool = True,
    ) -> None:
        super().__init__(name, lo_up=True, setup=NO_DAD)
        self.host = host
        self.uplink = uplink
        networks: list[Network] = [ipaddress.ip_network(text) for text in (ipv4, ipv6) if text]
        pair = f"{uplink} index {unlike_index()} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {self.pid}"
        inside = [f"link add {pair}"]
        mine = []
        for network in networks:
            flag = " nodad" if network.version == 6 else ""
            mine.append(f"addr add {network[1]}/{network.prefixlen} dev eth0{flag}")
            inside.append(f"addr add {network[2]}/{network.prefixlen} dev {uplink}{flag}")
        routes = [f"route add default via {network[1]} dev {uplink}" for network in networks if default_route]
        if ipv6:
            host.run(["sh", "-c", NO_DAD[0]])
        host.ip_batch(*inside, f"link set {uplink} up", *routes)
        self.ip_batch(*mine, "link set eth0 up")
        self._address: dict[int, tuple[str, str]] = {
            network.version: (str(network[1]), str(network[2])) for network in networks
        }
        wait_until_running(host, uplink)
        wait_until_running(self, "eth0")
        self.server = EchoServer(self)

    @property
    def port(self) -> int:
        """Where the echo server listens, TCP and UDP."""
        return PORT

    def address(self, family: int = 4) -> str:
        """The address of outside; *family* is 4 or 6."""
        return self._address[family][0]

    def host_address(self, family: int = 4) -> str:
        """The host's address on the uplink."""
        return self._address[family][1]

    def seen_from(
        self, client: Namespace, family: int = 4, *, proto: str = "tcp", deadline_s: float = DEADLINE_S
    ) -> Answer:
        """Whom outside sees when *client* (a host, a container) talks to it; OSError when no answer comes."""
        probe = {"tcp": tcp_peer_seen, "udp": udp_peer_seen}[proto]
        return probe(client, self.address(family), self.port, deadline_s=deadline_s)

    def delete(self) -> None:
        self.server.close()
        super().delete()


def wait_until_running(namespace: Namespace, ifname: str, deadline_s: float = 5.0) -> None:
    """Until the kernel's link watch has noticed the carrier: from then on IPv6 has a link-local address."""

    def settled() -> bool:
        try:
            # /proc/net is that of the main thread, which stays outside.
            with open("/proc/thread-self/net/if_inet6") as stream:
                has_local = any(line.split()[3] == "20" and line.split()[5] == ifname for line in stream)
        except FileNotFoundError:
            has_local = True
        return has_local and _operstate_up(ifname)

    namespace.in_namespace(lambda: wait_until(settled, deadline_s, f"{ifname} of {namespace.name} is running"))


def _operstate_up(ifname: str) -> bool:
    """IFF_RUNNING by ioctl: sysfs shows the links of the namespace that mounted it, which need not be this one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", ifname.encode(), 0)
        flags: int = struct.unpack_from("H", fcntl.ioctl(any_socket, 0x8913, request), 16)[0]  # SIOCGIFFLAGS
    return bool(flags & 0x40)
