"""What `pycni lab up` decides: addresses, routes, configurations, and the steps from what is to what is wanted."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.lab.addressing import Route, addressed, routes
from pycni.lab.conflist import conflist
from pycni.lab.errors import LabError
from pycni.lab.parsing import parse_lab
from pycni.lab.plan import PHASES, Actual, anew, plan
from pycni.lab.topology import Lab, NetworkSpec

ETCD = {"endpoints": ["http://192.0.2.9:2379"], "prefix": "/pycni"}


def lab(text: str) -> Lab:
    return parse_lab(text, "lab.yaml", default_name="lab")


def running(want: Lab, **less: Any) -> Actual:
    """*want* (addressed) as it is when everything of it runs, but for what *less* says."""
    actual = Actual(
        lab=want,
        links={each.name: each.links for each in want.machines},
        routes={each.name: routes(want, each) for each in want.machines},
        conflists={each.name: conflist(each, ETCD) for each in want.networks},
        containers=frozenset(each.path for each in want.containers),
        agents=frozenset(each.name for each in want.hosts if each.agent),
        members=frozenset(each.name for each in want.etcd.hosts) if want.etcd else frozenset(),
    )
    return actual.replace(**less)


def steps(actual: Actual, want: Lab) -> list[str]:
    return [f"{step.verb} {step.kind} {step.name}" for step in plan(actual, want, ETCD)]


# -- addresses and routes ----------------------------------------------------------------------------------------------

THREE = """
underlay: {a: {ipv4: 10.0.0.0/24}, b: {ipv4: 10.0.1.0/24, ipv6: "fd00:b::/64"}, c: {ipv4: 10.0.2.0/24}}
routers: {r1: {links: [a, b]}, r2: {links: [b, c]}}
hosts: {h1: {links: [a]}, h2: {links: [b]}, h3: {links: [c]}, h4: {links: [a, c]}}
"""


def test_addresses_are_those_of_the_file_then_the_first_free() -> None:
    """Hosts in their order, then etcd, then routers; none twice."""
    text = "etcd: {}\nhosts: {h1: {}, h2: {links: [{segment: lan, ipv4: 192.0.2.1}]}, h3: {}}"
    found = {each.name: each.links[0].ipv4 for each in addressed(lab(text)).machines}
    assert found == {"h1": "192.0.2.2", "h2": "192.0.2.1", "h3": "192.0.2.3", "etcd1": "192.0.2.4"}


def test_addresses_in_use_stay() -> None:
    """Wherever a new host stands in the file; one that the file gives to another now is lost."""
    kept = {("h1", "lan"): ("192.0.2.1", "2001:db8:a::1"), ("h2", "lan"): ("192.0.2.2", "2001:db8:a::2")}
    text = "hosts: {h0: {}, h1: {}, h2: {}, h3: {links: [{segment: lan, ipv4: 192.0.2.1}]}}"
    found = {each.name: (each.links[0].ipv4, each.links[0].ipv6) for each in addressed(lab(text), kept).hosts}
    assert found["h2"] == ("192.0.2.2", "2001:db8:a::2")
    assert found["h1"] == ("192.0.2.4", "2001:db8:a::1")
    assert found["h0"] == ("192.0.2.3", "2001:db8:a::3")


def test_a_full_prefix_is_an_error() -> None:
    with pytest.raises(LabError, match="no address left"):
        addressed(lab("underlay: {lan: {ipv4: 10.0.0.0/30}}\nhosts: {h1: {}, h2: {}, h3: {}}"))


@given(st.lists(st.sampled_from(range(1, 9)), unique=True), st.lists(st.sampled_from(range(1, 9)), unique=True))
def test_no_address_twice_and_none_moves(before: list[int], after: list[int]) -> None:
    """Whatever hosts come and go: addresses are different, in their prefix, and those of hosts that stay stay."""

    def of(hosts: list[int]) -> str:
        return "hosts: {" + ", ".join(f"h{number}: {{}}" for number in [*hosts, 0]) + "}"

    first = addressed(lab(of(before)))
    kept = {(each.name, "lan"): (each.links[0].ipv4, each.links[0].ipv6) for each in first.hosts}
    second = addressed(lab(of(after)), kept)
    given_out = [each.links[0].ipv4 for each in second.hosts]
    assert len(set(given_out)) == len(given_out)
    assert all(ipaddress.ip_address(each) in ipaddress.ip_network("192.0.2.0/24") for each in given_out)
    for host in second.hosts:
        if (host.name, "lan") in kept:
            assert (host.links[0].ipv4, host.links[0].ipv6) == kept[host.name, "lan"]


def test_routes_lead_over_the_routers() -> None:
    """A host's default route is the first router beside it; routers know all segments; a nearer way has its own."""
    found = addressed(lab(THREE))
    ways = {each.name: routes(found, each) for each in found.machines}
    at = {each.name: {link.segment: link for link in each.links} for each in found.machines}
    assert ways["h1"] == (Route(prefix="default", via=at["r1"]["a"].ipv4),)
    assert ways["h2"] == (
        Route(prefix="default", via=at["r1"]["b"].ipv4),
        Route(prefix="10.0.2.0/24", via=at["r2"]["b"].ipv4),
        Route(prefix="default", via=at["r1"]["b"].ipv6),
    )
    assert ways["r1"] == (Route(prefix="10.0.2.0/24", via=at["r2"]["b"].ipv4),)
    assert ways["r2"] == (Route(prefix="10.0.0.0/24", via=at["r1"]["b"].ipv4),)
    assert ways["h4"][0].prefix == "default" and len(ways["h4"]) == 1
    assert routes(addressed(lab("hosts: {h1: {}}")), addressed(lab("hosts: {h1: {}}")).hosts[0]) == ()


