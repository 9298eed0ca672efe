"""rtnetlink requests against pyroute2's encoder and decoder, and against bytes by hand from the kernel's headers."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from pycni.host import link_facts, messages, netlink
from pycni.host.inet_messages import RTN_BLACKHOLE

MAC, OTHER_MAC = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
SEPARATE, EXTEND, NEW = 0x605, 0xC05, 0x505  # REQUEST|ACK|CREATE with EXCL, APPEND, REPLACE
HOWS = ((False, False), (True, False), (False, True))  # append, replace


def decoded(kind: type[Any], request: bytes) -> Any:
    """What pyroute2 reads out of the one message in *request*."""
    assert struct.unpack_from("=I", request)[0] == len(request)
    message = kind(request)
    message.decode()
    return message


def pairs(nest: Any) -> list[tuple[str, Any]]:
    """Name and value of the attributes that pyroute2 read."""
    return [(name, value) for name, value in nest["attrs"]]


def encoded(kind: type[Any], rtm: int, flags: int, fields: dict[str, Any], attributes: list[Any]) -> bytes:
    """What pyroute2 makes of the same request."""
    message = kind()
    message.update(fields)
    message["header"] = {"type": rtm, "flags": flags, "sequence_number": 0, "pid": 0}
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data)


def test_veth_is_what_pyroute2_encodes() -> None:
    """Names, both indexes, namespace, master, MTU and MACs of a pair are encoded as pyroute2 encodes them."""
    ours = messages.new_veth(
        host="veth1",
        host_index=70,
        peer="eth0",
        peer_index=2,
        netns_fd=9,
        master=5,
        mtu=1400,
        host_mac=MAC,
        peer_mac=OTHER_MAC,
    )
    peer = {
        "index": 2,
        "attrs": [
            ("IFLA_IFNAME", "eth0"),
            ("IFLA_MTU", 1400),
            ("IFLA_ADDRESS", "02:00:00:00:00:02"),
            ("IFLA_NET_NS_FD", 9),
            ("IFLA_NUM_TX_QUEUES", 1),
            ("IFLA_NUM_RX_QUEUES", 1),
        ],
    }
    theirs = encoded(
        ifinfmsg,
        16,
        SEPARATE,
        {"index": 70, "flags": 1, "change": 1},
        [
            ("IFLA_IFNAME", "veth1"),
            ("IFLA_MTU", 1400),
            ("IFLA_ADDRESS", "02:00:00:00:00:01"),
            ("IFLA_NUM_TX_QUEUES", 1),
            ("IFLA_NUM_RX_QUEUES", 1),
            (
                "IFLA_LINKINFO",
                {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]},
            ),
            ("IFLA_MASTER", 5),
        ],
    )
    assert without_nested_flag_and_kind_terminator(ours) == without_nested_flag_and_kind_terminator(theirs)


def without_nested_flag_and_kind_terminator(request: bytes) -> Any:
    """The tree of a request: pyroute2 sets NLA_F_NESTED nowhere and ends IFLA_INFO_KIND with a NUL, both optional."""
    link = {18, (18, 2), (18, 2, 1)}

    def tree(data: bytes, path: tuple[int, ...]) -> list[Any]:
        found: list[Any] = []
        for kind, value in netlink.attributes(data):
            here = (*path, kind)
            if here == (18, 2, 1):  # VETH_INFO_PEER: struct ifinfomsg, then attributes
                found.append((kind, value[:16], tree(value[16:], here)))
            elif here[0] in link and (here == (18,) or here in link):
                found.append((kind, tree(value, here)))
            else:
                found.append((kind, value.rstrip(b"\0") if here == (18, 1) else value))
        return found

    return request[4:32], tree(request[32:], ())


def test_peer_is_never_born_up() -> None:
    """The peer's header has no IFF_UP whatever is asked for the host end: the kernel would answer ENOTCONN."""
    link = decoded(ifinfmsg, messages.new_veth(host="h", peer="p", netns_fd=3, host_up=True))
    peer = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "VETH_INFO_PEER")
    assert (link["flags"], peer["flags"], peer["change"]) == (1, 0, 0)


