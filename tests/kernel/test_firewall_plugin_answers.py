"""The firewall plugin's answers: errors and their words, STATUS, hosts that lack something, the user's own chain."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netns_fixtures import Container, assert_unchanged, run_cni
from tests.kernel.bridge_lab import Conf, Lab, words
from tests.kernel.firewall_plugin_lab import EMPTY_TABLES, FAMILIES, LINK_LOCAL, PORT, Chain, reaches

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

Chains = Callable[..., Chain]
Boxes = Callable[[int], list[Container]]


def test_ipv4_needs_no_ip6tables(firewalled: Chains, c1: Container) -> None:
    """Reference: without the program ip6tables no container gets its rules. Here only one with an IPv6 address is
    refused, by a backend that was asked for, and everything is taken back."""
    four, dual = firewalled(4, {"ipam": _ipam(4)}, backend="iptables"), firewalled(5, backend="iptables")
    lab = four.lab
    lab.host.run(["sh", "-c", WITHOUT_IP6TABLES])
    box = four.attach(c1)
    assert four.check(box).ok
    four.delete(box)
    previous = dual.first("ADD", c1, ifname="eth1").result()
    before = lab.traces(c1)
    error = lab.refused({**dual.conf, "prevResult": previous}, c1, ifname="eth1")
    assert error["code"] == 103
    assert "ip6tables" in words(error)
    assert_unchanged(before, lab.traces(c1), ignore=EMPTY_TABLES)


WITHOUT_IP6TABLES = """mkdir /run/sbin
cp -a /usr/sbin/iptables* /usr/sbin/xtables* /run/sbin
mount --bind /run/sbin /usr/sbin"""


def _ipam(number: int) -> Conf:
    return {"type": "host-local", "subnet": f"10.{number}.0.0/24"}


def test_status_knows_what_an_add_would_lack(firewalled: Chains) -> None:
    """Code 50: no packet filter of the kind, no firewalld; code 7 for a configuration that no ADD accepts."""
    made = firewalled()
    host = made.lab.host
    for backend in ("", "nftables", "iptables", "none"):
        assert made.lab.call("STATUS", {**made.conf, "backend": backend}).ok
    assert made.lab.call("STATUS", {**made.conf, "backend": "firewalld"}).error_code == 50
    assert made.lab.call("STATUS", {**made.conf, "ingressPolicy": "?"}).error_code == 7
    host.run(["mount", "-t", "tmpfs", "tmpfs", "/usr/sbin"])
    assert made.lab.call("STATUS", {**made.conf, "backend": "iptables"}).error_code == 50
    assert made.lab.call("STATUS", made.conf).ok


REFUSED: list[tuple[Conf, int, str]] = [
    ({"ingressPolicy": "closed"}, 7, 'unknown ingress policy: "closed"'),
    ({"backend": "ipset"}, 7, 'unknown firewall backend "ipset"'),
    ({"backend": "firewalld"}, 103, "firewalld"),
    ({"prevResult": None}, 7, "missing prevResult from earlier plugin"),
    ({"prevResult": {"cniVersion": "1.1.0"}, "ingressPolicy": "isolated"}, 7, "interface needs to be set for ingress"),
    (
        {"prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "gone"}]}, "ingressPolicy": "same-bridge"},
        7,
        'make sure to chain "firewall" plugin with "bridge"',
    ),
    ({"iptablesAdminChainName": "PYCNI-F-00000000"}, 7, "iptablesAdminChainName"),
    ({"cniVersion": "0.3.1"}, 1, "incompatible CNI versions"),
]


def test_what_is_refused_changes_nothing(firewalled: Chains, c1: Container) -> None:
    """In the reference's words where it has any; reference: an unknown backend is taken for the default in silence."""
    made = firewalled()
    previous = made.first("ADD", c1).result()
    before = made.lab.traces(c1)
    for keys, code, said in REFUSED:
        error = made.lab.refused({**made.conf, "prevResult": previous, **keys}, c1)
        assert error["code"] == code, error
        assert said in f"{error['msg']}: {error.get('details')}"
    assert_unchanged(before, made.lab.traces(c1), ignore=[LINK_LOCAL])


