"""The command line as a process on a host of its own, against the reference plugins and against pycni's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import Host
from pycni.cli.launcher import package_parent

REFERENCE = Path("/usr/lib/cni")
BIN = "/run/pycni-bin"  # /run is the host's own
pytestmark = pytest.mark.needs("root", "kernel:veth", "kernel:bridge")

Pycni = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def pycni(host: Host) -> Pycni:
    """Runs `pycni ARGS` on the host; `rc` is the exit code it must have (None: any)."""

    def run(*argv: str, rc: int | None = 0, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "pycni", *argv]
        done = host.run(words, check=False, env={"PYTHONPATH": package_parent(), **(env or {})})
        assert rc in (None, done.returncode), f"pycni {' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    return run


def put_network(host: Host, name: str, *plugins: dict[str, Any], version: str = "1.0.0") -> None:
    host.run(["mkdir", "-p", "/etc/cni/net.d"])
    conf = {"cniVersion": version, "name": name, "plugins": list(plugins)}
    host.file(f"/etc/cni/net.d/{name}.conflist").write_text(json.dumps(conf))


def bridge(kind: str, ipam: str, **more: Any) -> dict[str, Any]:
    ranges = {"type": ipam, "ranges": [[{"subnet": "10.1.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return {"type": kind, "bridge": "cni0", "isGateway": True, "ipam": ranges, **more}


def addresses(container: Any) -> list[str]:
    (link,) = container.ip_json("addr", "show", "dev", "eth0")
    return [one["local"] for one in link["addr_info"] if one["scope"] == "global"]


# -- the reference plugins ---------------------------------------------------------------------------------------------

with_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="containernetworking-plugins is not installed")


@with_reference
def test_a_life_on_a_reference_network(host: Host, pycni: Pycni) -> None:
    """ADD, CHECK, DEL twice with the reference bridge, host-local and tuning; the host ends without the container."""
    put_network(host, "demo", bridge("bridge", "host-local"), {"type": "tuning", "capabilities": {"mac": True}})
    web = host.container("web")
    env = {"CNI_PATH": str(REFERENCE)}
    shown = pycni("add", "demo", "web", "--mac", "02:00:00:00:00:07", env=env).stdout
    assert "10.1.0.2/24" in shown
    assert addresses(web) == ["10.1.0.2"]
    assert web.ip_json("link", "show", "dev", "eth0")[0]["address"] == "02:00:00:00:00:07"
    pycni("check", "demo", "web", env=env)
    pycni("del", "demo", "web", env=env)
    pycni("del", "demo", "web", env=env)
    assert [link["ifname"] for link in host.ip_json("link", "show", "type", "veth")] == []
    assert list(host.file("/var/lib/cni/results").iterdir()) == []


@with_reference
def test_del_after_the_namespace_is_gone_frees_the_address(host: Host, pycni: Pycni) -> None:
    """The container is found by its id in the cache, and its lease is released."""
    put_network(host, "demo", bridge("bridge", "host-local"))
    host.container("web")
    env = {"CNI_PATH": str(REFERENCE)}
    pycni("add", "demo", "web", "--container-id", "f00dcafe", env=env)
    host.run(["sh", "-c", "umount /run/netns/web && rm /run/netns/web"])
    assert "gone before" in pycni("del", "demo", "f00d", env=env).stdout
    assert not host.file("/var/lib/cni/networks/demo/10.1.0.2").exists()


@with_reference
def test_a_failing_chain_leaves_no_lease_and_no_link(host: Host, pycni: Pycni) -> None:
    """The second plugin refuses; the first one's work is taken back and the error names the second."""
    put_network(host, "demo", bridge("bridge", "host-local"), {"type": "tuning", "sysctl": {"net.nonsense": "1"}})
    web = host.container("web")
    failed = pycni("add", "demo", "web", env={"CNI_PATH": str(REFERENCE)}, rc=1)
    assert "tuning (plugin 2 of 2)" in failed.stderr
    assert "DEL was run for the whole chain" in failed.stderr
    assert "eth0" not in web.ip("link")
    assert not host.file("/var/lib/cni/networks/demo/10.1.0.2").exists()


