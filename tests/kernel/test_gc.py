"""GC releases what no valid attachment owns: all of it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import Container, assert_unchanged, can_ping, wait_until
from tests.kernel.bridge_lab import Lab, network
from tests.kernel.portmap_lab import PortLab, port, seen

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

ANOTHER_BOOT = "00000000-0000-4000-8000-000000000000"
VALID = "cni.dev/valid-attachments"
ALIAS = "cni.dev/attachments"


def test_only_the_listed_stay(lab: Lab, boxes: Callable[[int], list[Container]]) -> None:
    """The others' links, rules, leases and records go; the listed one works on, and other networks are untouched."""
    one, two, three, foreign = boxes(4)
    conf, other = network(), network("other", 2)
    lab.add(other, foreign)
    result = lab.add(conf, one)
    before = lab.traces(one, two, three, foreign)
    lab.add(conf, two)
    lab.add(conf, three)
    answer = lab.gc(conf, one)
    assert (answer.rc, answer.stdout) == (0, "")
    assert_unchanged(before, lab.traces(one, two, three, foreign))
    assert lab.check(conf, one, result).ok
    assert can_ping(foreign, "10.2.0.1")


@pytest.mark.parametrize("keys", [{VALID: []}, {VALID: None}, {ALIAS: []}, {ALIAS: None}])
def test_empty_list_releases_all(lab: Lab, c1: Container, c2: Container, keys: dict[str, Any]) -> None:
    """Under either name of the key, as [] or as Go's null: containers, and then the bridge that was made for them."""
    before = lab.traces(c1, c2)
    lab.add(network(), c1)
    lab.add(network(), c2)
    assert lab.gc(network(), **keys).ok
    assert_unchanged(before, lab.traces(c1, c2), ignore=["*/sysctl/*"])


def test_older_name_of_the_key_keeps_as_well(lab: Lab, c1: Container, c2: Container) -> None:
    """libcni sends the list under both names; an older one under the second alone."""
    lab.add(network(), c1)
    lab.add(network(), c2)
    assert lab.gc(network(), **{ALIAS: [{"containerID": "c2", "ifname": "eth0"}]}).ok
    assert list(lab.records()) == ["net/c2/eth0"]
    assert can_ping(c2, "10.1.0.1")


def test_without_a_list_only_the_dead_go(lab: Lab, boxes: Callable[[int], list[Container]]) -> None:
    """Absent key: nothing was said of anybody. A vanished namespace and another boot are dead, a running one is not."""
    alive, dead, past = boxes(3)
    conf = network()
    for container in (alive, dead, past):
        lab.add(conf, container)
    dead.delete()
    wait_until(lambda: len(lab.ports()) == 2, message="the kernel took its veth pair away")
    lab.change_state("UPDATE attachments SET boot_id = ? WHERE container_id = ?", ANOTHER_BOOT, past.name)
    lab.change_state("UPDATE leases SET boot_id = ? WHERE container_id = ?", ANOTHER_BOOT, past.name)
    assert lab.call("GC", conf).ok
    assert list(lab.records()) == [f"net/{alive.name}/eth0"]
    assert lab.leases() == ["10.1.0.2", "fd00:1::2"]
    assert len(lab.ports()) == 1
    assert can_ping(alive, "10.1.0.1")
    assert "10.1.0.3" not in lab.ruleset()


def test_entry_that_cannot_be_read_deletes_nobody(lab: Lab, c1: Container) -> None:
    """A list that is half understood must not cost a container its network."""
    lab.add(network(), c1)
    before = lab.traces(c1)
    lists: list[Any] = [[{"containerID": "c1"}], [{"ifname": "eth0"}], ["c1"], "c1", [None], {}]
    for broken in lists:
        assert lab.gc(network(), **{VALID: broken}).error_code == 7
    assert_unchanged(before, lab.traces(c1))


def test_what_is_without_a_record_goes(lab: Lab, c1: Container, c2: Container) -> None:
    """After a lost state file: a marked link of nobody on the list goes, that of a valid one stays; rules go when no
    valid one needs them."""
    for container in (c1, c2):
        lab.add(network(), container)
    lab.host.run(["rm", "-r", "/var/lib/pycni"])
    assert lab.call("GC", network()).ok  # nothing was said of anybody
    assert len(lab.ports()) == 2
    assert lab.gc(network(), c1).ok
    assert len(lab.ports()) == 1
    assert can_ping(c1, "10.1.0.1")
    assert "10.1.0.2" in lab.ruleset()
    assert lab.gc(network()).ok
    assert "cni1" not in lab.host.links()
    assert lab.ruleset() == ""


def test_rules_without_a_record_stay_while_another_network_may_need_them(
    lab: Lab, c1: Container, c2: Container
) -> None:
    """After a lost state file the other network's containers may be running: only its own GC says that they are not."""
    lab.add(network(), c1)
    lab.add(network("other", 2), c2)
    lab.host.run(["rm", "-r", "/var/lib/pycni"])
    assert lab.gc(network()).ok
    assert "10.2.0.2" in lab.ruleset()
    assert can_ping(c2, "10.2.0.1")
    lab.add(network(), c1)
    assert lab.gc(network(), c1).ok
    assert "10.1.0.2" in lab.ruleset()
    lab.delete(network(), c1)


