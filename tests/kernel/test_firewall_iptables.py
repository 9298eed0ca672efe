"""The iptables backend and the kernel, in both variants: idempotence, damage, concurrency, missing tools."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from netns_fixtures import Host, needs
from pycni.cni.errors import CniError, Code
from pycni.firewall.iptables_text import units_of
from pycni.firewall.rules import AttachmentRules, NetworkRules, PortMapping
from pycni.host.firewall import open_firewall
from pycni.host.iptables import Iptables, default_variant, variant_here
from pycni.host.iptables_firewall import IptablesFirewall
from pycni.host.nfnetlink import Nfnetlink

if TYPE_CHECKING:
    from collections.abc import Callable

    from pycni.host.firewall import Firewall

pytestmark = pytest.mark.needs("root", "tool:iptables-nft", "tool:iptables-legacy")

NET1 = NetworkRules("net1", ("br0",), True, ("10.1.0.0/24", "fd00:1::/64"))
NET2 = NetworkRules("net2", ("br1",), False, ("10.2.0.0/24",))
ONE = AttachmentRules("net1/c1/eth0", ("10.1.0.5", "fd00:1::5"))
VARIANTS = ["nft", "legacy"]


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, host: Host) -> str:
    """What the host's iptables are made with: legacy where only legacy tables are in use."""
    if request.param == "legacy":
        host.run(["iptables-legacy", "-t", "nat", "-S"])
    if default_variant() == "legacy" and request.param == "nft":
        pytest.skip("needs: iptables is iptables-nft (update-alternatives)")
    return str(request.param)


def act(host: Host, work: Callable[[IptablesFirewall], Any]) -> Any:
    def inside() -> Any:
        firewall = IptablesFirewall()
        try:
            return work(firewall)
        finally:
            firewall.close()

    return host.in_namespace(inside)


def missing(host: Host, network: NetworkRules) -> tuple[str, ...]:
    return act(host, lambda f: f.missing(network, ONE))  # type: ignore[no-any-return]


def saved(host: Host, variant: str) -> dict[str, list[str]]:
    """The rules of both families, without counters and comments; tables that are empty do not count."""
    out = {}
    for tool in ("iptables", "ip6tables"):
        lines = host.run([f"{tool}-{variant}-save"]).stdout.splitlines()
        out[tool] = [line for line in lines if line.startswith("-") or (line.startswith(":") and "PYCNI" in line)]
    return out


NOTHING: dict[str, list[str]] = {"iptables": [], "ip6tables": []}


def test_the_variant_in_use_is_found(host: Host, variant: str) -> None:
    """A host that only has legacy tables gets legacy rules, any other what `iptables` is."""

    def look() -> str:
        with Nfnetlink() as kernel:
            return variant_here(kernel)

    assert host.in_namespace(look) == variant


def test_adding_twice_changes_nothing_and_the_last_delete_removes_all(host: Host, variant: str) -> None:
    """Rules are per network: the second ADD finds them; DEL of the network's last, twice, leaves no chain."""
    act(host, lambda f: f.apply_add(NET1, ONE))
    rules = saved(host, variant)
    assert rules != NOTHING
    act(host, lambda f: f.apply_add(NET1, ONE.replace(owner="net1/c2/eth0", masquerade=("10.1.0.6",))))
    assert saved(host, variant) == rules
    assert act(host, lambda f: f.missing(NET1, ONE)) == ()
    assert act(host, lambda f: f.owners()) == {"net1"}
    act(host, lambda f: f.apply_delete(ONE))
    assert saved(host, variant) == rules
    for _ in range(2):
        act(host, lambda f: f.apply_delete(ONE, NET1))
        act(host, lambda f: f.remove_all())
    assert saved(host, variant) == NOTHING


def test_the_last_delete_removes_what_another_backend_left(host: Host, variant: str) -> None:
    """Switching the backend while containers run leaves no empty table or chain behind, whichever is last."""
    for backends in (("nftables", "iptables"), ("iptables", "nftables")):
        for backend in backends:
            firewall_of(host, backend, lambda f: f.apply_add(NET1, ONE))
        for backend in backends:
            firewall_of(host, backend, lambda f: f.apply_delete(ONE, NET1))
        firewall_of(host, backends[1], lambda f: f.remove_all())
        assert saved(host, variant) == NOTHING
        assert "pycni" not in host.run(["nft", "list", "ruleset"]).stdout


def firewall_of(host: Host, backend: str, work: Callable[[Firewall], None]) -> None:
    def inside() -> None:
        firewall = open_firewall(backend)
        work(firewall)
        firewall.close()

    host.in_namespace(inside)


