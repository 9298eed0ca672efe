"""The bridge, the two ends of the pair, and what the result says of them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from netns_fixtures import Container, Host, Outside, assert_unchanged, can_ping, needs
from tests.kernel.bridge_lab import Lab, address_of, gateway_of, network, static, without, words

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

ETH_P_ARP = 0x0806  # linux/if_ether.h


@pytest.mark.parametrize("mtu", [1400, 1500, 9000])
def test_mtu_is_the_uplinks(
    lab: Lab, host: Host, make_outside: Callable[..., Outside], c1: Container, mtu: int
) -> None:
    """Without `mtu` all three links and the result have the uplink's, and a packet of that size gets out."""
    outside = make_outside(host, mtu=mtu)
    result = lab.add(network(), c1)
    assert [interface["mtu"] for interface in result["interfaces"]] == [mtu] * 3
    names = [interface["name"] for interface in result["interfaces"]]
    assert [lab.link(names[0])["mtu"], lab.link(names[1])["mtu"], lab.link("eth0", c1)["mtu"]] == [mtu] * 3
    headers = 20 + 8
    assert can_ping(c1, outside.address(), size=mtu - headers)


@pytest.mark.parametrize("version", ["1.1.0", "1.0.0"])
def test_mtu_given_wins_and_is_told_from_1_1_on(lab: Lab, outside: Outside, c1: Container, version: str) -> None:
    """`mtu` sets all three links whatever the uplink has; results before 1.1.0 have no place for it."""
    result = lab.add(network(mtu=1300, cniVersion=version), c1)
    told = [interface.get("mtu") for interface in result["interfaces"]]
    assert told == ([1300] * 3 if version == "1.1.0" else [None] * 3)
    names = [interface["name"] for interface in result["interfaces"]]
    assert [lab.link(names[0])["mtu"], lab.link(names[1])["mtu"], lab.link("eth0", c1)["mtu"]] == [1300] * 3
    assert lab.link("eth0", c1)["address"] == result["interfaces"][2]["mac"]


def test_bridge_does_not_snoop_unless_told(lab: Lab, c1: Container, c2: Container) -> None:
    """A bridge of ours floods multicast, at a constant cost of each port; who has it snoop is not overruled."""

    def snoops() -> int:
        flag: int = lab.link("cni1")["linkinfo"]["info_data"]["mcast_snooping"]
        return flag

    lab.add(network(), c1)
    assert snoops() == 0
    lab.host.ip("link", "set", "cni1", "type", "bridge", "mcast_snooping", "1")
    lab.add(network(), c2)
    assert snoops() == 1


def test_mtu_of_an_existing_bridge_is_left_alone(lab: Lab, c1: Container, c2: Container) -> None:
    """A later container with another `mtu` changes its own pair only, as with the reference."""
    lab.add(network(mtu=1400), c1)
    lab.add(network(mtu=1300), c2)
    assert lab.link("cni1")["mtu"] == 1400
    assert lab.link("eth0", c2)["mtu"] == 1300


@pytest.mark.parametrize("mtu", [10, 1279])
def test_mtu_that_the_kernel_refuses_leaves_nothing(lab: Lab, c1: Container, mtu: int) -> None:
    """Below 68 no link takes it, below 1280 there is no IPv6: an error, and not even the bridge stays."""
    before = lab.traces(c1)
    error = lab.refused(network(mtu=mtu), c1)
    assert error["code"] == 999
    assert_unchanged(before, lab.traces(c1))


@pytest.mark.parametrize("foreign", [False, True])
def test_bridge_keeps_its_mac(lab: Lab, boxes: Callable[[int], list[Container]], foreign: bool) -> None:
    """Containers come and go, with lower MACs than the bridge has, and its own never changes, layer 2 or not."""
    if foreign:
        lab.host.ip("link", "add", "cni1", "type", "bridge")
    conf = network(ipam={}, isDefaultGateway=None, ipMasq=None, capabilities={"mac": True})
    macs = set()
    containers = boxes(3)
    for number, container in enumerate(containers):
        lab.add({**conf, "runtimeConfig": {"mac": f"02:00:00:00:00:0{number}"}}, container)
        macs.add(lab.link("cni1")["address"])
    for container in containers:
        lab.delete(conf, container)
        macs.add(lab.link("cni1")["address"])
    assert len(macs) == 1


def test_promiscuous_mode_is_set_and_not_taken_back(lab: Lab, c1: Container, c2: Container) -> None:
    """promiscMode makes the bridge promiscuous, also an existing one; another network does not switch it off."""
    lab.add(network(), c1)
    assert "PROMISC" not in lab.link("cni1")["flags"]
    conf = network(promiscMode=True)
    result = lab.add(conf, c2)
    assert "PROMISC" in lab.link("cni1")["flags"]
    assert lab.check(conf, c2, result).ok
    lab.delete(conf, c2)
    assert "PROMISC" in lab.link("cni1")["flags"]