def test_no_interface_of_the_host_is_no_error(lab: Lab, c1: Container) -> None:
    """Behind macvlan and its like nothing passes the host's forwarding: there is nothing to do, and the result is
    passed on; an interface of the machine itself, if a plugin names one, is never opened."""
    lab.host.ip("link", "add", "uplink", "type", "veth", "peer", "name", "other")
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "firewall", "backend": "iptables"}
    previous = {"cniVersion": "1.1.0", "interfaces": [{"name": "lo"}], "ips": [{"address": "10.1.0.5/24"}]}
    assert lab.add({**conf, "prevResult": previous}, c1) == previous
    assert "lo -j ACCEPT" not in lab.host.run(["iptables", "-S"]).stdout
    lab.delete(conf, c1)


def test_a_bare_run_tells_the_version(lab: Lab) -> None:
    """nerdctl reads it from stderr, and uses "isolated" from 1.7.1 on."""
    done = run_cni(lab.host, lab.plugins, "firewall", "", {}, env={"CNI_COMMAND": ""}, cni_path="")
    assert done.rc == 0
    assert done.stderr.startswith("CNI firewall plugin v1.9.0 ")
    assert "0.4.0, 1.0.0, 1.1.0" in done.stderr


def test_none_leaves_everything_alone(firewalled: Chains, c1: Container) -> None:
    """ "backend": "none" passes the result on, on a host whose packet filter is somebody else's."""
    made = firewalled(backend="none", ingressPolicy="isolated")
    previous = made.first("ADD", c1).result()
    before = made.lab.traces(c1)
    assert made.lab.add({**made.conf, "prevResult": previous}, c1) == previous
    assert made.lab.check(made.conf, c1, previous).ok
    made.lab.delete(made.conf, c1)
    assert_unchanged(before, made.lab.traces(c1), ignore=[LINK_LOCAL])


ADMIN = """iptables -A CNI-ADMIN -i cni2 -o cni1 -j ACCEPT
iptables -A CNI-ADMIN -i cni1 -o cni2 -m conntrack --ctstate ESTABLISHED -j ACCEPT"""


def test_the_admin_chain_is_asked_first_and_is_never_emptied(firewalled: Chains, boxes: Boxes) -> None:
    """It is made empty; what is put there decides before isolation, also after another network came; DEL leaves it."""
    one, two = (firewalled(number, backend="iptables", ingressPolicy="same-bridge") for number in (1, 2))
    lab, made = one.lab, boxes(3)
    first = one.attach(made[0])
    assert "-N CNI-ADMIN" in lab.host.run(["iptables", "-S"]).stdout
    lab.host.run(["sh", "-c", ADMIN])
    second = two.attach(made[1])
    assert reaches(second.ns, first.address(4), PORT, expected=True)
    assert not reaches(first.ns, second.address(4), PORT, expected=False)
    own = firewalled(3, backend="iptables", iptablesAdminChainName="NOMAD-ADMIN")
    third = own.attach(made[2])
    jumps = lab.host.run(["iptables", "-S", "FORWARD"]).stdout
    assert jumps.count('"pycni CNI-ADMIN"') == jumps.count('"pycni NOMAD-ADMIN"') == 1
    for box in (first, second, third):
        assert box.chain.check(box).ok
        box.chain.detach(box)
    left = {family: lab.host.run([tool, "-S"]).stdout for family, tool in zip(FAMILIES, TOOLS, strict=True)}
    assert left[4].count("-A CNI-ADMIN") == 2
    assert "-N NOMAD-ADMIN" not in left[4]
    assert "-N" not in left[6]
    assert "PYCNI" not in left[4]


TOOLS = ("iptables", "ip6tables")