def test_peer_index_alone_is_refused() -> None:
    """The kernel would silently choose another index for the peer."""
    with pytest.raises(ValueError, match="host_index"):
        messages.new_veth(host="h", peer="p", peer_index=2, netns_fd=3)


def test_alias_is_a_second_message_to_the_name() -> None:
    """An alias is refused at creation, so it follows by itself, addressed by name."""
    both = messages.new_veth(host="veth1", peer="eth0", netns_fd=3, alias="pycni net/c1/eth0")
    (_, first), (start, second) = netlink.split(both)
    assert first + second == len(both)
    alias = decoded(ifinfmsg, both[start:])
    assert alias["header"]["type"] == messages.RTM_SETLINK
    assert alias["index"] == 0
    assert alias.get_attr("IFLA_IFNAME") == "veth1"
    assert alias.get_attr("IFLA_IFALIAS") == "pycni net/c1/eth0"


def test_rename_by_name_is_refused() -> None:
    """Beside a name the kernel takes the new one for the old."""
    with pytest.raises(ValueError, match="index"):
        messages.set_link("eth0", name="eth1")


@pytest.mark.parametrize(
    ("change", "flags", "mask"),
    [
        ({}, 0, 0),
        ({"up": True}, 1, 1),
        ({"up": False}, 0, 1),
        ({"promisc": True}, 0x100, 0x100),
        ({"up": True, "promisc": False}, 1, 0x101),
        ({"all_multicast": True, "promisc": False}, 0x200, 0x300),
    ],
)
def test_flags_not_given_are_not_touched(change: dict[str, Any], flags: int, mask: int) -> None:
    """ifi_change holds exactly the flags that are given."""
    link = decoded(ifinfmsg, messages.set_link(7, **change))
    assert (link["index"], link["flags"], link["change"]) == (7, flags, mask)


def test_set_link_sends_zero_and_empty_but_not_absent() -> None:
    """master=0, alias="" and group=0 are wishes; what is not given is not in the message."""
    some = decoded(ifinfmsg, messages.set_link(7, master=0, group=0, alias=""))
    assert {name for name, _ in some["attrs"]} == {"IFLA_MASTER", "IFLA_GROUP", "IFLA_IFALIAS"}
    assert pairs(decoded(ifinfmsg, messages.set_link(7, name="new", mtu=9000))) == [
        ("IFLA_IFNAME", "new"),
        ("IFLA_MTU", 9000),
    ]


def test_long_name_is_an_alternative_name() -> None:
    """IFLA_IFNAME (3) takes 15 bytes; longer ones, which only alternative names have, go as IFLA_ALT_IFNAME (53)."""
    assert dict(netlink.attributes(messages.get_link("a" * 15), 32))[3] == b"a" * 15 + b"\0"
    assert dict(netlink.attributes(messages.get_link("a" * 16), 32))[53] == b"a" * 16 + b"\0"


def test_get_link_skips_statistics() -> None:
    """RTEXT_FILTER_SKIP_STATS (1<<3) is in IFLA_EXT_MASK (29), and no dump is asked for."""
    request = messages.get_link(3)
    assert netlink.HEADER.unpack_from(request)[1:3] == (18, 1)
    assert dict(netlink.attributes(request, 32)) == {29: struct.pack("=I", 8)}


PORT = bytes.fromhex("07000000 05000000 00000000 00000000".replace(" ", ""))  # struct ifinfomsg: AF_BRIDGE, index 5


def by_hand(rtm: int, *attributes: bytes) -> bytes:
    body = PORT + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), rtm, 5, 0, 0) + body


LITTLE = pytest.mark.skipif(
    struct.pack("=H", 1) != b"\1\0", reason="the bytes below are those of a little-endian machine"
)


@LITTLE
def test_port_options_by_hand() -> None:
    """IFLA_PROTINFO (12, nested) with MODE (4) and ISOLATED (33), one byte each."""
    options = bytes.fromhex("1400 0c80  0500 0400 01 000000  0500 2100 00 000000".replace(" ", ""))
    assert messages.bridge_port(5, hairpin=True, isolated=False) == by_hand(19, options)
    options = bytes.fromhex("1400 0c80  0500 0800 00 000000  0500 2000 01 000000".replace(" ", ""))
    assert messages.bridge_port(5, learning=False, neigh_suppress=True) == by_hand(19, options)


