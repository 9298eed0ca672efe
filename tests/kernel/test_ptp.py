"""The ptp plugin on the real kernel: a routed pair for each container, and nothing of it afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from netns_fixtures import (
    Container,
    EchoServer,
    Outside,
    assert_unchanged,
    can_ping,
    can_tcp,
    netns_snapshot,
    tcp_peer_seen,
    wait_until,
)
from pycni.cni.names import Attachment, host_link_name
from tests.kernel.bridge_lab import Conf, Lab, address_of, network, static, words
from tests.kernel.chain_lab import REFERENCE, Chain

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:veth")

LINK = host_link_name(Attachment("net", "c1", "eth0"))
SWITCHES = ["*/sysctl/*", "*type=anycast", "*dst=fe80*", "*neighbour*"]
DEFAULTS = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


def ptp(ipam: Conf | None = None, **keys: Any) -> Conf:
    ranges = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
    plain = {"type": "host-local", "ranges": ranges, "routes": DEFAULTS}
    return {"cniVersion": "1.1.0", "name": "net", "type": "ptp", "ipMasq": True, "ipam": ipam or plain, **keys}


@pytest.fixture
def far(lab: Lab) -> Lab:
    """`lab` with link numbers unlike those of its containers: of a pair with equal ones the kernel reports the carrier
    only after a second (linkwatch_urgent_event, link_watch.c), as no host with a network card of its own does."""
    lab.host.run(["sh", "-c", "ip link add spare type veth && ip link del spare"])
    return lab


def test_container_neighbour_host_and_outside_are_reached(
    far: Lab, outside: Outside, c1: Container, c2: Container
) -> None:
    """At the first packet, in both families: the gateway, a container of the same network with its own address, the
    host, the world behind a masquerade; DEL leaves nothing but the forwarding switches."""
    lab, conf = far, ptp()
    before = lab.traces(c1, c2)
    one, two = lab.add(conf, c1), lab.add(conf, c2)
    server = EchoServer(c2)
    for family, gateway in ((4, "10.1.0.1"), (6, "fd00:1::1")):
        assert tcp_peer_seen(c1, address_of(two, family), server.port).address == address_of(one, family)
        assert tcp_peer_seen(lab.host, address_of(two, family), server.port).address == gateway
        assert can_ping(c1, gateway)
        assert outside.seen_from(c1, family).address == outside.host_address(family)
        assert outside.seen_from(c2, family, proto="udp").address == outside.host_address(family)
    server.close()
    for container, result in ((c1, one), (c2, two)):
        assert lab.check(conf, container, result).ok
        lab.delete(conf, container)
    assert_unchanged(before, lab.traces(c1, c2), ignore=SWITCHES)
    assert lab.host.sysctl("net/ipv4/ip_forward") == lab.host.sysctl("net/ipv6/conf/all/forwarding") == "1"


def test_result_and_links(far: Lab, c1: Container) -> None:
    """Host link first, addresses on the second interface; the subnet goes by way of the gateway, which stands on the
    host's end as an address of its own beside a route to the container."""
    result = far.add(ptp(mtu=1400), c1)
    host, inside = far.link(LINK), far.link("eth0", of=c1)
    assert result["interfaces"] == [
        {"name": LINK, "mac": host["address"], "mtu": 1400},
        {"name": "eth0", "mac": inside["address"], "mtu": 1400, "sandbox": c1.path},
    ]
    assert result["ips"] == [
        {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1},
        {"address": "fd00:1::2/64", "gateway": "fd00:1::1", "interface": 1},
    ]
    assert result["routes"] == DEFAULTS
    inner = {(r["dst"], r.get("gateway"), r.get("prefsrc")) for r in c1.ip_json("route", "show")}
    assert inner == {
        ("default", "10.1.0.1", None),
        ("10.1.0.0/24", "10.1.0.1", "10.1.0.2"),
        ("10.1.0.1", None, "10.1.0.2"),
    }
    inner6 = {(r["dst"], r.get("gateway")) for r in c1.ip_json("-6", "route", "show") if "fe80" not in r["dst"]}
    assert inner6 == {("default", "fd00:1::1"), ("fd00:1::/64", "fd00:1::1"), ("fd00:1::1", None)}
    assert [r["dst"] for r in far.host.ip_json("route", "show", "dev", LINK)] == ["10.1.0.2"]
    assert {r["dst"] for r in far.host.ip_json("-6", "route", "show", "dev", LINK)} >= {"fd00:1::2", "fd00:1::1"}
    assert far.host.sysctl(f"net/ipv6/conf/{LINK}/accept_ra") == "0"
    far.delete(ptp(), c1)


