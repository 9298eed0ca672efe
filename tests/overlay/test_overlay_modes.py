"""Containers of two hosts reach each other in every mode, through the real executables and without an agent."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_interface

import pytest

from netns_fixtures import Outside, can_ping, needs
from tests.kernel.bridge_lab import Frames, address_of
from tests.overlay.overlay_lab import OverlayLab


def test_l2_by_itself(overlay: Callable[..., OverlayLab]) -> None:
    """Two hosts without agents, one subnet: each ADD knows whoever was there before it; IPv4 and IPv6; the last DEL of
    a host takes device, bridge, guard and member key along, and nothing is left anywhere."""
    lab = overlay()
    one, two = lab.hosts
    before = lab.settle(lab.conf())
    first, of_first = lab.add(one, "first")
    second, of_second = lab.add(two, "second")
    third, _ = lab.add(one, "third")  # h1 learns of h2's
    lab.ping(third, of_first)
    lab.ping(first, of_second)
    lab.ping(second, of_first)
    (device,) = lab.devices(one)
    assert {vtep for _, vtep in lab.fdb(one, device)} == {lab.tunnel_address(two)}
    assert {link["mtu"] for link in of_first["interfaces"]} == {1450}
    wire = Frames(two, "eth0")
    assert not can_ping(first, "10.1.200.200", deadline_s=0.3)
    assert can_ping(first, address_of(of_second, 4), size=1450 - 28)
    seen = wire.until(lambda frame: is_vxlan(frame, int(device.removeprefix("vxlan"))))
    wire.close()
    assert seen[-1][50:56].hex(":") == of_second["interfaces"][2]["mac"], "nobody asks on the wire who is where"
    lab.delete_all()
    assert lab.devices(one) == lab.devices(two) == []
    assert lab.traces() == before


def is_vxlan(frame: bytes, vni: int) -> bool:
    """Ethernet, IPv4 without options, UDP to 4789, a VXLAN header with a VNI (RFC 7348)."""
    port, header = int.from_bytes(frame[36:38], "big"), frame[42:50]
    return (frame[12:14], frame[23], port) == (b"\x08\x00", 17, 4789) and header == b"\x08\0\0\0" + vni.to_bytes(
        3, "big"
    ) + b"\0"


def test_routed_over_ipv6(overlay: Callable[..., OverlayLab]) -> None:
    """A block of addresses for each host, tunnels between IPv6 addresses: containers and the hosts themselves reach
    those of the other host, whatever their number, by one route for each family; nothing is left."""
    lab = overlay(family=6)
    one, two = lab.hosts
    conf = lab.conf("routed")
    before = lab.settle(conf)
    first, of_first = lab.add(one, "first", conf)
    second, of_second = lab.add(two, "second", conf)
    third, of_third = lab.add(one, "third", conf)
    fourth, of_fourth = lab.add(two, "fourth", conf)
    for box, result in ((first, of_second), (second, of_first), (third, of_fourth), (fourth, of_third)):
        lab.ping(box, result)
    lab.ping(one, of_fourth)
    lab.ping(two, of_third)
    blocks = {ip_interface(ip["address"]).network for result in (of_first, of_second) for ip in result["ips"]}
    assert sorted(block.prefixlen for block in blocks) == [26, 26, 122, 122]
    (device,) = lab.devices(one)
    routes = one.ip_json("route", "show", "dev", device) + one.ip_json("-6", "route", "show", "dev", device)
    assert len([route for route in routes if "gateway" in route]) == 2
    assert {link["mtu"] for link in of_first["interfaces"]} == {1430}
    assert can_ping(first, address_of(of_second, 6), size=1430 - 48)
    lab.delete_all(conf)
    assert lab.traces() == before


def test_routed_takes_another_block(overlay: Callable[..., OverlayLab]) -> None:
    """Where a block is full the host takes another one, whose gateway stands beside the first; the other hosts route
    both, also to a container that is on another network as well. The MTU of a network is that of the smallest uplink
    among its hosts, when they join."""
    lab = overlay()
    one, two = lab.hosts
    two.ip("link", "set", "eth0", "mtu", "1400")
    conf = lab.conf("routed", blocks={"ipv4": 29, "ipv6": 125})
    lab.add(two, "far", conf)
    results = [lab.add(one, f"c{number}", conf)[1] for number in range(7)]
    assert {link["mtu"] for link in results[0]["interfaces"]} == {1350}
    assert len({str(ip_interface(result["ips"][0]["address"]).network) for result in results}) == 2
    far, of_far = lab.add(two, "far2", conf)
    for number in (0, 6):
        lab.ping(far, results[number])
        lab.ping(one.containers[f"c{number}"], of_far)
    lab.ping(one.containers["c0"], results[6])
    flat = lab.conf(name="flat", number=2, mtu=1300)
    lab.add(one, "c0", flat, ifname="eth1")  # a newer default route
    lab.ping(one.containers["c0"], of_far)
    lab.delete(one, "c0", flat, ifname="eth1")
    device, bridge = results[0]["interfaces"][3]["name"], results[0]["interfaces"][0]["name"]
    assert len([each for each in one.addresses(device) if each.endswith("/32")]) == 2
    assert len([each for each in one.addresses(bridge) if each.endswith("/29")]) == 2
    lab.delete_all(conf)
    assert lab.devices(one) == []


def test_multicast(overlay: Callable[..., OverlayLab]) -> None:
    """Without etcd: hosts find each other by a multicast group, with addresses that each gives out of its own part of
    one subnet; each reaches the gateway, which is the same on both."""
    lab = overlay()
    one, two = lab.hosts
    boxes = []
    confs = []
    for number, host in enumerate(lab.hosts):
        ranges = [
            [{"subnet": "10.1.0.0/16", "rangeStart": f"10.1.{number}.10", "rangeEnd": f"10.1.{number}.99"}],
            [{"subnet": "fd00:1::/64", "rangeStart": f"fd00:1::{number}:10", "rangeEnd": f"fd00:1::{number}:99"}],
        ]
        ipam = {"type": "host-local", "ranges": ranges}
        conf = lab.conf("multicast", vni=77, group="239.1.1.1", interface="eth0", etcd=None, ipam=ipam)
        confs.append(conf)
        warm, _ = lab.add(host, "warm", conf)
        lab.delete(host, warm, conf)
        host.containers.pop("warm").delete()
    before = lab.traces()
    for host, conf in zip(lab.hosts, confs, strict=True):
        boxes.append(lab.add(host, "box", conf))
    (first, of_first), (second, of_second) = boxes
    lab.ping(first, of_second)
    lab.ping(second, of_first)
    for box in (first, second):
        lab.ping(box, "10.1.0.1")
        lab.ping(box, "fd00:1::1")
    for host, conf in zip((one, two), confs, strict=True):
        assert lab.check(host, "box", conf, boxes[lab.hosts.index(host)][1], netns=host.containers["box"]).ok
        lab.delete(host, "box", conf)
        host.containers.pop("box").delete()
    assert lab.traces() == before


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_anycast_gateway_and_isolation(
    overlay: Callable[..., OverlayLab], make_outside: Callable[..., Outside], backend: str
) -> None:
    """The gateway has one address and one MAC on both hosts; each masquerades what its containers send outside, but
    not what they send to those of the other host; two overlays and a bridge network on a host do not reach each
    other."""
    if backend == "iptables":
        needs("kernel:iptables_nft", "tool:ip6tables-nft")
    lab = overlay()
    one, two = lab.hosts
    world = [make_outside(host) for host in lab.hosts]
    conf = lab.conf(ipMasq=True, interface="eth0", backend=backend)
    other = lab.conf("routed", name="other", number=2, ipMasq=True, interface="eth0", backend=backend)
    bridged = {
        "backend": backend,
        **{"cniVersion": "1.1.0", "name": "bridged", "type": "pycni-bridge", "bridge": "cni3"},
        **{"isDefaultGateway": True, "ipam": {"type": "host-local", "subnet": "10.3.0.0/24"}},
    }
    second, of_second = lab.add(two, "second", conf)
    first, of_first = lab.add(one, "first", conf)
    lab.add(two, "third", conf)
    for box, outside in ((first, world[0]), (second, world[1])):
        for family in (4, 6):
            assert outside.seen_from(box, family).address == outside.host_address(family)
    lab.ping(first, of_second)
    assert of_first["interfaces"][0] == of_second["interfaces"][0]
    alien, of_alien = lab.add(one, "alien", other)
    far, of_far = lab.add(two, "far", other)
    lab.add(one, "alien2", other)
    lab.ping(alien, of_far)
    lab.ping(far, of_alien)
    assert world[0].seen_from(alien).address == world[0].host_address()
    plain, of_plain = lab.add(one, "plain", bridged)
    for box, target in ((first, of_alien), (alien, of_first), (first, of_plain), (plain, of_first), (plain, of_far)):
        assert not can_ping(box, address_of(target, 4), deadline_s=0.3)
    assert not can_ping(far, address_of(of_plain, 4), deadline_s=0.3)
    assert not can_ping(far, address_of(of_first, 4), deadline_s=0.3)