@with_reference
def test_an_interface_that_was_there_survives_a_failed_add(host: Host, pycni: Pycni) -> None:
    """ADD fails because eth0 exists; DEL is not run, since it would delete that eth0."""
    put_network(host, "demo", bridge("bridge", "host-local"))
    web = host.container("web")
    web.ip("link", "add", "eth0", "type", "bridge")
    failed = pycni("add", "demo", "web", env={"CNI_PATH": str(REFERENCE)}, rc=1)
    assert "was in the namespace before" in failed.stderr
    assert "eth0" in web.ip("link")


# -- our own -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(host: Host, pycni: Pycni) -> Host:
    """A host on which `pycni install` was run."""
    pycni("install", "--bin-dir", BIN)
    return host


def test_a_life_on_our_default_network(installed: Host, pycni: Pycni) -> None:
    """Installed, added, listed, inspected, checked, deleted, uninstalled: nothing of the container is left."""
    web = installed.container("web")
    env = {"CNI_PATH": BIN}
    result = json.loads(pycni("add", "pycni", "web", "--json", env=env).stdout)
    assert [ip["address"] for ip in result["ips"]] == ["10.77.0.2/16", "fd00:7079:636e:69::2/64"]
    assert addresses(web) == ["10.77.0.2", "fd00:7079:636e:69::2"]
    (listed,) = json.loads(pycni("list", "--json").stdout)
    assert (listed["containerID"], listed["state"]) == ("web", "ready")
    (seen,) = json.loads(pycni("inspect", "web", "--json").stdout)
    assert all(one["found"].startswith("yes") for one in seen["kernel"])
    assert {one["kind"] for one in seen["kernel"]} == {"link", "lease"}
    pycni("check", "pycni", "web", env=env)
    pycni("status", "pycni", env=env)
    pycni("uninstall", rc=1)  # a container is attached
    pycni("del", "pycni", "web", env=env)
    assert json.loads(pycni("list", "--json").stdout) == []
    assert json.loads(pycni("ipam", "--json").stdout) == []
    pycni("uninstall")
    assert not installed.file(BIN).exists()


def test_a_file_that_is_no_network_is_named(installed: Host, pycni: Pycni) -> None:
    """`networks` shows the others and names it, the answer in JSON stays one; doctor fails, since it comes first."""
    installed.file("/etc/cni/net.d/00-bad.conflist").write_text("{ broken")
    for argv in (("networks",), ("networks", "--json")):
        done = pycni(*argv)
        assert "warning: /etc/cni/net.d/00-bad.conflist is left out: not JSON" in done.stderr
        assert "pycni" in done.stdout
    assert [one["name"] for one in json.loads(done.stdout)] == ["pycni"]
    (finding,) = [one for one in json.loads(pycni("doctor", "--json", rc=2).stdout) if one["check"] == "network files"]
    assert finding["level"] == "FAIL" and "00-bad.conflist: not JSON" in finding["found"]
    installed.file("/etc/cni/net.d/00-bad.conflist").unlink()
    (finding,) = [
        one for one in json.loads(pycni("doctor", "--json", rc=None).stdout) if one["check"] == "network files"
    ]
    assert (finding["level"], "10-pycni.conflist" in finding["found"]) == ("OK", True)


def test_list_tells_what_became_of_an_attachment(installed: Host, pycni: Pycni) -> None:
    """Ready, without its link, without its namespace; gc removes the dead one and keeps the other."""
    env = {"CNI_PATH": BIN}
    for name in ("one", "two", "three"):
        installed.container(name)
        pycni("add", "pycni", name, env=env)
    (link,) = next(
        one["hostLinks"] for one in json.loads(pycni("list", "--json").stdout) if one["containerID"] == "two"
    )
    installed.ip("link", "delete", link)
    installed.run(["sh", "-c", "umount /run/netns/three && rm /run/netns/three"])
    states = {one["containerID"]: one["state"] for one in json.loads(pycni("list", "--json").stdout)}
    assert states == {"one": "ready", "two": "link gone", "three": "netns gone"}
    answer = json.loads(pycni("gc", "pycni", "--json", env=env).stdout)
    assert [one["containerID"] for one in answer["removed"]] == ["three"]
    assert {one["containerID"] for one in json.loads(pycni("list", "--json").stdout)} == {"one", "two"}