ODD: dict[str, tuple[Conf, list[str]]] = {
    "an address without a subnet": (
        {"type": "static", "addresses": [{"address": "10.9.9.9/32", "gateway": "169.254.1.1"}], "routes": DEFAULTS[:1]},
        ["169.254.1.1"],
    ),
    "two addresses with one gateway": (
        {
            "type": "static",
            "addresses": [
                {"address": "10.1.0.5/24", "gateway": "10.1.0.1"},
                {"address": "10.1.0.6/24", "gateway": "10.1.0.1"},
                {"address": "fd00:1::5/64"},
                {"address": "fd00:1::6/64"},
            ],
        },
        ["10.1.0.1", "fd00:1::1"],
    ),
    "no gateway named": (static("10.1.0.5/24", "fd00:1::5/64"), ["10.1.0.1", "fd00:1::1"]),
    "a link-local gateway": (
        {"type": "static", "addresses": [{"address": "fd00:1::5/128", "gateway": "fe80::1"}], "routes": DEFAULTS[1:]},
        [],
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_addresses_of_every_shape(far: Lab, c1: Container, name: str) -> None:
    """Each address is reached from the host, and each gateway from the container; CHECK and DEL agree."""
    ipam, gateways = ODD[name]
    conf = ptp(ipam, ipMasq=False)
    before = far.traces(c1)
    result = far.add(conf, c1)
    for ip in result["ips"]:
        assert can_ping(far.host, ip["address"].split("/")[0])
    for gateway in gateways:
        assert can_ping(c1, gateway)
    assert far.check(conf, c1, result).ok
    far.delete(conf, c1)
    assert_unchanged(before, far.traces(c1), ignore=SWITCHES)


REFUSED: list[tuple[Conf, int, str]] = [
    (ptp(ipam={}) | {"ipam": {}}, 7, "ipam.type is missing"),
    (ptp(static("10.1.0.5/32")), 7, "no address for a gateway"),
    (ptp({"type": "static", "addresses": [{"address": "10.1.0.5/24", "gateway": "fd00::1"}]}), 7, "not of one family"),
    (ptp({"type": "static", "addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.5"}]}), 7, "own address"),
    (ptp({"type": "static", "addresses": []}), 7, "missing IP config"),
    (ptp(static("10.1.0.5/24", "10.1.0.5/24")), 999, "failed to add IP addr"),
    (ptp(static("fd00::5/64"), mtu=1279), 999, "fd00::5/64"),
    (ptp(static("10.1.0.5/24", routes=[{"dst": "10.7.0.0/16", "gw": "10.8.0.1"}])), 999, "failed to add route"),
    (ptp(ipMasqBackend="foo"), 7, "foo"),
    (ptp(mtu=70000), 7, "mtu"),
]


def test_a_refused_add_leaves_nothing(far: Lab, c1: Container) -> None:
    """Whatever is wrong: a code, words that name it, and both sides as they were."""
    before = far.traces(c1)
    for conf, code, said in REFUSED:
        error = far.refused(conf, c1)
        assert error["code"] == code
        assert said in words(error)
        assert_unchanged(before, far.traces(c1), ignore=["*/sysctl/net/ipv6/conf/lo*"])


def test_a_second_add_is_refused_and_the_first_stays(far: Lab, c1: Container) -> None:
    """Also where the state file was lost: the link of that name is the first one's."""
    result = far.add(ptp(), c1)
    before = far.traces(c1)
    assert far.refused(ptp(), c1)["code"] == 105
    assert_unchanged(before, far.traces(c1), ignore=["*neighbour*"])
    far.change_state("DELETE FROM attachments")
    assert far.refused(ptp(), c1)["code"] in (7, 105)
    assert "eth0" in c1.links()
    assert [ip["address"] for ip in result["ips"]]
    far.delete(ptp(), c1)


