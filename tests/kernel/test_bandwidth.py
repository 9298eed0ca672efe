"""The bandwidth plugin on the real kernel: token buckets in both directions, checked by the kernel's own counters."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from netns_fixtures import Container, Host, assert_unchanged, can_ping, netns_snapshot, wait_until
from tests.kernel.bridge_lab import Conf, Lab, network
from tests.kernel.chain_lab import REFERENCE, Chain

pytestmark = [
    pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth"),
    pytest.mark.needs("kernel:ifb", "kernel:tbf", "tool:tc"),
]

IFB = "bwp623e1c388032"  # bwp and the first 12 digits of sha512("netc1")
BOTH = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 16_000_000, "egressBurst": 1_600_000}


def bandwidth(**limits: Any) -> Conf:
    return {"type": "bandwidth", **limits}


def chain(lab: Lab, **limits: Any) -> Chain:
    return Chain(lab, [network(), bandwidth(**limits)])


def qdiscs(host: Host, link: str) -> dict[str, Conf]:
    """Kind to what `tc -s` says of the queueing disciplines of a link."""
    shown = json.loads(host.run(["tc", "-j", "-s", "-d", "qdisc", "show", "dev", link]).stdout)
    return {one["kind"]: one for one in shown}


def host_link(result: Conf) -> str:
    return str(result["interfaces"][1]["name"])


def test_both_directions_are_limited(lab: Lab, c1: Container) -> None:
    """tbf on the host's end for what the container receives; what it sends is led through an ifb, IPv4 and IPv6 alike;
    the ifb is an interface of the result; DEL leaves no trace."""
    lab.add(network(), c1)
    lab.delete(network(), c1)
    before = lab.traces(c1)
    plugins = chain(lab, **BOTH)
    result = plugins.add(c1)
    shaped, ifb = qdiscs(lab.host, host_link(result)), lab.link(IFB)
    assert result["interfaces"][3] == {"name": IFB, "mac": ifb["address"]}
    assert (ifb["linkinfo"]["info_kind"], ifb["mtu"], "UP" in ifb["flags"]) == ("ifb", 1500, True)
    assert shaped["tbf"]["handle"] == "1:"
    assert shaped["tbf"]["options"]["rate"] == 1_000_000
    assert shaped["ingress"]["handle"] == "ffff:"
    assert qdiscs(lab.host, IFB)["tbf"]["options"]["rate"] == 2_000_000
    for gateway in ("10.1.0.1", "fd00:1::1"):
        seen = qdiscs(lab.host, IFB)["tbf"]["packets"]
        assert can_ping(c1, gateway)
        assert qdiscs(lab.host, IFB)["tbf"]["packets"] > seen
    assert plugins.check(c1, result) == []
    plugins.delete(c1, result)
    assert_unchanged(before, lab.traces(c1), ignore=["*dst=fe80*", "*neighbour*"])


SEND = """
import socket, sys
address, count = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
sender = socket.socket(family, socket.SOCK_DGRAM)
for number in range(count):
    sender.sendto(bytes(1400), (address, 9))
"""


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_burst_beyond_the_limit_is_held_back(lab: Lab, c1: Container, direction: str, family: int) -> None:
    """200 packets at once at 80 kbit/s with a burst of ten: the kernel counts drops in this direction, not in the
    other."""
    limits = {f"{direction}Rate": 80_000, f"{direction}Burst": 8 * 14_420}
    plugins = chain(lab, **limits)
    result = plugins.add(c1)
    gateway, own = {4: ("10.1.0.1", "10.1.0.2"), 6: ("fd00:1::1", "fd00:1::2")}[family]
    sender, target = (c1, gateway) if direction == "egress" else (lab.host, own)
    assert can_ping(c1, gateway)
    sender.run(["python3", "-c", SEND, target, "200"])
    device = IFB if direction == "egress" else host_link(result)
    counted = qdiscs(lab.host, device)["tbf"]
    assert counted["drops"] > 100
    assert 5 <= counted["packets"] < 100
    assert (IFB in lab.host.links()) == (direction == "egress")
    plugins.delete(c1, result)


def test_limits_of_the_runtime_and_of_the_list(lab: Lab, c1: Container) -> None:
    """Those of the capability count where the list has none; a list's own are not mixed with them."""
    plugins = Chain(lab, [network()])
    result = plugins.add(c1)
    asked = {"runtimeConfig": {"bandwidth": {"IngressRate": 8_000_000, "IngressBurst": 800_000}}}  # as containerd does
    link = host_link(result)
    own = bandwidth(**asked, ingressRate=80_000, ingressBurst=80_000)
    for conf, rate in ((bandwidth(**asked), 1_000_000), (own, 10_000)):
        assert plugins.call("ADD", {**conf, "prevResult": result}, c1).result() == result
        assert qdiscs(lab.host, link)["tbf"]["options"]["rate"] == rate
        assert plugins.call("CHECK", {**conf, "prevResult": result}, c1).ok
        assert plugins.call("DEL", conf, c1).ok
        assert set(qdiscs(lab.host, link)) == {"noqueue"}
    for conf in (bandwidth(), bandwidth(ingressRate=0, **asked), bandwidth(runtimeConfig={"bandwidth": {}})):
        assert plugins.call("ADD", {**conf, "prevResult": result}, c1).result() == result
        assert set(qdiscs(lab.host, link)) == {"noqueue"}
    plugins.delete(c1, result)


