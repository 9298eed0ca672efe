"""`pycni doctor` finds each trouble that is planted, and changes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from netns_fixtures import Host, netns_snapshot, wait_until
from pycni.cli.doctor import OF_RECORDS
from pycni.cli.launcher import package_parent

BIN = "/run/pycni-bin"
LEVELS = ("OK", "WARN", "FAIL")
pytestmark = pytest.mark.needs("root", "kernel:veth", "kernel:bridge")

Doctor = Callable[[], dict[str, dict[str, Any]]]


def pycni(host: Host, *argv: str) -> str:
    env = {"PYTHONPATH": package_parent(), "CNI_PATH": BIN}
    return host.run([sys.executable, "-m", "pycni", *argv], env=env).stdout


@pytest.fixture
def doctor(host: Host) -> Doctor:
    """Runs the doctor: the worst finding of each check by name, and the exit code under "exit"."""

    def run() -> dict[str, dict[str, Any]]:
        words = [sys.executable, "-m", "pycni", "doctor", "--json"]
        done = host.run(words, check=False, env={"PYTHONPATH": package_parent()})
        worst: dict[str, dict[str, Any]] = {}
        for finding in json.loads(done.stdout):
            before = worst.setdefault(finding["check"], finding)
            if LEVELS.index(finding["level"]) > LEVELS.index(before["level"]):
                worst[finding["check"]] = finding
        worst["exit"] = {"code": done.returncode}
        return worst

    return run


@pytest.fixture
def attached(host: Host) -> Host:
    """A host with pycni installed and the container `web` on its default network."""
    pycni(host, "install", "--bin-dir", BIN)
    host.container("web")
    pycni(host, "add", "pycni", "web")
    return host


def test_a_host_in_order(attached: Host, doctor: Doctor) -> None:
    """With a container attached by our own plugins nothing about state, firewall or executables is wrong."""
    found = doctor()
    for check in ("state file", *OF_RECORDS, "executables"):
        assert found[check]["level"] == "OK", found[check]
    for check in ("IPv4 forwarding", "IPv6 forwarding", "veth pairs", "bridges", "MTU"):
        assert found[check]["level"] == "OK", found[check]


def test_it_changes_nothing(attached: Host, doctor: Doctor) -> None:
    """Links, addresses, rules and sysctls are what they were, although abilities were tried."""
    wait_until(lambda: _link_locals_settled(attached), deadline_s=10)
    before = netns_snapshot(attached)
    doctor()
    assert netns_snapshot(attached) == before


def _link_locals_settled(host: Host) -> bool:
    """Whether every link but bridge ports has its fe80:: address, which the kernel makes and checks for doubles on its
    own time."""
    links = [one for one in host.ip_json("addr") if one["ifname"] != "lo" and "UP" in one["flags"]]
    links = [one for one in links if "master" not in one]
    made = [[one for one in link["addr_info"] if one["scope"] == "link"] for link in links]
    return all(own and not any(one.get("tentative") for one in own) for own in made)


def test_forwarding_off_is_worse_with_containers(host: Host, doctor: Doctor) -> None:
    """Off before the first container is a warning, under a container a failure with the command to run."""
    assert doctor()["IPv4 forwarding"]["level"] == "WARN"
    pycni(host, "install", "--bin-dir", BIN)
    host.container("web")
    pycni(host, "add", "pycni", "web")
    host.run(["sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"])
    found = doctor()
    assert found["IPv4 forwarding"]["level"] == "FAIL"
    assert "sysctl -w net.ipv4.ip_forward=1" in found["IPv4 forwarding"]["action"]
    assert found["exit"]["code"] == 2


def test_a_dead_container_is_found(attached: Host, doctor: Doctor) -> None:
    """A namespace that went without DEL."""
    attached.run(["sh", "-c", "umount /run/netns/web && rm /run/netns/web"])
    found = doctor()
    assert found["attachments"]["level"] == "WARN"
    assert "pycni/web/eth0" in found["attachments"]["found"]


HALF_MADE = """
from pycni.cni.names import Attachment
from pycni.store import Record, open_store
with open_store() as store:
    boot = store.boot_id
    store.attachments.begin(Record(Attachment("pycni", "{0}", "eth0"), plugin="bridge", pid=4194304, boot_id={1}))