def test_isolated_bridges_stay_isolated(far: Lab, c1: Container, c2: Container) -> None:
    """A container of a ptp network neither reaches one behind an isolated bridge of ours nor is reached by it."""
    one, two = far.add(ptp(), c1), far.add(network("other", number=2), c2)
    servers = {c1: EchoServer(c1), c2: EchoServer(c2)}
    for family in (4, 6):
        assert not can_tcp(c1, address_of(two, family), servers[c2].port, deadline_s=0.3)
        assert not can_tcp(c2, address_of(one, family), servers[c1].port, deadline_s=0.3)
    for server in servers.values():
        server.close()
    far.delete(ptp(), c1)
    open_network = network("other", number=2, isolate=False)
    far.delete(open_network, c2)
    one, two = far.add(ptp(), c1), far.add(open_network, c2)
    for family in (4, 6):
        assert can_ping(c1, address_of(two, family))
    far.delete(ptp(), c1)
    far.delete(open_network, c2)


@pytest.mark.needs("kernel:iptables_nft", "kernel:xt_comment")
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_a_forward_policy_of_drop_is_answered(
    far: Lab, outside: Outside, c1: Container, c2: Container, backend: str
) -> None:
    """Outside is reached all the same; the rules for one container go with it while its neighbour's stay."""
    conf = ptp(ipMasqBackend=backend)
    for tool in ("iptables", "ip6tables"):
        far.host.run([tool, "-P", "FORWARD", "DROP"])
    one, two = far.add(conf, c1), far.add(conf, c2)
    for family in (4, 6):
        assert outside.seen_from(c1, family).address == outside.host_address(family)
    assert far.check(conf, c1, one).ok
    far.delete(conf, c1)
    rules = far.host.run(["sh", "-c", "iptables-save; ip6tables-save"]).stdout + far.ruleset()
    assert LINK not in rules
    assert outside.seen_from(c2, 4).address == outside.host_address(4)
    assert far.check(conf, c2, two).ok
    far.delete(conf, c2)
    rules = far.host.run(["sh", "-c", "iptables-save; ip6tables-save"]).stdout + far.ruleset()
    assert "PYCNI" not in rules
    assert "pycni" not in rules


CHANGES = {
    "eth0 is down": ("c1", "ip link set eth0 down"),
    "address 10.1.0.2/24 is missing on eth0": ("c1", "ip addr del 10.1.0.2/24 dev eth0"),
    "route 0.0.0.0/0 is missing": ("c1", "ip route del default"),
    f"host link {LINK} is down": ("host", f"ip link set {LINK} down"),
    f"gateway address 10.1.0.1 is missing on {LINK}": ("host", f"ip addr del 10.1.0.1/32 dev {LINK}"),
    f"the host has no route to fd00:1::2 through {LINK}": ("host", f"ip -6 route del fd00:1::2 dev {LINK}"),
    "10.1.0.2": ("host", "nft delete element inet pycni masq4 { 10.1.0.2 }"),
    "eth0 is missing": ("c1", "ip link del eth0"),
}


def test_check_names_what_was_changed(far: Lab, c1: Container) -> None:
    """Each change alone, code 106; a foreign address or a tcpdump is no difference."""
    for said, (where, command) in CHANGES.items():
        result = far.add(ptp(), c1)
        c1.run(["ip", "addr", "add", "10.99.0.1/24", "dev", "eth0"])
        assert far.check(ptp(), c1, result).ok
        (c1 if where == "c1" else far.host).run(["sh", "-c", command])
        answer = far.check(ptp(), c1, result)
        assert answer.error_code == 106
        assert said in answer.json["msg"]
        far.delete(ptp(), c1)


def test_del_works_with_the_namespace_gone_and_again(far: Lab, c1: Container) -> None:
    """Link, rules, lease and record go, as often as it is called."""
    before = far.traces()
    far.add(ptp(), c1)
    c1.delete()
    far.delete(ptp(), "c1")
    far.delete(ptp(), "c1")
    assert_unchanged(before, far.traces(), ignore=[*SWITCHES, "*/file/run/netns/c1"])