def test_down_bridge_is_brought_up(lab: Lab, c1: Container) -> None:
    """An existing bridge that is down would forward nothing."""
    lab.host.ip("link", "add", "cni1", "type", "bridge")
    result = lab.add(network(), c1)
    assert can_ping(c1, gateway_of(result, 4))


def test_link_that_is_no_bridge_is_refused(lab: Lab, c1: Container) -> None:
    """Error text of the reference, code 7, nothing changed."""
    before = lab.traces(c1)
    error = lab.refused(network(bridge="lo"), c1)
    assert error["msg"] == 'failed to create bridge "lo": "lo" already exists but is not a bridge'
    assert error["code"] == 7
    assert_unchanged(before, lab.traces(c1))


def test_host_takes_no_router_advertisements_from_containers(lab: Lab, c1: Container) -> None:
    """accept_ra is off on the bridge, and IPv6 on the host link: a container could send them (CVE-2020-13401)."""
    result = lab.add(network(), c1)
    assert lab.host.sysctl("net/ipv6/conf/cni1/accept_ra") == "0"
    assert lab.host.sysctl(f"net/ipv6/conf/{result['interfaces'][1]['name']}/disable_ipv6") == "1"


def test_a_port_has_no_ipv6_address_of_its_own(lab: Lab, c1: Container) -> None:
    """Nor routes: nobody could reach it; the bridge and the container's end have theirs."""
    lab.add(network(), c1)
    port = next(link["ifname"] for link in lab.host.ip_json("link", "show", "type", "veth"))
    assert lab.host.ip_json("-6", "addr", "show", "dev", port) == []
    assert lab.host.ip_json("-6", "route", "show", "table", "all", "dev", port) == []
    assert lab.host.ip_json("-6", "addr", "show", "dev", "cni1") != []
    assert c1.ip_json("-6", "addr", "show", "dev", "eth0") != []


def test_a_first_use_of_an_address_is_not_broadcast(lab: Lab, c1: Container, c2: Container) -> None:
    """No gratuitous ARP when the interface comes up, although changes of it are announced from then on."""
    first = lab.add(network(), c1)
    arp = c1.in_namespace(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP)))
    with arp:
        arp.settimeout(5)
        lab.add(network(), c2)
        assert can_ping(c2, address_of(first, 4))
        asked = b""
        while asked != socket.inet_aton(address_of(first, 4)):  # the ping's own question ends what can have come before
            frame = arp.recv(64)
            sender, asked = frame[28:32], frame[38:42]
            assert sender != asked, "announced"
    assert c2.run(["cat", "/proc/sys/net/ipv4/conf/eth0/arp_notify"]).stdout.strip() == "1"


@pytest.mark.parametrize("layer2", [{"ipam": {}}, {"ipam": None}])
def test_layer_2_network_has_links_only(lab: Lab, c1: Container, c2: Container, layer2: dict[str, Any]) -> None:
    """No address, no rule, no switch: two containers talk once they address themselves. CHECK works. DEL cleans."""
    conf = network(isDefaultGateway=None, ipMasq=None, **layer2)
    before = lab.traces(c1, c2)
    one = lab.add(conf, c1)
    lab.add(conf, c2)
    assert "ips" not in one
    assert lab.check(conf, c1, one).ok
    c1.ip("addr", "add", "192.0.2.1/24", "dev", "eth0")
    c2.ip("addr", "add", "192.0.2.2/24", "dev", "eth0")
    assert can_ping(c1, "192.0.2.2")
    assert lab.ruleset() == ""
    lab.delete(conf, c1)
    lab.delete(conf, c2)
    assert lab.gc(conf).ok
    assert_unchanged(before, lab.traces(c1, c2))


def test_old_result_without_address_is_an_error_and_undone(lab: Lab, c1: Container) -> None:
    """0.2.0 cannot say "no address": the reference's words, and nothing stays behind."""
    before = lab.traces(c1)
    error = lab.refused(network(ipam={}, isDefaultGateway=None, ipMasq=None, cniVersion="0.2.0"), c1)
    assert error["msg"] == "cannot convert: no valid IP addresses"
    assert_unchanged(before, lab.traces(c1))


def test_disabled_container_interface_stays_down(lab: Lab, c1: Container) -> None:
    """disableContainerInterface: the pair is there, the container's end is down, and CHECK agrees."""
    conf = network(ipam={}, isDefaultGateway=None, ipMasq=None, disableContainerInterface=True)
    result = lab.add(conf, c1)
    assert "UP" not in lab.link("eth0", c1)["flags"]
    assert lab.check(conf, c1, result).ok
    lab.delete(conf, c1)
    error = lab.refused(network(disableContainerInterface=True), c1)
    assert error["msg"] == "cannot use IPAM when DisableContainerInterface flag is set"


