"""ADD and DEL in every order that runtimes come up with."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from netns_fixtures import Container, Outside, assert_unchanged, can_ping
from tests.kernel.bridge_lab import Lab, address_of, network, static, words

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

ANOTHER_BOOT = "00000000-0000-4000-8000-000000000000"


def test_del_any_number_of_times(lab: Lab, c1: Container) -> None:
    """Before any ADD, after it, and again: success and silence; the second changes nothing."""
    conf = network()
    lab.delete(conf, c1)
    lab.add(conf, c1)
    lab.delete(conf, c1)
    before = lab.traces(c1)
    lab.delete(conf, c1)
    assert_unchanged(before, lab.traces(c1))


@pytest.mark.parametrize("netns", ["", None, "/run/netns/gone", "/etc/hostname", "/proc/self/ns/mnt", "/", "x\u00e9"])
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_del_needs_no_namespace(lab: Lab, c1: Container, c2: Container, netns: str | None, backend: str) -> None:
    """Empty, absent, vanished, a plain file, another kind: link, rules, lease and record go in any case."""
    conf = network(ipMasqBackend=backend, macspoofchk=backend == "nftables")
    lab.add(conf, c2)
    before = lab.traces(c1, c2)
    lab.add(conf, c1)
    lab.delete(conf, "c1", netns=netns)
    assert_unchanged(before, lab.traces(c1, c2))


@pytest.mark.parametrize("previous", ["garbage", 7, [], {"cniVersion": "9.9.9"}, {"ips": [{"address": "x"}]}, None])
def test_del_ignores_a_broken_prev_result(lab: Lab, c1: Container, previous: Any) -> None:
    """A runtime's cache on disk may be anything after a crash."""
    conf = network()
    lab.add(conf, c1)
    lab.delete({**conf, "prevResult": previous}, c1)
    assert lab.records() == {}
    assert lab.leases() == []
    assert lab.ports() == []


def test_del_after_an_add_without_its_ipam_plugin(lab: Lab, c1: Container) -> None:
    """The plugin may have leases of an earlier pycni or reference, so not success; but no record is promised."""
    conf = network(ipam={"type": "host-locl"})
    assert "host-locl" in lab.refused(conf, c1)["msg"]
    error = lab.refused(conf, c1, "DEL")
    assert "host-locl" in error["msg"]
    assert error["details"] == "pycni has no record of it: DEL again"
    assert lab.gc(network()).ok
    lab.delete(network(), c1)


def test_del_with_another_config_releases_what_add_made(lab: Lab, c1: Container) -> None:
    """The network's config was edited meanwhile, bridge and backend and all: the record counts."""
    before = lab.traces(c1)
    lab.add(network(macspoofchk=True), c1)
    lab.delete(network(bridge="other", backend="none", isDefaultGateway=None, ipMasq=None), c1)
    assert lab.gc(network()).ok
    assert_unchanged(before, lab.traces(c1), ignore=["*/sysctl/*"])


def test_del_after_the_namespace_died(lab: Lab, c1: Container) -> None:
    """The kernel took the link along: rules, lease and record go."""
    conf = network()
    lab.add(conf, c1)
    c1.delete()
    lab.delete(conf, "c1", netns=c1.path)
    assert (lab.records(), lab.leases(), lab.ruleset()) == ({}, [], "")


def test_repeated_add_is_refused_and_changes_nothing(lab: Lab, c1: Container) -> None:
    """The reference's words, code 105; the container goes on working."""
    conf = network()
    result = lab.add(conf, c1)
    before = lab.traces(c1)
    error = lab.refused(conf, c1)
    assert error["code"] == 105
    assert error["msg"].startswith('container veth name ("eth0") peer provided ("veth')
    assert error["msg"].endswith("already exists")
    assert_unchanged(before, lab.traces(c1))
    assert lab.check(conf, c1, result).ok


