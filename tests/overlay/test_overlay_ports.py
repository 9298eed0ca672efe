"""Published ports of containers on an overlay, and hosts that forward nothing by themselves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from netns_fixtures import EchoServer, Outside, can_tcp, tcp_peer_seen
from tests.kernel.bridge_lab import address_of
from tests.kernel.portmap_lab import BRIDGED, port
from tests.overlay.overlay_lab import OverlayLab


@pytest.mark.needs("kernel:br_netfilter", "kernel:iptables_nft", "tool:ip6tables-nft")
@pytest.mark.parametrize("mode", ["l2", "routed"])
def test_published_ports_behind_a_policy_of_drop(
    overlay: Callable[..., OverlayLab], make_outside: Callable[..., Outside], closing: ExitStack, mode: str
) -> None:
    """On hosts whose FORWARD policy is DROP, and where bridged frames pass it, too: containers reach those of the other
    host and the world; a port of h1 leads to its container, from outside, from h2 and from a container there, which
    also reaches it directly, though others may not; DEL leaves nothing of either plugin."""
    lab = overlay()
    one, two = lab.hosts
    world = make_outside(one)
    for host in lab.hosts:
        for key in BRIDGED:
            host.sysctl(key, "1")
        for tool in ("iptables-nft", "ip6tables-nft"):
            host.run([tool, "-P", "FORWARD", "DROP"])
    conf = lab.conf(mode, ipMasq=True, interface="eth0")
    mapped = {
        **{"cniVersion": "1.1.0", "name": "net", "type": "pycni-portmap", "directAccess": False},
        "runtimeConfig": {"portMappings": [port(8080)]},
    }
    lab.settle(conf)
    client, of_client = lab.add(two, "client", conf)
    server, result = lab.add(one, "server", conf)
    lab.add(two, "late", conf)
    before = lab.traces(one)
    published = {**mapped, "prevResult": result}
    assert lab.call("ADD", one, server, published).ok
    closing.callback(EchoServer(server).close)
    lab.ping(client, result)
    lab.ping(server, of_client)
    for family in (4, 6):
        assert world.seen_from(server, family).address == world.host_address(family)
        assert tcp_peer_seen(world, world.host_address(family), 8080).address == world.address(family)
        assert can_tcp(two, lab.segment.address(one, family), 8080)
        assert can_tcp(client, lab.segment.address(one, family), 8080)
        assert can_tcp(client, address_of(result, family), 7777), "directly, over the overlay"
    world.ip("route", "add", address_of(result, 4), "via", world.host_address(4))
    assert not can_tcp(world, address_of(result, 4), 7777, deadline_s=0.3)
    assert lab.call("CHECK", one, server, published).ok
    assert lab.check(one, server, conf, result).ok
    lab.call("DEL", one, server, published)
    assert lab.traces(one) == before