def test_mac_precedence(lab: Lab, boxes: Callable[[int], list[Container]]) -> None:
    """CNI_ARGS is outdone by args.cni.mac, and that by runtimeConfig.mac, as with the reference."""
    args, cni, runtime = (f"02:00:00:00:00:0{number}" for number in (1, 2, 3))
    one, two, three = boxes(3)
    conf = network()
    text = f"IgnoreUnknown=1;MAC={args}"
    with_cni = {**conf, "args": {"cni": {"mac": cni}}}
    with_all = {**with_cni, "runtimeConfig": {"mac": runtime}}
    for container, given, expected in ((one, conf, args), (two, with_cni, cni), (three, with_all, runtime)):
        result = lab.add(given, container, args=text)
        assert result["interfaces"][2]["mac"] == expected
        assert lab.link("eth0", container)["address"] == expected


def test_dns_of_the_config_replaces_that_of_ipam(lab: Lab, boxes: Callable[[int], list[Container]]) -> None:
    """Where it says anything, also an empty list; else the IPAM plugin's stands."""
    ipam = static("10.1.0.5/24", dns={"nameservers": ["192.0.2.53"], "domain": "ipam.test"})
    cases: list[tuple[dict[str, Any] | None, dict[str, Any] | None]] = [
        (None, {"nameservers": ["192.0.2.53"], "domain": "ipam.test"}),
        ({}, {"nameservers": ["192.0.2.53"], "domain": "ipam.test"}),
        ({"nameservers": ["192.0.2.99"]}, {"nameservers": ["192.0.2.99"]}),
        ({"search": []}, None),
    ]
    for container, (dns, expected) in zip(boxes(len(cases)), cases, strict=True):
        conf = network(ipam=ipam, dns=dns)
        assert lab.add(conf, container).get("dns") == expected
        lab.delete(conf, container)


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_result_has_the_shape_of_its_version(lab: Lab, c1: Container, version: str) -> None:
    """ip4/ip6 before 0.3.0, ips with a version before 1.0.0, interfaces with an mtu from 1.1.0; DEL takes any."""
    conf = network(cniVersion=version)
    before = lab.traces(c1)
    result = lab.add(conf, c1)
    assert result["cniVersion"] == version
    if version < "0.3.0":
        assert result["ip4"] == {
            "ip": "10.1.0.2/24",
            "gateway": "10.1.0.1",
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
        }
        assert result["ip6"]["ip"] == "fd00:1::2/64"
        assert set(result) == {"cniVersion", "ip4", "ip6", "dns"}
    else:
        assert [ip.get("version") for ip in result["ips"]] == (["4", "6"] if version < "1.0.0" else [None, None])
        assert [ip["interface"] for ip in result["ips"]] == [2, 2]
        assert [i["name"] for i in result["interfaces"]][::2] == ["cni1", "eth0"]
        assert result["interfaces"][2]["sandbox"] == c1.path
        assert ("mtu" in result["interfaces"][0]) is (version == "1.1.0")
        assert ("dns" in result) is (version < "1.0.0")
        assert len(result["routes"]) == 2
    assert can_ping(c1, "10.1.0.1")
    if version >= "0.4.0":
        assert lab.check(conf, c1, result).ok
    lab.delete({**conf, "prevResult": result}, c1)
    after = lab.traces(c1)
    assert_unchanged(
        without(before, "/sysctl/"), without(after, "/sysctl/"), ignore=["h1/*cni1*", "h1/fdb*", "h1/route*"]
    )


@pytest.mark.parametrize("keys", [{"vlan": 100}, {"vlanTrunk": [{"minID": 5, "maxID": 7}]}, {"vlan": 1}])
def test_vlan_on_a_kernel_without_filtering_is_refused_and_undone(
    lab: Lab, c1: Container, keys: dict[str, Any]
) -> None:
    """Code 104 names the kernel option; bridge, link, lease and switches are as before."""
    if _has_vlan_filtering():
        pytest.skip("this kernel has VLAN filtering")
    before = lab.traces(c1)
    error = lab.refused(network(**keys), c1)
    assert error["code"] == 104
    assert "CONFIG_BRIDGE_VLAN_FILTERING" in words(error)
    assert_unchanged(before, lab.traces(c1))


@pytest.mark.parametrize("keys", [{"vlan": 100}, {"vlan": 100, "preserveDefaultVlan": True}])
def test_vlan_separates_containers(lab: Lab, boxes: Callable[[int], list[Container]], keys: dict[str, Any]) -> None:
    """Containers of one VLAN reach each other and its gateway on <bridge>.<vlan>; those of another do not."""
    needs("kernel:vlan_filtering")
    one, two, three = boxes(3)
    ours, others = network("one", 1, bridge="br", **keys), network("two", 2, bridge="br", vlan=200)
    first, second = lab.add(ours, one), lab.add(ours, two)
    third = lab.add(others, three)
    assert [i["name"] for i in first["interfaces"]][3] == "br.100"
    assert can_ping(one, gateway_of(first, 4))
    assert can_ping(one, address_of(second, 4))
    three.ip("addr", "add", "10.1.0.77/24", "dev", "eth0")
    assert not can_ping(one, "10.1.0.77", deadline_s=0.4)
    assert can_ping(three, gateway_of(third, 4))


def _has_vlan_filtering() -> bool:
    from netns_fixtures import missing

    return missing("kernel:vlan_filtering") is None