def test_add_to_a_name_that_the_container_has(lab: Lab, c1: Container) -> None:
    """Somebody else's eth0: code 105, nothing changed; and the DEL that follows leaves it alone, too."""
    c1.ip("link", "add", "eth0", "type", "veth", "peer", "name", "other")
    before = lab.traces(c1)
    error = lab.refused(network(), c1)
    assert error["code"] == 105
    assert error["msg"].startswith('container veth name ("eth0") peer provided')
    assert_unchanged(before, lab.traces(c1))
    lab.delete(network(), c1)
    assert_unchanged(before, lab.traces(c1))


def test_failed_add_to_a_second_network_spares_the_first(lab: Lab, c1: Container) -> None:
    """eth0 is taken by network one: the ADD to two fails, and the DEL that a runtime sends then does not take it."""
    one, two = network("one", 1), network("two", 2)
    result = lab.add(one, c1)
    before = lab.traces(c1)
    assert lab.refused(two, c1)["code"] == 105
    lab.delete(two, c1)
    assert_unchanged(before, lab.traces(c1))
    assert lab.check(one, c1, result).ok


def test_failed_add_beside_others_takes_its_bridge_back(lab: Lab, c1: Container, c2: Container) -> None:
    """That other networks have containers does not keep a failed ADD's bridge and gateway."""
    lab.add(network("one", 1), c1)
    before = lab.traces(c1, c2)
    conf = network("two", 2, ipam=static("10.2.0.5/24", routes=[{"dst": "203.0.113.0/24", "gw": "192.0.2.1"}]))
    lab.refused(conf, c2)
    assert_unchanged(before, lab.traces(c1, c2))


def test_link_of_an_earlier_plugin_goes_with_del(lab: Lab, c1: Container) -> None:
    """Attached before pycni was installed: no record, but the pair hangs on this network's bridge."""
    lab.host.ip_batch(
        "link add cni1 type bridge",
        f"link add vethold type veth peer name eth0 netns {c1.pid}",
        "link set vethold master cni1",
    )
    lab.delete(network(bridge="elsewhere"), c1)
    assert "eth0" in c1.links()
    lab.delete(network(), c1)
    assert "eth0" not in c1.links()


def test_two_interfaces_of_one_container_are_independent(wide: Lab, outside: Outside, c1: Container) -> None:
    """The DEL of one leaves the other's link, address, lease and masquerading (the reference breaks them)."""
    conf = network(isDefaultGateway=None, isGateway=True)
    wide.add(conf, c1)
    before = wide.traces(c1)
    second = wide.add(conf, c1, ifname="eth1")
    wide.delete(conf, c1, ifname="eth1")
    assert_unchanged(before, wide.traces(c1), ignore=["c1/sysctl/*"])
    second = wide.add(conf, c1, ifname="eth1")
    wide.delete(conf, c1, ifname="eth0")
    c1.ip("route", "add", "default", "via", "10.1.0.1")
    assert address_of(second, 4) != "10.1.0.2"
    assert outside.seen_from(c1).address == outside.host_address()
    assert wide.check(conf, c1, second, ifname="eth1").ok
    wide.delete(conf, c1, ifname="eth1")
    assert wide.ruleset() == ""


def test_container_in_two_networks(lab: Lab, c1: Container) -> None:
    """The same id in both: two records, and each DEL takes its own."""
    one, two = network("one", 1), network("two", 2, isDefaultGateway=None, isGateway=True)
    lab.add(one, c1)
    result = lab.add(two, c1, ifname="net1")
    assert can_ping(c1, "10.1.0.1")
    assert can_ping(c1, "10.2.0.1")
    lab.delete(one, c1)
    assert can_ping(c1, "10.2.0.1")
    assert lab.check(two, c1, result, ifname="net1").ok
    lab.delete(two, c1, ifname="net1")
    assert (lab.records(), lab.leases(), lab.ruleset()) == ({}, [], "")


