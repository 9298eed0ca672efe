"""A container with published ports that a real runtime started, and who reaches it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from netns_fixtures import Answer, EchoServer, Host, Namespace, Outside, missing, tcp_peer_seen, udp_peer_seen
from tests.runtime.sandbox import Sandbox

PROBES = {"tcp": tcp_peer_seen, "udp": udp_peer_seen}
REFUSED_S = 0.3  # how long a client waits that must get no answer


@dataclass(frozen=True)
class Published:
    """The container *inside*, with an echo server that listens on all its addresses."""

    inside: Sandbox
    server: EchoServer
    outside: Outside

    @classmethod
    def serve(cls, inside: Sandbox, outside: Outside, closing: ExitStack) -> Published:
        server = EchoServer(inside)
        closing.callback(server.close)
        return cls(inside, server, outside)

    def seen(self, client: Namespace, port: int, address: str = "", *, proto: str = "tcp", family: int = 4) -> Answer:
        """Whom the container sees when *client* asks the host's *address* (the uplink's by default) on *port*."""
        answer = PROBES[proto](client, address or self.outside.host_address(family), port)
        assert answer.server == self.inside.name
        return answer

    def reachable(
        self, client: Namespace, port: int, address: str = "", *, proto: str = "tcp", family: int = 4
    ) -> bool:
        """Whether the container answers at all, within a short while."""
        try:
            PROBES[proto](client, address or self.outside.host_address(family), port, deadline_s=REFUSED_S)
        except OSError:
            return False
        return True


def without_bridge_filtering(host: Host) -> None:
    """As hosts are that have not loaded br_netfilter; with it ::1 is the userland proxy's (docs/portmap.md)."""
    if not missing("kernel:br_netfilter"):
        host.sysctl("net/bridge/bridge-nf-call-ip6tables", "0")
