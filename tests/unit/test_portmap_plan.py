"""What is decided about mappings: who serves them, which ports exclude each other, which one is chosen."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.change.claims import Claim, first_clash
from pycni.change.ops import ApplyFirewall, EnsureSysctl
from pycni.change.publishing import EnsureHairpin, EnsureLoopbackRoute, RemoveLoopbackRoute
from pycni.cni.errors import CniError
from pycni.cni.names import Attachment
from pycni.cni.result import Interface, IPConfig, PublishedPort, Result, parse_result, render_result
from pycni.portmap import plan, ports
from pycni.portmap.conf import Mapping, PortmapConf

V4, V6 = ip_interface("10.1.0.5/24"), ip_interface("fd00:1::5/64")
BOTH = {4: V4, 6: V6}
CNI1 = {4: "cni1", 6: "cni1"}
OWN = Attachment("net", "c1", "eth0", "portmap")


def conf(*mappings: Mapping, **keys: Any) -> PortmapConf:
    defaults: dict[str, Any] = {
        "backend": "",
        "proxy": "auto",
        "snat": True,
        "masq_all": False,
        "mark_masq_bit": 13,
        "external_set_mark_chain": "",
        "conditions4": (),
        "conditions6": (),
        "direct_access": True,
        "trusted": (),
    }
    return PortmapConf(mappings=mappings, **{**defaults, **keys})


def facts(**changes: Any) -> plan.HostFacts:
    return plan.HostFacts(links=CNI1, host_link="veth1", is_port=True).replace(**changes)


def ways(one: Mapping, addresses: Any = None, **changes: Any) -> list[tuple[int, str, bool, bool]]:
    """(family, container address, by the kernel, by the proxy) of each service; keys of the configuration or facts."""
    known = {key: value for key, value in changes.items() if key in plan.HostFacts.__annotations__}
    keys = {key: value for key, value in changes.items() if key not in known}
    found = plan.services(conf(one, **keys), addresses or BOTH, facts(**known))
    return [(each.family, each.address, each.kernel, each.proxied) for each in found]


ANY = Mapping("tcp", 8080, 8080, 80)
ON_V6 = ANY.replace(family=6)
KERNEL4, KERNEL6 = (4, "10.1.0.5", True, False), (6, "fd00:1::5", True, False)
PROXY = {"serves_proxy": True}


@pytest.mark.parametrize(
    ("mapping", "addresses", "how", "expected"),
    [
        (ANY, BOTH, {}, [KERNEL4, KERNEL6]),
        (ANY, BOTH, PROXY, [KERNEL4, KERNEL6]),
        (ON_V6, BOTH, {}, [KERNEL6]),
        (ANY, {4: V4}, {}, [KERNEL4]),
        (ANY, {4: V4}, PROXY, [KERNEL4, (6, "10.1.0.5", False, True)]),
        (ANY, {4: V4}, {**PROXY, "proxy": "never"}, [KERNEL4]),
        (ANY.replace(high=8080 + 63), {4: V4}, PROXY, [KERNEL4, (6, "10.1.0.5", False, True)]),
        (ANY.replace(high=8080 + 64), {4: V4}, PROXY, [KERNEL4]),
        (ON_V6.replace(high=8080 + 64), {4: V4}, PROXY, [(6, "10.1.0.5", False, True)]),
        (ANY, {6: V6}, PROXY, [(4, "fd00:1::5", False, True), KERNEL6]),
        (ON_V6, {4: V4}, {"proxy": "never"}, []),
        (ON_V6, {4: V4}, PROXY, [(6, "10.1.0.5", False, True)]),
        # ::1 where br_netfilter looks at IPv6: what the kernel leaves over
        (ANY, BOTH, {"bridged6": True}, [KERNEL4, KERNEL6]),
        (ANY, BOTH, {**PROXY, "bridged6": True}, [KERNEL4, (6, "fd00:1::5", True, True)]),
        (ANY, BOTH, {**PROXY, "snat": False}, [KERNEL4, (6, "fd00:1::5", True, True)]),
        (ON_V6.replace(host_ip="::1"), BOTH, {**PROXY, "bridged6": True}, [(6, "fd00:1::5", False, True)]),
        (ON_V6.replace(host_ip="::1"), BOTH, {**PROXY}, [KERNEL6]),
        (ANY, BOTH, {**PROXY, "proxy": "always"}, [(4, "10.1.0.5", False, True), (6, "fd00:1::5", False, True)]),
        (ANY.replace(proto="sctp"), BOTH, {**PROXY, "proxy": "always"}, [KERNEL4, KERNEL6]),
        (ANY.replace(proto="sctp"), {4: V4}, PROXY, [KERNEL4]),
        (ANY.replace(proxy_protocol=True, family=4), BOTH, PROXY, [(4, "10.1.0.5", False, True)]),
        (ANY, BOTH, {"ipv6": False}, [KERNEL4]),
        (ANY.replace(sources=("192.0.2.0/24",)), BOTH, {**PROXY, "bridged6": True}, [KERNEL4]),
        (ANY.replace(sources=("fd00::/8",)), BOTH, {**PROXY, "bridged6": True}, [KERNEL6]),
        (ANY.replace(sources=("fd00::/8",)), {4: V4}, PROXY, []),
    ],
)
def test_who_serves(mapping: Mapping, addresses: Any, how: Any, expected: Any) -> None:
    """The kernel where it can, the proxy where only that can, nobody where nobody was asked for by name."""
    assert ways(mapping, addresses, **how) == expected


@pytest.mark.parametrize(
    ("mapping", "addresses", "how", "code"),
    [
        (ON_V6, {4: V4}, {}, 107),
        (ANY, BOTH, {"proxy": "always"}, 107),
        (ANY.replace(proxy_protocol=True), BOTH, {}, 107),
        (ON_V6.replace(host_ip="::1"), BOTH, {"bridged6": True}, 107),
        (ON_V6.replace(sources=("fd00::/8",)), {4: V4}, PROXY, 7),
        (ON_V6.replace(proto="sctp"), {4: V4}, PROXY, 7),
        (ON_V6, BOTH, {"ipv6": False}, 104),
    ],
)
def test_who_cannot_be_served_is_told(mapping: Mapping, addresses: Any, how: Any, code: int) -> None:
    """What was asked for by name and nobody can do is an error that says what to do."""
    with pytest.raises(CniError) as caught:
        ways(mapping, addresses, **how)
    assert caught.value.code == code and caught.value.details


def test_neighbours_are_one_run() -> None:
    """In any order, as long as the distance to the container's port, the address and the clients are the same."""
    many = [Mapping("tcp", 8000 + n, 8000 + n, 80 + n) for n in range(100)]
    assert plan.merged(reversed(many)) == (Mapping("tcp", 8000, 8099, 80),)
    odd = (Mapping("udp", 8100, 8100, 180), Mapping("tcp", 8101, 8101, 181), Mapping("tcp", 8100, 8100, 80))
    assert len(plan.merged([*many, *odd])) == 4
    assert plan.merged([ANY.replace(low=0, high=0), ANY.replace(low=0, high=0, port=81)])[0].low == 0


