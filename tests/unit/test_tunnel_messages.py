"""Requests, answers and frames about tunnels: against pyroute2, against each other, and as properties. No kernel."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from pycni.change.forwarding import PROTOCOL, FdbEntry, NeighbourEntry, RouteEntry
from pycni.firewall.elements import decode_elements, encode_element
from pycni.firewall.nft_text import render_elements
from pycni.firewall.tunnel_text import TUNNELS, guarded_element, peer_elements
from pycni.host import arp, forwarding_facts, inet_messages, link_events, messages, netlink, vxlan_messages
from pycni.host.offload import known_fault
from tests.unit.test_messages import decoded, pairs

MAC = b"\x02\0\0\0\0\x01"
MACS = st.binary(min_size=6, max_size=6)
PACKED = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
INDEXES = st.integers(1, 0x7FFFFFFF)


def payload(request: bytes) -> bytes:
    return request[netlink.HEADER.size :]


@pytest.mark.parametrize(("local", "group"), [("192.0.2.1", "239.1.1.1"), ("2001:db8::1", "ff05::1")])
def test_device_as_pyroute2_reads_it(local: str, group: str) -> None:
    """Name, MAC, MTU and all that is particular to VXLAN; addresses in the attribute of their family."""
    request = vxlan_messages.new_vxlan(
        "vxlan100",
        vni=100,
        port=4789,
        local=ip_address(local).packed,
        link=7,
        mac=MAC,
        mtu=1450,
        learning=True,
        proxy=False,
        group=ip_address(group).packed,
    )
    link = decoded(ifinfmsg, request)
    assert link["header"]["flags"] == 0x605  # REQUEST|ACK|EXCL|CREATE
    assert (link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_MTU")) == ("vxlan100", 1450)
    assert link.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:01"
    info = link.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "vxlan"
    six = "6" if ":" in local else ""
    assert dict(pairs(info.get_attr("IFLA_INFO_DATA"))) == {
        "IFLA_VXLAN_ID": 100,
        "IFLA_VXLAN_PORT": 4789,
        f"IFLA_VXLAN_LOCAL{six}": local,
        "IFLA_VXLAN_LEARNING": 1,
        "IFLA_VXLAN_PROXY": 0,
        "IFLA_VXLAN_LINK": 7,
        f"IFLA_VXLAN_GROUP{six}": group,
    }


@given(INDEXES, MACS, PACKED)
def test_packed_messages_are_those_put_together_from_attributes(index: int, mac: bytes, address: bytes) -> None:
    """The quick way makes the same bytes as the other one, and pyroute2 reads what was meant."""
    remote = ip_address(address)
    assert vxlan_messages.new_remote(index, mac, address) == inet_messages.new_fdb(index, mac, remote=remote)
    deleted = vxlan_messages.delete_remote(index, mac, address)
    assert deleted == inet_messages.delete_fdb(index, mac, remote=remote)
    port = decoded(ndmsg, vxlan_messages.new_port_entry(index, mac))
    assert (port["family"], port["ifindex"], port["state"], port["flags"]) == (7, index, 0x40, 0x44)
    assert pairs(port) == [("NDA_LLADDR", mac.hex(":"))]
    assert vxlan_messages.delete_port_entry(index, mac) == inet_messages.delete_fdb(index, mac)
    theirs = decoded(ndmsg, inet_messages.new_neighbour(index, remote, mac))
    ours = decoded(ndmsg, vxlan_messages.new_static_neighbour(index, address, mac))
    assert {key: ours[key] for key in ("family", "ifindex", "state", "flags")} == {
        key: theirs[key] for key in ("family", "ifindex", "state", "flags")
    }
    assert sorted(pairs(ours)) == sorted(pairs(theirs))
    assert vxlan_messages.delete_static_neighbour(index, address) == inet_messages.delete_neighbour(index, remote)


@pytest.mark.parametrize(
    ("prefix", "via", "src"),
    [("10.21.0.64/26", "10.21.0.64", "10.21.0.1"), ("fd21::/64", "fd21::", "fd20::1"), ("0.0.0.0/0", "10.0.0.1", "")],
)
def test_route_as_pyroute2_reads_it_and_as_we_do(prefix: str, via: str, src: str) -> None:
    """Onlink, of our protocol and metric; read back it is the entry it was made of."""
    network = ip_network(prefix)
    packed = (network.network_address.packed, network.prefixlen)
    request = vxlan_messages.new_onlink_route(9, packed, ip_address(via).packed, ip_address(src).packed if src else b"")
    route = decoded(rtmsg, request)
    assert (route["proto"], route["flags"] & 4, route["dst_len"]) == (PROTOCOL, 4, network.prefixlen)
    assert (route.get_attr("RTA_GATEWAY"), route.get_attr("RTA_OIF")) == (via, 9)
    assert (route.get_attr("RTA_PRIORITY"), route.get_attr("RTA_PREFSRC")) == (vxlan_messages.METRIC, src or None)
    assert forwarding_facts.read_route(payload(request)) == (9, RouteEntry(prefix, via, src))
    strange = inet_messages.new_route(network, gw=ip_address(via), oif=9)
    assert forwarding_facts.read_route(payload(strange)) == (9, None)


@given(INDEXES, MACS, PACKED)
def test_what_is_written_is_what_is_read(index: int, mac: bytes, address: bytes) -> None:
    """A message that adds an entry, taken for one that tells of it, is that entry; deleted neighbours have no MAC."""
    text = str(ip_address(address))
    added = payload(vxlan_messages.new_static_neighbour(index, address, mac))
    assert forwarding_facts.read_neighbour(added) == (index, NeighbourEntry(text, mac.hex(":")))
    remote = payload(vxlan_messages.new_remote(index, mac, address))
    multicast = ip_address(address).is_multicast
    assert forwarding_facts.read_neighbour(remote) == (index, None if multicast else FdbEntry(mac.hex(":"), text))
    gone = link_events.changes(vxlan_messages.delete_static_neighbour(index, address))
    assert gone == [link_events.Change(index, True, entry=NeighbourEntry(text, ""))]


@pytest.mark.parametrize("state", [0x02, 0x04, 0x20])
def test_learned_entries_are_none_of_ours(state: int) -> None:
    """Reachable, stale or failed: those that kernels and bridges come to know by themselves."""
    own = netlink.attribute(inet_messages.NDA_LLADDR, MAC) + netlink.attribute(inet_messages.NDA_DST, bytes(4))
    for family, flags in ((2, 0), (7, inet_messages.NTF_SELF)):
        assert forwarding_facts.read_neighbour(inet_messages.NDMSG.pack(family, 3, state, flags, 0) + own) == (3, None)
    bridged = netlink.attribute(inet_messages.NDA_LLADDR, MAC) + netlink.u32(forwarding_facts.NDA_MASTER, 5)
    assert forwarding_facts.read_neighbour(inet_messages.NDMSG.pack(7, 3, state, 0, 0) + bridged) == (3, None)


@given(st.binary(min_size=16, max_size=16))
@example(IPv6Address("::1.2.3.4").packed)
@example(IPv6Address("::ffff:1.2.3.4").packed)
@example(IPv6Address("fd00::1:0:0:1").packed)
@example(IPv6Address("fd00:0:1::").packed)
def test_addresses_are_printed_as_ipaddress_does(packed: bytes) -> None:
    """Else what is in the kernel would never be equal to what is wanted."""
    assert forwarding_facts.address_text(packed) == str(ip_address(packed))


def test_datagram_of_several_notices() -> None:
    """Each is told in order; what is no change of ours is left out."""
    link = netlink.message(messages.RTM_NEWLINK, 0, messages.IFINFOMSG.pack(0, 0, 4, 1, 0), netlink.text(3, "eth0"))
    port = netlink.message(messages.RTM_NEWLINK, 0, messages.IFINFOMSG.pack(7, 0, 4, 1, 0))
    address = inet_messages.IFADDRMSG.pack(2, 24, 0, 0, 4) + netlink.attribute(2, bytes((192, 0, 2, 7)))
    gone = netlink.message(inet_messages.RTM_DELADDR, 0, address)
    entry = vxlan_messages.new_remote(9, MAC, bytes((192, 0, 2, 9)))
    first, second, third = link_events.changes(link + port + netlink.message(99, 0, b"") + gone + entry)
    assert first.link is not None
    assert (first.index, first.link.name, first.link.up) == (4, "eth0", True)
    assert (second.gone, second.address) == (True, "192.0.2.7")
    assert third == link_events.Change(9, False, entry=FdbEntry(MAC.hex(":"), "192.0.2.9"))


def test_arp_announcement() -> None:
    """A gratuitous reply to everybody: sender and target, both address and MAC, are what is announced."""
    mac = bytes.fromhex("02420a140003")
    wanted = b"\xff" * 6 + mac + bytes.fromhex("0806 0001 0800 06 04 0002") + mac + bytes((10, 20, 0, 3))
    assert arp.frame("10.20.0.3", "02:42:0a:14:00:03") == wanted + mac + bytes((10, 20, 0, 3))


@given(st.binary(min_size=16, max_size=16), MACS)
def test_neighbour_advertisement(packed: bytes, mac: bytes) -> None:
    """From the address itself to all nodes, hop limit 255, override and not solicited, with a good checksum."""
    frame = arp.frame(str(ip_address(packed)), mac.hex(":"))
    header, icmp = frame[14:54], frame[54:]
    assert (frame[:6], frame[6:12], frame[12:14]) == (b"\x33\x33\0\0\0\x01", mac, b"\x86\xdd")
    assert (header[4:6], header[6], header[7]) == (struct.pack("!H", len(icmp)), 58, 255)
    assert (header[8:24], header[24:]) == (packed, IPv6Address("ff02::1").packed)
    assert (icmp[0], icmp[4:8], icmp[8:24], icmp[24:]) == (136, b"\x20\0\0\0", packed, b"\x02\x01" + mac)
    pseudo = header[8:40] + struct.pack("!II", len(icmp), 58) + icmp
    assert sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo)) % 0xFFFF == 0


@pytest.mark.parametrize(
    ("driver", "release", "faulty"),
    [
        ("vmxnet3", "6.1.0-18-amd64", True),
        ("virtio_net", "6.1.0-18-amd64", False),
        ("virtio_net", "5.6.19", True),
        ("", "5.7.0-rc1", False),
        ("", "6.18.44-fc", False),
        ("", "5.15+", False),
        ("", "strange", False),
    ],
)
def test_known_faults_of_checksum_offload(driver: str, release: str, faulty: bool) -> None:
    """By driver, by age of the kernel; of a release that cannot be read nothing is known."""
    assert bool(known_fault(("bonding", driver), release)) == faulty


def test_guards_table_as_text() -> None:
    """Three rules, before connection tracking and whoever else looks at raw packets."""
    assert (
        TUNNELS.render()
        == """\
