"""Addresses and routes on both sides: gateways, re-addressing, route attributes, DAD, who knows which MAC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from netns_fixtures import Container, Host, Outside, assert_unchanged, can_ping, wait_until
from tests.kernel.bridge_lab import Conf, Frames, Lab, address_of, mac_bytes, network, static, words

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

STALE = "02:00:00:00:00:99"


def test_gateway_without_default_route(lab: Lab, c1: Container) -> None:
    """isGateway alone: the bridge has the addresses, the container reaches it, and no route but those of IPAM."""
    conf = network(isDefaultGateway=None, isGateway=True)
    result = lab.add(conf, c1)
    assert lab.host.addresses("cni1") == ["10.1.0.1/24", "fd00:1::1/64"]
    assert can_ping(c1, "10.1.0.1")
    assert can_ping(c1, "fd00:1::1")
    assert "routes" not in result
    assert not c1.ip_json("-4", "route", "show", "default")


def test_network_without_gateway_leaves_the_host_out(lab: Lab, c1: Container, c2: Container) -> None:
    """Neither gateway flag: no address on the bridge, no forwarding; containers reach each other."""
    conf = network(isDefaultGateway=None, ipMasq=None)
    lab.add(conf, c1)
    two = lab.add(conf, c2)
    assert lab.host.addresses("cni1") == []
    assert lab.host.sysctl("net/ipv4/ip_forward") == "0"
    assert can_ping(c1, address_of(two, 4))
    assert can_ping(c1, address_of(two, 6))
    assert lab.ruleset() == ""


def test_default_route_of_ipam_and_is_default_gateway_are_one(wide: Lab, outside: Outside, c1: Container) -> None:
    """IPAM's `{"dst": "0.0.0.0/0"}` is completed, not doubled (with the reference the ADD fails)."""
    conf = network(families=(4,))
    conf["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    result = wide.add(conf, c1)
    assert [route["dst"] for route in result["routes"]] == ["0.0.0.0/0"]
    assert len(c1.ip_json("-4", "route", "show", "default")) == 1
    assert outside.seen_from(c1).address == outside.host_address()


@pytest.mark.parametrize("force", [True, False])
def test_other_address_in_use_is_refused_unless_forced(lab: Lab, c1: Container, c2: Container, force: bool) -> None:
    """While a container uses the old gateway: the reference's words and nothing changed, or forceAddress."""
    lab.add(network("one", 1, families=(4,)), c1)
    before = lab.traces(c1, c2)
    conf = network("two", 2, families=(4,), bridge="cni1", forceAddress=force)
    if force:
        lab.add(conf, c2)
        assert lab.host.addresses("cni1") == ["10.2.0.1/24"]
        return
    error = lab.refused(conf, c2)
    assert "already has an IP address different from 10.2.0.1/24" in error["msg"]
    assert_unchanged(before, lab.traces(c1, c2))


@pytest.mark.parametrize("force", [True, False])
def test_range_beside_a_full_one_gets_its_own_gateway(
    lab: Lab, boxes: Callable[[int], list[Container]], force: bool
) -> None:
    """Of a set of two subnets: the bridge has both gateways, none is taken away from containers that use it. The
    reference refuses the second, or with forceAddress takes the first from its containers."""
    conf = network(families=(4,), forceAddress=force)
    conf["ipam"]["ranges"] = [[{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.2"}, {"subnet": "10.2.0.0/24"}]]
    containers = boxes(3)
    results = [lab.add(conf, each) for each in containers]
    assert [address_of(each, 4) for each in results] == ["10.1.0.2", "10.2.0.2", "10.2.0.3"]
    assert lab.host.addresses("cni1") == ["10.1.0.1/24", "10.2.0.1/24"]
    for container, result in zip(containers, results, strict=True):
        assert lab.check(conf, container, result).ok
        assert all(can_ping(container, address_of(each, 4)) for each in results if each != result)
    error = lab.refused(network("two", 7, families=(4,), bridge="cni1"), boxes(1)[0])
    assert "already has an IP address different from 10.7.0.1/24" in error["msg"]


def test_unused_bridge_of_ours_is_readdressed(lab: Lab, c1: Container) -> None:
    """A subnet changed in the config while no container was there: no forceAddress needed."""
    lab.add(network("net", 1), c1)
    lab.delete(network("net", 1), c1)
    assert lab.host.addresses("cni1") == ["10.1.0.1/24", "fd00:1::1/64"]
    result = lab.add(network("net", 2, bridge="cni1"), c1)
    assert "10.2.0.1/24" in lab.host.addresses("cni1")
    assert "10.1.0.1/24" not in lab.host.addresses("cni1")
    assert can_ping(c1, "10.2.0.1")
    assert address_of(result, 4).startswith("10.2.0.")


def test_foreign_bridge_keeps_its_address(lab: Lab, c1: Container) -> None:
    """Somebody else's bridge is not re-addressed because we have nobody on it."""
    lab.host.ip_batch("link add cni1 type bridge", "addr add 192.0.2.1/24 dev cni1", "link set cni1 up")
    before = lab.traces(c1)
    error = lab.refused(network(), c1)
    assert "already has an IP address different" in error["msg"]
    assert_unchanged(before, lab.traces(c1))


def test_non_overlapping_ipv6_addresses_coexist(lab: Lab, c1: Container, c2: Container) -> None:
    """As in the reference: another IPv6 subnet on the same bridge is no conflict, both gateways answer."""
    one = lab.add(network("one", 1, families=(6,)), c1)
    two = lab.add(network("two", 2, families=(6,), bridge="cni1"), c2)
    assert sorted(lab.host.addresses("cni1")) == ["fd00:1::1/64", "fd00:2::1/64"]
    for container, result in ((c1, one), (c2, two)):
        assert can_ping(container, result["ips"][0]["gateway"])


def test_link_local_gateway(lab: Lab, c1: Container, c2: Container) -> None:
    """fe80::1 beside the link-local address of the bridge itself, for the second container as for the first."""
    conf = network(ipam={"type": "host-local", "subnet": "fd00:1::/64", "gateway": "fe80::1"})
    results = [(each, lab.add(conf, each)) for each in (c1, c2)]
    for container, result in results:
        assert result["routes"] == [{"dst": "::/0", "gw": "fe80::1"}]
        assert can_ping(container, "fe80::1%eth0")
        assert lab.check(conf, container, result).ok


def test_route_attributes_are_set_and_told(lab: Lab, c1: Container) -> None:
    """mtu, advmss, priority, table and scope of IPAM's routes are in the kernel, in the result, and CHECKed."""
    routes = [
        {"dst": "203.0.113.0/24", "gw": "10.1.0.1", "mtu": 1300, "advmss": 1200, "priority": 77},
        {"dst": "203.0.114.0/24", "table": 100},
        {"dst": "2001:db8:1::/64", "gw": "fd00:1::1", "mtu": 1290, "priority": 5},
    ]
    conf = network(ipam=static("10.1.0.5/24", "fd00:1::5/64", routes=routes))
    result = lab.add(conf, c1)
    first, second, third = result["routes"][:3]
    assert (first["mtu"], first["advmss"], first["priority"]) == (1300, 1200, 77)
    assert second["table"] == 100
    assert third["priority"] == 5
    (have,) = c1.ip_json("-d", "route", "show", "203.0.113.0/24")
    assert have["metric"] == 77
    assert have["metrics"][0] == {"mtu": 1300, "advmss": 1200}
    (have,) = c1.ip_json("-d", "route", "show", "table", "100")
    assert (have["dst"], have["gateway"]) == ("203.0.114.0/24", "10.1.0.1")
    (have,) = c1.ip_json("-6", "-d", "route", "show", "2001:db8:1::/64")
    assert (have["metric"], have["metrics"][0]["mtu"]) == (5, 1290)
    assert lab.check(conf, c1, result).ok
    c1.ip("route", "del", "203.0.114.0/24", "table", "100")
    assert "203.0.114.0/24" in words(lab.check(conf, c1, result).json)


@pytest.mark.parametrize("keys", [{"isDefaultGateway": None, "ipMasq": None}, {}, {"type": "ptp"}])
def test_route_scope_is_honoured(lab: Lab, c1: Container, keys: dict[str, Any]) -> None:
    """A link-scoped route has no gateway, and none is invented for it, also where the network has one."""
    conf = network(**keys)
    via = {"dst": "198.18.0.0/15", "gw": "169.254.1.1"}
    routes: list[Conf] = [{"dst": "203.0.113.0/24", "scope": 253}, {"dst": "169.254.1.1/32", "scope": 253}, via]
    conf["ipam"] = static("10.1.0.5/24", routes=routes)
    result = lab.add(conf, c1)
    assert result["routes"][:3] == routes
    (have,) = c1.ip_json("-d", "route", "show", "203.0.113.0/24")
    assert have["scope"] == "link"
    assert "gateway" not in have
    (have,) = c1.ip_json("route", "show", "198.18.0.0/15")
    assert have["gateway"] == "169.254.1.1"
    assert lab.check(conf, c1, result).ok


def test_route_that_the_kernel_refuses_undoes_the_add(lab: Lab, c1: Container) -> None:
    """A gateway that is not on the link: the reference's words, and nothing stays."""
    conf = network(ipam=static("10.1.0.5/24", routes=[{"dst": "203.0.113.0/24", "gw": "192.0.2.1"}]))
    before = lab.traces(c1)
    error = lab.refused(conf, c1)
    assert error["msg"].startswith("failed to add route '203.0.113.0/24 via 192.0.2.1 dev eth0'")
    assert_unchanged(before, lab.traces(c1))


@pytest.mark.parametrize("dad", [True, False])
def test_ipv6_is_usable_when_the_add_answers(lab: Lab, c1: Container, dad: bool) -> None:
    """With enabledad the ADD waits for detection, without it there is none: no address is tentative afterwards."""
    lab.add(network(enabledad=dad), c1)
    for namespace, name in ((c1, "eth0"), (lab.host, "cni1")):
        (link,) = namespace.ip_json("addr", "show", "dev", name)
        tentative = [each["local"] for each in link["addr_info"] if each.get("tentative") and each["scope"] == "global"]
        assert tentative == []
    assert c1.sysctl("net/ipv6/conf/eth0/accept_dad") == ("1" if dad else "0")
    assert can_ping(c1, "fd00:1::1", deadline_s=0.5)


def test_duplicate_found_by_dad_undoes_the_add(lab: Lab, c1: Container, c2: Container) -> None:
    """With enabledad an address that another container has is refused (code 102) and everything is as before."""
    conf = network("one", ipam=static("fd00:1::5/64"), enabledad=True)
    lab.add(conf, c1)
    before = lab.traces(c1, c2)
    error = lab.refused(network("two", ipam=static("fd00:1::5/64"), enabledad=True), c2)
    assert error["code"] == 102
    assert "fd00:1::5" in error["msg"]
    # Link-local addresses come on their own time.
    assert_unchanged(before, lab.traces(c1, c2), ignore=["*dst=fe80*"])


def test_container_that_switched_ipv6_off_gets_it_for_its_interface(lab: Lab, c1: Container) -> None:
    """Images set `all.disable_ipv6`; the interface with an IPv6 address has it on, as with the reference."""
    for name in ("all", "default"):
        c1.sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")
    result = lab.add(network(), c1)
    assert can_ping(c1, "fd00:1::1")
    assert c1.sysctl("net/ipv6/conf/eth0/disable_ipv6") == "0"
    assert lab.check(network(), c1, result).ok


def test_host_without_ipv6_runs_an_ipv4_network(
    make_host: Callable[..., Host], make_outside: Callable[..., Outside], plugins: Any
) -> None:
    """disable_ipv6 on the whole host: nothing of IPv6 is asked for, traffic and DEL work."""
    host = make_host()
    outside = make_outside(host, ipv6=None)
    for name in ("all", "default"):
        host.sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")
    lab, container = Lab(host, plugins), host.container("c1")
    conf = network(families=(4,))
    result = lab.add(conf, container)
    assert outside.seen_from(container).address == outside.host_address()
    assert lab.check(conf, container, result).ok
    lab.delete(conf, container)
    error = lab.refused(network("six", families=(6,), bridge="cni6"), container)
    assert "IPv6 is switched off on cni6" in error["msg"]
    assert lab.records() == {}
    assert "cni6" not in host.links()


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
@pytest.mark.parametrize("forwarding", ["1", "0"])
def test_read_only_sysctls(lab: Lab, c1: Container, kind: str, forwarding: str) -> None:
    """As a container or systemd's ProtectKernelTunables has them: once forwarding is on all works, as with the
    reference; else the error names the key, and nothing stays."""
    lab.host.sysctl("net/ipv4/ip_forward", forwarding)
    lab.host.sysctl("net/ipv6/conf/all/forwarding", "1")
    lab.host.run(["mount", "--bind", "/proc/sys", "/proc/sys"])
    lab.host.run(["mount", "-o", "remount,bind,ro", "/proc/sys"])
    conf, before = network(type=kind), lab.traces(c1)
    answer = lab.call("ADD", conf, c1)
    if forwarding == "0":
        assert "net/ipv4/ip_forward" in answer.json["msg"]
        assert "Read-only" in answer.json["msg"]
        assert_unchanged(before, lab.traces(c1), ignore=["*/sysctl/*", "*type=anycast"])
        return
    assert answer.stderr.count("/proc/sys is read only") == 1
    result = answer.result()
    assert can_ping(c1, "10.1.0.1")
    assert can_ping(c1, "fd00:1::1")
    assert lab.check(conf, c1, result).ok
    lab.delete(conf, c1)


@pytest.mark.parametrize("family", [4, 6])
def test_host_forgets_the_former_owner_of_an_address(lab: Lab, c1: Container, c2: Container, family: int) -> None:
    """A host that knows the address by another MAC reaches the new container at once, not after a timeout."""
    ip = {4: "10.1.0.5", 6: "fd00:1::5"}[family]
    lab.add(network(), c2)
    lab.host.ip("neigh", "replace", ip, "lladdr", STALE, "nud", "reachable", "dev", "cni1")
    result = lab.add(network("two", bridge="cni1", ipam=static("10.1.0.5/24", "fd00:1::5/64")), c1)
    assert can_ping(lab.host, ip, deadline_s=0.5)
    (entry,) = lab.host.ip_json("neigh", "show", ip)
    assert entry["lladdr"] == result["interfaces"][2]["mac"]


@pytest.mark.parametrize("family", [4, 6])
def test_neighbours_learn_the_new_owner_of_an_address(lab: Lab, c1: Container, c2: Container, family: int) -> None:
    """Gratuitous ARP and unsolicited neighbour advertisement: another container's stale entry is corrected by them."""
    ip = {4: "10.1.0.5", 6: "fd00:1::5"}[family]
    lab.add(network(), c2)
    c2.ip("neigh", "replace", ip, "lladdr", STALE, "nud", "reachable", "dev", "eth0")
    heard = Frames(c2, "eth0")
    result = lab.add(network("two", bridge="cni1", ipam=static("10.1.0.5/24", "fd00:1::5/64")), c1)
    mac = result["interfaces"][2]["mac"]
    heard.until(lambda one: announces(one, family, mac))
    heard.close()

    def known() -> bool:
        return [entry.get("lladdr") for entry in c2.ip_json("neigh", "show", ip)] == [mac]

    wait_until(known, 2.0, "the neighbour's entry has the new MAC")
    assert can_ping(c2, ip, deadline_s=0.5)


def announces(one: bytes, family: int, mac: str) -> bool:
    """An ARP request for its own address, or an unsolicited NA with the override flag, from *mac*."""
    if one[6:12] != mac_bytes(mac):
        return False
    if family == 4:
        return one[12:14] == b"\x08\x06" and one[28:32] == one[38:42] == bytes((10, 1, 0, 5))
    return one[12:14] == b"\x86\xdd" and one[20] == 58 and one[54] == 136 and bool(one[58] & 0x20)