@LITTLE
@pytest.mark.parametrize(
    ("request_", "rtm", "spec"),
    [
        (messages.bridge_vlan(5, 10, pvid=True, untagged=True), 19, "0c00 1a80 0800 0200 0600 0a00"),
        (messages.bridge_vlan(5, 10), 19, "0c00 1a80 0800 0200 0000 0a00"),
        (messages.bridge_vlan(5, 10, vid_end=10), 19, "0c00 1a80 0800 0200 0000 0a00"),
        (messages.bridge_vlan(5, 1, delete=True), 17, "0c00 1a80 0800 0200 0000 0100"),
        (messages.bridge_vlan(5, 10, vid_end=20), 19, "1400 1a80 0800 0200 0800 0a00 0800 0200 1000 1400"),
        (
            messages.bridge_vlan(5, 10, vid_end=4094, untagged=True, self_=True),
            19,
            "1c00 1a80 0600 0000 0200 0000 0800 0200 0c00 0a00 0800 0200 1400 fe0f",
        ),
    ],
)
def test_vlans_by_hand(request_: bytes, rtm: int, spec: str) -> None:
    """IFLA_AF_SPEC (26, nested): IFLA_BRIDGE_FLAGS (0) SELF, IFLA_BRIDGE_VLAN_INFO (2) flags, vid; ranges are two."""
    assert request_ == by_hand(rtm, bytes.fromhex(spec.replace(" ", "")))


def test_vlans_as_pyroute2_reads_them() -> None:
    """The decoder of pyroute2 finds the same VLANs, range marks and flags."""
    link = decoded(ifinfmsg, messages.bridge_vlan(5, 10, vid_end=20, self_=True))
    assert link["family"] == 7
    assert pairs(link.get_attr("IFLA_AF_SPEC")) == [
        ("IFLA_BRIDGE_VLAN_FLAGS", 2),
        ("IFLA_BRIDGE_VLAN_INFO", {"flags": 8, "vid": 10}),
        ("IFLA_BRIDGE_VLAN_INFO", {"flags": 16, "vid": 20}),
    ]


@pytest.mark.parametrize("filtering", [False, True])
def test_vlan_filtering_is_asked_for_only_if_wanted(filtering: bool) -> None:
    """A kernel without VLAN filtering refuses even a false."""
    info = decoded(ifinfmsg, messages.new_bridge("br0", vlan_filtering=filtering)).get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "bridge"
    data = info.get_attr("IFLA_INFO_DATA")
    assert (data.get_attr("IFLA_BR_VLAN_FILTERING") if data else None) == (1 if filtering else None)


@pytest.mark.parametrize("text", ["10.1.2.3/16", "10.1.2.3/31", "10.1.2.3/32", "fd00::2/64", "fd00::2/128"])
@pytest.mark.parametrize(("replace", "flags"), [(False, SEPARATE), (True, NEW)])
def test_address_is_what_pyroute2_encodes(text: str, replace: bool, flags: int) -> None:
    """Both families, byte for byte; an IPv4 network of more than two addresses has a broadcast address."""
    interface = ip_interface(text)
    family = 2 if interface.version == 4 else 10
    attributes = [("IFA_LOCAL", str(interface.ip)), ("IFA_ADDRESS", str(interface.ip))]
    if text == "10.1.2.3/16":
        attributes.append(("IFA_BROADCAST", "10.1.255.255"))
    fields = {"family": family, "prefixlen": interface.network.prefixlen, "index": 3}
    assert messages.new_address(3, interface, replace=replace) == encoded(ifaddrmsg, 20, flags, fields, attributes)


def test_nodad_is_for_ipv6() -> None:
    """IFA_F_NODAD (2) is set where there is a detection to skip."""
    assert decoded(ifaddrmsg, messages.new_address(3, ip_interface("fd00::2/64"), nodad=True))["flags"] == 2
    assert decoded(ifaddrmsg, messages.new_address(3, ip_interface("10.0.0.2/8"), nodad=True))["flags"] == 0