def test_a_burst_below_a_packet_lets_packets_pass(lab: Lab, c1: Container) -> None:
    """The kernel drops what is larger than the burst: one packet of the link's MTU always passes."""
    plugins = chain(lab, ingressRate=80_000, ingressBurst=456, egressRate=80_000, egressBurst=456)
    result = plugins.add(c1)
    c1.run(["ping", "-c", "1", "-W", "5", "-s", "1472", "-M", "do", "10.1.0.1"])
    assert plugins.check(c1, result) == []
    plugins.delete(c1, result)


@pytest.mark.parametrize("limits", [BOTH, {"ingressRate": 8_000_000, "ingressBurst": 800_000}])
def test_a_second_add_is_refused_and_the_first_stays(lab: Lab, c1: Container, limits: Conf) -> None:
    """Code 105, and not a trace of the attempt; DEL may come any number of times."""
    plugins = chain(lab, **limits)
    result = plugins.add(c1)
    before = lab.traces(c1)
    again = plugins.call("ADD", {**plugins.plugins[1], "prevResult": result}, c1)
    assert again.error_code == 105
    assert_unchanged(before, lab.traces(c1), ignore=["*neighbour*"])
    assert plugins.check(c1, result) == []
    plugins.delete(c1, result)
    plugins.delete(c1, result)


def test_a_second_interface_of_the_container_is_refused(lab: Lab, c1: Container) -> None:
    """The device is named after network and container, as the reference's: eth1 may not take eth0's, nor its DEL."""
    plugins = chain(lab, **BOTH)
    result = plugins.add(c1)
    second = Chain(lab, [network()]).add(c1, ifname="eth1")
    assert len(lab.host.links()) == 5
    answer = plugins.call("ADD", {**plugins.plugins[1], "prevResult": second}, c1, ifname="eth1")
    assert answer.error_code == 105
    assert plugins.call("DEL", plugins.plugins[1], c1, ifname="eth1").ok
    assert plugins.check(c1, result) == []
    assert set(qdiscs(lab.host, host_link(second))) == {"noqueue"}
    plugins.delete(c1, result)
    lab.delete(network(), c1, ifname="eth1")


def test_del_frees_the_device_with_the_namespace_gone(lab: Lab, c1: Container) -> None:
    """And GC does, for a container that is not on its list, also where the state file was lost."""
    plugins = chain(lab, **BOTH)
    plugins.add(c1)
    c1.delete()
    plugins.delete("c1")
    assert IFB not in lab.host.links()
    assert lab.records() == {}


@pytest.mark.parametrize("alive", [True, False])
def test_del_frees_a_device_that_no_record_names(lab: Lab, c1: Container, alive: bool) -> None:
    """As after a lost state file: the device says whose it is, so a DEL of another interface leaves it."""
    plugins = chain(lab, **BOTH)
    result = plugins.add(c1)
    lab.change_state("DELETE FROM attachments WHERE part = 'bandwidth'")
    limits = plugins.plugins[1]
    assert plugins.call("DEL", limits, c1, ifname="eth1").ok
    assert IFB in lab.host.links()
    if not alive:
        c1.delete()
    assert plugins.call("DEL", limits, c1 if alive else "c1").ok
    assert IFB not in lab.host.links()
    assert not alive or set(qdiscs(lab.host, host_link(result))) == {"noqueue"}
    lab.delete(network(), "c1")