def test_a_port_to_choose_is_nobodys_neighbour() -> None:
    """Host port 0 is no number before 1: both are served."""
    choice, first = Mapping("tcp", 0, 0, 80), Mapping("tcp", 1, 1, 81)
    assert plan.merged([first, choice]) == (choice, first)
    assert plan.merged([choice, first, Mapping("tcp", 2, 2, 82)]) == (choice, first.replace(high=2))


mappings = st.lists(
    st.builds(
        lambda proto, low, length, port: Mapping(proto, low, low + length, port),
        st.sampled_from(["tcp", "udp"]),
        st.integers(1, 40),
        st.integers(0, 4),
        st.integers(1, 30),
    ),
    max_size=12,
)


def spread(given_mappings: Any) -> set[tuple[str, int, int]]:
    return {
        (one.proto, low, one.port + low - one.low) for one in given_mappings for low in range(one.low, one.high + 1)
    }


@given(mappings)
def test_merging_changes_no_port(given_mappings: list[Mapping]) -> None:
    """Before and after, the same host ports lead to the same ports of the container."""
    assert spread(plan.merged(given_mappings)) == spread(given_mappings)


claims = st.builds(
    lambda family, proto, ip, low, length: Claim(family, proto, ip, low, low + length),
    st.sampled_from([4, 6]),
    st.sampled_from(["tcp", "udp"]),
    st.sampled_from(["", "a", "b"]),
    st.integers(1, 30),
    st.integers(0, 6),
)


