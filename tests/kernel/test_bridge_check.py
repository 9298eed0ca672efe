"""CHECK finds every kind of damage, names it, and takes nothing else for damage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from netns_fixtures import Container
from tests.kernel.bridge_lab import Conf, Lab, network, static, words

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

Damage = Callable[[Lab, Container, Conf], object]


def _host_link(result: Conf) -> str:
    return str(result["interfaces"][1]["name"])


def _nft(command: str) -> Damage:
    return lambda lab, c1, result: lab.host.run(["nft", command])


DAMAGES: dict[str, tuple[Damage, str]] = {
    "IPv4 address removed": (lambda lab, c1, r: c1.ip("addr", "del", "10.1.0.2/24", "dev", "eth0"), "10.1.0.2/24"),
    "IPv6 address removed": (lambda lab, c1, r: c1.ip("addr", "del", "fd00:1::2/64", "dev", "eth0"), "fd00:1::2/64"),
    "route removed": (lambda lab, c1, r: c1.ip("route", "del", "default"), "route 0.0.0.0/0 via 10.1.0.1"),
    "IPv6 route removed": (lambda lab, c1, r: c1.ip("-6", "route", "del", "default"), "route ::/0 via fd00:1::1"),
    "container link down": (lambda lab, c1, r: c1.ip("link", "set", "eth0", "down"), "eth0 is down"),
    "container link gone": (lambda lab, c1, r: c1.ip("link", "del", "eth0"), "eth0 is missing"),
    "container MAC": (
        lambda lab, c1, r: c1.ip("link", "set", "eth0", "address", "02:00:00:00:00:01"),
        "02:00:00:00:00:01",
    ),
    "host link down": (lambda lab, c1, r: lab.host.ip("link", "set", _host_link(r), "down"), "is down"),
    "host link off": (
        lambda lab, c1, r: lab.host.ip("link", "set", _host_link(r), "nomaster"),
        "is not on bridge cni1",
    ),
    "bridge down": (lambda lab, c1, r: lab.host.ip("link", "set", "cni1", "down"), "bridge cni1 is down"),
    "bridge gone": (lambda lab, c1, r: lab.host.ip("link", "del", "cni1"), "bridge cni1 is missing"),
    "bridge MAC": (
        lambda lab, c1, r: lab.host.ip("link", "set", "cni1", "address", "02:00:00:00:00:02"),
        "02:00:00:00:00:02",
    ),
    "gateway 4": (
        lambda lab, c1, r: lab.host.ip("addr", "del", "10.1.0.1/24", "dev", "cni1"),
        "gateway address 10.1.0.1 is missing on cni1",
    ),
    "gateway 6": (
        lambda lab, c1, r: lab.host.ip("addr", "del", "fd00:1::1/64", "dev", "cni1"),
        "gateway address fd00:1::1 is missing on cni1",
    ),
    "masquerade 4": (_nft("delete element inet pycni masq4 { 10.1.0.2 }"), "masq4 10.1.0.2"),
    "masquerade 6": (_nft("delete element inet pycni masq6 { fd00:1::2 }"), "masq6 fd00:1::2"),
    "isolation": (_nft('delete element inet pycni isolated { "cni1" }'), "isolated cni1"),
    "rules": (_nft("flush table inet pycni"), "rules of chain postrouting"),
    "table": (_nft("delete table inet pycni"), "inet pycni"),
    "hairpin": (
        lambda lab, c1, r: lab.host.run(["bridge", "link", "set", "dev", _host_link(r), "hairpin", "off"]),
        "hairpin",
    ),
    "isolated port": (
        lambda lab, c1, r: lab.host.run(["bridge", "link", "set", "dev", _host_link(r), "isolated", "off"]),
        "port isolation is off",
    ),
    "lease": (lambda lab, c1, r: lab.change_state("UPDATE leases SET released = 1"), "Failed to find address"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_named(lab: Lab, c1: Container, name: str) -> None:
    """Code 106, and the message says what: it is what the operator reads."""
    damage, named = DAMAGES[name]
    conf = network(hairpinMode=True, portIsolation=True)
    result = lab.add(conf, c1)
    assert lab.check(conf, c1, result).ok
    damage(lab, c1, result)
    answer = lab.check(conf, c1, result)
    assert answer.error_code == 106, answer
    assert named in words(answer.json)
    lab.delete(conf, c1)
    assert (lab.records(), lab.leases(), lab.ruleset()) == ({}, [], "")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ('delete element bridge pycni guarded { "LINK" }', "guarded"),
        ("flush table bridge pycni", "rules of chain prerouting"),
    ],
)
def test_missing_spoof_check_is_found(lab: Lab, c1: Container, command: str, named: str) -> None:
    """macspoofchk is a promise, too."""
    conf = network(macspoofchk=True)
    result = lab.add(conf, c1)
    assert lab.check(conf, c1, result).ok
    lab.host.run(["nft", command.replace("LINK", _host_link(result))])
    assert named in words(lab.check(conf, c1, result).json)


@pytest.mark.parametrize("tool", ["iptables", "ip6tables"])
def test_missing_iptables_rule_is_found(lab: Lab, c1: Container, tool: str) -> None:
    """The same with the iptables backend, for either family."""
    conf = network(ipMasqBackend="iptables")
    result = lab.add(conf, c1)
    assert lab.check(conf, c1, result).ok
    lab.host.run([tool, "-t", "nat", "-F"])
    assert lab.check(conf, c1, result).error_code == 106


HARMLESS: dict[str, Damage] = {
    "tcpdump": lambda lab, c1, r: lab.host.ip("link", "set", "cni1", "promisc", "on"),
    "more addresses": lambda lab, c1, r: c1.ip("addr", "add", "192.0.2.9/24", "dev", "eth0"),
    "more routes": lambda lab, c1, r: c1.ip("route", "add", "203.0.113.0/24", "via", "10.1.0.1"),
    "tuned mtu": lambda lab, c1, r: c1.ip("link", "set", "eth0", "mtu", "1400"),
    "more containers": lambda lab, c1, r: lab.add(network(), lab.host.container("c9")),
    "a neighbour that left": lambda lab, c1, r: lab.gc(network("other", 3)),
    "foreign rules": lambda lab, c1, r: lab.host.run(["nft", "add table inet other"]),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_others_change_is_no_damage(lab: Lab, c1: Container, name: str) -> None:
    """A promiscuous bridge, further addresses and routes, a tuned MTU: later plugins and operators may do that."""
    result = lab.add(network(), c1)
    HARMLESS[name](lab, c1, result)
    answer = lab.check(network(), c1, result)
    assert answer.ok, answer


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_check_takes_a_result_of_its_version(lab: Lab, c1: Container, version: str) -> None:
    """From 0.4.0 on there is CHECK; before it is refused with code 1."""
    conf = network(cniVersion=version)
    result = lab.add(conf, c1)
    assert lab.check(conf, c1, result).ok
    assert lab.refused(network(cniVersion="0.3.1", prevResult=result), c1, "CHECK")["code"] == 1


def test_check_needs_a_prev_result(lab: Lab, c1: Container) -> None:
    """Without one there is nothing to compare with: an error, as the specification wants."""
    lab.add(network(), c1)
    assert "prevResult" in lab.refused(network(), c1, "CHECK")["msg"]


def test_check_of_a_container_that_was_never_added(lab: Lab, c1: Container, c2: Container) -> None:
    """An error, whatever its prevResult says."""
    result = lab.add(network(), c1)
    assert lab.check(network(), c2, result).error_code == 106


@pytest.mark.parametrize(
    ("keys", "code"),
    [({}, None), ({"bridge": "lo"}, 50), ({"ipam": {"type": "absent"}}, 7), ({"vlan": 5000}, 7)],
)
def test_status_says_whether_an_add_could_work(lab: Lab, keys: dict[str, Any], code: int | None) -> None:
    """Code 50 where the host stands in the way; a wrong config is told as such; nothing is made."""
    before = lab.traces()
    answer = lab.call("STATUS", network(**keys))
    assert answer.error_code == code
    assert {key for key in lab.traces() if "/state/" in key} == {key for key in before if "/state/" in key}
    assert lab.ruleset() == ""


def test_status_of_an_exhausted_pool(lab: Lab, c1: Container) -> None:
    """Code 50 as long as the only address is taken (the reference says yes, and the ADD fails)."""
    conf = network(ipam={"type": "host-local", "subnet": "10.1.0.0/30"})
    lab.add(conf, c1)
    assert lab.call("STATUS", conf).error_code == 50
    lab.delete(conf, c1)
    assert lab.call("STATUS", conf).ok


STATE_DIRECTORY = {
    "read only": ["mount -t tmpfs -o ro none /var/lib/pycni"],
    "full": ["mount -t tmpfs -o size=100k none /var/lib/pycni", "fallocate -l 60k /var/lib/pycni/others"],
    "no directory": ["rmdir /var/lib/pycni", "touch /var/lib/pycni"],
}


@pytest.mark.parametrize("state", STATE_DIRECTORY)
@pytest.mark.parametrize("kind", ["bridge", "ptp", "host-local", "portmap", "bandwidth"])
def test_status_of_a_host_that_cannot_keep_state(lab: Lab, c1: Container, state: str, kind: str) -> None:
    """Code 50, as the ADD fails: with 5, and the path of the file."""
    for command in ("mkdir -p /var/lib/pycni", *STATE_DIRECTORY[state]):
        lab.host.run(command.split())
    answer = lab.call("STATUS", network(type=kind))
    assert answer.error_code == 50, answer
    assert "/var/lib/pycni/pycni.db" in answer.json["msg"]
    if kind not in ("portmap", "bandwidth"):
        error = lab.refused(network(type=kind, ipMasq=None), c1)
        assert error["code"] == 5
        assert "/var/lib/pycni/pycni.db" in error["msg"]


def test_status_of_a_host_that_became_full(lab: Lab, c1: Container) -> None:
    """Code 50 says so before an ADD fails; what is attached can be deleted all the same."""
    for command in ("mkdir -p /var/lib/pycni", "mount -t tmpfs -o size=1m none /var/lib/pycni"):
        lab.host.run(command.split())
    lab.add(network(), c1)
    filled = lab.host.run(["dd", "if=/dev/zero", "of=/var/lib/pycni/others", "bs=1k"], check=False)
    assert "No space left" in filled.stderr
    assert lab.call("STATUS", network()).error_code == 50
    lab.delete(network(), c1)
    lab.host.run(["rm", "/var/lib/pycni/others"])
    assert lab.call("STATUS", network()).ok


def test_static_addresses_are_checked_as_well(lab: Lab, c1: Container) -> None:
    """With an IPAM that keeps no record the bridge's own comparison still counts."""
    conf = network(ipam=static("10.1.0.5/24"))
    result = lab.add(conf, c1)
    assert lab.check(conf, c1, result).ok
    c1.ip("addr", "flush", "dev", "eth0")
    assert lab.check(conf, c1, result).error_code == 106
