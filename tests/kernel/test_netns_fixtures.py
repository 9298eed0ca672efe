"""The fixtures on the real kernel: what they make is separate, what they see is all, what they leave is nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import netns_fixtures
from netns_fixtures import (
    Container,
    EchoServer,
    Etcd,
    Host,
    Namespace,
    Outside,
    Underlay,
    assert_unchanged,
    can_ping,
    can_tcp,
    can_udp,
    diff,
    netns_snapshot,
    run_cni,
    snapshot,
    tcp_peer_seen,
    udp_peer_seen,
    wait_until,
)

pytestmark = pytest.mark.needs("root", "tool:ip")

REFERENCE_BRIDGE = "/usr/lib/cni/bridge"
DAEMON = "setsid sleep 1000 >/dev/null 2>&1 &"  # neither a child of the test nor of its session


def machine_state() -> dict[str, object]:
    """What of the machine a careless fixture would change."""
    sysctls = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/accept_dad")
    return {
        "links": [name for _, name in socket.if_nameindex()],
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "hostname": socket.gethostname(),
        "sysctls": [Path("/proc/sys/net", key).read_text() for key in sysctls],
        "files": [os.path.exists(path) for path in ("/run/netns", "/etc/cni", "/run/marker", "/var/lib/marker")],
    }


def users_of(inodes: set[int]) -> list[str]:
    """The namespace links of all processes that lead to one of *inodes*."""
    found = []
    for link in Path("/proc").glob("[0-9]*/ns/*"):
        try:
            if link.stat().st_ino in inodes:
                found.append(str(link))
        except OSError:
            continue
    return found


def run_pytest(tmp_path: Path, test: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        pytest_argv(tmp_path, test), env=pytest_env(**env), capture_output=True, text=True, timeout=60, check=False
    )


def pytest_argv(tmp_path: Path, test: str) -> list[str]:
    (tmp_path / "test_inner.py").write_text(test)
    options = ["-p", "netns_fixtures", "-p", "no:cacheprovider", "-c", os.devnull, "-rs", "--rootdir", str(tmp_path)]
    return [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_inner.py")]


def pytest_env(**env: str) -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": str(Path(netns_fixtures.__file__).parents[1])} | env


# -- namespaces ------------------------------------------------------------------------------------------------------


def test_new_namespace_is_bare_and_does_not_forward(make_namespace: Callable[..., Namespace]) -> None:
    """Only `lo`, down, as a runtime hands it to a plugin; and no router, whatever the machine is."""
    namespace = make_namespace()
    assert namespace.links() == ["lo"]
    assert "UP" not in namespace.ip_json("link", "show", "lo")[0]["flags"]
    assert namespace.sysctl("net/ipv4/ip_forward") == "0"
    assert namespace.sysctl("net/ipv6/conf/all/forwarding") == "0"


def test_programs_and_python_run_inside(make_namespace: Callable[..., Namespace]) -> None:
    """`run`, `popen` and `in_namespace` see the namespace; the test's own thread never moves."""
    namespace = make_namespace()
    outer = os.readlink("/proc/thread-self/ns/net")
    inner = namespace.run(["readlink", "/proc/self/ns/net"]).stdout.strip()
    with namespace.popen(["readlink", "/proc/self/ns/net"], stdout=subprocess.PIPE) as process:
        assert process.communicate(timeout=10)[0].strip() == inner
    assert namespace.in_namespace(lambda: os.readlink("/proc/thread-self/ns/net")) == inner
    assert os.readlink("/proc/thread-self/ns/net") == outer != inner
    with pytest.raises(ZeroDivisionError):
        namespace.in_namespace(lambda: 1 // 0)


def test_run_tells_why_a_program_failed(make_namespace: Callable[..., Namespace]) -> None:
    """The failure has the exit status and what the program said; check=False hands it back."""
    namespace = make_namespace("lab")
    with pytest.raises(AssertionError, match=r"(?s)lab: sh -c .*exit 3.*words"):
        namespace.run(["sh", "-c", "echo words >&2; exit 3"])
    assert namespace.run(["cat"], input="text", check=False).stdout == "text"
    with pytest.raises(subprocess.TimeoutExpired):
        namespace.run(["sleep", "60"], timeout=0.05)


def test_addresses_and_batches(make_namespace: Callable[..., Namespace]) -> None:
    """Many `ip` commands are one process; link-local addresses are not news."""
    namespace = make_namespace()
    namespace.ip_batch("link add br0 type bridge", "link set br0 up", "addr add 10.1.2.3/24 dev br0")
    namespace.ip_batch("addr add 2001:db8::5/64 dev br0 nodad")
    assert namespace.addresses("br0") == ["10.1.2.3/24", "2001:db8::5/64"]
    with pytest.raises(AssertionError, match="Cannot find device"):
        namespace.ip("link", "set", "nothing", "up")


def test_deleted_namespace_has_an_invalid_path(host: Host, container_ns: Container) -> None:
    """Until the test ends no other process can take the pid: a stale CNI_NETNS never means somebody else's network."""
    path = container_ns.path
    host.run(["test", "-e", container_ns.file])
    assert container_ns.exists()
    container_ns.delete()
    container_ns.delete()
    assert not container_ns.exists()
    assert not os.path.exists(path)
    assert os.path.isdir(os.path.dirname(path))
    host.run(["test", "!", "-e", container_ns.file])


# -- hosts -----------------------------------------------------------------------------------------------------------


def test_host_has_directories_and_a_name_of_its_own(host: Host) -> None:
    """What is written to /run, /var/lib and /etc on a host is not written on the machine."""
    before = machine_state()
    host.run(["sh", "-c", "for d in /run /var/lib /etc/cni /etc; do echo x >$d/marker; done"])
    assert host.run(["hostname"]).stdout.strip() == host.name
    assert host.run(["ls", "/sys/class/net"]).stdout.split() == ["lo"]
    assert host.file("/run/marker").read_text() == "x\n"
    assert host.run(["pwd"]).stdout == "/\n"
    host.run(["grep", "-q", "root", "/etc/passwd"])
    assert not os.path.exists("/etc/marker")
    assert machine_state() == before


def test_two_hosts_share_nothing(make_host: Callable[..., Host]) -> None:
    """A file, a link and a sysctl of one are not seen by the other."""
    one, two = make_host(), make_host()
    assert (one.name, two.name) == ("h1", "h2")
    before = snapshot(two)
    one.run(["sh", "-c", "echo x >/run/x; echo 1 >/proc/sys/net/ipv4/ip_forward; ip link add br0 type bridge"])
    assert_unchanged(before, snapshot(two))


def test_host_takes_sysctls(make_host: Callable[..., Host]) -> None:
    """A test says what kind of machine it wants before anything runs there."""
    host = make_host("strict", sysctls={"net/ipv4/conf/all/rp_filter": "1"})
    assert host.sysctl("net/ipv4/conf/all/rp_filter") == "1"


def test_container_is_reached_by_path_and_by_name(make_host: Callable[..., Host]) -> None:
    """/proc/PID/ns/net works on every host, /run/netns/NAME and `ip netns` on its own."""
    one, two = make_host(), make_host()
    container = one.container("c1")
    inode = str(os.stat(container.path).st_ino)
    assert one.run(["stat", "-Lc", "%i", container.path]).stdout.strip() == inode
    assert two.run(["stat", "-Lc", "%i", container.path]).stdout.strip() == inode
    assert one.run(["stat", "-Lc", "%i", container.file]).stdout.strip() == inode
    assert one.run(["ip", "netns", "list"]).stdout.split() == ["c1"]
    assert two.run(["ip", "netns", "list"]).stdout == ""
    with pytest.raises(ValueError, match="has a container"):
        one.container("c1")


def test_deleted_host_leaves_no_process_and_no_namespace(make_host: Callable[..., Host]) -> None:
    """Its daemons die with it, also those in its containers and those of a session of their own."""
    before = machine_state()
    host = make_host()
    container = host.container("c1")
    inodes = {os.stat(host.holder.ns_path(kind)).st_ino for kind in host.kinds} | {os.stat(container.path).st_ino}
    host.run(["sh", "-c", DAEMON])
    container.run(["sh", "-c", DAEMON])
    child = host.popen(["sleep", "1000"])
    wait_until(lambda: sorted(host.holder.inhabitants().values()) == ["sleep 1000", "sleep 1000"])
    assert len(users_of(inodes)) > 4
    host.delete()
    assert child.returncode == -signal.SIGKILL
    assert users_of(inodes) == []
    assert machine_state() == before


def test_killed_pytest_leaves_nothing(tmp_path: Path) -> None:
    """After SIGKILL, when no teardown runs: no process, no namespace, nothing on the machine."""
    before = machine_state()
    told = tmp_path / "told"
    test = f"""
        import os, signal
        def test_it(host, outside, container_ns):
            for ns in (host, container_ns):
                ns.run(["sh", "-c", {DAEMON!r}])
            host.popen(["sleep", "1000"])
            inodes = [os.stat(host.holder.ns_path(kind)).st_ino for kind in host.kinds]
            inodes += [os.stat(ns.path).st_ino for ns in (outside, container_ns)]
            os.rename(__import__("pathlib").Path({str(told)!r} + ".new").write_text(" ".join(map(str, inodes))) and
                      {str(told)!r} + ".new", {str(told)!r})
            signal.pause()
    """
    lines = [line.removeprefix("        ") for line in test.splitlines()]
    with subprocess.Popen(
        pytest_argv(tmp_path, "\n".join(lines)), env=pytest_env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as inner:
        wait_until(lambda: told.exists() or inner.poll() is not None, 20, "the inner test has made everything")
        inodes = {int(word) for word in told.read_text().split()}
        assert len(users_of(inodes)) >= 8
        inner.kill()
    wait_until(lambda: not users_of(inodes), 10, "nobody is in the namespaces")
    assert machine_state() == before


def test_making_and_deleting_is_fast(make_host: Callable[..., Host]) -> None:
    """A host in well under 60 ms on an idle machine; the bound here leaves room for a busy one."""
    durations_s = []
    for number in range(5):
        start = time.monotonic()
        made = make_host(f"fast{number}")
        durations_s.append(time.monotonic() - start)
        made.delete()
    assert min(durations_s) < 0.2


# -- outside and probes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_outside_sees_the_host(host: Host, outside: Outside, family: int, proto: str) -> None:
    """The server answers at once over both protocols and families, and names its client."""
    seen = outside.seen_from(host, family, proto=proto)
    assert (seen.server, seen.address) == ("outside", outside.host_address(family))


def test_outside_knows_no_way_to_containers(host: Host, outside: Outside, container_ns: Container) -> None:
    """A container's own address gets no answer, the host's does: what is seen from outside has been masqueraded."""
    routed_pair(host, container_ns)
    host.sysctl("net/ipv4/ip_forward", "1")
    assert can_ping(container_ns, "10.9.0.1")
    assert not can_ping(container_ns, outside.address(4), deadline_s=0.3)
    with pytest.raises(OSError, match=r"timed out|unreachable"):
        outside.seen_from(container_ns, 4, deadline_s=0.3)
    netns_fixtures.needs("kernel:nft_nat")
    host.run(["nft", "-f", "-"], input=MASQUERADE)
    assert outside.seen_from(container_ns, 4).address == outside.host_address(4)


MASQUERADE = """
table ip nat { chain post { type nat hook postrouting priority srcnat; ip saddr 10.9.0.0/24 masquerade; }; }
"""


def routed_pair(host: Host, container: Namespace) -> None:
    host.ip_batch(
        f"link add v0 index 50 type veth peer name eth0 netns {container.pid}",
        "addr add 10.9.0.1/24 dev v0",
        "link set v0 up",
    )
    container.ip_batch(
        "addr add 10.9.0.2/24 dev eth0", "link set eth0 up", "route add default via 10.9.0.1", "link set lo up"
    )


def test_uplink_is_as_asked(host: Host, make_outside: Callable[..., Outside]) -> None:
    """Name, MTU and networks of the uplink are the test's choice; and a second one can stand beside it."""
    first = make_outside(host, uplink="ens3", mtu=1400, ipv4="203.0.113.0/28", ipv6=None)
    second = make_outside(host, name="other", uplink="ens4", default_route=False)
    assert host.addresses("ens3") == ["203.0.113.2/28"]
    assert [route["dev"] for route in host.ip_json("route", "show", "default")] == ["ens3"]
    assert can_ping(host, first.address(), size=1400 - 28)
    assert not can_ping(host, first.address(), size=1400 - 27, deadline_s=0.2)
    assert can_ping(host, second.address(6))


def test_probes_tell_dropped_from_refused(host: Host, outside: Outside) -> None:
    """Nobody listening is ConnectionRefusedError at once, a filter that drops is TimeoutError at the deadline."""
    for probe in (tcp_peer_seen, udp_peer_seen):
        with pytest.raises(ConnectionRefusedError):
            probe(host, outside.address(), 9)
    assert not can_tcp(host, outside.address(), 9)
    assert not can_udp(host, outside.address(), 9)
    outside.run(["ip", "route", "add", "blackhole", "198.51.100.2/32", "table", "100"])
    outside.run(["ip", "rule", "add", "to", "198.51.100.2", "table", "100", "priority", "0"])
    outside.run(["ip", "rule", "del", "priority", "0", "table", "local"])
    outside.run(["ip", "rule", "add", "table", "local", "priority", "1"])
    for probe in (tcp_peer_seen, udp_peer_seen):
        with pytest.raises(TimeoutError):
            probe(host, outside.address(), outside.port, deadline_s=0.2)
    assert not can_ping(host, outside.address(), deadline_s=0.2)


def test_echo_server_answers_from_the_address_that_was_asked(make_namespace: Callable[..., Namespace]) -> None:
    """UDP too, though its socket listens on all of them: a connected client drops an answer from another address."""
    namespace = make_namespace("server", lo_up=True)
    namespace.ip("addr", "add", "127.0.0.77/8", "dev", "lo")
    server = EchoServer(namespace, 0, name="my server")
    try:
        for address in ("127.0.0.1", "127.0.0.77", "::1"):
            for probe in (tcp_peer_seen, udp_peer_seen):
                seen = probe(namespace, address, server.port, payload=b"x" * 5000)
                assert seen.server == "my server"
                assert seen.address == ("::1" if address == "::1" else "127.0.0.1")
    finally:
        server.close()
    assert not can_tcp(namespace, "127.0.0.1", server.port)


# -- run_cni ---------------------------------------------------------------------------------------------------------


def plugin(tmp_path: Path, script: str) -> Path:
    path = tmp_path / "fake"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_plugin_is_called_as_by_a_runtime(
    host: Host, container_ns: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly CNI_* and PATH in the environment, the configuration on stdin, in the host's namespaces."""
    monkeypatch.setenv("HTTP_PROXY", "http://leak")
    script = r"""tr '\0' '\n' </proc/$$/environ >&2; hostname >&2; cat"""
    path = plugin(tmp_path, script)
    run = run_cni(host, path, "fake", "ADD", {"name": "n"}, container_id="id", netns=container_ns, args="IP=10.0.0.1")
    assert run.ok
    assert run.json == run.result() == {"name": "n"}
    assert run.error_code is None
    environment = dict(line.split("=", 1) for line in run.stderr.splitlines()[:-1])
    assert environment.pop("PATH").startswith("/usr/local/sbin:")
    assert environment == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "id",
        "CNI_NETNS": container_ns.path,
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IP=10.0.0.1",
        "CNI_PATH": str(tmp_path),
    }
    assert run.stderr.splitlines()[-1] == host.name
    bare = run_cni(host, tmp_path, "fake", "VERSION", "no json", ifname=None, cni_path="/a:/b", env={"PATH": "/bin"})
    assert bare.stdout == "no json"
    assert set(bare.stderr.split()) == {"CNI_COMMAND=VERSION", "CNI_PATH=/a:/b", "PATH=/bin", host.name}


def test_failed_plugin_shows_its_error(host: Host, tmp_path: Path) -> None:
    """An error object gives its code; anything else on stdout is a broken protocol, and the message shows it."""
    failing = run_cni(host, plugin(tmp_path, """echo '{"code": 7, "msg": "no"}'; exit 1"""), "fake", "ADD", {})
    assert (failing.ok, failing.rc, failing.error_code) == (False, 1, 7)
    with pytest.raises(AssertionError, match="ADD: exit 1"):
        failing.result()
    silent = run_cni(host, plugin(tmp_path, "echo oops >&2; exit 2"), "fake", "DEL", {})
    with pytest.raises(AssertionError, match=r"(?s)no JSON object.*oops"):
        _ = silent.error_code
    with pytest.raises(FileNotFoundError):
        run_cni(host, tmp_path, "absent", "ADD", {})


@pytest.mark.needs(f"tool:{REFERENCE_BRIDGE}", "tool:iptables", "kernel:bridge")
def test_a_real_plugin_connects_a_container(host: Host, outside: Outside, container_ns: Container) -> None:
    """The reference bridge: the container reaches its gateway and, masqueraded, the outside; DEL removes the link."""
    conf = {
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "bridge",
        "isGateway": True,
        "ipMasq": True,
        "ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
    }
    directory = os.path.dirname(REFERENCE_BRIDGE)
    empty = snapshot(host, container_ns)
    added = run_cni(host, directory, "bridge", "ADD", conf, container_id="c", netns=container_ns).result()
    (address,) = container_ns.addresses("eth0")
    assert added["ips"][0]["address"] == address
    assert can_ping(container_ns, "10.1.0.1")
    assert outside.seen_from(container_ns).address == outside.host_address()
    changes = diff(empty, snapshot(host, container_ns))
    for expected in ("+ h1/link/cni0", "+ c1/link/eth0", "+ h1/file/var/lib/cni/networks/net/10.1.0.2", "MASQUERADE"):
        assert any(expected in change for change in changes), expected
    assert run_cni(host, directory, "bridge", "DEL", conf, container_id="c", netns=container_ns).ok
    after = snapshot(host, container_ns)
    assert not after.having("*/link/veth*")
    assert_unchanged(after, snapshot(host, container_ns))


# -- snapshots -------------------------------------------------------------------------------------------------------

CHANGES = [
    ("ip link add br1 type bridge", r"+ h1/link/br1"),
    ("ip link del p0", r"- h1/link/p0"),
    ("ip link set p1 down", "~ h1/link/p1: flags"),
    ("ip link set p1 mtu 1400", "~ h1/link/p1: mtu 1500 -> 1400"),
    ("ip link set p1 address 02:00:00:00:00:09", "~ h1/link/p1: address"),
    ("ip link set p1 alias mine", "~ h1/link/p1: ifalias null -> mine"),
    ("ip link set p0 nomaster", "~ h1/link/p0: master br0 -> null"),
    ("ip addr add 10.7.0.9/32 dev br0", "+ h1/address/br0/10.7.0.9/32"),
    ("ip -6 addr add 2001:db8:7::9/128 dev br0 nodad", "+ h1/address/br0/2001:db8:7::9/128"),
    ("ip route add 10.8.0.0/16 via 10.7.0.2 table 100", "+ h1/route/inet/dev=br0 dst=10.8.0.0/16"),
    ("ip -6 route add 2001:db8:8::/64 dev br0", "+ h1/route/inet6/dev=br0 dst=2001:db8:8::/64"),
    ("ip rule add from 10.8.0.0/16 table 100", "+ h1/rule/inet/"),
    ("ip -6 rule add from 2001:db8::/64 table 100", "+ h1/rule/inet6/"),
    ("ip neigh add 10.7.0.5 lladdr 02:00:00:00:00:05 dev br0", "+ h1/neighbour/dev=br0 dst=10.7.0.5"),
    ("ip neigh add proxy 10.7.0.6 dev br0", "+ h1/neighbour/dev=br0 dst=10.7.0.6"),
    ("bridge fdb add 02:00:00:00:00:07 dev p0 master static", "+ h1/fdb/"),
    ("bridge link set dev p0 hairpin on", "~ h1/link/p0: linkinfo"),
    ("ip link set br0 type bridge ageing_time 1000", "~ h1/link/br0: linkinfo"),
    ("tc qdisc add dev p1 root tbf rate 1mbit burst 10k latency 50ms", "+ h1/qdisc/dev=p1"),
    ("echo 1 >/proc/sys/net/ipv4/ip_forward", "~ h1/sysctl/net/ipv4/ip_forward: 0 -> 1"),
    ("echo 1 >/proc/sys/net/ipv4/conf/br0/route_localnet", "~ h1/sysctl/net/ipv4/conf/br0: route_localnet 0 -> 1"),
    ("echo 1 >/proc/sys/net/ipv6/conf/br0/disable_ipv6", "~ h1/sysctl/net/ipv6/conf/br0: disable_ipv6 0 -> 1"),
    ("nft add rule inet keep c tcp dport 80 accept", "tcp dport 80 accept"),
    ("nft add table inet new", "+ h1/nft/inet new"),
    ("iptables-nft -A INPUT -p tcp -j DROP", "+ h1/iptables-nft/filter"),
    ("ip6tables-nft -t nat -N NEW", "+ h1/ip6tables-nft/nat"),
    ("iptables-legacy -A INPUT -p tcp -j DROP", "-A INPUT -p tcp -j DROP"),
    ("ip6tables-legacy -t nat -N NEW", "+ h1/ip6tables-legacy/nat"),
    ("echo new >/run/new", "+ h1/file/run/new"),
    ("echo abd >/var/lib/data/old", "~ h1/file/var/lib/data/old: sha256"),
    ("chmod 600 /var/lib/data/old", "~ h1/file/var/lib/data/old: mode"),
    ("rm /var/lib/data/old", "- h1/file/var/lib/data/old"),
    ("mkdir -p /etc/cni/net.d", "+ h1/file/etc/cni/net.d"),
    ("ln -s x /run/link", "+ h1/file/run/link"),
    (DAEMON, "+ h1/process/"),
]
FURNITURE = """
    ip link add br0 type bridge; ip link set br0 up; ip addr add 10.7.0.1/24 dev br0
    ip link add p0 type veth peer name p1; ip link set p0 master br0 up; ip link set p1 up
    mkdir /var/lib/data; echo abc >/var/lib/data/old
    nft 'add table inet keep; add chain inet keep c'
"""
TOOLS_OF = {"nft ": "tool:nft", "tc ": "kernel:tbf"} | {
    f"{tool} ": f"tool:{tool}" for tool in ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")
}


@pytest.mark.needs("kernel:bridge", "kernel:veth", "tool:nft")
@pytest.mark.parametrize(("command", "expected"), CHANGES, ids=[command for command, _ in CHANGES])
def test_snapshot_shows(host: Host, command: str, expected: str) -> None:
    """Each kind of change is in the difference, in words; and the way back is a difference as well."""
    netns_fixtures.needs(*(need for start, need in TOOLS_OF.items() if command.startswith(start)))
    host.run(["sh", "-ec", FURNITURE])
    before = snapshot(host)
    host.run(["sh", "-ec", command])
    changes = diff(before, snapshot(host))
    assert any(expected in change for change in changes), changes
    with pytest.raises(AssertionError, match="changes:"):
        assert_unchanged(before, snapshot(host))


@pytest.mark.needs("kernel:vlan_filtering")
def test_snapshot_shows_bridge_vlans(host: Host) -> None:
    """A VLAN on a bridge port is part of the state where the kernel filters VLANs at all."""
    host.run(["sh", "-ec", FURNITURE + "ip link set br0 type bridge vlan_filtering 1"])
    before = netns_snapshot(host)
    host.run(["bridge", "vlan", "add", "dev", "p0", "vid", "77"])
    assert any("+ h1/vlan/" in change for change in diff(before, netns_snapshot(host)))


def test_snapshot_is_blind_to_what_comes_and_goes(host: Host, outside: Outside, container_ns: Container) -> None:
    """Traffic, learned neighbours, counters and new ifindexes are no change; so before == after means something."""
    host.run(["sh", "-ec", FURNITURE])
    make = "ip link add x0 address 02:00:00:00:00:01 type veth peer name x1 address 02:00:00:00:00:02"
    host.run(["sh", "-ec", make])
    before = snapshot(host, container_ns)
    assert can_ping(host, outside.address())
    outside.seen_from(host, 6)
    host.run(["sh", "-ec", f"ip link del x0; {make}"])
    after = snapshot(host, container_ns)
    assert_unchanged(before, after)
    assert after == before
    assert netns_snapshot(host.ns, container_ns).items() <= after.items()


def test_changes_can_be_ignored_by_pattern(host: Host) -> None:
    """A pattern covers keys, or one field of a value; what it does not cover stays."""
    before = netns_snapshot(host)
    host.run(["sh", "-ec", "ip link add br0 type bridge; ip link set lo mtu 1400; ip link set lo txqlen 7"])
    after = netns_snapshot(host)
    left = diff(before, after, ["*br0*", "h1/link/lo:mtu", "*/sysctl/*"])
    assert left == ["~ h1/link/lo: txqlen 1000 -> 7"]


def test_snapshot_is_fast(host: Host, container_ns: Container) -> None:
    """Both namespaces in well under 150 ms on an idle machine."""
    durations_s = []
    for _ in range(5):
        start = time.monotonic()
        snapshot(host, container_ns)
        durations_s.append(time.monotonic() - start)
    assert min(durations_s) < 0.3


# -- underlay --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", [True, False])
def test_underlay_joins_hosts_and_is_cut(underlay: Callable[..., Underlay], carrier: bool) -> None:
    """Everybody reaches everybody with the MTU asked for; a host that is cut off reaches nobody until it is healed."""
    segment = underlay(3, mtu=1450)
    one, two, three = segment.hosts
    assert can_ping(one, segment.address(three), size=1450 - 28)
    assert not can_ping(one, segment.address(three), size=1450 - 27, deadline_s=0.2)
    assert can_ping(two, segment.address(one, 6))
    segment.cut(two, carrier=carrier)
    assert not can_ping(one, segment.address(two), deadline_s=0.3)
    assert can_ping(one, segment.address(three))
    assert ("LOWER_UP" in two.ip_json("link", "show", "eth0")[0]["flags"]) is carrier
    segment.heal(two)
    assert can_ping(one, segment.address(two))
    assert can_ping(two, segment.address(one, 6))


def test_underlay_takes_hosts_and_networks(
    underlay: Callable[..., Underlay], host: Host, make_host: Callable[..., Host], make_outside: Callable[..., Outside]
) -> None:
    """Existing hosts join, one later; a host may have an uplink to the outside besides."""
    outside = make_outside(host)
    segment = underlay(hosts=[host], ifname="net0", ipv4="10.20.0.0/24", ipv6=None)
    late = make_host("late")
    segment.add(late)
    assert late.addresses("net0") == ["10.20.0.2/24"]
    assert can_ping(late, "10.20.0.1")
    assert can_ping(host, outside.address())


# -- etcd ------------------------------------------------------------------------------------------------------------


@pytest.mark.needs("tool:etcd")
def test_etcd_keeps_its_data_over_a_kill(etcd: Etcd) -> None:
    """One member: killed it does not answer, started again it has what it had; paused it is there but silent."""
    (member,) = etcd.members
    member.post("/v3/kv/put", {"key": "Zm9v", "value": "YmFy"})
    etcd.kill()
    assert not member.healthy()
    etcd.start()
    answer = member.post("/v3/kv/range", {"key": "Zm9v"})
    assert isinstance(answer, dict)
    assert answer["kvs"][0]["value"] == "YmFy"
    member.pause()
    with pytest.raises(TimeoutError):
        member.get("/health", timeout=0.2)
    member.resume()
    wait_until(member.healthy)
    etcd.stop()
    assert not member.running()


@pytest.mark.needs("tool:etcd")
def test_etcd_cluster_survives_one_of_three(underlay: Callable[..., Underlay], make_etcd: Callable[..., Etcd]) -> None:
    """One member per host: two go on without the third, one alone is unhealthy, a cut member comes back."""
    segment = underlay(3)
    cluster = make_etcd(places=[(host, segment.address(host)) for host in segment.hosts])
    assert len(cluster.endpoints) == 3
    one, two, three = cluster.members
    one.kill()
    wait_until(two.healthy, 10)
    segment.cut(segment.hosts[1])
    wait_until(lambda: not three.healthy(), 10, "a lone member is unhealthy")
    segment.heal(segment.hosts[1])
    cluster.start()
    assert all(member.healthy() for member in (one, two, three))


@pytest.mark.needs("tool:etcd")
def test_etcd_members_share_a_loopback(make_etcd: Callable[..., Etcd]) -> None:
    """Three members on one address differ in their ports."""
    cluster = make_etcd(members=3)
    ports = [endpoint.rpartition(":")[2] for endpoint in cluster.endpoints]
    assert ports == ["2379", "2479", "2579"]


# -- needs, and the plugin in a stranger's session -------------------------------------------------------------------

NEEDY = """
import pytest
from netns_fixtures import needs
@pytest.mark.needs("tool:no-such-tool")
def test_marked(host): ...
def test_called(): needs("root", "tool:no-such-tool")
@pytest.mark.needs("root", "kernel:netns", "tool:ip", "python:json")
def test_had(): ...
def test_kernel(monkeypatch):
    import netns_fixtures.capabilities as capabilities
    monkeypatch.setitem(capabilities.KERNEL, "flux", "echo no flux here >&2; false")
    needs("kernel:flux")
def test_kernel_with_tool(monkeypatch):
    import netns_fixtures.capabilities as capabilities
    monkeypatch.setattr(capabilities, "tool_path", lambda: "/nowhere")
    needs("kernel:nft_bridge")
def test_unknown():
    with pytest.raises(ValueError, match="unknown capability 'kernel:typo'"):
        needs("kernel:typo")
"""


def test_missing_things_skip_and_are_named(tmp_path: Path) -> None:
    """The reason of a skip says what to install, or what the kernel answered."""
    done = run_pytest(tmp_path, NEEDY, NETNS_FIXTURES_STRICT="")
    assert "2 passed, 4 skipped" in done.stdout
    assert "needs tool:no-such-tool: no-such-tool is not installed" in done.stdout
    assert "needs kernel:flux" in done.stdout
    assert "no flux here" in done.stdout


def test_strict_mode_fails_for_tools_only(tmp_path: Path) -> None:
    """A tool can be installed, so its absence fails; a kernel cannot be changed by the test's author."""
    done = run_pytest(tmp_path, NEEDY, NETNS_FIXTURES_STRICT="1")
    assert "2 failed, 2 passed, 1 skipped, 1 error" in done.stdout
    assert "NETNS_FIXTURES_STRICT=1" in done.stdout


def test_comparing_snapshots_explains_itself(tmp_path: Path) -> None:
    """`assert snapshot == before` shows the changes, not two dictionaries of four hundred entries."""
    test = """
from netns_fixtures import netns_snapshot
def test_it(host):
    before = netns_snapshot(host)
    host.ip("link", "set", "lo", "mtu", "1400")
    assert netns_snapshot(host) == before
"""
    done = run_pytest(tmp_path, test)
    assert "~ h1/link/lo: mtu 65536 -> 1400" in done.stdout


def test_a_copy_under_another_name_works(tmp_path: Path) -> None:
    """Nothing of this project is needed: the folder alone is the plugin."""
    shutil.copytree(Path(netns_fixtures.__file__).parent, tmp_path / "borrowed")
    (tmp_path / "test_it.py").write_text("def test_it(host, outside):\n    assert outside.seen_from(host).address\n")
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "borrowed",
        "-c",
        os.devnull,
        "--rootdir",
        str(tmp_path),
        "test_it.py",
    ]
    env = dict(os.environ) | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_kernel_probes_agree_with_the_kernel(host: Host) -> None:
    """Every probe in the table gives a verdict; those for things that are surely there say yes."""
    verdicts = {name: netns_fixtures.missing(f"kernel:{name}") for name in netns_fixtures.capabilities.KERNEL}
    assert verdicts["netns"] is None
    assert verdicts["veth"] is None
    print(json.dumps({name: reason or "yes" for name, reason in verdicts.items()}, indent=1))