def test_an_attachment_made_without_any_runtime_is_found(installed: Host, pycni: Pycni) -> None:
    """No cache file: the record of our store is enough for inspect and DEL."""
    installed.container("web")
    pycni("add", "pycni", "web", env={"CNI_PATH": BIN})
    installed.run(["rm", "-r", "/var/lib/cni/results"])
    assert "nowhere" in pycni("inspect", "web").stdout
    pycni("del", "pycni", "web", env={"CNI_PATH": BIN})
    assert json.loads(pycni("list", "--json").stdout) == []


CHAINED: list[dict[str, Any]] = [
    {"type": "pycni-portmap", "capabilities": {"portMappings": True}},
    {"type": "pycni-firewall"},
    {"type": "pycni-tuning", "txQLen": 9},
]


@pytest.mark.parametrize("command", ["del demo web", "gc demo --json"])
def test_a_list_of_plugins_made_without_any_runtime_is_one_attachment(
    installed: Host, pycni: Pycni, command: str
) -> None:
    """Each of them has a record of its own, but tuning: all is deleted, or collected once the namespace is gone."""
    put_network(installed, "demo", bridge("pycni-bridge", "pycni-ipam"), *CHAINED, version="1.1.0")
    _add_without_cache(installed, pycni)
    if command.startswith("gc"):
        installed.run(["sh", "-c", "umount /run/netns/web && rm /run/netns/web"])
    told = pycni(*command.split(), env={"CNI_PATH": BIN}).stdout
    assert told == "web/eth0 is off network demo\n" or len(json.loads(told)["removed"]) == 1
    assert json.loads(pycni("list", "--json").stdout) == json.loads(pycni("ports", "--json").stdout) == []
    assert installed.run(["ls", "/run/cni/tuning"]).stdout == ""


def test_such_a_list_is_deleted_with_its_configuration_gone(installed: Host, pycni: Pycni) -> None:
    """What the plugins recorded is enough."""
    put_network(installed, "demo", bridge("pycni-bridge", "pycni-ipam"), *CHAINED[:2])
    _add_without_cache(installed, pycni)
    installed.file("/etc/cni/net.d/demo.conflist").unlink()
    pycni("del", "demo", "web", env={"CNI_PATH": BIN})
    assert json.loads(pycni("list", "--json").stdout) == json.loads(pycni("ports", "--json").stdout) == []


def _add_without_cache(host: Host, pycni: Pycni) -> None:
    host.container("web")
    pycni("add", "demo", "web", "--port", "8080:80", env={"CNI_PATH": BIN})
    host.run(["rm", "-r", "/var/lib/cni/results"])


def test_leases_are_listed_measured_and_released(installed: Host, pycni: Pycni) -> None:
    """usage counts them by range; release needs --yes and names the owner."""
    installed.container("web")
    pycni("add", "pycni", "web", env={"CNI_PATH": BIN})
    used = {one["ranges"]: one["leased"] for one in json.loads(pycni("ipam", "usage", "--json").stdout)}
    assert used["10.77.0.1-10.77.255.254"] == 1
    refused = pycni("ipam", "release", "10.77.0.2", rc=1)
    assert "web/eth0 on network pycni" in refused.stderr
    assert "is alive" in refused.stderr
    pycni("ipam", "release", "10.77.0.2", "--yes")
    assert [one["address"] for one in json.loads(pycni("ipam", "list", "--json").stdout)] == ["fd00:7079:636e:69::2"]
    pycni("ipam", "release", "10.77.0.2", rc=3)


