"""Published ports from ADD to DEL and GC, without traffic: idempotence, conflicts, damage, upgrades, cost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from itertools import starmap
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netns_fixtures import Host, Namespace, netns_snapshot
from pycni.cni.errors import CniError, Code
from pycni.firewall.nft_text import MAIN, render_rebuild
from pycni.firewall.ports import port_elements
from pycni.firewall.rules import AttachmentRules, NetworkRules, PortMapping
from pycni.host import nft
from pycni.host.firewall import open_firewall
from pycni.host.nfnetlink import Nfnetlink
from pycni.host.nft_messages import add_elements, in_groups
from tests.kernel.firewall_calls import elements, environment, listed
from tests.kernel.firewall_ports_lab import BACKENDS

if TYPE_CHECKING:
    from pycni.host.firewall import Firewall

pytestmark = pytest.mark.needs("root", "tool:nft")

NET = NetworkRules("net1", (), True, ("10.1.0.0/24", "fd00:1::/64"), loopback=("br0",))
CONDITIONS: dict[str, dict[str, Any]] = {
    "nftables": {"conditions4": ("ip", "saddr", "192.0.2.1"), "conditions6": ("ip6", "saddr", "2001:db8::1")},
    "iptables": {"conditions4": ("-s", "192.0.2.1,192.0.2.2"), "conditions6": ("-s", "2001:db8::1")},
}


def published(number: int, first: int = 8000, **more: object) -> AttachmentRules:
    """Of every kind one mapping: a port, one of an address, a range, a shifted one, one with clients; both families."""
    v4, v6 = f"10.1.0.{number}", f"fd00:1::{number:x}"
    ports = (
        PortMapping("tcp", "", first, first, v4, 80),
        PortMapping("tcp", "", first, first, v6, 80),
        PortMapping("udp", "198.51.100.2", first, first, v4, 53),
        PortMapping("udp", "", first + 100, first + 199, v4, first + 100),
        PortMapping("sctp", "2001:db8::2", first + 100, first + 199, v6, first + 100),
        PortMapping("tcp", "", first + 10, first + 12, v6, 90),
        PortMapping("tcp", "", first + 20, first + 20, v4, 80, sources=("192.0.2.0/24", "198.51.100.0/24")),
    )
    return AttachmentRules(f"net1/c{number}/eth0/portmap", ports=ports).replace(**more)


def act(host: Host, work: Callable[[Firewall], Any], backend: str = "nftables") -> Any:
    def inside() -> Any:
        firewall = open_firewall(backend)
        try:
            return work(firewall)
        finally:
            firewall.close()

    return host.in_namespace(inside)


def rules_now(host: Host, backend: str) -> list[str]:
    """What is there, in an order of its own."""
    if backend == "nftables":
        return sorted(map(repr, elements(host)))
    saves = [host.run([f"{tool}-save"]).stdout for tool in ("iptables", "ip6tables")]
    return sorted(line.partition("]")[2] or line for save in saves for line in save.splitlines() if "PYCNI" in line)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("conditional", [False, True])
def test_add_is_idempotent_and_delete_takes_exactly_its_own(host: Host, backend: str, conditional: bool) -> None:
    """ADD twice is once; DEL leaves the other's and, without the network's rules, the network's; the last takes all."""
    one = published(5, **(CONDITIONS[backend] if conditional else {}), direct_guard=("10.1.0.5", "fd00:1::5"))
    two = published(6, 18000)
    before = netns_snapshot(host.ns)
    act(host, lambda f: f.apply_add(NET, two), backend)
    alone = rules_now(host, backend)
    act(host, lambda f: f.apply_add(NET, one), backend)
    both = rules_now(host, backend)
    for _ in range(2):
        act(host, lambda f: f.apply_add(NET, one), backend)
    assert rules_now(host, backend) == both
    assert act(host, lambda f: f.missing(NET, one), backend) == ()
    assert act(host, lambda f: f.owners() - {"net1"}, backend) == {one.owner, two.owner}
    for _ in range(2):
        act(host, lambda f: f.apply_delete(one), backend)
        assert rules_now(host, backend) == alone
    assert act(host, lambda f: f.missing(NET, two), backend) == ()
    act(host, lambda f: f.apply_delete(two, NET), backend)
    assert act(host, lambda f: f.owners(), backend) == set()
    act(host, lambda f: f.remove_all(), backend)
    if backend == "nftables":
        assert netns_snapshot(host.ns) == before
    else:
        assert rules_now(host, backend) == []