def test_networks_come_and_go_in_any_order(host: Host, variant: str) -> None:
    """The rules of one network are the same, whatever other networks came or went meanwhile."""
    act(host, lambda f: f.apply_add(NET2, ONE))
    alone = sorted(saved(host, variant)["iptables"])
    act(host, lambda f: f.apply_add(NET1, ONE))
    act(host, lambda f: f.apply_delete(ONE, NET1, [NET2]))
    assert sorted(saved(host, variant)["iptables"]) == alone
    assert act(host, lambda f: f.missing(NET2, ONE)) == ()


@pytest.mark.parametrize(
    "damage", ["-t nat -F", "-F", "-F FORWARD", "-D PYCNI-ISOLATED 1", "-t nat -F POSTROUTING"], ids=lambda text: text
)
def test_damage_is_missed_repaired_by_add_and_no_obstacle_to_delete(host: Host, variant: str, damage: str) -> None:
    """Whatever rules somebody flushed: CHECK names it, ADD restores exactly what was there, DEL succeeds."""
    act(host, lambda f: f.apply_add(NET1, ONE))
    rules = {tool: sorted(lines) for tool, lines in saved(host, variant).items()}
    command = [f"iptables-{variant}", *damage.split()]
    host.run(command)
    assert act(host, lambda f: f.missing(NET1, ONE)) != ()
    act(host, lambda f: f.apply_add(NET1, ONE))
    assert {tool: sorted(lines) for tool, lines in saved(host, variant).items()} == rules
    host.run(command)
    act(host, lambda f: f.apply_delete(ONE, NET1))
    act(host, lambda f: f.remove_all())
    assert saved(host, variant) == NOTHING


@pytest.mark.parametrize(
    "damage", ["-t nat -F", "-F", "-t nat -F PREROUTING", "-t nat -F PYCNI-PORTS"], ids=lambda text: text
)
def test_chains_that_somebody_emptied_go_with_their_owner(host: Host, variant: str, damage: str) -> None:
    """Though other networks stay on the host: those of published ports with their DEL, the way there with the last one
    of them, the network's with its last attachment, those for a FORWARD policy of DROP too."""
    for tool in ("iptables", "ip6tables"):
        host.run([f"{tool}-{variant}", "-P", "FORWARD", "DROP"])
    act(host, lambda f: f.apply_add(NET2, ONE.replace(owner="net2/c1/eth0")))
    before = chains(host, variant)
    one, two = map(publishing, (1, 2))
    act(host, lambda f: f.apply_add(NET1, one))
    act(host, lambda f: f.apply_add(NET1, two))
    for tool in ("iptables", "ip6tables"):
        host.run([f"{tool}-{variant}", *damage.split()])
    act(host, lambda f: f.apply_delete(one))
    act(host, lambda f: f.apply_delete(two, NET1, [NET2]))
    assert chains(host, variant) == before


def publishing(number: int) -> AttachmentRules:
    addresses = (f"10.1.0.{number}", f"fd00:1::{number}")
    ports = tuple(PortMapping("tcp", "", 8080 + number, 8080 + number, address, 80) for address in addresses)
    return AttachmentRules(f"net1/c{number}/eth0/portmap", ports=ports, direct_guard=addresses)


def chains(host: Host, variant: str) -> list[str]:
    """Those of ours, of both families."""
    return [line.split()[0] for lines in saved(host, variant).values() for line in lines if line.startswith(":")]


def test_rules_of_others_stay(host: Host, variant: str) -> None:
    """A whole life beside somebody's rules leaves these, their order included."""
    filters = "*filter\n-A FORWARD -s 192.0.2.1 -j DROP\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n"
    nat = "*nat\n-A POSTROUTING -s 192.0.2.1 -j MASQUERADE\nCOMMIT\n"
    host.run([f"iptables-{variant}-restore"], input=filters + nat)
    host.run([f"ip6tables-{variant}", "-P", "FORWARD", "DROP"])
    before = saved(host, variant)
    act(host, lambda f: f.apply_add(NET1, ONE))
    act(host, lambda f: f.apply_add(NET2, ONE))
    act(host, lambda f: f.apply_delete(ONE, NET2, [NET1]))
    act(host, lambda f: f.apply_delete(ONE, NET1))
    act(host, lambda f: f.remove_all())
    assert saved(host, variant) == before