def test_a_network_without_leases_or_ranges_is_told_from_none(installed: Host, pycni: Pycni) -> None:
    """usage of an unknown network is an error with those there are; of one without ranges it is a line."""
    put_network(installed, "plain", {"type": "pycni-loopback"})
    assert "plain, pycni" in pycni("ipam", "usage", "--network", "nosuch", rc=3).stderr
    assert pycni("ipam", "usage", "--network", "plain").stdout.startswith("network plain has no ranges")
    assert json.loads(pycni("ipam", "usage", "--network", "plain", "--json").stdout) == []


def test_a_refused_release_has_the_code_of_a_taken_address(installed: Host, pycni: Pycni) -> None:
    """And in JSON the state and the next step that the text has."""
    installed.container("web")
    pycni("add", "pycni", "web", env={"CNI_PATH": BIN})
    error = json.loads(pycni("ipam", "release", "10.77.0.2", "--json", rc=1).stdout)
    assert error["code"] == 102 and "is alive" in error["facts"]["state"] and "--yes" in error["nextStep"]


def test_uninstall_counts_what_list_shows(installed: Host, pycni: Pycni) -> None:
    """A container with a published port has a record of portmap, too; for those that are gone gc is what helps."""
    for name, words in (("web", ["--port", "8080:80"]), ("db", [])):
        installed.container(name)
        pycni("add", "pycni", name, *words, env={"CNI_PATH": BIN})
    refused = pycni("uninstall", rc=1).stderr
    assert "error: 2 attachments in use" in refused and "`pycni gc NETWORK`" in refused
    assert len(json.loads(pycni("ls", "--json").stdout)) == 2
    installed.run(["sh", "-c", "umount /run/netns/* && rm /run/netns/*"])
    pycni("gc", "pycni", env={"CNI_PATH": BIN})
    pycni("uninstall")


def test_del_twice_without_a_namespace(installed: Host, pycni: Pycni) -> None:
    """The second time nothing knows the container: exit code 0, and it is said."""
    installed.container("web")
    pycni("add", "pycni", "web", env={"CNI_PATH": BIN})
    installed.run(["sh", "-c", "umount /run/netns/web && rm /run/netns/web"])
    assert "gone before" in pycni("del", "pycni", "web", env={"CNI_PATH": BIN}).stdout
    assert "nothing to delete" in pycni("rm", "pycni", "web", env={"CNI_PATH": BIN}).stdout


def test_a_reboot_is_no_second_add(installed: Host, pycni: Pycni) -> None:
    """The cache and the records of before are history: `ip netns add` and `pycni add` at each start of the host do."""
    words = ("add", "pycni", "web", "--port", "8080:80")
    installed.container("web")
    pycni(*words, env={"CNI_PATH": BIN})
    assert "already on network" in pycni(*words, rc=1, env={"CNI_PATH": BIN}).stderr
    installed.run(["sh", "-c", "umount /run/netns/web && rm /run/netns/web && ip link del pycni0"])
    installed.run(["nft", "flush", "ruleset"])
    another_boot = "echo 00000000-1111-2222-3333-444444444444 >/run/boot && mount --bind /run/boot "
    installed.run(["sh", "-c", f"{another_boot} /proc/sys/kernel/random/boot_id && ip netns add web"])
    assert "other boot" in pycni("list").stdout
    assert "given out again after gc, or once no other is free" in pycni("doctor", rc=None).stdout
    pycni(*words, env={"CNI_PATH": BIN})
    pycni("check", "pycni", "web", env={"CNI_PATH": BIN})
    (one,) = json.loads(pycni("list", "--json").stdout)
    assert one["state"] == "ready"


def test_looking_makes_no_state(host: Host, pycni: Pycni) -> None:
    """list, inspect, ipam and doctor on a host that never had pycni leave /var/lib as it was."""
    before = sorted(path.name for path in host.file("/var/lib").iterdir())
    pycni("list")
    pycni("inspect", "nobody", rc=3)
    pycni("ipam")
    pycni("ipam", "usage")
    pycni("doctor", rc=None)
    assert sorted(path.name for path in host.file("/var/lib").iterdir()) == before