@pytest.mark.parametrize(
    "asked",
    [
        PortMapping("tcp", "", 8000, 8000, "10.1.0.9", 90),
        PortMapping("udp", "198.51.100.2", 7990, 8010, "10.1.0.9", 90),
        PortMapping("udp", "", 8150, 9000, "10.1.0.9", 8150),
        PortMapping("udp", "", 7000, 8100, "10.1.0.9", 7000),
        PortMapping("sctp", "2001:db8::2", 8199, 8200, "fd00:1::9", 8199),
        PortMapping("tcp", "", 8020, 8020, "10.1.0.9", 80, sources=("192.0.2.7",)),
    ],
)
def test_a_taken_port_is_refused_and_its_owner_named(host: Host, asked: PortMapping) -> None:
    """Code 100 says who has the port, and nothing of the refused attachment stays; its other ports would be free."""
    act(host, lambda f: f.apply_add(NET, published(5)))
    before = elements(host)
    free = PortMapping("tcp", "", 1, 1, "10.1.0.9", 1)
    refused = AttachmentRules("net1/c9/eth0/portmap", ports=(free, asked))
    with pytest.raises(CniError, match=f"/{asked.proto} is taken by net1/c5/eth0/portmap") as failure:
        act(host, lambda f: f.apply_add(NET, refused))
    assert failure.value.code == Code.PORT_TAKEN
    act(host, lambda f: f.apply_delete(refused))
    assert elements(host) == before
    host.run(["sh", "-c", failure.value.details.partition("goes with ")[2]])
    act(host, lambda f: f.apply_add(NET, refused))
    act(host, lambda f: f.apply_delete(refused))
    act(host, lambda f: f.apply_delete(published(5)))
    act(host, lambda f: f.apply_add(NET, refused))


RUN4 = PortMapping("tcp", "", 7700, 7799, "10.1.0.8", 7700)
RUN6 = RUN4.replace(address="fd00:1::8")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (RUN4.replace(host_ip="198.51.100.1"), RUN4.replace(host_ip="198.51.100.2")),
        (RUN6.replace(host_ip="2001:db8::1"), RUN6.replace(host_ip="2001:db8::2")),
        (RUN4.replace(sources=("192.0.2.0/25",)), RUN4.replace(sources=("192.0.2.128/25",))),
    ],
)
def test_the_same_ports_elsewhere_are_in_nobodys_way(host: Host, theirs: PortMapping, ours: PortMapping) -> None:
    """At another address, for other clients: an own element that a lost store left behind is replaced all the same."""
    lower = ours.replace(low=7000, high=7099, port=7000)
    one = AttachmentRules("net1/c8/eth0/portmap", ports=(theirs,))
    two = AttachmentRules("net1/c9/eth0/portmap", ports=(lower,))
    act(host, lambda f: f.apply_add(NET, one))
    act(host, lambda f: f.apply_add(NET, two))
    both = two.replace(ports=(lower, ours))
    act(host, lambda f: f.apply_add(NET, both))
    assert act(host, lambda f: [*f.missing(NET, one), *f.missing(NET, both)]) == []
    before = AttachmentRules("net1/c7/eth0/portmap", ports=(theirs.replace(low=7650, high=7750, port=7650),))
    with pytest.raises(CniError, match="is taken by net1/c8/eth0/portmap"):
        act(host, lambda f: f.apply_add(NET, before))


def test_of_two_with_conditions_the_second_is_refused(host: Host) -> None:
    """A conditional mapping takes its port as any other; words that nft does not know are code 7."""
    one = published(5, **CONDITIONS["nftables"])
    act(host, lambda f: f.apply_add(NET, one))
    before = elements(host)
    two = AttachmentRules(
        "net1/c6/eth0/portmap",
        ports=(one.ports[0].replace(address="10.1.0.6"),),
        conditions4=("ip", "saddr", "192.0.2.9"),
    )
    with pytest.raises(CniError, match="host port 8000/tcp is taken by net1/c5/eth0/portmap") as failure:
        act(host, lambda f: f.apply_add(NET, two))
    assert failure.value.code == Code.PORT_TAKEN
    wrong = two.replace(conditions4=("ip", "saddr"), ports=(two.ports[0].replace(low=1, high=1),))
    with pytest.raises(CniError, match="the conditions of net1/c6/eth0/portmap cannot be used: ip saddr") as failure:
        act(host, lambda f: f.apply_add(NET, wrong))
    assert failure.value.code == Code.INVALID_CONFIG
    act(host, lambda f: list(map(f.apply_delete, (two, wrong))))
    assert elements(host) == before
    assert listed(host).count("chain cond_") == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_flushed_ruleset_comes_back_for_everyone(host: Host, backend: str) -> None:
    """After a flush the next ADD puts back the mappings of all attachments, those with conditions too."""
    old = [(NET, published(5)), (NET, published(6, 18000, **CONDITIONS[backend]))]
    act(host, lambda f: list(starmap(f.apply_add, old)), backend)
    new = published(7, 28000)
    act(host, lambda f: f.apply_add(NET, new), backend)
    before = rules_now(host, backend)
    host.run(["nft", "flush", "ruleset"])
    assert act(host, lambda f: f.missing(NET, old[0][1]), backend) != ()
    act(host, lambda f: f.apply_add(NET, new, nullcontext(old)), backend)
    assert rules_now(host, backend) == before
    assert act(host, lambda f: list(starmap(f.missing, old)), backend) == [(), ()]