"""


@pytest.mark.parametrize(("boot", "words"), [("boot", "half-made"), ("'another'", "other boot")])
def test_a_record_of_a_dead_writer_is_found(host: Host, doctor: Doctor, boot: str, words: str) -> None:
    """An ADD that was killed, or that a reboot overtook; gc removes it."""
    host.run([sys.executable, "-c", HALF_MADE.format("gone", boot)], env={"PYTHONPATH": package_parent()})
    found = doctor()["attachments"]
    assert (found["level"], found["found"]) == ("WARN", f"1 {words}: pycni/gone/eth0")
    pycni(host, "install", "--bin-dir", BIN)
    pycni(host, "gc", "pycni")
    assert doctor()["attachments"]["level"] == "OK"


def test_a_lost_link_is_found(attached: Host, doctor: Doctor) -> None:
    """Somebody deleted the host end: the container has no network."""
    (listed,) = json.loads(pycni(attached, "list", "--json"))
    attached.ip("link", "delete", listed["hostLinks"][0])
    assert doctor()["attachments"]["level"] == "FAIL"


@pytest.mark.parametrize(
    ("harm", "state", "do"),
    [
        (("link", "set", "LINK", "down"), "link down", "ip link set LINK up"),
        (("link", "set", "LINK", "nomaster"), "off bridge", "ip link set LINK master pycni0"),
        (("link", "set", "pycni0", "down"), "bridge down", "ip link set pycni0 up"),
        (("link", "delete", "pycni0"), "bridge gone", "pycni agent"),
    ],
)
def test_a_changed_link_is_found(attached: Host, doctor: Doctor, harm: tuple[str, ...], state: str, do: str) -> None:
    """What CHECK calls broken neither the list nor the doctor calls ready; what it says to do, where that is a command
    of one line, is all that is needed."""
    (link,) = json.loads(pycni(attached, "list", "--json"))[0]["hostLinks"]
    attached.ip(*(word.replace("LINK", link) for word in harm))
    assert json.loads(pycni(attached, "list", "--json"))[0]["state"] == state
    assert state in pycni(attached, "list")
    found = doctor()
    about = "pycni0" if state.startswith("bridge") else link
    assert found["exit"]["code"] == 2
    assert found["attachments"]["level"] == "FAIL"
    assert found["attachments"]["found"] == f"1 {state}: pycni/web/eth0 ({about})"
    assert do.replace("LINK", link) in found["attachments"]["action"]
    if found["attachments"]["action"].startswith("ip "):
        attached.run(["sh", "-c", found["attachments"]["action"]])
        assert json.loads(pycni(attached, "list", "--json"))[0]["state"] == "ready"
        assert doctor()["attachments"]["level"] == "OK"


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("echo garbage >{0}", "file is not a database"),
        ("dd if=/dev/zero of={0} bs=4096 seek=1 count=2 conv=notrunc", "pycni.db is damaged: Page 2"),
    ],
)
def test_a_damaged_state_file_is_one_failure(attached: Host, doctor: Doctor, harm: str, reason: str) -> None:
    """With what to do; what cannot be looked at without it is named there and nowhere else, the rest is looked at."""
    attached.run(["sh", "-c", harm.format("/var/lib/pycni/pycni.db")])
    attached.run(["sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"])
    found = doctor()
    assert found["exit"]["code"] == 2
    assert found["state file"]["level"] == "FAIL"
    assert reason in found["state file"]["found"]
    assert "remove /var/lib/pycni/pycni.db" in found["state file"]["action"]
    for check in OF_RECORDS:
        assert check in found["state file"]["meaning"] and check not in found
    assert not [one for one in found.values() if "cannot be examined" in one.get("found", "")]
    assert (found["IPv4 forwarding"]["level"], found["executables"]["level"]) == ("WARN", "OK")


@pytest.mark.needs("tool:nft")
@pytest.mark.parametrize(
    ("harm", "lacks"),
    [
        ("flush ruleset", "table inet pycni"),
        ("flush chain inet pycni postrouting", "rules of chain postrouting"),
        ("flush set inet pycni masq4", "masq4 10.77.0.2"),
        ("flush set inet pycni masq6", "masq6 fd00:7079:636e:69::2"),
    ],
)
def test_lost_rules_are_found(attached: Host, doctor: Doctor, harm: str, lacks: str) -> None:
    """Of which attachments, and what; nothing is put back, and a record whose container is gone needs none."""
    assert doctor()["firewall rules"]["level"] == "OK"
    attached.run(["nft", harm])
    left = attached.run(["nft", "list", "ruleset"]).stdout
    found = doctor()
    assert (found["firewall rules"]["level"], found["exit"]["code"]) == ("FAIL", 2)
    assert "1 attachment without all their rules: pycni/web/eth0" in found["firewall rules"]["found"]
    assert lacks in found["firewall rules"]["found"]
    assert attached.run(["nft", "list", "ruleset"]).stdout == left
    attached.run(["sh", "-c", "umount /run/netns/web && rm /run/netns/web"])
    attached.ip("link", "delete", json.loads(pycni(attached, "list", "--json"))[0]["hostLinks"][0])
    assert doctor()["firewall rules"]["level"] == "OK"


def test_a_link_without_a_record_is_found(host: Host, doctor: Doctor) -> None:
    """Our mark on a link that no record names; bridges, which stay on purpose, are none."""
    host.ip("link", "add", "stray", "type", "veth", "peer", "name", "stray2")
    host.ip("link", "set", "stray", "alias", "pycni net/gone/eth0")
    host.ip("link", "add", "br0", "type", "bridge")
    host.ip("link", "set", "br0", "alias", "pycni net")
    found = doctor()["leftover links"]
    assert (found["level"], found["found"]) == ("WARN", "stray (net/gone/eth0)")


def test_a_full_pool_is_found(host: Host, doctor: Doctor) -> None:
    """Every address of a small range is taken: the next container would get none."""
    pycni(host, "install", "--bin-dir", BIN, "--no-conf")
    host.run(["mkdir", "-p", "/etc/cni/net.d"])
    ipam = {"type": "pycni-ipam", "ranges": [[{"subnet": "10.2.0.0/30"}]]}
    conf = {"cniVersion": "1.0.0", "name": "tiny", "plugins": [{"type": "pycni-bridge", "bridge": "br9", "ipam": ipam}]}
    host.file("/etc/cni/net.d/tiny.conflist").write_text(json.dumps(conf))
    host.container("web")
    pycni(host, "add", "tiny", "web")
    found = doctor()["address pools"]
    assert found["level"] == "FAIL"
    assert "1 of 1 addresses" in found["found"]


def test_a_bridge_larger_than_the_way_out_is_found(attached: Host, doctor: Doctor) -> None:
    """Large packets would need fragmentation."""
    attached.ip("link", "add", "up0", "mtu", "1400", "type", "veth", "peer", "name", "up1")
    attached.ip("link", "set", "up0", "up")
    attached.ip("link", "set", "up1", "up")
    attached.ip("addr", "add", "192.0.2.1/24", "dev", "up0")
    attached.ip("route", "add", "default", "via", "192.0.2.2")
    found = doctor()["MTU"]
    assert found["level"] == "WARN"
    assert '"mtu": 1400' in found["action"]


def test_a_damaged_executable_is_found(attached: Host, doctor: Doctor) -> None:
    """Removed, or replaced by another program."""
    attached.file(f"{BIN}/pycni-bridge").unlink()
    found = doctor()["executables"]
    assert (found["level"], found["found"]) == ("FAIL", f"{BIN}/pycni-bridge is missing")


def test_the_advice_for_a_replaced_executable_helps(host: Host, doctor: Doctor) -> None:
    """As after an upgrade of the reference plugins' package: the command that is named makes doctor content again."""
    pycni(host, "install", "--bin-dir", BIN, "--replace")
    host.run(["sh", "-c", f"echo packaged >{BIN}/new && mv {BIN}/new {BIN}/bridge"])
    found = doctor()["executables"]
    assert (found["level"], found["found"]) == ("FAIL", f"{BIN}/bridge was replaced by something else")
    assert found["action"] == f"pycni install --bin-dir {BIN} --replace"
    pycni(host, *found["action"].split()[1:])
    assert doctor()["executables"]["level"] == "OK"


