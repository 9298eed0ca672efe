"""VXLAN devices made, changed in place, made anew and refused; `ip -d link` is the second opinion."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from pyroute2 import Ethtool

from netns_fixtures import assert_unchanged, netns_snapshot
from pycni.change.forwarding import FdbEntry
from pycni.change.ops import Op
from pycni.change.tunnels import DeleteVxlan, EnsureOffload, SetTunnelMtu
from pycni.cni.errors import CniError, Code
from pycni.host import offload
from pycni.host.vxlan import read_vxlans
from tests.kernel.tunnel_lab import ALIAS, BRIDGE, PORT, VNI, VXLAN, Site

pytestmark = pytest.mark.needs("root", "tool:ip", "tool:bridge", "kernel:vxlan", "kernel:bridge", "kernel:veth")

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
PEER = FdbEntry("02:42:0a:00:00:09", "192.0.2.9")


@pytest.fixture
def site(sites: Callable[..., list[Site]]) -> Site:
    """One host."""
    return sites(1)[0]


def refused(site: Site, **changes: object) -> CniError:
    """What a device with *changes* is refused with, which leaves the host as it was."""
    before = netns_snapshot(site.host)
    with pytest.raises(CniError) as failure:
        site.do(site.vxlan(**changes))
    assert_unchanged(before, netns_snapshot(site.host))
    return failure.value


@FAMILIES
def test_made_once_as_asked_and_taken_away(sites: Callable[..., list[Site]], family: int) -> None:
    """All attributes are as asked; a second time nothing changes; the inverse leaves the host as it was."""
    (site,) = sites(1, family=family)
    before = netns_snapshot(site.host)
    (inverse,) = site.do(site.vxlan())
    assert inverse == DeleteVxlan(VXLAN)
    shown = site.shown()
    data = shown["linkinfo"]["info_data"]
    local = "local" if family == 4 else "local6"
    assert (data["id"], data["port"], data[local], data["link"]) == (VNI, PORT, site.local, "eth0")
    assert (data["learning"], data["proxy"], "group" in data or "remote" in data) == (False, True, False)
    assert (shown["address"], shown["mtu"], shown["ifalias"]) == (site.mac, site.mtu, ALIAS)
    assert "UP" in shown["flags"]
    facts = site.have()
    assert (facts.vni, facts.port, facts.local, facts.learning, facts.proxy) == (VNI, PORT, site.local, False, True)
    assert (facts.version, facts.link, facts.mac.hex(":"), facts.group) == (
        family,
        site.host.ip_json("link", "show", "dev", "eth0")[0]["ifindex"],
        site.mac,
        "",
    )
    assert site.host.addresses(VXLAN) == []
    made = netns_snapshot(site.host)
    assert site.do(site.vxlan()) == [None]
    assert_unchanged(made, netns_snapshot(site.host))
    site.do(inverse)
    assert_unchanged(before, netns_snapshot(site.host))
    assert site.do(inverse) == [None]


def test_bridge_port_sends_no_unknown_unicast_and_learns_nothing(site: Site) -> None:
    """As a port it takes broadcasts and all multicast, which it answers itself; what it does not know stays away."""
    site.bridged()
    port = site.shown()["linkinfo"]["info_slave_data"]
    assert (port["learning"], port["flood"], port["bcast_flood"], port["mcast_flood"]) == (False, False, True, True)
    assert port["multicast_router"] == 2
    assert site.have().port_flags == (0, 0, 2)
    assert site.do(site.vxlan(bridge=BRIDGE)) == [None]
    site.host.run(["bridge", "link", "set", "dev", VXLAN, "learning", "on", "flood", "on"])
    site.do(site.vxlan(bridge=BRIDGE))
    assert site.have().port_flags == (0, 0, 2)
    site.host.ip("link", "set", VXLAN, "nomaster")
    site.do(site.vxlan(bridge=BRIDGE))
    assert site.shown()["master"] == BRIDGE
    assert site.have().port_flags == (0, 0, 2)


def test_changed_in_place_keeping_its_entries(site: Site) -> None:
    """Address, MTU, MAC, alias and state follow without a new device: index and entries stay."""
    site.do(site.vxlan())
    site.change([PEER])
    index = site.have().index
    site.host.ip("addr", "add", "192.0.2.77/24", "dev", "eth0")
    changes = {"local": "192.0.2.77", "mtu": 1400, "mac": bytes.fromhex("0a0000000077")}
    assert site.do(site.vxlan(**changes)) == [None]
    facts = site.have()
    assert (facts.index, facts.local, facts.mtu, facts.mac.hex(":")) == (index, "192.0.2.77", 1400, "0a:00:00:00:00:77")
    site.host.ip("link", "set", VXLAN, "down", "alias", "")
    site.do(site.vxlan(**changes))
    assert (site.have().index, site.have().up, site.have().alias) == (index, True, ALIAS)
    assert site.entries() == {PEER}


def test_another_uplink_is_taken_in_place(site: Site) -> None:
    """With its smaller MTU in the same operation; when the former link goes, the tunnel stays."""
    site.host.ip("link", "add", "up1", "mtu", "1500", "type", "veth", "peer", "name", "up2")
    site.host.ip("link", "add", "up3", "mtu", "1400", "type", "veth", "peer", "name", "up4")
    site.do(site.vxlan(uplink="up1"))
    site.change([PEER])
    index = site.have().index
    assert refused(site, uplink="up3").code == Code.INVALID_CONFIG
    site.do(site.vxlan(uplink="up3", mtu=1350))
    assert (site.have().index, site.shown()["linkinfo"]["info_data"]["link"], site.have().mtu) == (index, "up3", 1350)
    site.host.ip("link", "del", "up1")
    assert site.entries() == {PEER}


def test_mtu_of_the_bridge_follows(site: Site) -> None:
    """A bridge with a larger MTU than the tunnel would drop what it forwards, and tell nobody."""
    site.bridged()
    (inverse,) = site.do(SetTunnelMtu(VXLAN, 1300))
    assert [site.shown(name)["mtu"] for name in (VXLAN, BRIDGE)] == [1300, 1300]
    assert inverse == SetTunnelMtu(VXLAN, site.mtu)
    assert site.do(SetTunnelMtu(VXLAN, 1300), SetTunnelMtu("nothing", 1300)) == [None, None]
    site.do(site.vxlan(bridge=BRIDGE))
    assert [site.shown(name)["mtu"] for name in (VXLAN, BRIDGE)] == [site.mtu, site.mtu]


@pytest.mark.parametrize(
    "changes", [{"vni": 101}, {"port": 8472}, {"proxy": False}, {"local": "2001:db8:a::1", "mtu": 1430}]
)
def test_made_anew_where_the_kernel_cannot_change_it(site: Site, changes: dict[str, object]) -> None:
    """VNI, port, proxy and family are fixed at creation: ours with others is replaced."""
    site.do(site.vxlan())
    site.change([PEER])
    index = site.have().index
    assert site.do(site.vxlan(**changes)) == [DeleteVxlan(VXLAN)]
    facts = site.have()
    assert facts.index != index
    assert {key: getattr(facts, key) for key in changes} == changes
    assert facts.up
    assert site.entries() == frozenset()


def test_device_of_somebody_else_is_refused(site: Site) -> None:
    """A link of that name that is not the network's stays as it is, and is named."""
    site.host.ip("link", "add", VXLAN, "type", "vxlan", "id", "100", "dstport", "4789")
    error = refused(site)
    assert (error.code, VXLAN in error.msg) == (Code.INVALID_CONFIG, True)
    site.host.ip("link", "set", VXLAN, "alias", "pycni other")
    assert "pycni other" in refused(site).msg
    site.host.ip("link", "del", VXLAN)
    site.host.ip("link", "add", VXLAN, "type", "bridge")
    assert "bridge" in refused(site).msg


