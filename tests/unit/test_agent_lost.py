"""What the agent brings back of the links that containers share, and what it leaves alone; which notices it heeds."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.agent.lost import Added, There, lost
from pycni.agent.notices import is_shared, take_in
from pycni.change.ops import (
    CreateVeth,
    EnsureAddress,
    EnsureBridge,
    EnsureSysctl,
    EnsureVlanGateway,
    Op,
    SetPort,
    SetPortVlans,
)
from pycni.change.rejoining import JoinBridge, SetMac
from pycni.change.tunnels import EnsureOffload, EnsureVxlan
from pycni.host.link_events import Change
from pycni.host.link_facts import Link

UP = 0x1
MAC, OTHER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000099")
BRIDGE = EnsureBridge("br0", MAC, 0, "pycni net")
GATEWAYS = [ip_interface("10.1.0.1/24"), ip_interface("fd00::1/64")]
LINK_LOCAL = ip_interface("fe80::ff:fe00:1/64")
ADDRESSES = (*GATEWAYS, LINK_LOCAL)
FLAGS = SetPort("veth1", hairpin=True, isolated=None)
PAIR = CreateVeth("veth1", "eth0", "br0", 0, b"", "pycni net/c1/eth0")
OPS: tuple[Op, ...] = (BRIDGE, *(EnsureAddress("br0", each) for each in GATEWAYS), PAIR, FLAGS)
C1 = Added("net/c1/eth0", "net", OPS, sole=True)
QUIET = EnsureSysctl("net/ipv6/conf/br0/accept_ra", "0", optional=True)


def bridge(**changes: Any) -> Link:
    link = Link(3, "br0", kind="bridge", flags=UP, mtu=1400, mac=MAC, alias="pycni net", operstate=6)
    return link.replace(**changes)


DOWN = bridge(flags=0, operstate=2)


def port(**changes: Any) -> Link:
    return Link(5, "veth1", kind="veth", flags=UP, mtu=1400, master=3).replace(**changes)


def there(*links: Link, addresses: Any = ADDRESSES) -> There:
    return There({link.name: link for link in links}, {"br0": tuple(addresses)} if addresses is not None else {})


def ops(*added: Added, there: There) -> list[Op]:
    return [op for loss in lost(added, there) for op in loss.ops]


def test_nothing_is_missing() -> None:
    assert lost([C1], there(bridge(), port())) == ()


def test_deleted_bridge() -> None:
    """It comes back with its MAC, the MTU of its ports, its addresses, and the ports that were left behind, with their
    settings."""
    assert ops(C1, there=there(port(master=0), addresses=None)) == [
        BRIDGE.replace(mtu=1400),
        QUIET,
        *(EnsureAddress("br0", each) for each in GATEWAYS),
        JoinBridge("veth1", "br0"),
        FLAGS,
    ]
    assert [loss.what for loss in lost([C1], there(port(master=0), addresses=None))] == [
        "network net: bridge br0",
        "network net: address 10.1.0.1/24 of br0",
        "network net: address fd00::1/64 of br0",
        "net/c1/eth0: veth1 on bridge br0",
    ]


@pytest.mark.parametrize(
    ("links", "addresses"),
    [
        ((DOWN, port()), [GATEWAYS[0]]),  # the kernel has taken the IPv6 addresses
        ((DOWN.replace(mac=OTHER_MAC), port()), []),
        ((bridge(kind="bond"), port()), []),
        ((bridge(), port(master=0)), ADDRESSES),  # taken off a bridge that was there before the port
        ((bridge(index=9), port(master=4)), ADDRESSES),  # on another bridge
        ((bridge(index=9, kind="vxlan"), port(master=0)), ADDRESSES),
        ((bridge(alias="mine", mac=OTHER_MAC), port()), ADDRESSES),  # somebody else's bridge
        ((bridge(operstate=2), port()), GATEWAYS),  # no carrier, so no link-local address yet
        ((), None),  # without its host link an attachment needs no bridge
    ],
)
def test_what_somebody_may_want_so(links: tuple[Link, ...], addresses: Any) -> None:
    """Is left as it is."""
    assert lost([C1], there(*links, addresses=addresses)) == ()


def test_bridge_that_the_next_add_made() -> None:
    """Its index is larger than that of the port, which is on none: it goes back."""
    assert ops(C1, there=there(bridge(index=9), port(master=0))) == [JoinBridge("veth1", "br0"), FLAGS]


def test_mac_and_addresses() -> None:
    """Another MAC is set back, and told for the addresses that are there; each missing address comes back, the
    link-local one, too, without which the host asks for no MAC."""
    found = ops(C1, there=there(bridge(mac=OTHER_MAC), port(), addresses=[GATEWAYS[1]]))
    assert found[:2] == [SetMac("br0", MAC, (GATEWAYS[1].ip,)), EnsureAddress("br0", GATEWAYS[0])]
    assert ops(C1, there=there(bridge(), port(), addresses=GATEWAYS)) == [EnsureAddress("br0", LINK_LOCAL)]
    late = Added("net/c2/eth0", "net", (BRIDGE.replace(mac=OTHER_MAC), PAIR))
    assert ops(C1, late, there=there(bridge(mac=OTHER_MAC), port())) == [], "an ADD has made it so"


def test_one_address_a_bridge() -> None:
    """Where a bridge has one IPv4 address, the administrator's in place of ours stays, and of two networks the newer
    has its own; an overlay's bridge carries the gateways of all blocks."""
    foreign = ip_interface("10.7.0.1/24")
    assert ops(C1, there=there(bridge(), port(), addresses=[foreign, GATEWAYS[1], LINK_LOCAL])) == []
    forced = C1.replace(owner="b", ops=(BRIDGE, EnsureAddress("br0", foreign), PAIR))
    empty = there(bridge(), port(), addresses=[GATEWAYS[1], LINK_LOCAL])
    assert ops(C1, forced, there=empty) == [EnsureAddress("br0", foreign)]
    routed = [each.replace(sole=False) for each in (C1, forced)]
    assert ops(*routed, there=empty) == [EnsureAddress("br0", foreign), EnsureAddress("br0", GATEWAYS[0])]


