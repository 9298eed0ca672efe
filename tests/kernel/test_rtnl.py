"""Every request about links and bridge ports does what it says, on the real kernel; iproute2 is the second opinion."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from netns_fixtures import Namespace, needs
from pycni.host import messages
from tests.kernel.place import Place, refused

pytestmark = pytest.mark.needs("root", "tool:ip", "kernel:veth", "kernel:bridge")

MAC, OTHER_MAC = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"


@pytest.fixture
def place(make_namespace: Callable[..., Namespace], closing: ExitStack) -> Callable[[], Place]:
    return lambda: Place(make_namespace(), closing)


@pytest.fixture
def here(place: Callable[[], Place]) -> Place:
    """The host's side."""
    return place()


@pytest.fixture
def there(place: Callable[[], Place]) -> Place:
    """The container's side."""
    return place()


@pytest.fixture
def pair(here: Place) -> Place:
    """`here` with a veth pair a–b, both up."""
    here.nl.request(messages.new_veth_pair_here("a", "b"))
    return here


def test_veth_with_its_peer_in_the_container(here: Place, there: Place) -> None:
    """One request: both indexes, names, MACs, MTU, master, namespace and alias; the host end up, the peer down."""
    here.nl.request(messages.new_bridge("br0"))
    bridge = here.link("br0").index
    here.nl.request(
        messages.new_veth(
            host="veth1", host_index=1000, peer="eth0", peer_index=2000, netns_fd=there.fd, master=bridge, mtu=1400,
            host_mac=MAC, peer_mac=OTHER_MAC, alias="pycni net/c1/eth0",
        )
    )  # fmt: skip
    host, peer = here.shown("veth1"), there.shown("eth0")
    assert (host["ifindex"], peer["ifindex"]) == (1000, 2000)
    assert (host["address"], peer["address"]) == (MAC.hex(":"), OTHER_MAC.hex(":"))
    assert (host["mtu"], peer["mtu"]) == (1400, 1400)
    assert (host["master"], host["ifalias"]) == ("br0", "pycni net/c1/eth0")
    assert "UP" in host["flags"]
    assert "UP" not in peer["flags"]


def test_link_tells_what_iproute2_tells(here: Place, there: Place) -> None:
    """Both ends as the value `Link`: kind, peer, its namespace, master, port state, group, flags, alias."""
    here.nl.request(messages.new_bridge("br0", mac=MAC))
    here.nl.request(
        messages.new_veth(host="veth1", peer="eth0", netns_fd=there.fd, master=here.link("br0").index, alias="ß")
    )
    bridge, host, peer = here.link("br0"), here.link("veth1"), there.link("eth0")
    shown = here.shown("veth1")
    assert (host.kind, host.index, host.mtu, host.mac.hex(":")) == ("veth", shown["ifindex"], 1500, shown["address"])
    assert (host.master, host.peer_index, peer.peer_index) == (bridge.index, peer.index, host.index)
    assert host.peer_netnsid == shown["link_netnsid"]
    assert (host.alias, host.group, host.promiscuity) == ("ß", 0, shown["promiscuity"])
    assert (host.up, peer.up, host.promiscuous, host.forwarding) == (True, False, False, False)
    assert (host.port_state, host.hairpin, host.isolated, host.vlan_filtering) == (0, False, False, None)
    assert (peer.port_state, peer.hairpin, peer.isolated) == (None, None, None)
    assert (bridge.kind, bridge.mac, bridge.vlan_filtering, bridge.port_state) == ("bridge", MAC, False, None)
    assert here.nl.link(host.index) == here.nl.link("veth1")


def test_link_that_is_not_there(here: Place) -> None:
    """None, by name, by index and by a name too long for a link."""
    assert [here.nl.link(which) for which in ("no", 4711, "an-alternative-name-that-nobody-has")] == [None] * 3


def test_link_by_alternative_name(pair: Place) -> None:
    """A link is found by an alternative name, short or long."""
    pair.ns.ip("link", "property", "add", "dev", "a", "altname", "short", "altname", "longer-than-fifteen-bytes")
    assert pair.link("short") == pair.link("longer-than-fifteen-bytes") == pair.link("a")