def test_collect_removes_what_nobody_needs(host: Host, variant: str) -> None:
    """GC: the chains of dead networks go, those of living ones stay whole."""
    act(host, lambda f: f.apply_add(NET1, ONE))
    rules = saved(host, variant)
    act(host, lambda f: f.apply_add(NET2, ONE))
    removed = act(host, lambda f: f.collect([(NET1, ONE)]))
    assert len(removed) == len(units_of(NET2, 4)) + len(units_of(NET2, 6))
    assert saved(host, variant) == rules
    assert act(host, lambda f: f.missing(NET1, ONE)) == ()
    act(host, lambda f: f.collect([]))
    assert saved(host, variant) == NOTHING


ADDER = """
import sys
from pycni.firewall.rules import AttachmentRules, NetworkRules
from pycni.host.iptables_firewall import IptablesFirewall
network = NetworkRules("net" + sys.argv[1], ("br" + sys.argv[1],), True, ("10.%s.0.0/16" % sys.argv[1],))
shared = NetworkRules("shared", ("brs",), True, ("10.200.0.0/16",))
firewall = IptablesFirewall()
for number in range(3):
    one = AttachmentRules("n/c%d/eth0" % number)
    firewall.apply_add(network, one)
    firewall.apply_add(shared, one)
    firewall.apply_delete(one, network, [shared])
firewall.apply_add(network, one)
firewall.close()
"""


def test_eight_processes_at_once(host: Host, variant: str) -> None:
    """No rule twice, none lost."""
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/usr/sbin"}
    workers = [
        host.popen([sys.executable, "-c", ADDER, str(number)], stderr=subprocess.PIPE, env=environment)
        for number in range(8)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    lines = saved(host, variant)["iptables"]
    assert len(lines) == len(set(lines))
    networks = [NetworkRules(f"net{n}", (f"br{n}",), True, (f"10.{n}.0.0/16",)) for n in range(8)]
    for network in (*networks, NetworkRules("shared", ("brs",), True, ("10.200.0.0/16",))):
        assert missing(host, network) == ()


def test_ipv4_works_without_ip6tables(host: Host, variant: str) -> None:
    """Where ip6tables is not installed an IPv4 network works, and an IPv6 subnet is refused with code 103."""
    needs("tool:mount")
    without = (
        "mkdir /run/sbin && cp -a /usr/sbin/iptables* /usr/sbin/xtables* /run/sbin && mount --bind /run/sbin /usr/sbin"
    )
    host.run(["sh", "-c", without])
    code = (
        "from pycni.firewall.rules import *\nfrom pycni.host.iptables_firewall import IptablesFirewall\n"
        "from pycni.cni.errors import CniError\n"
        "one = AttachmentRules('n/c/e')\nfirewall = IptablesFirewall()\n"
        "firewall.apply_add(NetworkRules('v4', ('br0',), True, ('10.1.0.0/24',)), one)\n"
        "try: firewall.apply_add(NetworkRules('v6', ('br0',), True, ('fd00::/64',)), one)\n"
        "except CniError as failure: print(int(failure.code), failure)\n"
    )
    out = host.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).stdout
    assert out.startswith("103 network v6 has IPv6 addresses, but ip6tables-restore is not installed")
    assert "MASQUERADE" in host.run([f"iptables-{variant}-save"]).stdout


def test_no_program_is_run_where_the_rules_are_in_place(host: Host) -> None:
    """On iptables-nft the second ADD only asks the kernel: it works even where no program could be started."""

    def both() -> None:
        firewall = IptablesFirewall()
        firewall.apply_add(NET1, ONE)
        with Nfnetlink() as kernel:
            tool = Iptables(kernel, "ip", "no such variant")
            tool.variant = "nft"
            tool._program = lambda suffix: "/nonexistent"  # type: ignore[method-assign]
            tool.install(units_of(NET1, 4))
        firewall.close()

    if default_variant() != "nft":
        pytest.skip("needs: iptables is iptables-nft (update-alternatives)")
    host.in_namespace(both)


def test_missing_backend_is_told(host: Host) -> None:
    """Neither tool: code 103 with what to install."""
    for path in ("/usr/sbin/iptables-restore", "/sbin/iptables-restore"):
        host.run(["sh", "-c", f"[ ! -e {path} ] || mount --bind /dev/null {path}"])
    code = (
        "from pycni.host.firewall import open_firewall\nfrom pycni.cni.errors import CniError\n"
        "try: open_firewall('iptables')\nexcept CniError as failure: print(int(failure.code), failure)\n"
    )
    out = host.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).stdout
    assert out.startswith(f"{int(Code.FIREWALL)} iptables is not usable here: install iptables")
    with pytest.raises(CniError):
        open_firewall("foo")
