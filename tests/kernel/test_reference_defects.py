"""The reference plugins' known defects around bridge, IPAM and masquerading: here each is done right.

Found by running containernetworking/plugins 1.x; docs/bridge.md lists the differences that users notice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from netns_fixtures import Container, Outside, assert_unchanged, can_ping
from tests.kernel.bridge_lab import Lab, network, static

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

BACKENDS = ["nftables", "iptables"]
VERDICT = re.compile(r"(?m)(?:accept|drop|masquerade|return)$")
SWITCHES = ["*/sysctl/*", "*type=anycast", "*/file/run/netns/*"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gone", [True, False])
def test_del_without_namespace_leaks_no_rule(wide: Lab, c1: Container, backend: str, gone: bool) -> None:
    """Reference: an empty or vanished CNI_NETNS leaves the masquerade chain and the MAC check behind, for ever."""
    conf = network(ipMasqBackend=backend, macspoofchk=backend == "nftables")
    before = wide.traces()
    wide.add(conf, c1)
    if gone:
        c1.delete()
    wide.delete(conf, "c1", netns=c1.path if gone else "")
    assert wide.gc(conf).ok
    tables = ["*/nft/ip*", "*/ip*tables-*"] if backend == "iptables" else []  # iptables makes them, empty they stay
    assert_unchanged(before, wide.traces(), ignore=[*SWITCHES, *tables])
    assert "c1" not in wide.ruleset()


def test_failed_add_can_be_repeated(lab: Lab, c1: Container) -> None:
    """Reference: the pair of a failed ADD stays, and the next one in that container fails with "already exists"."""
    wrong = static("10.1.0.5/24", routes=[{"dst": "203.0.113.0/24", "gw": "192.0.2.1"}])
    before = lab.traces(c1)
    lab.refused(network(ipam=wrong), c1)
    assert_unchanged(before, lab.traces(c1))
    lab.add(network(), c1)
    assert can_ping(c1, "10.1.0.1")


def test_wrong_backend_is_found_before_anything_is_made(lab: Lab, c1: Container) -> None:
    """Reference: found out last, with everything else configured and left there."""
    before = lab.traces(c1)
    error = lab.refused(network(ipMasqBackend="foo"), c1)
    assert error["msg"] == 'unknown ipmasq backend "foo"'
    assert "state" not in "".join(set(lab.traces(c1)) - set(before))
    assert_unchanged(before, lab.traces(c1))


def test_own_namespace_gets_one_answer_and_no_link(lab: Lab) -> None:
    """Reference: everything is made, the result printed, and then an error behind it: no caller can parse that."""
    before = lab.traces()
    answer = lab.call("ADD", network(), "c1", netns="/proc/self/ns/net")
    assert json.loads(answer.stdout)["code"] == 8
    assert_unchanged(before, lab.traces())


def test_layer_2_bridge_can_be_checked(lab: Lab, c1: Container) -> None:
    """Reference: CHECK asks an IPAM plugin that is not there, "no plugin name provided"."""
    conf = network(ipam={}, isDefaultGateway=None, ipMasq=None)
    result = lab.add(conf, c1)
    assert lab.check(conf, c1, result).ok
    c1.ip("link", "set", "eth0", "down")
    assert lab.check(conf, c1, result).error_code == 106


def test_layer_2_bridge_keeps_its_mac(lab: Lab, boxes: Callable[[int], list[Container]]) -> None:
    """Reference: it takes the lowest MAC of its ports, so CHECK of an earlier container fails after a later ADD."""
    conf = network(ipam={}, isDefaultGateway=None, ipMasq=None)
    containers = boxes(4)
    results = [
        lab.add({**conf, "runtimeConfig": {"mac": f"02:00:00:00:00:0{9 - number}"}}, container)
        for number, container in enumerate(containers)
    ]
    for container, result in zip(containers, results, strict=True):
        assert lab.check(conf, container, result).ok


def test_gc_collects(lab: Lab, c1: Container, c2: Container) -> None:
    """Reference: GC of every plugin answers success and does nothing."""
    lab.add(network(), c1)
    lab.add(network(), c2)
    assert lab.gc(network(), c1).ok
    assert (list(lab.records()), lab.leases()) == (["net/c1/eth0"], ["10.1.0.2", "fd00:1::2"])


def test_status_knows_an_exhausted_pool(lab: Lab, c1: Container) -> None:
    """Reference: STATUS answers success, and the next ADD fails."""
    conf = network(ipam={"type": "host-local", "subnet": "10.1.0.0/30"})
    lab.add(conf, c1)
    assert lab.call("STATUS", conf).error_code == 50


def test_addresses_of_a_rebooted_host_are_not_lost(lab: Lab, c1: Container, c2: Container) -> None:
    """Reference: leases of containers that a reboot or crash took stay until the pool is exhausted."""
    conf = network(ipam={"type": "host-local", "subnet": "10.1.0.0/30"})
    lab.add(conf, c1)
    c1.delete()
    assert lab.add(conf, c2)["ips"][0]["address"] == "10.1.0.2/30"


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_interfaces_on_one_masquerading_network(wide: Lab, outside: Outside, c1: Container, backend: str) -> None:
    """Reference: the chain is named without the interface, so DEL of the first fails and cuts off the second."""
    conf = network(families=(4,), isDefaultGateway=None, isGateway=True, ipMasqBackend=backend)
    wide.add(conf, c1)
    second = wide.add(conf, c1, ifname="eth1")
    wide.delete(conf, c1)
    c1.ip("route", "add", "default", "via", "10.1.0.1")
    assert outside.seen_from(c1).address == outside.host_address()
    assert wide.check(conf, c1, second, ifname="eth1").ok
    wide.delete(conf, c1, ifname="eth1")


@pytest.mark.parametrize("backend", BACKENDS)
def test_rules_do_not_grow_with_containers(lab: Lab, boxes: Callable[[int], list[Container]], backend: str) -> None:
    """Reference: a chain and a jump for every address. Here every container after the first brings set elements only,
    and with iptables nothing at all: the rules are the network's."""
    conf = network(ipMasqBackend=backend)
    counts = set()
    for container in boxes(4):
        lab.add(conf, container)
        saved = "".join(lab.host.run([f"{tool}-save"]).stdout for tool in ("iptables", "ip6tables"))
        counts.add((len(VERDICT.findall(lab.ruleset())), saved.count("\n-A ")))
    assert len(counts) == 1