@pytest.mark.parametrize("way", ["DEL", "GC", "ADD"])
def test_host_link_deleted_by_somebody(lab: Lab, c1: Container, way: str) -> None:
    """`ip link del` on the host: DEL and GC release the rest, and an ADD may simply come again."""
    conf = network()
    lab.delete(conf, c1)
    result = lab.add(conf, c1)
    lab.host.ip("link", "del", result["interfaces"][1]["name"])
    if way == "ADD":
        again = lab.add(conf, c1)
        assert can_ping(c1, "10.1.0.1")
        assert lab.check(conf, c1, again).ok
    elif way == "GC":
        assert lab.gc(conf).ok
    lab.delete(conf, c1)
    assert (lab.records(), lab.leases(), lab.ruleset()) == ({}, [], "")


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_flushed_ruleset_is_noticed_and_restored(
    wide: Lab, outside: Outside, c1: Container, c2: Container, backend: str
) -> None:
    """After `nft flush ruleset` CHECK names what is missing, and the next ADD puts back the others' rules as well."""
    conf = network(ipMasqBackend=backend)
    result = wide.add(conf, c1)
    wide.host.run(["nft", "flush", "ruleset"])
    broken = wide.check(conf, c1, result)
    assert broken.error_code == 106
    assert "pycni" in words(broken.json).lower()
    wide.add(conf, c2)
    for family in (4, 6):
        assert outside.seen_from(c1, family).address == outside.host_address(family)
        assert outside.seen_from(c2, family).address == outside.host_address(family)
    assert wide.check(conf, c1, result).ok
    wide.delete(conf, c1)
    wide.delete(conf, c2)
    assert "pycni" not in wide.ruleset().lower()


def test_record_of_another_boot_blocks_nothing(lab: Lab, c1: Container, c2: Container) -> None:
    """After a reboot the same id is added anew, and the only address of a pool is free again."""
    conf = network(ipam=None)
    conf["ipam"] = {"type": "host-local", "subnet": "10.1.0.0/30"}
    lab.add(conf, c1)
    lab.change_state("UPDATE attachments SET boot_id = ?", ANOTHER_BOOT)
    lab.change_state("UPDATE leases SET boot_id = ?", ANOTHER_BOOT)
    lab.host.ip("link", "del", "cni1")
    for port in [name for name in lab.host.links() if name.startswith("veth")]:
        lab.host.ip("link", "del", port)
    lab.host.run(["nft", "flush", "ruleset"])
    result = lab.add(conf, c1)
    assert address_of(result, 4) == "10.1.0.2"
    lab.delete(conf, c1)
    lab.add(conf, c1)
    lab.change_state("UPDATE attachments SET boot_id = ?", ANOTHER_BOOT)
    lab.change_state("UPDATE leases SET boot_id = ?", ANOTHER_BOOT)
    # Another container gets the address of the one that the reboot took.
    assert address_of(lab.add(conf, c2), 4) == "10.1.0.2"


def test_own_namespace_is_refused_before_anything_is_done(lab: Lab) -> None:
    """CNI_NETNS names the host's own namespace: code 8 at once, one JSON document, nothing made."""
    before = lab.traces()
    for path in (lab.host.path, "/proc/self/ns/net", "/proc/thread-self/ns/net"):
        error = lab.refused(network(), "c1", netns=path)
        assert error["code"] == 8
        assert "should not be the same" in error["msg"]
    assert_unchanged(before, lab.traces())


def test_own_namespace_is_allowed_on_request(lab: Lab) -> None:
    """CNI_NETNS_OVERRIDE=1 says that it is meant."""
    how = {"netns": lab.host.path, "env": {"CNI_NETNS_OVERRIDE": "1"}}
    conf = network(isDefaultGateway=None, ipMasq=None)
    assert lab.call("ADD", conf, "c1", **how).ok
    assert "eth0" in lab.host.links()
    lab.delete(conf, "c1", **how)
    assert "eth0" not in lab.host.links()


@pytest.mark.parametrize("netns", ["/run/netns/gone", "/etc/hostname", "/proc/self/ns/mnt", "/run"])
def test_add_to_what_is_no_namespace(lab: Lab, netns: str) -> None:
    """Code 8 names the path, nothing is made."""
    before = lab.traces()
    error = lab.refused(network(), "c1", netns=netns)
    assert error["code"] == 8
    assert netns in error["msg"]
    assert_unchanged(before, lab.traces())