@pytest.mark.parametrize(
    ("dst", "given", "header", "attributes"),
    [
        ("0.0.0.0/0", {"gw": "10.0.0.1"}, {"scope": 0, "table": 254}, {"RTA_GATEWAY": "10.0.0.1"}),
        ("::/0", {"gw": "fd00::1"}, {"scope": 0, "table": 254}, {"RTA_GATEWAY": "fd00::1"}),
        ("10.2.0.0/16", {"oif": 3}, {"scope": 253}, {"RTA_DST": "10.2.0.0", "RTA_OIF": 3}),
        ("fd02::/64", {"oif": 3, "metric": 9}, {"scope": 0}, {"RTA_DST": "fd02::", "RTA_OIF": 3, "RTA_PRIORITY": 9}),
        ("10.2.0.0/16", {"oif": 3, "scope": 200}, {"scope": 200}, {"RTA_DST": "10.2.0.0", "RTA_OIF": 3}),
        ("10.2.0.0/16", {"oif": 3, "table": 255}, {"table": 255}, {"RTA_DST": "10.2.0.0", "RTA_OIF": 3}),
        (
            "10.2.0.0/16",
            {"oif": 3, "table": 256},
            {"table": 0},
            {"RTA_DST": "10.2.0.0", "RTA_OIF": 3, "RTA_TABLE": 256},
        ),
        ("10.2.0.0/16", {"kind": RTN_BLACKHOLE}, {"type": 6, "scope": 0}, {"RTA_DST": "10.2.0.0"}),
        (
            "10.2.0.0/16",
            {"src": "10.0.0.2", "protocol": 99, "oif": 3},
            {"proto": 99},
            {"RTA_DST": "10.2.0.0", "RTA_PREFSRC": "10.0.0.2", "RTA_OIF": 3},
        ),
        (
            "10.2.0.0/16",
            {"gw": "fd00::1", "oif": 3},
            {"family": 2},
            {"RTA_DST": "10.2.0.0", "RTA_VIA": {"family": 10, "addr": "fd00::1"}, "RTA_OIF": 3},
        ),
    ],
)
def test_route_as_pyroute2_reads_it(
    dst: str, given: dict[str, Any], header: dict[str, int], attributes: dict[str, Any]
) -> None:
    """Every field lands where the kernel looks for it, in both families; a gateway of the other family is RTA_VIA."""
    values: dict[str, Any] = {key: ip_address(value) if key in ("gw", "src") else value for key, value in given.items()}
    network = ip_network(dst)
    route = decoded(rtmsg, messages.new_route(network, **values))
    assert dict(pairs(route)) == attributes
    assert {key: route[key] for key in header} == header
    assert (route["family"], route["dst_len"]) == (2 if network.version == 4 else 10, network.prefixlen)


def test_route_metrics_and_flags() -> None:
    """mtu and advmss are nested in RTA_METRICS; append and replace change only how, not what."""
    dst = ip_network("10.2.0.0/16")
    route = decoded(rtmsg, messages.new_route(dst, oif=3, mtu=1300, advmss=1200))
    assert pairs(route.get_attr("RTA_METRICS")) == [("RTAX_MTU", 1300), ("RTAX_ADVMSS", 1200)]
    made = [messages.new_route(dst, oif=3, append=append, replace=replace) for append, replace in HOWS]
    assert [netlink.HEADER.unpack_from(one)[2] for one in made] == [SEPARATE, EXTEND, NEW]
    assert made[0][8:] == made[1][8:] == made[2][8:]