def test_gateways_of_several_ranges() -> None:
    """All of them come back, also those that stand beside the address of another range of the same network."""
    second = ip_interface("10.2.0.1/24")
    both = C1.replace(ops=(*OPS, EnsureAddress("br0", second)))
    none = there(bridge(), port(), addresses=[LINK_LOCAL])
    assert ops(both, there=none) == [EnsureAddress("br0", each) for each in (*GATEWAYS, second)]
    two = C1.replace(owner="b", ops=(BRIDGE, EnsureAddress("br0", second), PAIR))
    one, two = (each.replace(beside=(GATEWAYS[0], second)) for each in (C1, two))
    left = there(bridge(), port(), addresses=[second, GATEWAYS[1], LINK_LOCAL])
    assert ops(one, two, there=left) == [EnsureAddress("br0", GATEWAYS[0])]


def test_vlan_gateway() -> None:
    """The pair of a VLAN's gateway goes back with its VLAN, or is made anew with its addresses."""
    gateway = EnsureVlanGateway("br0", "br0.7", 7, 0, "pycni net")
    address = EnsureAddress("br0.7", GATEWAYS[0])
    added = Added("net/c1/eth0", "net", (BRIDGE, gateway, address, PAIR), sole=True)
    end = Link(6, "br0.7", kind="veth", flags=UP)
    other = Link(7, "vbr0.7", kind="veth", flags=UP)
    links = {link.name: link for link in (port(master=0), end, other)}
    assert ops(added, there=There(links, {"br0.7": (GATEWAYS[0],)}))[2:] == [
        JoinBridge("veth1", "br0"),
        JoinBridge("vbr0.7", "br0"),
        SetPortVlans("vbr0.7", 7, (), keep_default=False),
    ]
    assert ops(added, there=there(bridge(), port())) == [gateway.replace(mtu=1400), address]


def test_vxlan_device_without_follower() -> None:
    """In mode multicast nobody else brings it back: when it is gone, or left behind by its bridge."""
    device = EnsureVxlan("vxlan7", 7, 4789, "192.0.2.1", "eth0", MAC, 1450, "br0", "pycni net")
    offload = EnsureOffload("vxlan7", "auto", "eth0")
    added = Added("net/c1/eth0", "net", (BRIDGE, device, offload, PAIR))
    assert ops(added, there=there(bridge(), port())) == [device, offload]
    assert ops(added, there=there(bridge(), port(), Link(4, "vxlan7", kind="vxlan", master=3))) == []
    left = there(bridge(index=9), port(master=9), Link(4, "vxlan7", kind="vxlan"))
    assert ops(added, there=left) == [device, offload]