def test_plugin_starts_in_an_empty_environment(lab: Lab, c1: Container) -> None:
    """No PATH, no HOME, no locale: the tools are found all the same, with the iptables backend too."""
    environ = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": c1.path, "CNI_IFNAME": "eth0"}
    environ["CNI_PATH"] = str(lab.plugins)
    text = json.dumps(network(ipMasqBackend="iptables"))
    done = lab.host.run([lab.plugins / "bridge"], input=text, check=False, env=environ)
    assert done.returncode == 0, done
    assert can_ping(c1, "10.1.0.1")


def test_closed_standard_streams_are_told_in_words(lab: Lab, c1: Container) -> None:
    """No stdin: code 5. No stdout: a line on stderr, no traceback; what was made goes with a DEL."""
    base = {"CNI_CONTAINERID": "c1", "CNI_NETNS": c1.path, "CNI_IFNAME": "eth0", "CNI_PATH": str(lab.plugins)}
    environ = {**base, "CNI_COMMAND": "ADD", "PATH": os.environ["PATH"]}
    done = lab.host.run(["sh", "-c", f"exec {lab.plugins}/bridge <&-"], check=False, env=environ)
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 5
    text = json.dumps(network())
    done = lab.host.run(["sh", "-c", f"exec {lab.plugins}/bridge >/dev/full"], input=text, check=False, env=environ)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "stdout" in done.stderr
    lab.delete(network(), c1)
    assert lab.records() == {}


def test_lost_state_file_does_not_cost_a_running_container_its_link(lab: Lab, c1: Container) -> None:
    """The state file is gone, the container runs on: a repeated ADD is refused (105), DEL takes the link."""
    conf = network()
    lab.add(conf, c1)
    lab.host.run(["sh", "-c", "rm -r /var/lib/pycni"])
    assert lab.refused(conf, c1)["code"] == 105
    assert can_ping(c1, "10.1.0.1")
    lab.delete(conf, c1)
    assert lab.ports() == []


def test_containers_state_directory_is_private(lab: Lab, c1: Container) -> None:
    """Configurations may hold secrets: only root reads the state."""
    lab.add(network(), c1)
    modes = lab.host.run(["stat", "-c", "%a %n", "/var/lib/pycni"]).stdout.split()
    assert modes[0] == "700"


@pytest.mark.parametrize("kind", ["bridge", "pycni-bridge"])
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_bridge_as_its_own_ipam_is_refused(lab: Lab, c1: Container, command: str, kind: str) -> None:
    """Code 7 at once: it would delegate to itself, and that again, until the machine is out of processes."""
    before = lab.traces(c1)
    error = lab.refused(network(ipam={"type": kind}), c1, command)
    assert error["code"] == 7
    assert "no IPAM plugin" in error["msg"]
    assert_unchanged(before, lab.traces(c1))


def test_lost_state_file_does_not_cost_other_containers_their_masquerade(
    lab: Lab, c1: Container, c2: Container, outside: Outside
) -> None:
    """A DEL that knows of no other attachment still leaves the rules that carry another owner's name."""
    conf = network()
    lab.add(conf, c1)
    lab.host.run(["sh", "-c", "rm -r /var/lib/pycni"])
    lab.add(network("second", 2), c2)
    lab.delete(network("second", 2), c2)
    assert outside.seen_from(c1).address == outside.host_address()


@pytest.mark.parametrize("keys", [{"cniVersion": "9.9.9"}, {"name": "-bad"}, {"name": 7}, {"name": None}])
def test_refused_del_takes_nothing(lab: Lab, c1: Container, keys: dict[str, Any]) -> None:
    """A DEL begins with the link before it has read all of its config, but not if that will be refused."""
    conf = network()
    lab.add(conf, c1)
    before = lab.traces(c1)
    lab.refused({**conf, **keys}, c1, "DEL")
    assert_unchanged(before, lab.traces(c1))