def test_gc(far: Lab, boxes: Callable[[int], list[Container]]) -> None:
    """Who is not on the list goes, with its address; also a link that no record names; who is on it stays connected."""
    one, two, three = boxes(3)
    result = far.add(ptp(), one)
    for container in (two, three):
        far.add(ptp(), container)
    far.change_state("DELETE FROM attachments WHERE container_id = 'c3'")
    assert far.gc(ptp(), one).ok
    wait_until(lambda: far.host.links() == ["lo", LINK], 5)
    assert far.check(ptp(), one, result).ok
    assert can_ping(one, "fd00:1::1")
    assert far.gc(ptp()).ok
    wait_until(lambda: far.host.links() == ["lo"], 5)
    assert (far.records(), far.leases()) == ({}, [])


def test_status(far: Lab, c1: Container) -> None:
    """Code 50 where no ADD could succeed: no address left, no backend; 7 for a wrong configuration."""
    tight = ptp({"type": "host-local", "subnet": "10.1.0.0/30"})
    assert far.call("STATUS", tight).ok
    far.add(tight, c1)
    assert far.call("STATUS", tight).error_code in (50, 51)
    assert far.call("STATUS", ptp({"type": "absent"})).error_code is not None
    assert far.call("STATUS", ptp(mtu=-1)).error_code == 7
    far.delete(tight, c1)


@pytest.mark.needs("tool:/usr/lib/cni/ptp", "tool:iptables")
@pytest.mark.parametrize("version", ["0.2.0", "1.0.0"])
def test_result_is_the_references(far: Lab, c1: Container, version: str) -> None:
    """Same shape, addresses, routes and indexes for the same configuration; each one's CHECK accepts the other's."""
    conf = ptp(ipMasq=False, dns={"nameservers": ["10.1.0.1"]})
    ours = Chain(far, [conf], version=version)
    theirs = Chain(far, [conf], version=version, by={"ptp": REFERENCE})
    shapes = []
    for one, other in ((ours, theirs), (theirs, ours)):
        result = one.add(c1)
        if version == "1.0.0":
            assert other.check(c1, result) == []
        shapes.append((_nameless(result), _routes(c1)))
        one.delete(c1, result)
    assert shapes[0] == shapes[1]


def _nameless(result: Conf) -> str:
    """A result without what is random in it."""
    for number, interface in enumerate(result.get("interfaces", [])):
        interface["mac"] = ""
        interface["name"] = interface["name"] if number else "host"
    for ip in result.get("ips", []):
        ip["address"] = ip["address"].split("/")[1]
    for family in ("ip4", "ip6"):
        if family in result:
            result[family]["ip"] = ""
    return json.dumps(result, sort_keys=True)


def _routes(container: Container) -> list[tuple[str, Any]]:
    shown = [*container.ip_json("route", "show"), *container.ip_json("-6", "route", "show")]
    return sorted((r["dst"], r.get("gateway")) for r in shown if not r["dst"].startswith("fe80"))


@pytest.mark.needs("tool:/usr/lib/cni/ptp", "tool:iptables")
@pytest.mark.parametrize("adds", ["ours", "reference"])
def test_del_by_the_other_plugin_takes_the_link(far: Lab, c1: Container, adds: str) -> None:
    """A network that changes hands under a running container; what ours recorded, its GC forgets."""
    plugins = Chain(far, [ptp(ipMasq=False)])
    before = netns_snapshot(c1)
    plugins.by["ptp"] = far.plugins if adds == "ours" else REFERENCE
    result = plugins.add(c1)
    plugins.by["ptp"] = REFERENCE if adds == "ours" else far.plugins
    plugins.delete(c1, result)
    wait_until(lambda: far.host.links() == ["lo"], 5)
    assert_unchanged(before, netns_snapshot(c1), ignore=["*/sysctl/*", "*type=anycast"])
    plugins.by.clear()
    plugins.gc()
    assert (far.records(), far.leases()) == ({}, [])


def test_del_spares_the_interface_of_another_network(far: Lab, c1: Container) -> None:
    """An ADD that failed because the container has eth0 already is followed by a DEL: that eth0 stays."""
    far.add(network("other", number=2), c1)
    assert far.refused(ptp(), c1)["code"] == 105
    far.delete(ptp(), c1)
    assert can_ping(c1, "10.2.0.1")
    far.delete(network("other", number=2), c1)