@pytest.mark.parametrize(
    ("backend", "damage"),
    [
        ("nftables", "nft delete element inet pycni hp4 { tcp . 8000 }"),
        ("nftables", "nft flush map inet pycni hr4"),
        ("nftables", "nft flush chain inet pycni ports6"),
        ("iptables", "iptables -t nat -F PYCNI-PORTS"),
        ("iptables", "iptables -t nat -F PREROUTING"),
        ("iptables", "iptables -t nat -F"),
        ("iptables", "iptables -F INPUT"),
    ],
)
def test_what_somebody_removed_is_missed_and_comes_back(host: Host, backend: str, damage: str) -> None:
    """CHECK says that something is gone, the agent's repair puts it back."""
    one = published(5)
    act(host, lambda f: f.apply_add(NET, one), backend)
    before = rules_now(host, backend)
    host.run(damage.split())
    assert act(host, lambda f: f.missing(NET, one), backend) != ()

    def repair(firewall: Firewall) -> None:
        firewall.repair()
        firewall.apply_add(NET, one)

    act(host, repair, backend)
    assert act(host, lambda f: f.missing(NET, one), backend) == ()
    assert rules_now(host, backend) == before


def test_a_port_that_leads_elsewhere_is_missed(host: Host) -> None:
    """CHECK compares where the port leads, and who a stranger's element belongs to."""
    one = published(5)
    act(host, lambda f: f.apply_add(NET, one))
    host.run(
        ["nft", "-f", "-"],
        input="delete element inet pycni hp4 { tcp . 8000 }\n"
        "add element inet pycni hp4 { tcp . 8000 : 10.1.0.77 . 80 }\n",
    )
    assert act(host, lambda f: f.missing(NET, one)) == ("hp4 tcp . 8000 in table inet pycni leads elsewhere",)
    act(host, lambda f: f.apply_delete(one))
    assert ("hp4", "tcp", "8000", "") in elements(host)


@pytest.mark.parametrize("backend", BACKENDS)
def test_collect_removes_what_nobody_needs(host: Host, backend: str) -> None:
    """GC: mappings of the dead go, with their chains; those of the living stay as they are."""
    alive = published(5, **CONDITIONS[backend])
    act(host, lambda f: f.apply_add(NET, alive), backend)
    before = rules_now(host, backend)
    dead = published(6, 18000, **CONDITIONS[backend], direct_guard=("10.1.0.6",))
    act(host, lambda f: f.apply_add(NET, dead), backend)
    assert len(act(host, lambda f: f.collect([(NET, alive)]), backend)) > 3
    assert rules_now(host, backend) == before
    assert act(host, lambda f: f.collect([(NET, alive)]), backend) == ()
    assert listed(host).count("chain cond_") == (backend == "nftables")
    act(host, lambda f: f.collect([]), backend)
    assert rules_now(host, backend) == []


def test_another_versions_table_keeps_the_mappings(host: Host) -> None:
    """An upgrade: the maps' elements come over with what they lead to."""
    act(host, lambda f: f.apply_add(NET, published(5)))
    before = elements(host)
    marker = MAIN.marker()
    host.run(
        ["nft", "-f", "-"],
        input=f"delete chain inet pycni {marker}\nadd chain inet pycni base_01234567\n"
        "add rule inet pycni postrouting accept\n",
    )
    act(host, lambda f: f.apply_add(NET, published(6, 18000)))
    own = {row for row in elements(host) if "net1/c6/eth0/portmap" in row}
    assert elements(host) - own == before
    assert act(host, lambda f: f.missing(NET, published(5))) == ()
    assert "base_01234567" not in listed(host)