@pytest.mark.needs("tool:nft")
def test_a_dropping_chain_is_found(host: Host, doctor: Doctor) -> None:
    """Somebody's nftables chain on the forward hook with policy drop is named."""
    chain = "chain gate { type filter hook forward priority 0; policy drop; }"
    host.run(["nft", "-f", "-"], input=f"table inet fw {{\n{chain}\n}}\n")
    found = doctor()["forwarding rules"]
    assert found["level"] == "WARN"
    assert "inet fw" in found["found"]
    assert "nft add rule inet fw gate" in found["action"]


@pytest.mark.needs("tool:nft")
def test_rules_of_a_container_with_a_long_name_are_no_leftovers(attached: Host, doctor: Doctor) -> None:
    """Of which their comments have a hash."""
    attached.container(name := "w" * 125)
    pycni(attached, "add", "pycni", name)
    assert doctor()["firewall leftovers"]["level"] == "OK"


@pytest.mark.needs("tool:nft")
def test_a_rule_of_a_gone_attachment_is_found(attached: Host, doctor: Doctor) -> None:
    """An element of ours whose owner has no record."""
    attached.run(["nft", 'add element inet pycni masq4 { 10.77.9.9 comment "pycni/gone/eth0" }'])
    found = doctor()["firewall leftovers"]
    assert found["level"] == "WARN"
    assert "pycni/gone/eth0" in found["found"]


