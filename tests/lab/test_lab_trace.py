"""`pycni lab trace`: both halves of a packet's way, and what is missing on either."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from netns_fixtures import wait_until

from .broken_lab import address_of
from .conftest import LabCommand

pytestmark = pytest.mark.needs("root", "tool:etcd", "kernel:vxlan", "kernel:nft_nat", "python:yaml")

FILE = """
etcd: {}
networks:
  blue: {type: overlay, vni: 4243, ipv4: 10.1.0.0/16, ipv6: "fd00:1::/64"}
  red: {type: bridge, ipv4: 10.9.0.0/24}
hosts:
  h[1-2]:
    containers:
      a: {networks: [blue]}
      b: {networks: [red], ports: ["8080:80"]}
"""

MULTICAST = """
networks:
  m: {type: overlay, mode: multicast, vni: 99, ipv4: 10.3.0.0/16, config: {group: 239.1.1.1}}
hosts:
  h1: {containers: {a: {networks: [{name: m, ips: [10.3.0.11]}]}}}
  h2: {containers: {a: {networks: [{name: m, ips: [10.3.0.12]}]}}}
"""


@pytest.fixture(scope="module")
def lab(make_lab: Callable[[], LabCommand]) -> LabCommand:
    made = make_lab()
    made.up(FILE)
    return made


def told(lab: LabCommand, *words: str, rc: int = 0) -> Any:
    return json.loads(lab.run("trace", "--lab", lab.name, *words, "--json", rc=rc).stdout)


@pytest.mark.parametrize("family", [4, 6])
def test_both_halves_of_a_way_through_the_tunnel(lab: LabCommand, family: int) -> None:
    """By names; by addresses the same; both as text, and one outcome at the end."""
    source, target = (address_of(lab.running(), path, family) for path in ("h1/a", "h2/a"))
    for words in (["h1/a", "h2/a", f"-{family}"], [source, target]):
        said = told(lab, *words)
        assert [half["host"] for half in said["halves"]] == ["h1", "h2"]
        assert {(half["source"]["address"], half["target"]["address"]) for half in said["halves"]} == {(source, target)}
        assert said["missing"] is None and said["lab"] == lab.name
    text = lab.run("trace", "--lab", lab.name, "h1/a", "h2/a").stdout
    assert text.startswith("on h1:\n") and "\non h2:\n" in text
    assert text.count("nothing is missing") == 1 and text.endswith("\nnothing is missing\n")


def test_what_is_missing_on_either_host(lab: LabCommand) -> None:
    """The first half's ends the trace; the second's is found behind it. What `ping-matrix` proposes is such a trace."""
    lab.exec("h2/a", "ip", "addr", "flush", "dev", "eth0")
    said = told(lab, "h1/a", "h2/a", rc=1)
    assert (said["missing"]["what"], said["missing"]["where"], len(said["halves"])) == ("address", "a", 2)
    asked = lab.run("ping-matrix", lab.name, "-4", "-c1", rc=1).stdout
    (why,) = [line for line in asked.splitlines() if line.startswith("why: pycni lab trace ")]
    assert "missing: " in lab.run(*why.split()[3:], rc=1).stdout
    lab.exec("h1/a", "ip", "link", "set", "eth0", "down")
    said = told(lab, "h1/a", "h2/a", rc=1)
    assert (said["missing"]["what"], len(said["halves"])) == ("interface", 1)
    assert "missing: interface on a" in lab.run("trace", "--lab", lab.name, "h1/a", "h2/a", rc=1).stdout
    lab.run("reboot", "--lab", lab.name, "h1", "h2")
    wait_until(lambda: lab.reaches("h1/a", address_of(lab.running(), "h2/a")), 20.0, "it is attached anew")
    assert told(lab, "h1/a", "h2/a")["missing"] is None


def test_what_is_broken_on_purpose_is_told(lab: LabCommand) -> None:
    """The switch drops what a cut host sends: everything is in order on both, and yet nothing arrives."""
    lab.run("cut", "--lab", lab.name, "h2")
    try:
        text = lab.run("trace", "--lab", lab.name, "h1/a", "h2/a", rc=None).stdout
        assert text.endswith("\nfault: h2:eth0 is cut\n")
        text = lab.run("trace", "--lab", lab.name, "h2/a", "h1/a", rc=None).stdout
        assert "unknown: etcd does not answer" in text  # and not that nobody has the address
    finally:
        lab.run("heal", "--lab", lab.name)
    assert told(lab, "h1/a", "h2/a")["faults"] == []


def test_a_published_port_of_another_host(lab: LabCommand) -> None:
    """It comes there as from the host that masquerades it: the other end has the same address of its own."""
    first, second = told(lab, "h1/b", "h2", "--port", "8080")["halves"]
    assert first["leavesAs"] == second["source"]["address"] == "192.0.2.1"
    assert second["source"]["place"] == "outside" and second["target"]["container"] == "b"
    assert [half["host"] for half in told(lab, "h1", "h2/b", "--port", "80")["halves"]] == ["h2"]
    assert [half["host"] for half in told(lab, "h2", "h2", "--port", "8080")["halves"]] == ["h2"]
    assert told(lab, "h1/b", "h2", "--port", "8081", rc=3)["msg"].startswith("h2: no container has published")


def test_a_network_of_which_nobody_records_who_is_where(make_lab: Callable[[], LabCommand]) -> None:
    """Each half ends at, or begins behind, its bridge; nothing is masqueraded on the way."""
    lab = make_lab()
    lab.up(MULTICAST)
    first, second = told(lab, "h1/a", "h2/a")["halves"]
    assert first["leavesAs"] is None and second["source"]["address"] == "10.3.0.11"
    assert [(half["steps"][at]["what"], half["steps"][at]["result"]) for half, at in ((first, -1), (second, 0))] == [
        ("destination", "note"),
        ("sender", "note"),
    ]


def test_an_address_that_both_hosts_have_is_not_taken_for_the_other(lab: LabCommand) -> None:
    """Networks without overlay are each host's own."""
    done = lab.run("trace", "--lab", lab.name, "h1/b", "h2/b", rc=1)
    assert done.stdout == "" and "is b of its own network red, and not h2/b" in done.stderr


@pytest.mark.parametrize(
    ("words", "rc", "said"),
    [
        (["h1", "h2"], 3, "neither"),
        (["203.0.113.1", "203.0.113.2"], 2, "neither 203.0.113.1 nor 203.0.113.2 is a host of lab"),
        (["h1/x", "h2/a"], 3, "no container h1/x"),
        (["h1/a", "x"], 3, "no host 'x'"),
        (["h1/b", "h2/a", "-6"], 1, "h1/b has no IPv6 address"),
    ],
)
def test_ends_that_cannot_be(lab: LabCommand, words: list[str], rc: int, said: str) -> None:
    """In words of the lab."""
    assert said in told(lab, *words, rc=rc)["msg"]