def test_half_made_device_is_known_by_its_mac(site: Site) -> None:
    """Whoever made it may have died before it had its alias."""
    site.host.ip(*f"link add {VXLAN} address {site.mac} type vxlan id 100 dstport 4789 local 192.0.2.1".split())
    site.host.ip("link", "set", VXLAN, "address", site.mac)
    site.do(site.vxlan())
    assert (site.have().alias, site.have().proxy, site.have().up) == (ALIAS, True, True)


def test_alias_that_somebody_changed_is_put_back(site: Site) -> None:
    """The device is known by its MAC, so its network goes on; but not one that has the alias of another network."""
    site.do(site.vxlan())
    index = site.have().index
    site.host.ip("link", "set", VXLAN, "alias", "backup tunnel")
    site.do(site.vxlan())
    assert (site.have().index, site.have().alias) == (index, ALIAS)
    site.host.ip("link", "set", VXLAN, "alias", "pycni other")
    assert "pycni other" in refused(site).msg


def test_vni_of_somebody_else_is_refused(site: Site) -> None:
    """The same VNI and port under another name: the error says which device has it."""
    site.host.ip("link", "add", "other", "type", "vxlan", "id", "100", "dstport", "4789")
    error = refused(site)
    assert (error.code, "other" in error.msg, str(VNI) in error.msg) == (Code.INVALID_CONFIG, True, True)
    assert [one.name for one in read_vxlans(site.kernel.host)] == ["other"]


def test_udp_port_of_somebody_else_is_refused(site: Site) -> None:
    """The kernel says so only when the device comes up; it is taken away again, and the port is named."""
    site.host.ip("link", "add", "gbp0", "type", "vxlan", "id", "7", "dstport", str(PORT), "gbp")
    site.host.ip("link", "set", "gbp0", "up")
    error = refused(site)
    assert (error.code, f"UDP port {PORT}" in error.msg) == (Code.INVALID_CONFIG, True)
    assert site.do(site.vxlan(port=8472)) == [DeleteVxlan(VXLAN)]


