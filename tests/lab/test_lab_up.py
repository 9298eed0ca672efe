"""`pycni lab up` from nothing: hosts, underlay, etcd, networks, containers are as the file has them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netns_fixtures import wait_until

from .conftest import LabCommand, command

FILE = """
underlay:
  rack1: {ipv4: 192.0.2.0/24, ipv6: "2001:db8:a::/64"}
  rack2: {ipv4: 198.51.100.0/24, ipv6: "2001:db8:b::/64", mtu: 1400}
routers:
  spine: {links: [rack1, rack2]}
etcd: {members: 1, tls: true}
networks:
  blue: {type: overlay, ipv4: 10.1.0.0/16, ipv6: "fd00:1::/64"}
  local: {ipv4: 10.9.0.0/24, config: {bridge: own0}}
hosts:
  h1:
    links: [{segment: rack1, ipv4: 192.0.2.77, mtu: 1380}]
    sysctls: {net.ipv4.ip_default_ttl: 42}
    containers:
      web:
        networks: [blue, {name: local, ips: [10.9.0.9], mac: "02:00:00:00:00:09", ifname: net1}]
        ports: ["8080:80"]
        environment: {WORD: hello}
        command: 'echo "$WORD from $(hostname)"; exec sleep 1000'
      bare: {networks: []}
  h2:
    links: [rack2]
    agent: {log_level: debug}
    containers:
      app: {networks: [blue]}
      boxed: {networks: [blue], rootfs: root, command: [/bin/busybox, sh, -c, "echo x >/written; exec sleep 1000"]}
"""


def machine() -> str:
    """What a lab must leave as it is: links, addresses, routes, rules, mounts of the real machine."""
    shown = ["ip -br link", "ip -br addr", "ip route show table all", "ip -6 route show table all", "nft list ruleset"]
    said = subprocess.run(["sh", "-c", "; ".join(shown)], capture_output=True, text=True, check=True).stdout
    return said + Path("/proc/self/mounts").read_text() + "".join(sorted(os.listdir("/run")))


@pytest.fixture(scope="module")
def up(make_lab: Callable[[], LabCommand]) -> Iterator[LabCommand]:
    made = make_lab()
    root = made.directory / "root" / "bin"
    root.mkdir(parents=True)
    (root / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "busybox").chmod(0o755)
    before = machine().replace("pycni-lab", "")
    made.up(FILE)
    yield made
    made.down()
    assert machine().replace("pycni-lab", "") == before


def test_machines_are_as_in_the_file(up: LabCommand) -> None:
    """Each has its host name, addresses, MTU, sysctls, agent; ps says so."""
    hosts = up.ps()
    assert {name: host["state"] for name, host in hosts.items()} == {
        "spine": "router",
        "etcd1": "etcd runs",
        "h1": "agent runs",
        "h2": "agent runs",
    }
    assert hosts["h1"]["links"][0]["ipv4"] == "192.0.2.77"
    assert up.exec("h1", "hostname").strip() == "h1"
    assert up.exec("h1", "cat", "/proc/sys/net/ipv4/ip_default_ttl").strip() == "42"
    link = json.loads(up.exec("h1", "ip", "-j", "link", "show", "eth0"))[0]
    assert (link["mtu"], json.loads(up.exec("h2", "ip", "-j", "link", "show", "eth0"))[0]["mtu"]) == (1380, 1400)
    assert up.exec("h2", "cat", "/etc/pycni/agent.toml") == 'node_ttl_s = 3\nlog_level = "debug"\n'


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_routers_join_the_segments(up: LabCommand, family: str) -> None:
    """A host of one rack reaches one of the other by name, through the router."""
    assert up.exec("h2", "ping", family, "-c1", "-W2", "h1")
    assert up.exec("etcd1", "ping", family, "-c1", "-W2", "h2")


def test_each_host_has_directories_of_its_own(up: LabCommand) -> None:
    """What a host writes to /run, /var/lib, /etc is seen by no other host and not by the machine."""
    for path in ("/run/only-h1", "/var/lib/only-h1", "/etc/only-h1", "/etc/cni/only-h1"):
        up.exec("h1", "touch", path)
        assert not os.path.exists(path)
        up.exec("h2", "test", "!", "-e", path)
    for host in ("h1", "h2"):  # but pycni is installed on all of them
        assert "in /run/cni-bin" in up.exec(host, "pycni", "doctor", rc=None)


def test_containers_are_attached_by_the_real_executables(up: LabCommand) -> None:
    """A container's interfaces are as asked for, ps has them, and `pycni` on the host finds everything in order."""
    web = up.ps()["h1"]["containers"]["web"]
    blue, local = web["attachments"]
    assert (blue["network"], local["network"], local["ifname"]) == ("blue", "local", "net1")
    assert (local["addresses"], local["mac"]) == (["10.9.0.9/24"], "02:00:00:00:00:09")
    shown = json.loads(up.exec("h1/web", "ip", "-j", "addr", "show", "net1"))[0]
    assert (shown["address"], shown["addr_info"][0]["local"]) == ("02:00:00:00:00:09", "10.9.0.9")
    up.exec("h1", "pycni", "check", "blue", "web")
    assert "8080" in up.exec("h1", "pycni", "ports")
    assert up.ps()["h1"]["containers"]["bare"]["attachments"] == []


