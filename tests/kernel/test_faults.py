"""Every step of ADD and DEL failing, and the process killed before and after every one."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import CniRun, Container, assert_unchanged, can_ping, diff
from pycni.cli.launcher import interpreter, package_parent
from tests.kernel import faulty_call
from tests.kernel.bridge_lab import Conf, Lab, network, words

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

KILLED = -9
# Both families, gateway, default routes, masquerading, guarded MAC, a port flag: every operation but the VLAN ones.
CONF = network(macspoofchk=True, hairpinMode=True)
DERIVED = re.compile(r"^\d+: |@if\d+|NO-CARRIER,|,LOWER_UP|state \w+ | linkdown|link-netns \S+")
GLANCE = "ip -o link; ip -o addr; ip route; ip -6 route; nft -s list ruleset; bridge link"


class Faulty:
    """Calls of the plugin of *conf*, in a process of its own that runs the executable with steps to be disturbed."""

    def __init__(self, lab: Lab, conf: Conf) -> None:
        self.lab = lab
        self.conf = conf

    def call(self, command: str, container: Container, action: str, number: int) -> CniRun:
        plugin = self.lab.plugins / str(self.conf["type"])
        environ = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container.name,
            "CNI_NETNS": container.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.lab.plugins),
        }
        argv = [interpreter(), "-SE", str(faulty_call.__file__), str(plugin), package_parent(), action, str(number)]
        done = self.lab.host.run(argv, input=json.dumps(self.conf), check=False, env=environ)
        return CniRun(command=command, rc=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def events(self, command: str, container: Container) -> list[str]:
        """The steps of a call that works."""
        answer = self.call(command, container, "list", 0)
        assert answer.ok, answer
        return answer.stderr.splitlines()

    def kill(self, command: str, container: Container, number: int) -> None:
        done = self.call(command, container, "kill", number)
        assert done.rc == KILLED or (done.ok and int(done.stderr.rpartition("events: ")[2]) <= number), done

    def glance(self, *containers: Container) -> list[str]:
        """What a leftover of ours would show up in, at the price of one process a namespace; `traces` sees the rest."""
        shown = [each.run(["sh", "-c", GLANCE]).stdout for each in (self.lab.host, *containers)]
        lines = [DERIVED.sub("", line) for text in shown for line in text.splitlines()]
        kept = [line for line in lines if "fe80:" not in line and "scope link" not in line]
        return [*sorted(kept), *self.lab.records(), *self.lab.leases()]


@pytest.fixture
def faulty(lab: Lab) -> Faulty:
    return Faulty(lab, CONF)


def test_every_failing_step_of_add_is_undone(faulty: Faulty, c1: Container) -> None:
    """Whichever operation fails: an error that says so, and both sides, switches included, as before the ADD."""
    lab = faulty.lab
    before = lab.traces(c1)
    events = faulty.events("ADD", c1)
    assert sum("before do" in event for event in events) >= 17
    assert "before do AddAddress AddAddress SetUp AddRoute AddRoute" in events
    lab.delete(CONF, c1)
    assert lab.gc(CONF).ok
    lab.host.sysctl("net/ipv4/ip_forward", "0")
    lab.host.sysctl("net/ipv6/conf/all/forwarding", "0")
    assert_unchanged(before, lab.traces(c1))
    for number, event in enumerate(events):
        if not event.startswith("before"):
            continue
        answer = faulty.call("ADD", c1, "fail", number)
        assert answer.error_code is not None, event
        assert "planted" in words(answer.json), event
        assert "bug in pycni" not in answer.stdout, answer
        assert diff(before, lab.traces(c1)) == [], event


def test_failing_step_beside_a_neighbour_leaves_it_alone(faulty: Faulty, c1: Container, c2: Container) -> None:
    """The same with another container on the bridge: it is connected and masqueraded all the time."""
    lab = faulty.lab
    lab.delete(CONF, c1)
    result = lab.add(CONF, c2)
    events = faulty.events("ADD", c1)
    lab.delete(CONF, c1)
    before, glance = lab.traces(c1, c2), faulty.glance(c1, c2)
    for number, event in enumerate(events):
        if event.startswith("before"):
            assert faulty.call("ADD", c1, "fail", number).error_code is not None, event
            assert faulty.glance(c1, c2) == glance, event
    assert_unchanged(before, lab.traces(c1, c2), ignore=["*dst=fe80*"])
    assert lab.check(CONF, c2, result).ok


def test_interrupted_add_is_undone_and_answers(faulty: Faulty, c1: Container) -> None:
    """Ctrl-C (SIGINT) at any step: an error object, no traceback, and at most a record that the DEL takes."""
    lab = faulty.lab
    _add_and_remove(lab, c1)
    before, glance = lab.traces(c1), faulty.glance(c1)
    events = faulty.events("ADD", c1)
    lab.delete(CONF, c1)
    for number, event in enumerate(events):
        if event.startswith("before"):
            continue
        answer = faulty.call("ADD", c1, "interrupt", number)
        assert answer.error_code == 11, (event, answer)
        assert "Traceback" not in answer.stderr
        assert "eth0" not in c1.links(), event
        lab.delete(CONF, c1)
        assert faulty.glance(c1) == glance, event
    assert_unchanged(before, lab.traces(c1), ignore=["*dst=fe80*"])


@pytest.mark.parametrize("way", ["DEL", "ADD", "GC"])
def test_killed_add_is_cleaned_by_whatever_comes_next(faulty: Faulty, c1: Container, c2: Container, way: str) -> None:
    """SIGKILL before and after every step: DEL, the next ADD (which works) and DEL, or GC leave no trace."""
    lab = faulty.lab
    _add_and_remove(lab, c2)
    if way == "GC":
        assert lab.gc(CONF).ok
    before, glance = lab.traces(c1), faulty.glance(c1)
    events = faulty.events("ADD", c1)
    _clean(lab, c1, way)
    assert faulty.glance(c1) == glance
    for number, event in enumerate(events):
        if way == "ADD" and event.startswith("after"):
            continue  # to the kernel and the state file the same as before the next
        faulty.kill("ADD", c1, number)
        if way == "ADD":
            result = lab.add(CONF, c1)
            assert can_ping(c1, "10.1.0.1"), event
            assert lab.check(CONF, c1, result).ok, event
        _clean(lab, c1, way)
        assert faulty.glance(c1) == glance, event
    assert_unchanged(before, lab.traces(c1), ignore=["*dst=fe80*"])


@pytest.mark.parametrize("neighbour", [False, True])
@pytest.mark.parametrize("way", ["DEL", "GC"])
def test_killed_del_is_finished_by_the_next(
    faulty: Faulty, c1: Container, c2: Container, way: str, neighbour: bool
) -> None:
    """SIGKILL before and after every step of DEL: a second DEL, or GC, leaves no trace, and a neighbour unharmed."""
    lab = faulty.lab
    _add_and_remove(lab, c2)
    valid = [c2] if neighbour else []
    result = lab.add(CONF, c2) if neighbour else None
    if way == "GC":
        assert lab.gc(CONF, *valid).ok
    before, glance = lab.traces(c1, c2), faulty.glance(c1, c2)
    lab.add(CONF, c1)
    events = faulty.events("DEL", c1)
    _clean(lab, c1, way, *valid)
    assert len(events) >= 8
    for number, event in enumerate(events):
        lab.add(CONF, c1)
        faulty.kill("DEL", c1, number)
        _clean(lab, c1, way, *valid)
        assert faulty.glance(c1, c2) == glance, event
        if result is not None:
            assert lab.check(CONF, c2, result).ok, event
    assert_unchanged(before, lab.traces(c1, c2), ignore=["*dst=fe80*"])


def test_killed_del_does_not_block_the_next_add(faulty: Faulty, c1: Container) -> None:
    """A runtime whose plugin died in mid-DEL may use the id again; where the link was not touched yet, after a DEL."""
    lab = faulty.lab
    lab.add(CONF, c1)
    for number, event in enumerate(faulty.events("DEL", c1)):
        lab.add(CONF, c1)
        faulty.kill("DEL", c1, number)
        answer = lab.call("ADD", CONF, c1)
        if answer.error_code == 105:
            assert "eth0" in c1.links(), event
            lab.delete(CONF, c1)
            answer = lab.call("ADD", CONF, c1)
        assert lab.check(CONF, c1, answer.result()).ok, event
        lab.delete(CONF, c1)


@pytest.mark.parametrize("neighbour", [False, True])
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_killed_around_iptables(lab: Lab, c1: Container, c2: Container, command: str, neighbour: bool) -> None:
    """With the iptables backend, where a change is several programs' work: DEL leaves the neighbour's rules only."""
    conf = network(ipMasqBackend="iptables")
    faulty = Faulty(lab, conf)
    lab.add(conf, c2)
    if not neighbour:
        lab.delete(conf, c2)
    before, glance = lab.traces(c1, c2), faulty.glance(c1, c2)
    if command == "DEL":
        lab.add(conf, c1)
    events = faulty.events(command, c1)
    lab.delete(conf, c1)
    for number, event in enumerate(events):
        if not event.endswith(("ApplyFirewall", "apply_delete", "remove_all", "update", "commit", "ask DEL")):
            continue
        if command == "DEL":
            lab.add(conf, c1)
        faulty.kill(command, c1, number)
        lab.delete(conf, c1)
        assert faulty.glance(c1, c2) == glance, event
    assert_unchanged(before, lab.traces(c1, c2), ignore=["*dst=fe80*"])


def _add_and_remove(lab: Lab, container: Container) -> None:
    """Forwarding and the bridge stay from now on."""
    lab.add(CONF, container)
    lab.delete(CONF, container)


def _clean(lab: Lab, container: Container, way: str, *valid: Container) -> None:
    if way == "GC":
        answer = lab.gc(CONF, *valid)
        assert answer.ok, answer
    else:
        lab.delete(CONF, container)


UNWRITABLE = {
    "Read-only file system": "mkdir -p /var/lib/pycni && mount -o remount,ro /var/lib",
    "No space left on device": "mkdir /var/lib/pycni && mount -t tmpfs -o size=4k tmpfs /var/lib/pycni"
    " && head -c 4096 /dev/zero >/var/lib/pycni/filling",
}


@pytest.mark.parametrize("reason", UNWRITABLE)
def test_a_disk_that_takes_no_record_is_named(lab: Lab, c1: Container, reason: str) -> None:
    """With the file and the system's reason: code 5 (I/O) at ADD, 50 at STATUS; nothing is made."""
    lab.host.run(["sh", "-c", UNWRITABLE[reason]])
    before = lab.traces(c1)
    for command, code in (("ADD", 5), ("STATUS", 50)):
        answer = lab.call(command, network(cniVersion="1.1.0"), c1)
        assert answer.error_code == code, answer
        assert answer.json["msg"] == f"/var/lib/pycni/pycni.db cannot be used: {reason}"
    assert_unchanged(before, lab.traces(c1), ignore=["*/file/var/lib/pycni*"])