@FAMILIES
def test_mtu_beyond_the_uplinks_is_refused(sites: Callable[..., list[Site]], family: int) -> None:
    """The largest is the uplink's less the headers, which differ by family; the error says how much."""
    (site,) = sites(1, family=family)
    error = refused(site, mtu=site.mtu + 1)
    assert (error.code, f"more than {site.mtu}" in error.msg) == (Code.INVALID_CONFIG, True)
    site.do(site.vxlan())
    assert refused(site, mtu=site.mtu + 1).code == Code.INVALID_CONFIG


def test_missing_uplink_is_refused(site: Site) -> None:
    """The error names the interface."""
    error = refused(site, uplink="eth7")
    assert (error.code, "eth7" in error.msg) == (Code.INVALID_CONFIG, True)


@pytest.mark.parametrize(("family", "group"), [(4, "239.1.1.1"), (6, "ff05::100")])
def test_multicast_group(sites: Callable[..., list[Site]], family: int, group: str) -> None:
    """With a group the device floods and learns, and so does its port."""
    (site,) = sites(1, family=family)
    site.bridged(learning=True, proxy=False, group=group)
    facts = site.have()
    assert (facts.group, facts.learning, facts.proxy, facts.port_flags) == (group, True, False, (1, 1, 2))
    assert site.do(site.vxlan(bridge=BRIDGE, learning=True, proxy=False, group=group)) == [None]
    assert site.entries() == frozenset()


def test_many_adds_at_once_make_one_device(site: Site, closing: ExitStack) -> None:
    """Exactly one of them takes it back when it fails: the one that made it."""
    before = netns_snapshot(site.host)
    others = [Site(site.underlay, site.host, 4, closing) for _ in range(7)]
    everybody = [site, *others]
    gate = threading.Barrier(len(everybody))

    def add(one: Site) -> Op | None:
        gate.wait()
        return one.do(one.vxlan())[0]

    for _ in range(5):
        with ThreadPoolExecutor(len(everybody)) as pool:
            inverses = list(pool.map(add, everybody))
        assert sorted(map(str, inverses)) == ["DeleteVxlan(name='vxlan100')"] + 7 * ["None"]
        assert (site.have().up, site.have().alias) == (True, ALIAS)
        site.do(DeleteVxlan(VXLAN))
    assert_unchanged(before, netns_snapshot(site.host))


def test_goes_with_its_uplink_and_comes_back_empty(site: Site) -> None:
    """The kernel deletes it with its lower link; the same operation makes it again, with the same MAC."""
    site.host.ip("link", "add", "up1", "mtu", "1500", "type", "veth", "peer", "name", "up2")
    site.host.ip("link", "set", "up1", "up")
    site.do(site.vxlan(uplink="up1"))
    site.change([PEER])
    site.host.ip("link", "del", "up1")
    assert site.facts() is None
    assert site.entries() == frozenset()
    assert site.change([PEER]) == (f"{VXLAN} is gone: 1 entries not added",)
    site.do(site.vxlan())
    assert (site.have().mac.hex(":"), site.entries()) == (site.mac, frozenset())


def test_checksum_offload_as_asked(site: Site) -> None:
    """On and off are set, on the tunnel's device alone; "auto" changes nothing where no fault is known."""

    def features() -> dict[str, bool]:
        """Of both devices, as pyroute2 reads them."""
        found = {}
        with Ethtool() as ethtool:
            for link in (VXLAN, "eth0"):
                active = ethtool.get_features(link).features
                found[link] = bool(active["tx-checksum-ip-generic"].enable or active["tx-checksum-ipv4"].enable)
        return found

    def after(mode: str) -> dict[str, bool]:
        site.do(EnsureOffload(VXLAN, mode, "eth0"))
        return features()

    site.do(site.vxlan())
    here = site.host.in_namespace
    untouched = here(features)
    assert here(lambda: after("off")) == {VXLAN: False, "eth0": untouched["eth0"]}
    assert here(lambda: after("auto")) == {VXLAN: False, "eth0": untouched["eth0"]}
    assert here(lambda: after("on")) == {VXLAN: True, "eth0": untouched["eth0"]}
    assert here(lambda: offload.is_on(VXLAN))
    assert here(lambda: after("auto")) == {VXLAN: True, "eth0": untouched["eth0"]}
    site.host.ip("link", "add", "br9", "type", "bridge")
    site.host.ip("link", "set", "eth0", "master", "br9")
    assert here(lambda: offload.drivers_of("br9")) == ("bridge", "veth")
    assert here(lambda: offload.drivers_of("nothing")) == ()
