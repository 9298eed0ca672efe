"""The network lists that runtimes and distributions ship or write, as they are, through the command line of pycni."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import (
    Container,
    EchoServer,
    Namespace,
    Outside,
    assert_unchanged,
    can_ping,
    needs,
    netns_snapshot,
    tcp_peer_seen,
    udp_peer_seen,
    wait_until,
)
from pycni.cni.result import Result, parse_result
from tests.runtime.command_line import pycni, pycni_json
from tests.runtime.lists import Port, interface_plugin, maps_ports, port_mappings, read_list, shipped_lists

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

#: What an attachment leaves on purpose, beside its bridge: forwarding, on which others may rely by now. It makes the
#: kernel answer on the subnet-router anycast addresses (RFC 4291, 2.6.1).
KEPT = ("*/sysctl/*", "*/route/inet6/*type=anycast")
#: And what the kernel keeps of a loopback that was up and is down again.
KEPT_OF_LO = ("*/link/lo:qdisc", "*/qdisc/dev=lo *", "*/address/lo/127.0.0.1/8", "*/route/inet/dev=lo *")
#: iptables-nft makes its tables and base chains for the first rule and never removes them.
KEPT_BY_IPTABLES = (
    "*/nft/ip filter",
    "*/nft/ip nat",
    "*/nft/ip raw",
    "*/nft/ip6 filter",
    "*/nft/ip6 nat",
    "*/nft/ip6 raw",
)
#: A link-local address is there a moment before its route (net/ipv6/addrconf.c: a work queue starts DAD).
LATE = ("*/route/inet6/dev=uplink dst=fe80:*",)

PORTS = (Port(8080, 7777), Port(8053, 7777, "udp"), Port(8081, 7777, "tcp", "127.0.0.1"))
REFUSED_S = 0.3
MARK_CHAIN = "externalSetMarkChain"


@pytest.mark.parametrize("path", shipped_lists(), ids=lambda path: path.stem)
def test_shipped_list_works_as_it_is(
    outside: Outside, container_ns: Container, bin_dir: Path, tmp_path: Path, path: Path
) -> None:
    """ADD gives what the list promises (gateway, outside by masquerade, ports as its runtime publishes them), CHECK
    agrees, DEL leaves the bridge alone."""
    host = outside.host
    conf = read_list(path)
    maker = interface_plugin(conf)
    if maker.get("vlan"):
        needs("kernel:vlan_filtering")
    file = tmp_path / path.name
    file.write_text(json.dumps(conf))
    words = (file, container_ns.file, "--plugin-dir", bin_dir)
    published = ("--capability-args", port_mappings(path, PORTS)) if maps_ports(conf) and maker["ipam"] else ()
    make_mark_chain(host, conf)
    before = netns_snapshot(host, container_ns)
    result = pycni_json(host, "add", *words, *published)
    if maker:
        shown = parse_result(result, result["cniVersion"])
        reaches_what_it_should(maker, shown, container_ns, outside)
        if published and has_gateway(maker):
            is_reached_where_published(shown, container_ns, outside)
    else:
        assert can_ping(container_ns, "127.0.0.1")
    if result["cniVersion"] >= "0.4.0":
        pycni(host, "check", *words)
    pycni(host, "del", *words)
    wait_until(lambda: not [name for name in host.links() if name.startswith("veth")], 10)
    kept = [
        *KEPT,
        *KEPT_OF_LO,
        *KEPT_BY_IPTABLES,
        *LATE,
        *([f"*{maker.get('bridge', 'cni0')}*"] if maker.get("type") == "bridge" else []),
    ]
    assert_unchanged(before, netns_snapshot(host, container_ns), ignore=kept)
    assert "PYCNI" not in host.run(["sh", "-c", "iptables-save; ip6tables-save"]).stdout
    assert pycni_json(host, "ipam", "list") == []
    assert host.run(["find", "/run", "/var/lib", "-name", "*eth0"]).stdout == "", "the result cache is empty"


def make_mark_chain(host: Namespace, conf: dict[str, Any]) -> None:
    """The chain that a list expects of its cluster (kubenet: the kubelet's), with what it does there: mark, and
    masquerade what is marked."""
    chain = next((plugin[MARK_CHAIN] for plugin in conf.get("plugins", ()) if MARK_CHAIN in plugin), "")
    for command in ("iptables", "ip6tables") if chain else ():
        nat = f"{command} -w -t nat"
        mark, masquerade = "-j MARK --or-mark 0x4000", "-m mark --mark 0x4000/0x4000 -j MASQUERADE"
        host.run(["sh", "-ec", f"{nat} -N {chain}; {nat} -A {chain} {mark}; {nat} -A POSTROUTING {masquerade}"])


def has_gateway(maker: dict[str, Any]) -> bool:
    return bool(maker["type"] == "ptp" or maker.get("isGateway") or maker.get("isDefaultGateway"))


def default_families(result: Result) -> set[int]:
    return {route.dst.version for route in result.routes if route.dst.prefixlen == 0}


def reaches_what_it_should(maker: dict[str, Any], result: Result, container: Container, outside: Outside) -> None:
    """The gateways that the list makes; and outside, seen as the host if, and only if, the list masquerades."""
    assert set(container.addresses("eth0")) == {str(ip.address) for ip in result.ips}
    assert bool(result.ips) == bool(maker["ipam"])
    for ip in result.ips:
        assert not has_gateway(maker) or can_ping(container, str(ip.gateway), deadline_s=10), ip
    for family in (4, 6):
        if has_gateway(maker) and family in default_families(result) and maker.get("ipMasq"):
            assert outside.seen_from(container, family, deadline_s=10).address == outside.host_address(family)
        else:
            with pytest.raises(OSError):  # noqa: PT011 - no route, or no answer
                outside.seen_from(container, family, deadline_s=REFUSED_S)


def is_reached_where_published(result: Result, container: Container, outside: Outside) -> None:
    """By outside, with its own address, and by the host, over every family that has a way back; 127.0.0.1's port by
    the host alone."""
    server = EchoServer(container)
    try:
        for family in default_families(result):
            there = outside.host_address(family)
            seen = [tcp_peer_seen(outside, there, 8080), udp_peer_seen(outside, there, 8053)]
            assert {answer.address for answer in seen} == {outside.address(family)}
            tcp_peer_seen(outside.host, there, 8080)
        if 4 in default_families(result):
            answer_on_loopback(outside.host, (8080, 8081))
            with pytest.raises(OSError):  # noqa: PT011 - refused, or dropped
                tcp_peer_seen(outside, outside.host_address(4), 8081, deadline_s=REFUSED_S)
    finally:
        server.close()


def answer_on_loopback(host: Namespace, ports: Sequence[int]) -> None:
    for port in ports:
        tcp_peer_seen(host, "127.0.0.1", port)