@given(st.lists(claims, max_size=10))
def test_clash_is_found_exactly_where_two_exclude_each_other(given_claims: list[Claim]) -> None:
    """Compared with every pair."""
    pairs = [(a, b) for n, a in enumerate(given_claims) for b in given_claims[n + 1 :] if a.excludes(b)]
    found = first_clash(given_claims)
    assert (found is not None) == bool(pairs)
    if found is not None:
        assert found[0].excludes(found[1])


@given(claims, claims)
def test_exclusion_is_mutual(one: Claim, other: Claim) -> None:
    """Nobody stands in the other's way alone; a claim excludes itself."""
    assert one.excludes(other) == other.excludes(one)
    assert one.excludes(one)


def test_addresses_are_those_of_the_interface() -> None:
    """Of an interface of another name, or outside of a sandbox, none; an index that leads nowhere, or none at all,
    counts. Ports lead to the first of each family (reference: getContainerIPs)."""
    ips = [IPConfig(ip_interface(text), interface=at) for text, at in (("10.0.0.1/8", 0), ("10.0.0.2/8", 1))]
    interfaces = (Interface("cni1"), Interface("eth0", sandbox="/x"), Interface("eth1", sandbox="/x"))
    assert plan.container_addresses(Result(interfaces, tuple(ips)), "eth0") == (ip_interface("10.0.0.2/8"),)
    assert plan.container_addresses(Result(interfaces, tuple(ips)), "eth1") == ()
    more = ip_interface("10.9.0.5/24")
    loose = (IPConfig(V6), IPConfig(V4, interface=9), IPConfig(more))
    assert plan.container_addresses(Result((), loose), "eth0") == (V6, V4, more)
    assert plan.published_addresses((V6, V4, more)) == {6: V6, 4: V4}


def settings(*given_mappings: Mapping, **changes: Any) -> set[tuple[str, str]]:
    known = {key: value for key, value in changes.items() if key in plan.HostFacts.__annotations__}
    asked = conf(*given_mappings, **{key: value for key, value in changes.items() if key not in known})
    found = plan.services(asked, BOTH, facts(**known))
    return set(plan.settings(asked, found, facts(**known)))


LOCALNET, ROUTE, HAIRPIN = ("cni1", plan.ROUTE_LOCALNET), ("cni1", plan.LOOPBACK_ROUTE), ("veth1", plan.HAIRPIN)


@pytest.mark.parametrize(
    ("mapping", "how", "expected"),
    [
        (ANY, {}, {LOCALNET, ROUTE}),
        (ANY, {"snat": False}, set()),
        (ANY.replace(family=4), {}, {LOCALNET}),
        (ANY.replace(family=4, host_ip="127.0.0.9"), {}, {LOCALNET}),
        (ANY.replace(family=4, host_ip="192.0.2.1"), {}, set()),
        (ANY.replace(family=6, host_ip="::1"), {}, {ROUTE}),
        (ANY.replace(family=6, host_ip="fd00::9"), {}, set()),
        (ANY, {"bridged4": True, "bridged6": True}, {LOCALNET, HAIRPIN}),
        (ANY.replace(family=4, host_ip="192.0.2.1"), {"bridged4": True}, {HAIRPIN}),
        (ANY, {"bridged4": True, "is_port": False}, {LOCALNET, ROUTE}),
        (ANY, {"links": {}}, set()),
        (ANY, {"proxy": "always", "serves_proxy": True}, set()),
    ],
)
def test_settings_are_only_what_somebody_needs(mapping: Mapping, how: Any, expected: Any) -> None:
    """route_localnet and the route of ::1 for loopback clients of the kernel's path, hairpin where frames are seen."""
    assert settings(mapping, **how) == expected


def test_rules_come_before_the_hole_they_close() -> None:
    """The firewall first, then the settings; each can be taken back."""
    asked = conf(ANY, direct_access=False, trusted=("wg0",))
    found = plan.services(asked, BOTH, facts())
    wanted = plan.settings(asked, found, facts())
    network = plan.network_rules(asked, "net", BOTH, wanted, facts())
    second = ip_interface("10.9.0.5/24")
    rules = plan.attachment_rules(asked, OWN, found, (V4, V6, second, V4), loopback6=True)
    ops = plan.plan_add(network, rules, wanted)
    assert ops == (
        ApplyFirewall(network, rules),
        EnsureSysctl("net/ipv4/conf/cni1/route_localnet", "1"),
        EnsureLoopbackRoute("cni1"),
    )
    assert (network.loopback, network.trusted, network.subnets) == (("cni1",), ("wg0",), ("10.1.0.0/24", "fd00:1::/64"))
    assert rules.owner == "net/c1/eth0/portmap" and rules.direct_guard == ("10.1.0.5", "fd00:1::5", "10.9.0.5")
    assert [(one.low, one.address, one.port) for one in rules.ports] == [
        (8080, "10.1.0.5", 80),
        (8080, "fd00:1::5", 80),
    ]
    back = [plan.set_to(link, setting, on=False) for link, setting in (LOCALNET, ROUTE, HAIRPIN)]
    off = EnsureSysctl("net/ipv4/conf/cni1/route_localnet", "0", optional=True)
    assert back == [off, RemoveLoopbackRoute("cni1"), EnsureHairpin("veth1", False)]