def test_ten_thousand_single_ports_in_one_transaction(host: Host) -> None:
    """A shifted range is an element for each port: added, found and removed all the same."""
    ports = (PortMapping("tcp", "", 10000, 19999, "10.1.0.5", 40000),)
    many = AttachmentRules("net1/c5/eth0/portmap", ports=ports)
    act(host, lambda f: f.apply_add(NET, many))
    assert act(host, lambda f: f.missing(NET, many)) == ()
    host.run(["nft", "delete", "element", "inet", "pycni", "hp4", "{ tcp . 12345 }"])
    assert act(host, lambda f: f.missing(NET, many)) == ("hp4 tcp . 12345 in table inet pycni",)
    act(host, lambda f: f.apply_delete(many))
    assert act(host, lambda f: f.owners()) == set()


RACER = """
import sys
from pycni.cni.errors import CniError
from pycni.firewall.rules import AttachmentRules, NetworkRules, PortMapping
from pycni.host.firewall import open_firewall
worker = int(sys.argv[1])
network = NetworkRules("net1", (), True, ("10.1.0.0/16",))
firewall = open_firewall("nftables")
for number in range(8):
    address, port, first = f"10.1.{worker}.{number}", 8000 + number, 9000 + 10 * number
    ports = (PortMapping("tcp", "", port, port, address, 80), PortMapping("udp", "", first, first + 9, address, first))
    one = AttachmentRules(f"net1/w{worker}n{number}/eth0/portmap", ports=ports)
    try:
        firewall.apply_add(network, one)
        print(number)
    except CniError as failure:
        assert failure.code == 100, failure
        firewall.apply_delete(one)
firewall.close()
"""


def test_of_those_who_want_a_port_at_once_one_gets_it(host: Host) -> None:
    """Four processes add the same eight ports: each port has one owner, who has all of its mapping."""
    workers = [
        host.popen([sys.executable, "-c", RACER, str(number)], stdout=subprocess.PIPE, env=environment())
        for number in range(4)
    ]
    said = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    assert sorted(int(number) for numbers in said for number in numbers) == list(range(8))
    owners = {f"net1/w{worker}n{number}/eth0/portmap" for worker, numbers in enumerate(said) for number in numbers}
    now = elements(host)
    for name, count in (("hp4", 8), ("hr4", 8), ("published4", 8)):
        found = [row[-1] for row in now if row[0] == name]
        assert len(found) == count
        assert set(found) == owners


addresses = {4: st.ip_addresses(v=4).map(str), 6: st.ip_addresses(v=6).map(str)}


@st.composite
def mappings(draw: st.DrawFn) -> PortMapping:
    family = draw(st.sampled_from([4, 6]))
    low, port, length = draw(st.integers(1, 65000)), draw(st.integers(1, 65000)), draw(st.integers(0, 20))
    sources = draw(st.lists(addresses[family], max_size=3, unique=True))
    return PortMapping(
        draw(st.sampled_from(["tcp", "udp", "sctp"])),
        draw(st.just("") | addresses[family]),
        low,
        low + length,
        draw(addresses[family]),
        draw(st.sampled_from([low, port])),
        snat=draw(st.booleans()),
        masq_all=draw(st.booleans()),
        sources=tuple(sources),
    )


@given(ports=st.lists(mappings(), max_size=2, unique_by=lambda one: (one.proto, one.low // 100)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_the_raw_encoding_is_nfts_own(make_namespace: Callable[..., Namespace], ports: list[PortMapping]) -> None:
    """What was added by raw messages lists exactly as what nft adds from our text, and is read back as it was."""
    members = port_elements(AttachmentRules("net/c/eth0/portmap", ports=tuple(ports)))
    raw, text = _twins(make_namespace)

    def by_messages() -> None:
        nft.run_text(render_rebuild(MAIN, ()))
        with Nfnetlink() as kernel:
            groups = [add_elements(MAIN, group, exclusive=True) for group in in_groups(members)]
            assert not groups or kernel.batch(groups) == {}
            assert kernel.find(MAIN, members) == members
            found = [member for spec in MAIN.sets for member in kernel.elements(MAIN, spec.name)]
        assert sorted(found, key=repr) == sorted(members, key=repr)

    raw.in_namespace(by_messages)
    text.in_namespace(lambda: nft.run_text(render_rebuild(MAIN, members)))
    assert _in_order(listed(raw)) == _in_order(listed(text))


def _in_order(ruleset: str) -> list[str]:
    """Its elements and lines: an interval set lists its elements in an order that depends on how they came."""
    return sorted(
        part.strip(" \t\n{}") for part in ruleset.replace("elements = {", ",\n").replace(",", "\n").split("\n")
    )


_made: list[tuple[Namespace, Namespace]] = []


def _twins(make_namespace: Callable[..., Namespace]) -> tuple[Namespace, Namespace]:
    """Two namespaces for all examples of one test run of the property."""
    if not _made or not _made[0][0].exists():
        _made[:] = [(make_namespace(), make_namespace())]
    return _made[0]
