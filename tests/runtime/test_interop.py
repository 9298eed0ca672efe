"""Our plugins and the reference's side by side: each bridge with each IPAM, and networks that change hands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import (
    CniRun,
    Container,
    Host,
    Outside,
    assert_unchanged,
    can_ping,
    netns_snapshot,
    run_cni,
    wait_until,
)
from tests.runtime.command_line import pycni_json

REFERENCE = Path("/usr/lib/cni")

pytestmark = [
    pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth"),
    pytest.mark.needs("tool:/usr/lib/cni/bridge", "tool:/usr/lib/cni/host-local", "tool:/usr/lib/cni/static"),
]

VERSIONS = ("0.3.1", "0.4.0", "1.0.0")
BRIDGE = {"name": "net", "type": "bridge", "bridge": "cni0", "isGateway": True}
HOST_LOCAL = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}
STATIC = {
    "type": "static",
    "addresses": [
        {"address": "10.1.0.2/24", "gateway": "10.1.0.1"},
        {"address": "fd00:1::2/64", "gateway": "fd00:1::1"},
    ],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}


@dataclass(frozen=True)
class Mixed:
    """A host where the bridge plugin is one side's and the IPAM plugin perhaps the other's."""

    host: Host
    bridge: Path
    ipam: Path

    def call(self, command: str, conf: dict[str, Any], container: Container, **more: Any) -> CniRun:
        return run_cni(
            self.host, self.bridge, "bridge", command, conf, container_id=container.name, netns=container,
            cni_path=str(self.ipam), **more,
        )  # fmt: skip


@pytest.fixture(params=["our bridge", "reference bridge"])
def mixed(request: pytest.FixtureRequest, host: Host, bin_dir: Path) -> Mixed:
    """The bridge of one side with the IPAM plugins of the other."""
    ours = request.param == "our bridge"
    return Mixed(host, bridge=bin_dir if ours else REFERENCE, ipam=REFERENCE if ours else bin_dir)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("ipam", [HOST_LOCAL, STATIC], ids=["host-local", "static"])
def test_bridge_works_with_the_other_sides_ipam(mixed: Mixed, version: str, ipam: dict[str, Any]) -> None:
    """ADD, CHECK and DEL of one container: the result is whole, its gateways answer, and nothing is left of it."""
    conf = {**BRIDGE, "cniVersion": version, "ipam": ipam}
    container = mixed.host.container("c1")
    before = netns_snapshot(container)
    result = mixed.call("ADD", conf, container).result()
    assert [(ip["address"], ip["gateway"], ip["interface"]) for ip in result["ips"]] == [
        ("10.1.0.2/24", "10.1.0.1", 2),
        ("fd00:1::2/64", "fd00:1::1", 2),
    ]
    assert result["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    assert all(can_ping(container, ip["gateway"], deadline_s=10) for ip in result["ips"])
    if version != "0.3.1":
        assert mixed.call("CHECK", {**conf, "prevResult": result}, container).ok
    assert mixed.call("DEL", {**conf, "prevResult": result}, container).ok
    assert netns_snapshot(container) == before
    wait_until(lambda: set(mixed.host.links()) == {"lo", "cni0"}, 10)
    assert leased(mixed.host) == set()


def test_two_containers_get_two_addresses_from_the_other_side(mixed: Mixed) -> None:
    """Neither side hands an address out twice, and both free it on DEL without namespace and prevResult."""
    conf = {**BRIDGE, "cniVersion": "1.0.0", "ipam": HOST_LOCAL}
    one, two = mixed.host.container("c1"), mixed.host.container("c2")
    results = [mixed.call("ADD", conf, each).result() for each in (one, two)]
    given = [ip["address"].partition("/")[0] for result in results for ip in result["ips"]]
    assert leased(mixed.host) == set(given)
    assert len(set(given)) == 4
    assert can_ping(one, given[2], deadline_s=10)
    for each in (one, two):
        each.delete()
        assert run_cni(
            mixed.host, mixed.bridge, "bridge", "DEL", conf, container_id=each.name, netns="", cni_path=str(mixed.ipam)
        ).ok
    assert leased(mixed.host) == set()


def test_failed_add_of_the_other_sides_ipam_keeps_its_message(host: Host, bin_dir: Path) -> None:
    """An exhausted range of the reference's host-local is reported by our bridge as such, and all is undone."""
    conf = {**BRIDGE, "cniVersion": "1.0.0", "ipam": {"type": "host-local", "subnet": "10.1.0.0/30"}}
    mixed = Mixed(host, bridge=bin_dir, ipam=REFERENCE)
    mixed.call("ADD", conf, host.container("c1")).result()
    second = host.container("c2")
    before = netns_snapshot(host, second)
    failed = mixed.call("ADD", conf, second)
    assert "no IP addresses available in range set" in failed.json["msg"]
    assert netns_snapshot(host, second) == before
    assert leased(host) == {"10.1.0.2"}