IPAM = """#!/bin/sh
cat >/dev/null
echo "$CNI_COMMAND $CNI_CONTAINERID" >>/run/ipam.calls
[ "$CNI_COMMAND" = ADD ] || exit 0
{body}
"""

FOREIGN: dict[str, tuple[str, int, str]] = {
    "error": ("""printf '{"code": 117, "msg": "no address today"}'; exit 1""", 117, "no address today"),
    "garbage": ("echo hello", 999, "not JSON"),
    "garbage and failure": ("echo hello; exit 3", 999, "hello"),
    "silence and failure": ("exit 3", 999, "exit status 3"),
    "death": ("kill -9 $$", 999, "signal 9"),
    "no ips": ("""printf '{"cniVersion": "1.0.0"}'""", 7, "IPAM plugin returned missing IP config"),
    "empty answer": ("true", 7, "IPAM plugin returned missing IP config"),
    "null": ("printf null", 7, "IPAM plugin returned missing IP config"),
    "wrong types": ("""printf '{"cniVersion": "1.0.0", "ips": [{"address": 7}]}'""", 7, "address"),
    "unknown version": ("""printf '{"cniVersion": "7.0.0", "ips": []}'""", 1, "incompatible CNI versions"),
    "address twice": (
        """printf '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.9/24"}, {"address": "10.1.0.9/24"}]}'""",
        999,
        "failed to add IP addr",
    ),
    "gateway of the other family": (
        """printf '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.9/24", "gateway": "fd00::1"}]}'""",
        7,
        "not of one family",
    ),
    "no room for a gateway": (
        """printf '{"cniVersion": "1.0.0", "ips": [{"address": "255.255.255.255/32"}]}'""",
        7,
        "no address for a gateway",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_failing_foreign_ipam_is_undone_and_told_to_delete(lab: Lab, c1: Container, tmp_path: Path, name: str) -> None:
    """Its error comes through with its code; nothing of ours stays, and it gets its DEL (specification, section 4)."""
    body, code, said = FOREIGN[name]
    _install(tmp_path, body)
    before = lab.traces(c1)
    conf = network(ipam={"type": "foreign"})
    answer = lab.call("ADD", conf, c1, cni_path=f"{lab.plugins}:{tmp_path}")
    assert answer.error_code == code, answer
    assert said in words(answer.json)
    assert "DEL c1" in lab.host.file("/run/ipam.calls").read_text().splitlines()
    assert_unchanged(before, lab.traces(c1), ignore=["*/file/run/ipam.calls"])


OLD: dict[str, Any] = {
    "0.2.0": {"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.9/24", "routes": [{"dst": "0.0.0.0/0"}]}},
    "0.3.1": {"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.1.0.9/24", "gateway": "10.1.0.1"}]},
    "none": {"ips": [{"address": "10.1.0.9/24", "interface": 0}], "interfaces": [{"name": "x"}]},
    "slow": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.9/24"}]},
}


@pytest.mark.parametrize("version", OLD)
def test_foreign_ipam_of_any_version_works(lab: Lab, c1: Container, tmp_path: Path, version: str) -> None:
    """Results of older versions, without version, with interfaces of its own, and after a while."""
    wait = "sleep 0.3;" if version == "slow" else ""
    _install(tmp_path, f"{wait} cat <<'END'\n{json.dumps(OLD[version])}\nEND")
    conf, path = network(ipam={"type": "foreign"}), f"{lab.plugins}:{tmp_path}"
    result = lab.add(conf, c1, cni_path=path)
    assert result["ips"] == [{"address": "10.1.0.9/24", "gateway": "10.1.0.1", "interface": 2}]
    assert can_ping(c1, "10.1.0.1")
    assert lab.check(conf, c1, result, cni_path=path).ok
    lab.delete(conf, c1, cni_path=path)
    assert lab.host.file("/run/ipam.calls").read_text().split() == ["ADD", "c1", "CHECK", "c1", "DEL", "c1"]


def _install(directory: Path, body: str) -> None:
    plugin = directory / "foreign"
    plugin.write_text(IPAM.replace("{body}", body))
    plugin.chmod(stat.S_IRWXU)