table inet pycni_tunnels {
    set guarded { typeof udp dport . @th,96,24; }
    set vteps4 { typeof udp dport . @th,96,24 . ip saddr; }
    set vteps6 { typeof udp dport . @th,96,24 . ip6 saddr; }
    chain prerouting {
        type filter hook prerouting priority raw - 10; policy accept;
        meta nfproto ipv4 udp dport . @th,96,24 . ip saddr @vteps4 accept
        meta nfproto ipv6 udp dport . @th,96,24 . ip6 saddr @vteps6 accept
        udp dport . @th,96,24 @guarded drop
    }
}
"""
    )
    members = [guarded_element(4789, 100), *peer_elements(4789, 100, ["2001:db8::1", "192.0.2.1", "192.0.2.1"])]
    assert render_elements(TUNNELS, members).splitlines() == [
        "add element inet pycni_tunnels guarded { 4789 . 100 }",
        "add element inet pycni_tunnels vteps4 { 4789 . 100 . 192.0.2.1 }",
        "add element inet pycni_tunnels vteps6 { 4789 . 100 . 2001:db8::1 }",
    ]


@given(st.integers(1, 65535), st.integers(1, (1 << 24) - 1), PACKED)
def test_elements_of_the_guard_come_back(port: int, vni: int, packed: bytes) -> None:
    """Port, VNI and address in network order, each padded to 4 bytes; what was encoded is read back."""
    (element,) = peer_elements(port, vni, [str(ip_address(packed))])
    spec = TUNNELS.set_named(element.set)
    assert spec is not None
    encoded = encode_element(spec, element, comment=True)
    assert struct.pack(">HxxI", port, vni << 8) + packed in encoded
    assert list(decode_elements(spec, netlink.nested(1, encoded))) == [element]