def test_peer_of_the_same_namespace_has_no_netnsid(pair: Place) -> None:
    """Where both ends are at home there is nothing to number; both are up."""
    a, b = pair.link("a"), pair.link("b")
    assert (a.peer_netnsid, a.peer_index, b.peer_index) == (None, b.index, a.index)
    assert (a.up, b.up) == (True, True)


def test_veth_pair_here_for_a_gateway(here: Place) -> None:
    """The second name is the bridge's port, the first has MAC and alias, MTU is that of both."""
    here.nl.request(messages.new_bridge("br0"))
    bridge = here.link("br0").index
    here.nl.request(messages.new_veth_pair_here("br0.7", "vbr0.7", master=bridge, mtu=1300, mac=MAC, alias="pycni net"))
    gateway, port = here.link("br0.7"), here.link("vbr0.7")
    assert (gateway.mac, gateway.alias, gateway.mtu, gateway.master) == (MAC, "pycni net", 1300, 0)
    assert (port.master, port.mtu, port.alias) == (bridge, 1300, "")


def test_bridge_keeps_mac_and_mtu_when_ports_come(here: Place) -> None:
    """Given a MAC and an MTU the bridge has them for good, whatever its ports have."""
    here.nl.request(messages.new_bridge("br0", mac=OTHER_MAC, mtu=1400, alias="pycni net"))
    master = here.link("br0").index
    here.nl.request(messages.new_veth_pair_here("a", "b", master=master), messages.set_link("b", mac=MAC))
    assert (here.link("br0").mac, here.link("br0").mtu, here.link("br0").alias) == (OTHER_MAC, 1400, "pycni net")
    assert here.link("br0").up


def test_ports_of_a_bridge(pair: Place) -> None:
    """Its ports and nothing else; none without any."""
    pair.nl.request(messages.new_bridge("br0"))
    bridge = pair.link("br0").index
    assert pair.nl.ports(bridge) == ()
    pair.nl.request(messages.set_link("a", master=bridge))
    assert [port.name for port in pair.nl.ports(bridge)] == ["a"]


def test_set_link_changes_what_is_given(pair: Place) -> None:
    """Name, MTU, MAC, group, alias, promiscuity, state: each as given, by index or by name, and back."""
    index = pair.link("a").index
    pair.nl.request(messages.set_link(index, name="new", mtu=1300, mac=MAC, group=7, alias="x", promisc=True, up=False))
    shown, link = pair.shown("new"), pair.link("new")
    assert (shown["mtu"], shown["address"], shown["group"], shown["ifalias"]) == (1300, MAC.hex(":"), "7", "x")
    assert "PROMISC" in shown["flags"]
    assert "UP" not in shown["flags"]
    assert (link.group, link.promiscuous, link.up, link.promiscuity) == (7, True, False, 1)
    pair.nl.request(messages.set_link("new", alias="", promisc=False, up=True))
    assert (pair.link("new").alias, pair.link("new").promiscuous, pair.link("new").up) == ("", False, True)
    assert pair.link("new").mtu == 1300


def test_set_link_takes_a_port_off_its_bridge(pair: Place) -> None:
    """master=0 is no master."""
    pair.nl.request(messages.new_bridge("br0"))
    pair.nl.request(messages.set_link("a", master=pair.link("br0").index))
    assert pair.link("a").port_state is not None
    pair.nl.request(messages.set_link("a", master=0))
    assert (pair.link("a").master, pair.link("a").port_state) == (0, None)


def test_delete_link_takes_the_peer_along(here: Place, there: Place) -> None:
    """Deleting the host end removes the container's; once more is ENODEV."""
    here.nl.request(messages.new_veth(host="veth1", peer="eth0", netns_fd=there.fd))
    here.nl.request(messages.delete_link("veth1"))
    assert (here.nl.link("veth1"), there.nl.link("eth0")) == (None, None)
    assert refused(here, messages.delete_link("veth1")).errno == errno.ENODEV


def test_taken_name_and_taken_index_are_refused(pair: Place, there: Place) -> None:
    """EEXIST for a name of either side or the host's index, EBUSY for the peer's index; nothing is left behind."""
    assert refused(pair, messages.new_veth(host="a", peer="eth0", netns_fd=there.fd)).errno == errno.EEXIST
    assert isinstance(refused(pair, messages.new_veth(host="c", peer="lo", netns_fd=there.fd)), FileExistsError)
    index = pair.link("a").index
    busy = refused(pair, messages.new_veth(host="c", host_index=index, peer="eth0", netns_fd=there.fd))
    assert busy.errno == errno.EEXIST
    busy = refused(pair, messages.new_veth(host="c", host_index=999, peer="eth0", peer_index=1, netns_fd=there.fd))
    assert busy.errno == errno.EBUSY
    assert pair.nl.link("c") is None
    assert there.nl.link("eth0") is None