@pytest.mark.parametrize("version", VERSIONS)
def test_pycni_takes_a_network_over(host: Host, outside: Outside, bin_dir: Path, version: str) -> None:
    """With the reference's plugins replaced under running containers: their addresses stay theirs, CHECK and DEL of
    them work, new ones stand beside them on the same bridge, and a freed address can be had again."""
    conf = {**BRIDGE, "cniVersion": version, "ipam": HOST_LOCAL}
    old, new, third = host.container("old"), host.container("new"), host.container("third")
    theirs, ours = Mixed(host, REFERENCE, REFERENCE), Mixed(host, bin_dir, bin_dir)
    before = netns_snapshot(old)
    first = theirs.call("ADD", conf, old).result()
    second = ours.call("ADD", conf, new).result()
    assert [ip["address"] for ip in second["ips"]] == ["10.1.0.3/24", "fd00:1::3/64"]
    assert all(can_ping(new, ip["address"].partition("/")[0], deadline_s=10) for ip in first["ips"])
    if version != "0.3.1":
        assert ours.call("CHECK", {**conf, "prevResult": first}, old).ok
    assert ours.call("DEL", {**conf, "prevResult": first}, old).ok
    assert netns_snapshot(old) == before
    again = ours.call("ADD", conf, third, args="IP=10.1.0.2").result()
    assert again["ips"][0]["address"] == "10.1.0.2/24"
    for each in (new, third):
        assert ours.call("DEL", conf, each).ok
    wait_until(lambda: set(host.links()) == {"lo", "cni0", "uplink"}, 10)


def test_reference_takes_a_network_back(host: Host, bin_dir: Path) -> None:
    """The reference's DEL takes the link of a container that pycni attached; a GC of pycni takes the rest.

    Not with ipMasq: the reference's DEL fails when the iptables rules it looks for were never made.
    """
    conf = {**BRIDGE, "cniVersion": "1.0.0", "ipam": HOST_LOCAL}
    container = host.container("c1")
    before = netns_snapshot(host, container)
    result = Mixed(host, bin_dir, bin_dir).call("ADD", conf, container).result()
    assert Mixed(host, REFERENCE, bin_dir).call("DEL", {**conf, "prevResult": result}, container).ok
    assert leased(host) == set()
    collect = {**conf, "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    assert run_cni(host, bin_dir, "bridge", "GC", collect).ok
    wait_until(lambda: host.links() == ["lo"], 10)
    kept = ["*/sysctl/*", "*type=anycast"]
    assert_unchanged(before, netns_snapshot(host, container), ignore=kept)


def leased(host: Host) -> set[str]:
    """The addresses that either host-local has given out: files there, rows of the store here."""
    files = host.run(["sh", "-c", "cd /var/lib/cni/networks/net 2>/dev/null && ls || true"]).stdout.split()
    theirs = {name for name in files if name != "lock" and not name.startswith("last_reserved_ip")}
    return theirs | {lease["address"] for lease in pycni_json(host, "ipam", "list")}