def test_gc_frees_the_devices_of_the_dead(lab: Lab, boxes: Callable[[int], list[Container]]) -> None:
    """Recorded or not; who is on the list keeps the limits."""
    plugins = chain(lab, **BOTH)
    containers = boxes(3)
    results = [plugins.add(container) for container in containers]
    lab.change_state("DELETE FROM attachments WHERE part = 'bandwidth' AND container_id <> 'c2'")
    ours = {result["interfaces"][3]["name"] for result in results}
    assert ours <= set(lab.host.links())
    plugins.gc("c1")
    wait_until(lambda: ours & set(lab.host.links()) == {IFB}, 5)
    assert plugins.check(containers[0], results[0]) == []
    plugins.gc()
    wait_until(lambda: set(lab.host.links()) == {"lo"}, 5)
    assert lab.records() == {}


TBF = "tc qdisc replace dev {veth} root handle 1: tbf"
CHANGES = {
    "is limited to 400000 bits a second instead of 8000000": f"{TBF} rate 400kbit burst 100kb limit 10kb",
    "does not have a burst of 800000 bits": f"{TBF} rate 8mbit burst 10kb limit 10kb",
    "has no rate limit": "tc qdisc del dev {veth} root",
    f"{IFB} has no rate limit": "tc qdisc del dev {ifb} root",
    f"is not led through {IFB}": "tc qdisc del dev {veth} ingress",
    f"device {IFB} is down": "ip link set {ifb} down",
    f"device {IFB} is missing": "ip link del {ifb}",
}


def test_check_names_every_limit_that_was_changed(lab: Lab, c1: Container) -> None:
    """Rate, burst, the device and the way through it, one after the other."""
    plugins = chain(lab, **BOTH)
    for said, command in CHANGES.items():
        result = plugins.add(c1)
        assert plugins.check(c1, result) == []
        lab.host.run(command.format(veth=host_link(result), ifb=IFB).split())
        answer = plugins.check(c1, result)[-1]
        assert answer.error_code == 106
        assert said in answer.json["msg"]
        plugins.delete(c1, result)


REFUSED: list[tuple[Conf, int, str]] = [
    ({"ingressRate": 1000}, 7, "if rate is set, burst must also be set"),
    ({"egressBurst": 1000}, 7, "if burst is set, rate must also be set"),
    ({"egressRate": 1000, "egressBurst": 8 * (2**32 - 1)}, 7, "burst cannot be more than 4GB"),
    ({"egressRate": 7, "egressBurst": 8000}, 7, "less than the 8 bits"),
    ({"ingressRate": -1, "ingressBurst": 1}, 7, "not a whole number"),
    ({"ingressRate": 1.5, "ingressBurst": 1}, 7, "not a whole number"),
    ({"ingressRate": 8000, "ingressBurst": 8000, "unshapedSubnets": ["10.0.0.0/8"]}, 2, "unshapedSubnets"),
]


def test_wrong_limits_are_refused_before_anything_is_done(lab: Lab, c1: Container) -> None:
    """With the reference's words; without prevResult too, where that one panics; on a link that is no pair."""
    plugins = Chain(lab, [network()])
    result = plugins.add(c1)
    before = lab.traces(c1)
    for limits, code, said in REFUSED:
        answer = plugins.call("ADD", {**bandwidth(**limits), "prevResult": result}, c1)
        assert answer.error_code == code
        assert said in answer.json["msg"]
    for limits in ({}, BOTH):
        answer = plugins.call("ADD", bandwidth(**limits), c1)
        assert (answer.error_code, answer.json["msg"]) == (7, "must be called as chained plugin")
    shorter = {**result, "interfaces": result["interfaces"][:1] + result["interfaces"][2:], "ips": []}
    answer = plugins.call("ADD", {**bandwidth(**BOTH), "prevResult": shorter}, c1)
    assert answer.json["msg"] == "no veth peer of container interface found in host ns"
    answer = plugins.call("ADD", {**bandwidth(**BOTH), "prevResult": result}, c1, ifname="lo")
    assert answer.json["msg"] == "container interface lo has no veth peer"
    assert_unchanged(before, lab.traces(c1), ignore=["*neighbour*"])
    plugins.delete(c1, result)