def test_routes_keep_their_mtu_and_advmss(lab: Lab, c1: Container) -> None:
    """Reference: echoed in the result, and never set in the container."""
    routes = [{"dst": "203.0.113.0/24", "mtu": 1300, "advmss": 1200}]
    result = lab.add(network(ipam=static("10.1.0.5/24", routes=routes)), c1)
    assert result["routes"][0]["mtu"] == 1300
    (have,) = c1.ip_json("-d", "route", "show", "203.0.113.0/24")
    assert have["metrics"] == [{"mtu": 1300, "advmss": 1200}]


def test_interfaces_tell_their_mtu(lab: Lab, c1: Container) -> None:
    """Reference: the key of 1.1.0 is never filled."""
    result = lab.add(network(mtu=1400), c1)
    assert [interface["mtu"] for interface in result["interfaces"]] == [1400] * 3


def test_default_gateway_and_default_route_of_ipam(lab: Lab, c1: Container) -> None:
    """Reference: two default routes, "failed to add route … file exists", for both families here."""
    conf = network()
    conf["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    result = lab.add(conf, c1)
    assert [route["dst"] for route in result["routes"]] == ["0.0.0.0/0", "::/0"]
    assert can_ping(c1, "10.1.0.1")


def test_isolation_goes_with_the_last_container(lab: Lab, c1: Container, c2: Container) -> None:
    """Reference (firewall plugin): isolation rules of a network are never removed."""
    lab.add(network("one", 1), c1)
    lab.add(network("two", 2), c2)
    lab.delete(network("one", 1), c1)
    assert '"cni1"' not in lab.ruleset()
    assert '"cni2"' in lab.ruleset()
    lab.delete(network("two", 2), c2)
    assert lab.ruleset() == ""


def test_ipv6_needs_no_iptables_of_its_own(wide: Lab, outside: Outside, c1: Container) -> None:
    """Reference: without the ip6tables program nothing works. Here the default backend starts no program at all."""
    wide.host.run(["mount", "-t", "tmpfs", "tmpfs", "/usr/sbin"])
    wide.add(network(), c1)
    for family in (4, 6):
        assert outside.seen_from(c1, family).address == outside.host_address(family)
    wide.delete(network(), c1)


def test_stale_lease_files_cost_nothing(lab: Lab, c1: Container) -> None:
    """Reference: DEL reads every lease file, and a broken one stops it. Junk stops nothing here."""
    lab.host.run(["sh", "-c", "mkdir -p /var/lib/cni/networks/net && echo junk >/var/lib/cni/networks/net/10.1.0.7"])
    lab.add(network(), c1)
    lab.delete(network(), c1)
    assert lab.records() == {}