# -- configurations ----------------------------------------------------------------------------------------------------


def test_conflists() -> None:
    """A network of each kind, with what the file adds; objects are merged."""
    bridge = conflist(NetworkSpec(name="a" * 20, ipv4="10.0.0.0/8", ports=True, config={"ipam": {"type": "x"}}), {})
    first, second = bridge["plugins"]
    assert (first["type"], second["type"], len(first["bridge"])) == ("pycni-bridge", "pycni-portmap", 13)
    assert first["ipam"] == {"type": "x", "ranges": [[{"subnet": "10.0.0.0/8"}]]}
    overlay = NetworkSpec(name="b", type="overlay", mode="routed", ipv4="10.0.0.0/8", ipv6="fd00::/64", vni=5)
    (plugin,) = conflist(overlay, ETCD)["plugins"]
    assert (plugin["mode"], plugin["vni"], plugin["etcd"]) == ("routed", 5, ETCD)
    assert plugin["ipam"]["ranges"] == [[{"subnet": "10.0.0.0/8"}], [{"subnet": "fd00::/64"}]]
    (plugin,) = conflist(overlay.replace(mode="multicast"), ETCD)["plugins"]
    assert (plugin["group"], plugin["ipam"]["etcd"], "etcd" in plugin) == ("239.1.1.1", ETCD, False)


# -- steps -------------------------------------------------------------------------------------------------------------

FILE = """
etcd: {}
networks: {blue: {type: overlay, ipv4: 10.1.0.0/16}, own: {ipv4: 10.2.0.0/24}}
hosts: {h1: {containers: {a: {networks: [blue]}, b: {networks: [own]}}}, h2: {containers: {a: {networks: [blue]}}}}
"""
WANT = addressed(lab(FILE))


def changed(old: str, new: str) -> Lab:
    assert old in FILE
    kept = {(each.name, "lan"): (each.links[0].ipv4, each.links[0].ipv6) for each in WANT.machines}
    return addressed(lab(FILE.replace(old, new)), kept)


def test_a_new_lab_is_made_in_order() -> None:
    """Segments before hosts, etcd before agents, containers last."""
    assert steps(Actual(), WANT) == [
        "add segment lan",
        *(f"add host {name}" for name in ("etcd1", "h1", "h2")),
        "start etcd etcd1",
        *("add network blue", "add network own"),
        *("start agent h1", "start agent h2"),
        *("add container h1/a", "add container h1/b", "add container h2/a"),
    ]