def test_the_overlay_carries_over_the_router(up: LabCommand) -> None:
    """A container reaches one on another host, in both families."""
    for address in up.ps()["h2"]["containers"]["app"]["attachments"][0]["addresses"]:
        assert up.reaches("h1/web", address.split("/")[0])


def test_commands_run_in_their_containers(up: LabCommand) -> None:
    """With the container's host name and environment; what it prints is its log."""
    assert up.run("logs", "--lab", up.name, "h1/web").stdout == "hello from web\n"
    assert up.ps()["h1"]["containers"]["web"]["state"] == "runs"
    assert "blue" in up.exec("h2", "pycni", "list")


def test_a_rootfs_is_seen_and_stays_as_it_is(up: LabCommand) -> None:
    """The command sees the directory as /, its host's processes in /proc; what it writes is not in it afterwards."""
    written = wait_until(lambda: up.exec("h2/boxed", "/bin/busybox", "cat", "/written", rc=None), 10)
    assert written == "x\n"
    processes = up.exec("h2/boxed", "/bin/busybox", "ps")
    assert "pycni agent" in processes and "pytest" not in processes
    assert sorted(path.name for path in (up.directory / "root").iterdir()) == ["bin"]


def test_exec_passes_the_exit_code_on(up: LabCommand) -> None:
    up.exec("h1/web", "sh", "-c", "exit 7", rc=7)
    up.exec("h1", "sh", "-c", "kill -9 $$", rc=-9)
    assert up.run("exec", "h1", "--lab", up.name, "--", "hostname").stdout == "h1\n"
    assert "say what to run" in up.run("exec", "--lab", up.name, "h1", "--", rc=2).stderr
    missing = up.run("exec", "--lab", up.name, "h1/nobody", "--", "true", rc=3)
    assert "there are: web, bare" in missing.stderr


def test_a_shell_is_on_the_host(up: LabCommand) -> None:
    """Its words come from standard input, its exit code is passed on."""
    shell = subprocess.run(
        command("shell", "--lab", up.name, "h1"),
        input="hostname; exit 5\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (shell.returncode, shell.stdout) == (5, "h1\n")


def test_save_has_what_a_report_needs(up: LabCommand, tmp_path: Path) -> None:
    """The archive holds the file, the state, logs, etcd's contents and each kernel's state, and no key."""
    archive = tmp_path / "saved.tar.gz"
    up.run("save", up.name, "-o", str(archive))
    listed = subprocess.run(["tar", "tzf", archive], capture_output=True, text=True, check=True).stdout.split()
    names = {name.removeprefix(f"{up.name}/") for name in listed}
    assert {"lab.json", "state.json", "etcd.json", "logs/h1.log", "kernel/h1.txt", "kernel/h1.web.txt"} <= names
    dumped = subprocess.run(
        ["tar", "xzOf", archive, f"{up.name}/etcd.json"], capture_output=True, text=True, check=True
    )
    assert json.loads(dumped.stdout)["count"] > 4
    assert not any("tls" in name or name.endswith(".key") for name in names)


def test_two_labs_of_the_same_file_are_two(up: LabCommand, make_lab: Callable[[], LabCommand]) -> None:
    """With --name the same addresses are used twice at the same time, and neither sees the other."""
    other = make_lab()
    other.up("hosts: {h1: {}, h3: {}}")
    assert set(other.ps()) == {"h1", "h3"}
    assert other.reaches("h1", "h3") and not other.reaches("h1", "192.0.2.77")
    ambiguous = up.run("logs", "h1", rc=2)
    assert "which of the labs" in ambiguous.stderr and "--lab NAME" in ambiguous.stderr


def test_multicast_over_an_underlay_of_either_family(make_lab: Callable[[], LabCommand]) -> None:
    """Without a word about the group, over IPv6 alone and after IPv4 came."""
    lab = make_lab()
    text = (
        "underlay: {lan: {PREFIXES}}\n"
        "networks: {mc: {type: overlay, mode: multicast, vni: 9, ipv4: 10.1.0.0/24}}\nhosts:\n"
        "  h1: {containers: {a: {networks: [{name: mc, ips: [10.1.0.5]}]}}}\n"
        "  h2: {containers: {a: {networks: [{name: mc, ips: [10.1.0.6]}]}}}\n"
    )
    for prefixes in ('ipv6: "fd0a::/64"', 'ipv6: "fd0a::/64", ipv4: 192.0.2.0/24'):
        lab.up(text.replace("PREFIXES", prefixes))
        assert lab.reaches("h1/a", "10.1.0.6")