def test_a_foreign_discipline_is_neither_replaced_nor_removed(lab: Lab, c1: Container) -> None:
    """Somebody's own shaping, or filters, on the host's end: code 105 says which, and it is there afterwards."""
    plugins = Chain(lab, [network()])
    result = plugins.add(c1)
    link = host_link(result)
    for foreign in (["root", "handle", "8:", "tbf", "rate", "1mbit", "burst", "10kb", "limit", "10kb"], ["clsact"]):
        lab.host.run(["tc", "qdisc", "add", "dev", link, *foreign])
        before = lab.traces(c1)
        answer = plugins.call("ADD", {**bandwidth(**BOTH), "prevResult": result}, c1)
        assert answer.error_code == 105
        assert f"{link} has a queueing discipline already" in answer.json["msg"]
        assert plugins.call("DEL", bandwidth(**BOTH), c1).ok
        assert_unchanged(before, lab.traces(c1), ignore=["*neighbour*"])
        lab.host.run(["tc", "qdisc", "del", "dev", link, "root" if "root" in foreign else "clsact"])
    plugins.delete(c1, result)


@pytest.mark.parametrize("way", ["DEL", "GC"])
@pytest.mark.parametrize("kind", ["5: tbf rate 1mbit burst 10kb limit 10kb", "1: pfifo"])
def test_a_discipline_that_took_the_place_of_ours_stays(lab: Lab, c1: Container, kind: str, way: str) -> None:
    """Somebody else's shaping, of another handle or kind, and room for filters: only what ADD made is taken away."""
    plugins = chain(lab, **BOTH)
    result = plugins.add(c1)
    link = host_link(result)
    for verb, what in (("del", "root"), ("add", f"root handle {kind}"), ("del", "ingress"), ("add", "clsact")):
        lab.host.run(["tc", "qdisc", verb, "dev", link, *what.split()])
    before = qdiscs(lab.host, link)
    plugin = {**plugins.plugins[1], **({"cni.dev/valid-attachments": []} if way == "GC" else {})}
    assert plugins.call(way, plugin, c1 if way == "DEL" else "").ok
    assert qdiscs(lab.host, link).keys() == before.keys() == {kind.split()[1], "clsact"}
    wait_until(lambda: IFB not in lab.host.links(), 5)
    plugins.delete(c1, result)


def test_status(lab: Lab) -> None:
    """Code 7 for limits that no ADD could set, else success."""
    plugins = Chain(lab, [])
    assert plugins.call("STATUS", bandwidth(**BOTH), "").ok
    assert plugins.call("STATUS", bandwidth(ingressRate=1), "").error_code == 7


@pytest.mark.needs("tool:/usr/lib/cni/bandwidth")
@pytest.mark.parametrize("adds", ["ours", "reference"])
def test_the_other_plugin_finds_its_way(lab: Lab, c1: Container, adds: str) -> None:
    """Result and queueing disciplines are the reference's, its CHECK accepts what we made and ours what it made, and
    a DEL by the other one frees the device."""
    plugins = chain(lab, **BOTH)
    sides = {"ours": lab.plugins, "reference": REFERENCE}
    shapes = []
    for side in sides.values():
        plugins.by["bandwidth"] = side
        result = plugins.add(c1)
        taken = netns_snapshot(lab.host).having("*/qdisc/*")
        shapes.append((_nameless(result, c1), taken))
        plugins.delete(c1, result)
    assert shapes[0] == shapes[1]
    plugins.by["bandwidth"] = sides[adds]
    result = plugins.add(c1)
    plugins.by["bandwidth"] = sides["reference" if adds == "ours" else "ours"]
    assert plugins.check(c1, result) == []
    plugins.delete(c1, result)
    assert IFB not in lab.host.links()
    plugins.by.clear()
    plugins.gc()
    assert lab.records() == {}


def _nameless(result: Conf, container: Container) -> Conf:
    """A result without what is random in it, and without the empty dns that the reference writes."""
    interfaces = [{**one, "mac": ""} for one in result["interfaces"]]
    return {key: value for key, value in {**result, "interfaces": interfaces, "ips": []}.items() if value}
