"""`pycni lab up` of a lab that is up: only the difference is made, shown first; what died is started again."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from pycni.lab import control

from .conftest import LabCommand

FILE = """
underlay: {lan: {ipv4: 192.0.2.0/24}, far: {ipv4: 198.51.100.0/24}}
etcd: {}
networks:
  blue: {type: overlay, ipv4: 10.1.0.0/16}
  own: {ipv4: 10.2.0.0/24}
hosts:
  h1: {containers: {a: {networks: [blue]}, b: {networks: [own]}}}
  h2: {containers: {a: {networks: [blue]}}}
"""


@pytest.fixture(scope="module")
def changing(make_lab: Callable[[], LabCommand]) -> LabCommand:
    """One lab for all tests of the file: each begins with FILE."""
    return make_lab()


@pytest.fixture
def up(changing: LabCommand) -> LabCommand:
    changing.up(FILE, "--quiet")
    return changing


def steps(lab: LabCommand, text: str, *more: str) -> set[str]:
    """What `up` of *text* does, or would do with --dry-run: "+ container h1/a"."""
    lab.write(text)
    told = json.loads(lab.run("up", str(lab.file), "--json", *more).stdout)
    return {f"{step['verb']} {step['kind']} {step['name']}" for step in told["steps"]}


def everybody(lab: LabCommand) -> dict[str, Any]:
    """Process of each host, agent and member; addresses and netns inode of each container."""
    found: dict[str, Any] = {}
    for name, host in lab.ps().items():
        found[name] = (host["holder"]["pid"], host["agent"] and host["agent"]["pid"])
        for key, container in host["containers"].items():
            found[f"{name}/{key}"] = [each["addresses"] for each in container["attachments"]]
    return found


def test_the_same_file_changes_nothing(up: LabCommand) -> None:
    before = everybody(up)
    assert steps(up, FILE) == set()
    assert everybody(up) == before


def test_dry_run_shows_and_does_not(up: LabCommand) -> None:
    before = everybody(up)
    shown = steps(up, FILE.replace("a: {networks: [blue]}, b", "c: {networks: [blue]}, b"), "--dry-run")
    assert shown == {"remove container h1/a", "add container h1/c"}
    assert everybody(up) == before


def test_containers_come_and_go(up: LabCommand) -> None:
    """The others keep their processes, addresses and connections; the one that went gave its address back."""
    before = everybody(up)
    assert steps(up, FILE.replace("a: {networks: [blue]}, b", "c: {networks: [blue]}, b")) == {
        "remove container h1/a",
        "add container h1/c",
    }
    after = everybody(up)
    assert "h1/a" not in after and after["h1/c"]
    (gone,) = before.pop("h1/a")
    assert after.pop("h1/c")
    assert after == before
    assert gone[0].split("/")[0] not in up.exec("h1", "pycni", "etcd", "dump", "blue")


def test_a_new_host_joins(up: LabCommand) -> None:
    """It takes a free address, wherever it stands in the file, and its containers reach the others."""
    before = everybody(up)
    text = FILE.replace("hosts:\n", "hosts:\n  h0: {containers: {a: {networks: [blue]}}}\n")
    assert steps(up, text) == {"add host h0", "start agent h0", "add container h0/a"}
    after = everybody(up)
    assert {name: after[name] for name in before} == before
    assert up.reaches("h0/a", after["h2/a"][0][0].split("/")[0]) and up.reaches("h0", "h1")
    assert steps(up, FILE) == {"remove container h0/a", "remove host h0"}
    assert everybody(up) == before


def test_a_changed_network_attaches_its_containers_anew(up: LabCommand) -> None:
    """And no others."""
    before = everybody(up)
    done = steps(up, FILE.replace("10.2.0.0/24}", "10.2.0.0/24, config: {mtu: 1400}}"))
    assert done == {"remove container h1/b", "add network own", "add container h1/b"}
    assert json.loads(up.exec("h1/b", "ip", "-j", "link", "show", "eth0"))[0]["mtu"] == 1400
    after = everybody(up)
    assert after.pop("h1/b") and before.pop("h1/b")
    assert after == before


def test_a_network_of_another_name_may_have_its_addresses(up: LabCommand) -> None:
    """Neither its record in etcd nor its bridge is in the way of others, or of a host's way to its containers."""
    renamed = FILE.replace("blue", "green").replace("own", "other")
    assert {"remove network blue", "remove network own"} <= steps(up, renamed)
    told = up.exec("h1", "pycni", "networks")
    assert "green" in told and "blue" not in told
    bridges = up.exec("h1", "ip", "-br", "link", "show", "type", "bridge")
    assert "br-other" in bridges and "br-own" not in bridges
    ((own,),) = everybody(up)["h1/b"]
    up.exec("h1", "ping", "-c1", "-W2", own.partition("/")[0])