@pytest.mark.parametrize(
    "change", [{"hairpin": True}, {"isolated": True}, {"learning": False}, {"neigh_suppress": True}]
)
def test_bridge_port_options(pair: Place, change: dict[str, bool]) -> None:
    """Each option alone, as `bridge link` shows it, and no other with it."""
    names = ("hairpin", "isolated", "learning", "neigh_suppress")
    pair.nl.request(messages.new_bridge("br0"))
    index = pair.link("a").index
    assert refused(pair, messages.bridge_port(index, **change)).errno == errno.EOPNOTSUPP  # no port yet
    pair.nl.request(messages.set_link(index, master=pair.link("br0").index))

    def options() -> dict[str, bool]:
        data = pair.shown("a")["linkinfo"]["info_slave_data"]
        return {name: data[name] for name in names}

    before = options()
    pair.nl.request(messages.bridge_port(index, **change))
    assert options() == {**before, **change}
    link = pair.link("a")
    assert (link.hairpin, link.isolated) == (options()["hairpin"], options()["isolated"])


def test_vlans_without_filtering_are_not_supported(pair: Place) -> None:
    """A kernel without VLAN filtering says so, for the bridge and for its ports; nothing is left half made."""
    try:
        needs("kernel:vlan_filtering")
    except pytest.skip.Exception:
        pass
    else:
        pytest.skip("this kernel has VLAN filtering")
    assert refused(pair, messages.new_bridge("br1", vlan_filtering=True)).errno == errno.EOPNOTSUPP
    assert pair.nl.link("br1") is None
    pair.nl.request(messages.new_bridge("br0"))
    pair.nl.request(messages.set_link("a", master=pair.link("br0").index))
    assert refused(pair, messages.bridge_vlan(pair.link("a").index, 10)).errno == errno.EOPNOTSUPP


@pytest.mark.needs("kernel:vlan_filtering")
def test_vlans_of_a_port(pair: Place) -> None:
    """PVID, range and removal, as `bridge vlan` shows them."""
    pair.nl.request(messages.new_bridge("br0", vlan_filtering=True))
    assert pair.link("br0").vlan_filtering is True
    index = pair.link("a").index
    pair.nl.request(
        messages.set_link(index, master=pair.link("br0").index),
        messages.bridge_vlan(index, 1, delete=True),
        messages.bridge_vlan(index, 10, pvid=True, untagged=True),
        messages.bridge_vlan(index, 20, vid_end=22),
    )
    shown = pair.ns.run(["bridge", "vlan", "show", "dev", "a"]).stdout
    assert [word for word in shown.split() if word.isdigit()] == ["10", "20", "21", "22"]
    assert "10 PVID Egress Untagged" in shown


def test_port_forwards_soon_after_both_ends_are_up(here: Place, there: Place) -> None:
    """None as soon as a frame would get through; until then the state in words (the first is linkwatch's to settle)."""
    here.nl.request(messages.new_bridge("br0"))
    here.nl.request(messages.new_veth(host="veth1", peer="eth0", netns_fd=there.fd, master=here.link("br0").index))
    index = here.link("veth1").index
    assert here.nl.wait_port_forwarding(index, 0) in ("lowerlayerdown, port disabled", "down, port disabled")
    there.nl.request(messages.set_link("eth0", up=True))
    assert here.nl.wait_port_forwarding(index, 5) is None
    assert here.link("veth1").forwarding
    here.nl.request(messages.set_link("br0", up=False))
    assert here.nl.wait_port_forwarding(index, 0.02) == "up, port disabled"


def test_waiting_for_what_cannot_come_ends_at_once(pair: Place) -> None:
    """No port of a bridge, no link: no use to wait for the deadline."""
    assert pair.nl.wait_port_forwarding(pair.link("a").index, 60) in (
        "up, no bridge port",
        "lowerlayerdown, no bridge port",
    )
    assert pair.nl.wait_port_forwarding(4711, 60) == "gone"
