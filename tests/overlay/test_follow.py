"""The agent follows the peers of overlay networks: whatever happens, the kernel comes to hold what etcd says."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from urllib.request import urlopen

import pytest

from netns_fixtures import Host, can_ping, wait_until
from tests.kernel.bridge_lab import address_of
from tests.overlay.following import CONFIG, start, wait_in_step, watched
from tests.overlay.overlay_lab import OverlayLab


def test_peers_come_and_go(overlay: Callable[..., OverlayLab]) -> None:
    """A container is known to the other host's agent at once, its end as well, and at the end nothing is left. Status
    and metrics say how things are."""
    lab = overlay()
    a, b = lab.hosts
    start(lab, CONFIG + 'metrics = "127.0.0.1:9123"\n')
    before = lab.settle(lab.conf())
    one, first = lab.add(a, "one")
    two, second = lab.add(b, "two")
    lab.ping(one, second)
    lab.ping(two, first)
    wait_in_step(lab)
    lab.add(b, "three")
    wait_in_step(lab, a, deadline_s=1.0)
    assert "/pycni/lab: 1 network, 1 peer, in step" in lab.agents[0].pycni("agent", "status").stdout
    metrics = a.in_namespace(lambda: urlopen("http://127.0.0.1:9123/metrics", timeout=5).read().decode())
    assert 'pycni_overlay_entries{network="net",prefix="/pycni/lab"} 12.0' in metrics
    assert 'pycni_overlay_lease_held{prefix="/pycni/lab"} 1.0' in metrics
    lab.delete(b, two)
    wait_in_step(lab, a, deadline_s=1.0)
    lab.delete_all()
    wait_until(lambda: lab.traces() == before, 5.0, "nothing is left")


def test_waiting_container(overlay: Callable[..., OverlayLab]) -> None:
    """A container that has a wrong or no MAC for an address learns that of the new container unasked, IPv4 and IPv6."""
    lab = overlay()
    a, b = lab.hosts
    start(lab)
    lab.add(a, "one")
    waiting, _ = lab.add(b, "waiting")
    wait_in_step(lab)
    addresses = ["10.1.7.7", "fd00:1::7"]
    for address in addresses:
        waiting.ip("neigh", "replace", address, "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "stale")
    box, _ = lab.add(a, "new", {**lab.conf(), "args": {"cni": {"ips": ["10.1.7.7/16", "fd00:1::7/64"]}}})
    mac = box.ip_json("link", "show", "eth0")[0]["address"]
    for address in addresses:
        wait_until(lambda: waiting.ip_json("neigh", "show", address)[0]["lladdr"] == mac, 3.0, address)  # noqa: B023


def test_meddling(overlay: Callable[..., OverlayLab]) -> None:
    """Whoever deletes device, bridge, entries or rules, takes the device down or off its bridge, lets a stranger in:
    within a second all is as it was, and the containers reach each other and their gateway."""
    lab = overlay()
    a, b = lab.hosts
    start(lab)
    one, first = lab.add(a, "one")
    two, second = lab.add(b, "two")
    lab.ping(one, second)
    device, bridge = lab.devices(a)[0], _bridge(a)
    macs = _macs(a, device, bridge)
    gateways = [ip["gateway"] for ip in first["ips"]]
    vni = device.removeprefix("vxlan")
    far = second["ips"][0]["address"].partition("/")[0]
    for harm in (
        f"ip neigh flush dev {device} nud permanent",
        f"ip link del {device}",
        f"bridge fdb del $(bridge fdb show dev {device} | awk '/dst/ {{print $1; exit}}') dev {device} self",
        f"ip link set {device} down",
        f"ip link set {device} nomaster",
        f"ip link set {device} address 02:00:00:00:00:99",
        "nft delete table inet pycni_tunnels",
        "nft flush set inet pycni_tunnels guarded",
        "nft flush set inet pycni_tunnels vteps4",
        f"nft add element inet pycni_tunnels vteps4 '{{ 4789 . {vni} . 192.0.2.99 }}'",
        f"nft add element inet pycni_tunnels vteps6 '{{ 4789 . {vni} . 2001:db8:a::99 }}'",
        f"ip neigh add 10.1.99.99 lladdr 02:00:00:00:00:77 nud permanent dev {device}",
        f"ip link del {bridge}",
        f"ip link del {bridge}; ip link del {device}",
        f"ip addr flush dev {bridge}",
        f"ip link set {bridge} address 02:00:00:00:00:98",
    ):
        a.run(["sh", "-c", harm])
        began = time.monotonic()
        wait_in_step(lab, a, deadline_s=1.5)
        wait_until(lambda: _macs(a, device, bridge) == macs, 1.5, harm)
        wait_until(lambda: all(can_ping(one, each) for each in gateways), 1.5, harm)
        lab.ping(one, far)
        assert lab.check(a, one, lab.conf(), first).ok, harm
        assert time.monotonic() - began < 3.0, harm
    lab.ping(two, first)
    assert lab.agents[0].logged("overlay-restored")


def test_routed(overlay: Callable[..., OverlayLab]) -> None:
    """In mode routed peers' blocks are followed: a device that is deleted comes back with its routes and addresses; and
    while etcd is away containers come up and are reached, also with an agent that began meanwhile."""
    lab = overlay()
    a, b = lab.hosts
    start(lab)
    conf = lab.conf("routed")
    one, first = lab.add(a, "one", conf)
    two, second = lab.add(b, "two", conf)
    wait_in_step(lab, mode="routed")
    lab.ping(one, second)
    device = lab.devices(a)[0]
    addresses = a.ip_json("address", "show", device)[0]["addr_info"]
    for harm in (
        f"ip link del {device}",
        f"ip route flush dev {device}",
        f"ip addr flush dev {device}",
        f"ip link del {_bridge(a)}",
        f"ip addr flush dev {_bridge(a)}",
    ):
        a.run(["sh", "-c", harm])
        wait_in_step(lab, a, deadline_s=1.5, mode="routed")
        wait_until(lambda: len(a.ip_json("address", "show", device)[0]["addr_info"]) == len(addresses), 1.5, harm)
        wait_until(lambda: lab.check(a, one, conf, first).ok, 1.5, harm)
        lab.ping(two, first)
    lab.etcd.kill()
    lab.agents[0].stop(signal.SIGKILL)
    lab.agents[0].start(config=CONFIG)
    three, third = lab.add(a, "three", conf)
    lab.ping(three, second)
    lab.ping(two, third)


def test_gateway_bridge_is_brought_back(overlay: Callable[..., OverlayLab]) -> None:
    """The second interface's bridge, too, with its addresses and MAC; its ports stay apart from each other. One that is
    taken down stays down."""
    lab = overlay(hosts=1)
    (host,) = lab.hosts
    start(lab)
    conf = lab.conf(gatewayBridge={"subnet": "172.30.0.0/24", "ranges": [{"subnet": "fd30::/64"}]}, interface="eth0")
    attached = [lab.add(host, name, conf) for name in ("one", "two")]
    (box, result), (_, other) = attached
    outer = [ip for ip in result["ips"] if ip["interface"] == 6]
    beside = next(ip["address"].partition("/")[0] for ip in other["ips"] if ip["interface"] == 6)
    macs = _macs(host, "pycni-gw", _bridge(host))
    for harm in (
        f"ip link del pycni-gw; ip link del {_bridge(host)}",
        "ip addr flush dev pycni-gw",
        "ip link set pycni-gw address 02:00:00:00:00:98",
    ):
        host.run(["sh", "-c", harm])
        wait_until(lambda: all(lab.check(host, each, conf, of).ok for each, of in attached), 1.5, harm)
        wait_until(lambda: _macs(host, "pycni-gw", _bridge(host)) == macs, 1.5, harm)
        wait_until(lambda: all(can_ping(box, ip["gateway"]) for ip in outer), 1.5, harm)
        assert not can_ping(box, beside, deadline_s=0.3), harm
    host.ip("link", "set", "pycni-gw", "down")
    lab.agents[0].ask("reconcile")
    assert "UP" not in host.ip_json("link", "show", "pycni-gw")[0]["flags"]


def test_multicast_device_is_brought_back(overlay: Callable[..., OverlayLab]) -> None:
    """In mode multicast, where nobody is followed, bridge and device are made anew all the same."""
    lab = overlay()
    conf = lab.conf("multicast", vni=77, group="239.1.1.1", interface="eth0", etcd=None, families=(4,))
    start(lab)
    results = []
    for number, host in enumerate(lab.hosts, 10):
        ranges = [[{"subnet": "10.1.0.0/16", "rangeStart": f"10.1.0.{number}", "rangeEnd": f"10.1.0.{number}"}]]
        results.append(lab.add(host, f"c{number}", {**conf, "ipam": {"type": "host-local", "ranges": ranges}}))
    (one, _), (_, far) = results
    lab.ping(one, far, families=(4,))
    host = lab.hosts[0]
    for harm in (
        "ip link del vxlan77",
        f"ip link del {_bridge(host)}",
        f"ip link del {_bridge(host)}; ip link del vxlan77",
    ):
        host.run(["sh", "-c", harm])
        wait_until(lambda: can_ping(one, address_of(far, 4)), 3.0, harm)


def test_killed_agent(overlay: Callable[..., OverlayLab]) -> None:
    """SIGKILL and a new agent: no entry of a peer that is still there goes for a moment, and what changed while nobody
    followed is made up for."""
    lab = overlay()
    a, b = lab.hosts
    start(lab)
    one, _ = lab.add(a, "one")
    two, second = lab.add(b, "two")
    gone, _ = lab.add(b, "gone")
    wait_in_step(lab)
    with watched(a) as changes:
        lab.agents[0].stop(signal.SIGKILL)
        lab.delete(b, gone)
        late, third = lab.add(b, "late")
        lab.agents[0].start(config=CONFIG)
        wait_in_step(lab, a)
        lab.ping(one, second)
        lab.ping(one, third)
    macs = {link["address"] for each in (two, late) for link in each.ip_json("link", "show", "eth0")}
    lost = [each for each in changes if each.gone and getattr(each.entry, "mac", "") in macs]
    assert not lost, "entries of peers that are there were removed"
    assert not [each for each in changes if each.gone and each.link is not None and "vxlan" in each.link.name]


@pytest.mark.parametrize("family", [4, 6])
def test_new_address_and_mtu(overlay: Callable[..., OverlayLab], family: int) -> None:
    """A host whose address changes keeps its device, tells etcd, and its peers follow; one whose uplink has another MTU
    gives it, less the overhead, to device, bridge and containers."""
    lab = overlay(family=family)
    a, b = lab.hosts
    start(lab)
    one, first = lab.add(a, "one")
    two, second = lab.add(b, "two")
    lab.ping(one, second)
    index = a.ip_json("link", "show", lab.devices(a)[0])[0]["ifindex"]
    old = lab.tunnel_address(a)
    new, length = ("192.0.2.77", 24) if family == 4 else ("2001:db8:a::77", 64)
    # In this order: with the first IPv4 address of a subnet the kernel takes the others.
    a.ip("addr", "del", f"{old}/{length}", "dev", "eth0")
    a.ip("addr", "add", f"{new}/{length}", "dev", "eth0", *(["nodad"] if family == 6 else []))
    wait_until(lambda: new in {vtep for _, vtep in lab.fdb(b, lab.devices(b)[0])}, 5.0, "the peer follows")
    wait_in_step(lab)
    lab.ping(one, second)
    lab.ping(two, first)
    assert a.ip_json("link", "show", lab.devices(a)[0])[0]["ifindex"] == index
    overhead = 50 if family == 4 else 70
    a.ip("link", "set", "eth0", "mtu", "1300")  # too little for IPv6 in the tunnel
    wait_until(lambda: any("MTU 1300" in each["msg"] for each in lab.agents[0].logged("overlay-problem")), 2.0, "word")
    for mtu in (1400, 1500):
        a.ip("link", "set", "eth0", "mtu", str(mtu))
        for where, link in ((a, lab.devices(a)[0]), (a, _bridge(a)), (one, "eth0")):
            wait_until(lambda: where.ip_json("link", "show", link)[0]["mtu"] == mtu - overhead, 2.0, f"{link} {mtu}")  # noqa: B023
    assert lab.agents[0].logged("overlay-uplink")
    lab.ping(one, second)


def _macs(host: Host, *names: str) -> list[str]:
    """Of those links of *host* that are there."""
    return sorted(link["address"] for link in host.ip_json("link", "show") if link["ifname"] in names)


def _bridge(host: Host) -> str:
    names = [str(link["ifname"]) for link in host.ip_json("link", "show", "type", "bridge")]
    return next(name for name in names if name.startswith("ovl"))