def test_what_runs_as_wanted_stays() -> None:
    assert steps(running(WANT), WANT) == []


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("a: {networks: [blue]}, b", "b", ["remove container h1/a"]),
        (
            ", b: {networks: [own]}",
            ", b: {networks: [own], command: x}",
            ["remove container h1/b", "add container h1/b"],
        ),
        ("10.2.0.0/24", "10.3.0.0/24", ["remove container h1/b", "add network own", "add container h1/b"]),
        ("h2: {", "h2: {agent: false, ", ["stop agent h2"]),
        ("h2: {", "h2: {agent: {workers: 2}, ", ["stop agent h2", "start agent h2"]),
        ("h2: {", "h0: {}, h2: {", ["add host h0", "start agent h0"]),
        (", h2: {containers: {a: {networks: [blue]}}}", "", ["remove container h2/a", "remove host h2"]),
        (
            "h2: {",
            "h2: {sysctls: {net.core.somaxconn: 5}, ",
            ["remove container h2/a", "remove host h2", "add host h2", "start agent h2", "add container h2/a"],
        ),
        (
            "h2: {",
            "h2: {links: [{segment: lan, mtu: 1400}], ",
            ["remove container h2/a", "remove host h2", "add host h2", "start agent h2", "add container h2/a"],
        ),
        (
            "etcd: {}",
            "underlay: {lan: {}, far: {ipv4: 10.9.0.0/24}}\nrouters: {r: {links: [lan, far]}}\netcd: {}",
            None,
        ),
    ],
)
def test_only_the_difference_is_made(old: str, new: str, wanted: list[str] | None) -> None:
    if wanted is None:  # a router: another default route for all
        new = new.replace("lan: {}", 'lan: {ipv4: 192.0.2.0/24, ipv6: "2001:db8:a::/64"}')
        wanted = ["add segment far", "add host r", *(f"change routes {name}" for name in ("etcd1", "h1", "h2"))]
    assert steps(running(WANT), changed(old, new)) == wanted


def test_what_ended_is_started_again() -> None:
    """An agent, a member, a host with all that was on it; nothing is asked of a host that is off."""
    assert steps(running(WANT, agents=frozenset({"h2"})), WANT) == ["start agent h1"]
    assert steps(running(WANT, members=frozenset()), WANT) == ["start etcd etcd1"]
    assert steps(running(WANT, dead=frozenset({"h2"})), WANT) == ["add host h2", "start agent h2", "add container h2/a"]
    assert steps(running(WANT, containers=frozenset({"h1/a", "h1/b"})), WANT) == ["add container h2/a"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("etcd: {}", "etcd: {members: 3}", "etcd is another"),
        ("etcd: {}", "etcd: {tls: true}", "etcd is another"),
        ("h2: {", "h2: {links: [{segment: lan, ipv4: 192.0.2.3}], ", "etcd1 has another address"),
        ("h2: {", "h2: {links: [{segment: lan, ipv4: 192.0.2.9}], ", ""),
    ],
)
def test_another_etcd_makes_another_lab(old: str, new: str, reason: str) -> None:
    """Its contents would be another's, and members know each other by address."""
    assert anew(running(WANT), changed(old, new)) == reason


HOSTS = st.dictionaries(
    st.sampled_from(["h1", "h2", "h3"]),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["blue", "own"]), max_size=3),
    min_size=1,
)


def text_of(hosts: dict[str, dict[str, str]]) -> str:
    spec = {
        name: {"containers": {key: {"networks": [network]} for key, network in inside.items()}}
        for name, inside in hosts.items()
    }
    return f"{FILE[: FILE.index('hosts:')]}hosts: {json.dumps(spec)}"


@given(HOSTS, HOSTS)
def test_the_steps_lead_to_what_is_wanted(first: dict[str, dict[str, str]], second: dict[str, dict[str, str]]) -> None:
    """Carried out on sets of names they give the wanted lab, never add what is there nor remove what is not."""
    have = addressed(lab(text_of(first)))
    kept = {(each.name, "lan"): (each.links[0].ipv4, each.links[0].ipv6) for each in have.machines}
    want = addressed(lab(text_of(second)), kept)
    there = {("host", each.name) for each in have.machines} | {("container", each.path) for each in have.containers}
    order = []
    for step in plan(running(have), want, ETCD):
        order.append(PHASES.index((step.verb, step.kind)))
        if step.kind not in ("host", "container"):
            continue
        if step.verb == "add":
            assert (step.kind, step.name) not in there
            there.add((step.kind, step.name))
        else:
            there.remove((step.kind, step.name))
    assert order == sorted(order)
    assert there == {("host", each.name) for each in want.machines} | {
        ("container", each.path) for each in want.containers
    }