@pytest.mark.needs("tool:nft", "tool:iptables")
@pytest.mark.parametrize(
    ("backend", "harm"),
    [
        ("iptables", "iptables -t nat -F"),
        ("iptables", "ip6tables -t nat -F"),
        ("nftables", "nft flush map inet pycni hp4"),
        ("nftables", "nft flush map inet pycni hp6"),
    ],
)
def test_lost_rules_of_a_chain_are_found(host: Host, doctor: Doctor, backend: str, harm: str) -> None:
    """Those of either backend, and those that publish ports; the attachment is named once for all its plugins."""
    pycni(host, "install", "--bin-dir", BIN, "--no-conf")
    host.run(["mkdir", "-p", "/etc/cni/net.d"])
    ranges = [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00:2::/64"}]]
    bridge = {"type": "pycni-bridge", "bridge": "br9", "isGateway": True, "ipMasq": True, "ipMasqBackend": backend}
    portmap = {"type": "pycni-portmap", "capabilities": {"portMappings": True}, "backend": backend}
    plugins = [{**bridge, "ipam": {"type": "pycni-ipam", "ranges": ranges}}, portmap]
    conf = {"cniVersion": "1.0.0", "name": "net", "plugins": plugins}
    host.file("/etc/cni/net.d/net.conflist").write_text(json.dumps(conf))
    host.container("web")
    pycni(host, "add", "net", "web", "--port", "8080:80")
    assert doctor()["firewall rules"]["level"] == "OK"
    host.run(["sh", "-c", harm])
    found = doctor()["firewall rules"]
    assert found["level"] == "FAIL"
    assert found["found"].startswith("1 attachment without all their rules: net/web/eth0; ")