def test_neighbour_and_fdb_as_pyroute2_reads_them() -> None:
    """State and owner flags of IP neighbours, proxies, VXLAN far ends and static bridge entries."""
    fixed = decoded(ndmsg, messages.new_neighbour(3, ip_address("fd00::9"), MAC))
    assert (fixed["family"], fixed["ifindex"], fixed["state"], fixed["flags"]) == (10, 3, 0x80, 0)
    assert pairs(fixed) == [("NDA_DST", "fd00::9"), ("NDA_LLADDR", "02:00:00:00:00:01")]
    seen = decoded(ndmsg, messages.new_neighbour(3, ip_address("10.0.0.9"), MAC, permanent=False, ext_learned=True))
    assert (seen["family"], seen["state"], seen["flags"]) == (2, 0x02, 0x10)
    proxy = decoded(ndmsg, messages.new_neighbour(3, ip_address("10.0.0.9"), proxy=True))
    assert (proxy["flags"], pairs(proxy)) == (0x08, [("NDA_DST", "10.0.0.9")])
    far = decoded(ndmsg, messages.new_fdb(3, MAC, remote=ip_address("10.0.0.1"), append=True))
    assert (far["family"], far["state"], far["flags"], far["header"]["flags"]) == (7, 0x80, 0x02, EXTEND)
    near = decoded(ndmsg, messages.new_fdb(3, MAC))
    assert (near["family"], near["state"], near["flags"], near["header"]["flags"]) == (7, 0x40, 0x04, NEW)


@given(st.lists(st.tuples(st.integers(0, netlink.NLA_TYPE_MASK), st.binary(max_size=40)), max_size=8))
def test_attributes_come_back(wanted: list[tuple[int, bytes]]) -> None:
    """What was packed is read back, in order, with any type and any size."""
    assert list(netlink.attributes(b"".join(netlink.attribute(kind, data) for kind, data in wanted))) == wanted


@given(st.binary(max_size=200))
def test_torn_answers_end_the_walk(data: bytes) -> None:
    """No bytes make the readers raise or run on for ever."""
    assert sum(4 + len(value) for _, value in netlink.attributes(data)) <= len(data) + 3
    assert sum(size for _, size in netlink.split(data)) <= len(data)


def ext_ack(text: str) -> bytes:
    return netlink.text(netlink.NLMSGERR_ATTR_MSG, text)


def test_error_text_is_found_in_every_shape() -> None:
    """Behind a capped request, behind an echoed one, and at the end of a dump; "" where the kernel gave none."""
    request = netlink.message(16, 0, b"12345678")
    capped = struct.pack("=i", -17) + request[:16] + ext_ack("taken")
    whole = struct.pack("=i", -17) + request + ext_ack("taken")
    end = struct.pack("=i", -22) + ext_ack("bad mask")
    assert netlink.error_text(netlink.NLMSG_ERROR, 0x300, capped) == "taken"
    assert netlink.error_text(netlink.NLMSG_ERROR, 0x200, whole) == "taken"
    assert netlink.error_text(netlink.NLMSG_DONE, 0x202, end) == "bad mask"
    assert netlink.error_text(netlink.NLMSG_ERROR, 0x100, capped[:20]) == ""


def test_multipath_route_is_one_fact_per_next_hop() -> None:
    """Both next hops of RTA_MULTIPATH are seen, each with its gateway and link."""
    hops = b"".join(
        struct.pack("=HBBi", 8 + 8, 0, 0, index) + netlink.attribute(5, IPv4Address(gw).packed)
        for index, gw in ((3, "10.0.0.1"), (4, "10.1.0.1"))
    )
    header = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 4, 0, 1, 0)
    found = link_facts.read_route(header + netlink.attribute(9, hops))
    assert [(hop.oif, str(hop.gw), str(hop.dst)) for hop in found] == [
        (3, "10.0.0.1", "0.0.0.0/0"),
        (4, "10.1.0.1", "0.0.0.0/0"),
    ]


def test_route_via_the_other_family_is_read() -> None:
    """The gateway of an IPv4 route over IPv6 comes in RTA_VIA."""
    header = struct.pack("=BBBBBBBBI", 2, 16, 0, 0, 254, 4, 0, 1, 0)
    via = netlink.attribute(18, struct.pack("=H", 10) + IPv6Address("fe80::1").packed)
    (route,) = link_facts.read_route(header + netlink.attribute(1, bytes([10, 2, 0, 0])) + via)
    assert (str(route.dst), str(route.gw)) == ("10.2.0.0/16", "fe80::1")