def test_segments_of_a_change_that_failed_are_no_hindrance(up: LabCommand) -> None:
    """Those that it made, and those that it removed: the next `up` goes on from there."""
    other = FILE.replace("far: {ipv4", "new: {ipv4")
    up.up(other.replace("b: {networks: [own]}", "b: {networks: [{name: own, ips: [10.2.0.1]}]}"), rc=1)
    assert {"remove segment far", "add segment new"} <= steps(up, other)
    assert steps(up, other) == set()
    assert up.running().state["segments"] == {"lan": "sw-lan", "new": "sw-new"}


def test_a_new_router_changes_routes_only(up: LabCommand) -> None:
    before = everybody(up)
    text = FILE.replace("etcd: {}", "etcd: {}\nrouters: {spine: {links: [lan, far]}}")
    assert {step for step in steps(up, text) if not step.startswith("change routes")} == {"add host spine"}
    assert "default via" in up.exec("h1", "ip", "route")
    after = everybody(up)
    assert after.pop("spine") and after == before
    steps(up, FILE)
    assert "default" not in up.exec("h1", "ip", "route")


def test_what_died_is_started_again(up: LabCommand) -> None:
    """An agent, a member of etcd, a whole host: only these; the host's containers are attached again."""
    running = up.running()
    control.kill_agent(running, "h1")
    control.kill_member(running, "etcd1")
    control.power_off(running, "h2")
    assert {host["state"] for host in up.ps().values()} == {"agent ended", "etcd ended", "off"}
    assert steps(up, FILE) == {
        "start agent h1",
        "start etcd etcd1",
        "add host h2",
        "start agent h2",
        "add container h2/a",
    }
    told = up.ps()
    assert up.reaches("h1/a", told["h2"]["containers"]["a"]["attachments"][0]["addresses"][0].split("/")[0])


def test_reboot_keeps_the_disk_only(up: LabCommand) -> None:
    """/var/lib and /etc stay; /run, links, rules and the boot id are new; containers are attached again."""
    up.exec(
        "h2", "sh", "-c", "echo kept >/var/lib/kept; echo kept >/etc/kept; touch /run/gone; ip link add x type bridge"
    )
    boot_id = up.exec("h2", "cat", "/proc/sys/kernel/random/boot_id")
    control.reboot(up.running(), "h2")
    assert up.exec("h2", "cat", "/var/lib/kept", "/etc/kept") == "kept\nkept\n"
    up.exec("h2", "sh", "-c", "test ! -e /run/gone && ! ip link show x", rc=0)
    assert up.exec("h2", "cat", "/proc/sys/kernel/random/boot_id") != boot_id
    assert up.ps()["h2"]["containers"]["a"]["state"] == "attached"
    assert up.exec("h2", "pycni", "check", "blue", "a")


def test_another_etcd_is_another_lab(up: LabCommand) -> None:
    """What stands in etcd is gone with it, so nothing of the lab can stay; the reason is said."""
    done = up.up(FILE.replace("etcd: {}", "etcd: {prefix: /other}"))
    assert "everything is made anew: etcd is another" in done.stderr
    assert "/other" in up.exec("h1", "cat", "/etc/cni/net.d/10-blue.conflist")


def test_a_failed_change_leaves_the_rest(up: LabCommand) -> None:
    """The containers that were there stay; the next `up` goes on."""
    before = everybody(up)
    wrong = FILE.replace(
        "a: {networks: [blue]}, b", "a: {networks: [blue]}, d: {networks: [{name: own, ips: [10.2.0.1]}]}, b"
    )
    up.write(wrong)
    failed = up.run("up", str(up.file), rc=1)
    assert "h1/d: " in failed.stderr and "stays as far as it came" in failed.stderr
    assert everybody(up) == before
    up.up(FILE)
    assert everybody(up) == before


def test_sigkill_of_a_change_is_repaired(up: LabCommand) -> None:
    """A host whose holder was killed, its containers' processes left over: `up` makes it whole."""
    holder = up.running().hosts["h1"].holder
    holder.send(signal.SIGKILL)
    holder.wait(5)
    assert "add host h1" in steps(up, FILE)
    assert up.reaches("h1/a", up.ps()["h2"]["containers"]["a"]["attachments"][0]["addresses"][0].split("/")[0])