BRIDGES = st.builds(bridge, index=st.sampled_from([3, 9]), mac=st.sampled_from([MAC, OTHER_MAC]))
PORTS = st.builds(port, master=st.sampled_from([0, 3]))
# Neither end of a pair is there without the other.
GATEWAY_PAIRS = st.sampled_from([0, 3]).map(
    lambda master: (
        Link(6, "br0.7", kind="veth", flags=UP, operstate=6, mac=MAC),
        Link(7, "vbr0.7", kind="veth", master=master),
    )
)
LINKS = st.tuples(
    st.just(()) | st.tuples(BRIDGES),
    st.just(()) | st.tuples(PORTS),
    st.just(()) | GATEWAY_PAIRS,
).map(lambda parts: {link.name: link for part in parts for link in part})


@given(LINKS, st.sets(st.sampled_from(ADDRESSES)), st.sets(st.sampled_from(ADDRESSES)))
def test_what_was_brought_back_is_not_missing(links: dict[str, Link], own: set[Any], of_vlan: set[Any]) -> None:
    """Whatever is missing, after its operations nothing is, but what the kernel adds by itself; and nothing that was
    there has gone or changed but the MAC."""
    vlan = (EnsureVlanGateway("br0", "br0.7", 7, 0, "pycni net"), *(EnsureAddress("br0.7", each) for each in GATEWAYS))
    added = Added("net/c1/eth0", "net", (*OPS, *vlan), sole=True)
    before = There(links, {name: tuple(each) for name, each in (("br0", own), ("br0.7", of_vlan)) if name in links})
    after = There(dict(before.links), dict(before.addresses))
    for loss in lost([added], before):
        for op in loss.ops:
            _do(op, after)
    left = [op for loss in lost([added], after) for op in loss.ops]
    assert all(isinstance(op, EnsureAddress) and op.address.is_link_local for op in left)
    for name, link in before.links.items():
        assert after.links[name].replace(mac=b"", master=0) == link.replace(mac=b"", master=0)
        assert link.master in (0, after.links[name].master)
        assert set(before.addresses.get(name, ())) <= set(after.addresses.get(name, ()))


def _do(op: Op, there: There) -> None:
    """What the kernel makes of it; an operation that it would refuse fails."""
    links, addresses = there.links, there.addresses
    if isinstance(op, EnsureBridge):
        assert op.name not in links
        links[op.name] = bridge(index=20, mac=op.mac, mtu=op.mtu)
        addresses[op.name] = ()
    elif isinstance(op, EnsureVlanGateway):
        links[op.name] = Link(21, op.name, kind="veth", flags=UP, mac=MAC, operstate=6)
        links[op.port] = Link(22, op.port, kind="veth", flags=UP, master=links[op.bridge].index)
        addresses[op.name] = ()
    elif isinstance(op, EnsureAddress):
        assert op.address not in addresses[op.link]
        addresses[op.link] = (*addresses[op.link], op.address)
    elif isinstance(op, JoinBridge):
        links[op.link] = links[op.link].replace(master=links[op.bridge].index)
    elif isinstance(op, SetMac):
        links[op.link] = links[op.link].replace(mac=op.mac)
    elif isinstance(op, SetPort | SetPortVlans):
        assert links[op.link].master


def test_notices() -> None:
    """Looked at is what deletes a bridge of ours, gives it another MAC, brings it up again or takes an address from
    it; not what makes one, and nothing of other links."""
    known: dict[int, Link] = {}
    assert not take_in(known, [Change(3, False, link=bridge(alias="")), Change(3, False, link=bridge())])
    assert known == {3: bridge()}
    assert not take_in(known, [Change(3, False, link=bridge(mtu=1300)), Change(3, False, address="10.1.0.1")])
    assert take_in(known, [Change(3, True, address="10.1.0.1")])
    assert not take_in(known, [Change(3, False, link=DOWN)])
    assert take_in(known, [Change(3, False, link=bridge())])
    assert take_in(known, [Change(3, False, link=bridge(mac=OTHER_MAC))])
    foreign = Link(8, "docker0", kind="bridge", flags=UP)
    assert not take_in(known, [Change(8, False, link=foreign), Change(8, True, address="fd00::1")])
    assert not take_in(known, [Change(8, True, link=foreign)])
    assert take_in(known, [Change(3, True, link=bridge())])
    assert known == {}
    assert not is_shared(port(alias="pycni net/c1/eth0"))