@pytest.mark.parametrize("letters", [3, 94, 120])
def test_rules_without_a_record_stay_with_a_valid_container(port_lab: Callable[..., PortLab], letters: int) -> None:
    """Whatever the length of its names, of which a rule's comment has no more than a hash where they are long; and
    they go, its published port too, when nobody is valid any more."""
    ports = port_lab()
    server = ports.server("c" * 32, network("n" * letters))
    ports.publish(server, port(8080))
    before = ports.lab.ruleset()
    ports.host.run(["rm", "-r", "/var/lib/pycni"])
    assert ports.lab.gc(server.conf, server.ns).ok
    assert ports.lab.ruleset() == before
    assert all(seen(ports.host, address, 8080) for address in ("10.1.0.1", "fd00:1::1"))
    assert ports.lab.gc(server.conf).ok
    assert ports.lab.ruleset() == ""


def test_foreign_links_stay(lab: Lab, c1: Container) -> None:
    """A bridge somebody else made, with somebody else's port on it, is not ours to remove; nor is another network's."""
    lab.host.ip_batch(
        "link add cni1 type bridge", "link add port type veth peer name other", "link set port master cni1"
    )
    lab.add(network(), c1)
    lab.add(network("net.work", 2), lab.host.container("c2"))
    assert lab.gc(network()).ok
    assert set(lab.host.links()) >= {"cni1", "port", "other", "cni2"}
    assert list(lab.records()) == ["net.work/c2/eth0"]


def test_bridge_with_a_foreign_port_stays(lab: Lab, c1: Container) -> None:
    """Ours, but somebody plugged into it."""
    lab.add(network(), c1)
    lab.host.ip_batch("link add port type veth peer name other", "link set port master cni1")
    assert lab.gc(network()).ok
    assert lab.ports() == ["port"]


def test_vlan_gateway_goes_before_its_bridge(lab: Lab, c1: Container) -> None:
    """The pair that carries a VLAN's gateway is marked as the network's; here it stands in by hand."""
    lab.add(network(), c1)
    lab.host.ip_batch(
        "link add cni1.5 type veth peer name vcni1.5",
        "link set vcni1.5 master cni1",
        'link set cni1.5 alias "pycni net"',
    )
    assert lab.gc(network(), c1).ok
    assert "cni1.5" in lab.host.links()
    assert lab.gc(network()).ok
    assert not {"cni1", "cni1.5", "vcni1.5"} & set(lab.host.links())


def test_gc_goes_on_after_a_failure_and_names_it(lab: Lab, c1: Container, c2: Container) -> None:
    """One attachment's IPAM plugin is gone: the other is released, the error names the one, its record stays."""
    lab.add(network(), c1)
    lab.add(network(), c2)
    lab.change_state("UPDATE attachments SET cni_path = '[]' WHERE container_id = 'c1'")
    answer = lab.gc(network())
    assert answer.error_code == 999
    assert "net/c1/eth0" in answer.json["msg"]
    assert list(lab.records()) == ["net/c1/eth0"]
    assert lab.leases() == []  # the IPAM plugin's own GC came after
    lab.delete(network(), c1)
    assert lab.records() == {}


def test_gc_needs_version_1_1(lab: Lab) -> None:
    """Code 1 before."""
    assert lab.gc(network(cniVersion="1.0.0")).error_code == 1


SLOW_IPAM = """#!/bin/sh
cat >/dev/null
[ "$CNI_COMMAND" = ADD ] || exit 0
echo >/run/ipam.asked
read -r _ </run/ipam.go
printf '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.9/24"}]}'
"""


def test_add_in_progress_is_not_collected(lab: Lab, c1: Container, tmp_path: Path) -> None:
    """An ADD whose process lives is its own business, also for a GC that lists nobody: it ends well, bridge and all."""
    plugin = tmp_path / "slow"
    plugin.write_text(SLOW_IPAM)
    plugin.chmod(0o755)
    path = f"{lab.plugins}:{tmp_path}"
    conf = network(ipam={"type": "slow"})
    lab.host.run(["mkfifo", "/run/ipam.go"])
    lab.host.ip_batch("link add cni1 type bridge", 'link set cni1 alias "pycni net"')
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(lab.add, conf, c1, cni_path=path)
        wait_until(lab.host.file("/run/ipam.asked").exists)
        collected = lab.call("GC", {**conf, VALID: []}, cni_path=path)
        lab.host.run(["sh", "-c", "echo >/run/ipam.go"])
        result = adding.result()
    assert collected.ok, collected
    assert lab.check(conf, c1, result, cni_path=path).ok
    assert can_ping(c1, "10.1.0.1")