def test_chosen_ports_are_reported_once_for_both_families() -> None:
    """All services of one container port and protocol get the same host port."""
    free = ANY.replace(low=0, high=0)
    few = free.replace(family=4, host_ip="127.0.0.1", sources=("192.0.2.0/24",))
    asked = conf(free, few, ANY.replace(port=81))
    with pytest.raises(CniError):  # for everybody, and for few: the same port cannot be both
        plan.refuse_clash(plan.numbered(plan.services(asked, BOTH, facts()), {("tcp", 80): 40000}))
    asked = conf(free, free.replace(proto="udp"))
    found = plan.services(asked, BOTH, facts())
    assert [(key, len(each)) for key, each in plan.open_choices(found).items()] == [(("tcp", 80), 2), (("udp", 80), 2)]
    numbered = plan.numbered(found, {("tcp", 80): 40000, ("udp", 80): 40001})
    assert plan.published(numbered) == (PublishedPort(40000, 80, "tcp"), PublishedPort(40001, 80, "udp"))
    assert all(one.chosen for one in numbered)


@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_chosen_ports_are_in_results_of_every_version(version: str) -> None:
    """Under a key of our own; a result without any does not have it, and prevResult hands them on."""
    chosen = (PublishedPort(40000, 80, "tcp"), PublishedPort(40001, 81, "udp", "127.0.0.1"))
    result = Result(ips=(IPConfig(V4),), published=chosen)
    rendered = render_result(result, version)
    assert rendered["pycni/portMappings"][1] == {
        "hostPort": 40001,
        "containerPort": 81,
        "protocol": "udp",
        "hostIP": "127.0.0.1",
    }
    assert parse_result(rendered, version).published == chosen
    assert "pycni/portMappings" not in render_result(result.replace(published=()), version)


# ---- choosing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("32768\t60999", (32768, 60999)),
        ("0 10", (1, 10)),
        (None, (49153, 65535)),
        ("x y", (49153, 65535)),
        ("9 3", (49153, 65535)),
    ],
)
def test_port_range(text: str | None, expected: Any) -> None:
    """The kernel's, or where it is unreadable the range for private use."""
    assert ports.port_range(text) == expected


def test_reserved_ports() -> None:
    """As /proc shows them."""
    assert ports.reserved_ports("8080,9000-9010, 3") == ((3, 3), (8080, 8080), (9000, 9010))
    assert ports.reserved_ports("") == ports.reserved_ports(None) == ()


@given(
    st.integers(1, 50),
    st.integers(0, 30),
    st.sets(st.integers(1, 90)),
    st.lists(st.tuples(st.integers(1, 90), st.integers(0, 5)), max_size=4),
    st.tuples(st.integers(0, 99), st.integers(0, 99)),
)
def test_chosen_port_is_free_and_the_next_one(
    low: int, length: int, taken: set[int], held: list[tuple[int, int]], at: tuple[int, int]
) -> None:
    """The wish if it can be had, else the first free one behind the last, round; an error only where none is."""
    after, wish = at
    high, reserved = low + length, tuple(sorted((first, first + more) for first, more in held))
    free = [
        n for n in range(low, high + 1) if n not in taken and not any(first <= n <= last for first, last in reserved)
    ]

    def have(number: int) -> Claim | None:
        return Claim(4, "tcp", "", number, number) if number in taken else None

    if not free:
        with pytest.raises(CniError) as caught:
            ports.choose_port((low, high), reserved, wish=wish, after=after, taken=have)
        assert caught.value.code == 101
        return
    number = ports.choose_port((low, high), reserved, wish=wish, after=after, taken=have)
    behind = [n for n in free if low <= after < n]
    assert number == (wish if wish in free else (behind or free)[0])
