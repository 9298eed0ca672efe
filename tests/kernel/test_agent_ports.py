"""What the agent holds of the host's ports, across its own death and that of others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from netns_fixtures import CniRun, Host, Outside, assert_unchanged, wait_until
from tests.kernel.agent_lab import DEADLINE_S, AgentHost
from tests.kernel.agent_load import seconds_until
from tests.kernel.bridge_lab import Lab, network, without, words
from tests.kernel.portmap_lab import BRIDGED, SHORT_S, PortLab, Server, port, seen

pytestmark = pytest.mark.needs("root", "tool:nft", "tool:cc", "kernel:bridge", "kernel:veth", "kernel:nft_nat")

QUIET = "reconcile_s = 0\n"  # compares at the start and when asked


@pytest.fixture
def ports(host: Host, asking: Path, outside: Outside, closing: ExitStack) -> PortLab:
    """A host whose plugins ask the agent, with the world outside; NAT can do all, ::1 as well."""
    for key in BRIDGED:
        host.sysctl(key, "0")
    return PortLab(Lab(host, asking), closing.callback, outside)


def published(agents: AgentHost) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = agents.json("ports")
    return found


def is_free(host: Host, number: int, family: int = 4, kind: int = socket.SOCK_STREAM) -> bool:
    """Whether another process could listen there."""

    def take() -> bool:
        with socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind) as sock:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
                if family == 6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(("", number))
                if kind == socket.SOCK_STREAM:
                    sock.listen()
            except OSError:
                return False
        return True

    return host.in_namespace(take)


def test_published_ports_are_held_until_del(ports: PortLab, agents: AgentHost) -> None:
    """Both protocols and families, from ADD to DEL; they serve meanwhile, and nothing is left."""
    agents.start(config=QUIET)
    server = ports.server("c1")
    before = ports.lab.traces()
    ports.publish(server, port(8080), port(8081, proto="udp"))
    for family in (4, 6):
        assert not is_free(ports.host, 8080, family)
        assert not is_free(ports.host, 8081, family, socket.SOCK_DGRAM)
        assert seen(ports.outside, ports.host_address(family), 8080) is not None  # type: ignore[arg-type]
    assert agents.ask("status")["ports"] == {"held": 4, "proxied": 0}
    ports.withdraw(server)
    for family in (4, 6):
        assert is_free(ports.host, 8080, family)
        assert is_free(ports.host, 8081, family, socket.SOCK_DGRAM)
    assert agents.ask("status")["ports"]["held"] == 0
    assert_unchanged(before, ports.lab.traces())


def test_a_foreign_process_keeps_its_port(ports: PortLab, agents: AgentHost, closing: ExitStack) -> None:
    """It is named; nothing of the ADD is left, and the port can be had once it has gone."""
    agents.start(config=QUIET)
    server = ports.server("c1")
    before = ports.lab.traces()
    taken = ports.host.in_namespace(lambda: socket.create_server(("0.0.0.0", 8081)))
    closing.callback(taken.close)
    failure = ports.refused(server, port(8080), port(8081))
    assert failure["code"] == 100
    assert "host port 8081/tcp is taken by" in failure["msg"] and f"(pid {os.getpid()})" in failure["msg"]
    assert_unchanged(before, ports.lab.traces())
    assert is_free(ports.host, 8080)
    taken.close()
    ports.publish(server, port(8080), port(8081))


def test_two_containers_and_one_port(ports: PortLab, agents: AgentHost) -> None:
    """The second is told whose it is; on other addresses of the host there is room for both."""
    agents.start(config=QUIET)
    one, two = ports.server("c1"), ports.server("c2")
    ports.publish(one, port(8080, hostIP="127.0.0.1"))
    ports.publish(two, port(8080, hostIP=ports.host_address(4)))
    failure = ports.refused(ports.server("c3"), port(8080))
    assert failure["code"] == 100
    assert "container c1" in failure["msg"] or "container c2" in failure["msg"]
    ports.withdraw(one)
    ports.withdraw(two)
    ports.publish(two, port(8080))
    assert "container c2" in ports.refused(one, port(8080, hostIP="127.0.0.1"))["msg"]


def test_ports_are_held_again_after_the_agent_was_killed(ports: PortLab, agents: AgentHost, closing: ExitStack) -> None:
    """Traffic does not notice; a port that somebody took meanwhile is reported, and had when it is free again."""
    agents.start(config=QUIET)
    server = ports.server("c1")
    ports.publish(server, port(8080), port(8081))
    agents.stop(signal.SIGKILL)
    assert is_free(ports.host, 8080)
    assert seen(ports.outside, ports.host_address(4), 8080) is not None  # type: ignore[arg-type]
    thief = ports.host.in_namespace(lambda: socket.create_server(("0.0.0.0", 8081)))
    closing.callback(thief.close)
    agents.start()
    (logged,) = wait_until(lambda: agents.logged("reconciled"), DEADLINE_S)
    assert "host port 8081/tcp is taken by" in words(logged["failures"])
    assert not is_free(ports.host, 8080)
    for number in (8080, 8081):
        assert seen(ports.outside, ports.host_address(4), number) is not None  # type: ignore[arg-type]
    thief.close()
    assert agents.ask("reconcile")["failures"] == []
    assert not is_free(ports.host, 8081)


def test_calls_without_the_agent_are_caught_up_with(ports: PortLab, agents: AgentHost, plugins: Path) -> None:
    """What a standalone ADD published is held at the next comparison, what a standalone DEL took back is given back;
    and its port can be had at once, by either kind of call."""
    agents.start(config=QUIET)
    alone = PortLab(Lab(ports.host, plugins), ports.closing, ports.outside)
    server = alone.server("c1")
    alone.publish(server, port(8080))
    assert is_free(ports.host, 8080)
    agents.ask("reconcile")
    assert not is_free(ports.host, 8080)
    alone.withdraw(server)
    assert not is_free(ports.host, 8080)
    alone.publish(server, port(8080))
    alone.withdraw(server)
    ports.publish(server, port(8080))
    alone.withdraw(server)
    agents.ask("reconcile")
    assert is_free(ports.host, 8080)
    assert agents.ask("status")["ports"]["held"] == 0


def test_ports_are_left_to_a_runtime_that_listens_itself(ports: PortLab, agents: AgentHost, closing: ExitStack) -> None:
    """podman, which says of a pod its name alone, listens on IPv4 after the ADD: the port is free for it, and looked at
    all the same; a process that has the container's id among its arguments is the container's own, as conmon."""
    agents.start(config=QUIET)
    server, other = ports.server("0f1e2d3c4b5a"), ports.server("c2")
    outside, args = ports.outside or ports.host, "IgnoreUnknown=1;K8S_POD_NAME=web"
    assert ports.call("ADD", ports.conf_of(server, port(8080)), server, args=args).ok
    agents.ask("reconcile")
    assert is_free(ports.host, 8080, 4)
    assert not is_free(ports.host, 8080, 6)
    runtime = ports.host.popen([sys.executable, "-c", LISTEN, "8080", server.ns.name], stdout=subprocess.PIPE)
    assert runtime.stdout is not None
    closing.callback(runtime.stdout.close)
    assert runtime.stdout.readline() == "bound\n"
    ports.withdraw(server)
    assert ports.call("ADD", ports.conf_of(server, port(8080)), server, args=args).ok, "as `podman network reload`"
    assert seen(outside, ports.host_address(4), 8080) is not None
    ports.withdraw(server)
    answer = ports.call("ADD", ports.conf_of(other, port(8080)), other, args=args)
    assert answer.error_code == 100
    assert f"(pid {runtime.pid})" in answer.json["msg"]


LISTEN = """
import socket, sys
sock = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("bound", flush=True)
sock.accept()
"""


# -- what only the proxy can serve -------------------------------------------------------------------------------------


class Talk:
    """A connection from outside to a published port of the host, which the container's server echoes."""

    def __init__(self, ports: PortLab, number: int = 8080, family: int = 6, *, deadline_s: float = DEADLINE_S) -> None:
        assert ports.outside is not None
        where = ports.host_address(family), number
        self.stream = ports.outside.in_namespace(lambda: socket.create_connection(where, timeout=deadline_s))
        self.lines = self.stream.makefile("rb")
        ports.closing(self.close)
        try:
            self.lines.readline()  # whom the server sees
        except TimeoutError:
            self.close()
            raise

    def goes_on(self) -> bool:
        """Whether what is sent comes back."""
        try:
            self.stream.sendall(b"still there?\n")
            return self.lines.readline() == b"still there?\n"
        except OSError:
            return False

    def close(self) -> None:
        self.lines.close()
        self.stream.close()


@pytest.fixture
def only4(ports: PortLab, agents: AgentHost) -> Server:
    """A running agent, and a container without IPv6: what comes to the host by that is the proxy's."""
    agents.start(config=QUIET)
    return ports.server("c1", network(families=(4,)))


def proxy_pid(agents: AgentHost) -> int:
    pid: int = agents.ask("status")["proxy"]["pid"]
    return pid


def is_served(ports: PortLab, number: int) -> bool:
    assert ports.outside is not None
    return seen(ports.outside, ports.host_address(6), number) is not None


def ended(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")


def test_the_proxy_serves_from_add_to_del(ports: PortLab, agents: AgentHost, only4: Server) -> None:
    """TCP and UDP by IPv6 to a container that has none; DEL resets connections, frees the ports, and leaves nothing
    when the agent has ended, too."""
    before = ports.lab.traces()
    ports.publish(only4, port(8080), port(8081, proto="udp"))
    outside, address = ports.outside, ports.host_address(6)
    assert outside is not None
    assert seen(outside, address, 8080) is not None
    assert seen(outside, address, 8081, "udp") is not None
    assert agents.ask("status")["ports"] == {"held": 4, "proxied": 2}
    rows = {(row["hostPort"], row["family"]): (row["via"], row["held"]) for row in agents.json("ports")}
    assert rows == {(number, family): (via, True) for number in (8080, 8081) for family, via in VIA.items()}
    talk = Talk(ports)
    pid = proxy_pid(agents)
    ports.withdraw(only4)
    assert not talk.goes_on()
    assert is_free(ports.host, 8080, 6) and is_free(ports.host, 8081, 6, socket.SOCK_DGRAM)
    assert agents.ask("status")["ports"] == {"held": 0, "proxied": 0}
    assert_unchanged(before, without(ports.lab.traces(), f"/process/{pid}", "/run/pycni/proxy.sock"))
    agents.stop()
    wait_until(lambda: ended(pid), DEADLINE_S)


KILLS = 4  # each further one within seconds waits longer for its successor
VIA = {4: "kernel", 6: "proxy"}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_connections_outlive_the_agent(ports: PortLab, agents: AgentHost, only4: Server, how: signal.Signals) -> None:
    """Through rules and proxy alike; the next agent takes the proxy over with all it serves, and DEL ends it."""
    ports.publish(only4, port(8080), port(8081))
    talks = [Talk(ports, 8080, 6), Talk(ports, 8081, 6), Talk(ports, 8080, 4)]
    pid = proxy_pid(agents)
    agents.stop(how)
    assert all(talk.goes_on() for talk in talks)
    assert Talk(ports, 8080, 6).goes_on(), "new ones are served, too"
    agents.start()
    assert proxy_pid(agents) == pid
    assert agents.logged("proxy-adopted")
    assert agents.ask("reconcile")["failures"] == []
    assert agents.ask("status")["ports"] == {"held": 4, "proxied": 2}
    assert all(talk.goes_on() for talk in talks)
    ports.withdraw(only4)
    assert not talks[0].goes_on()
    assert is_free(ports.host, 8080, 6)


def test_a_killed_proxy_is_back_within_a_second(ports: PortLab, agents: AgentHost, only4: Server) -> None:
    """With all ports; whoever connects meanwhile waits instead of being refused."""
    ports.publish(only4, port(8080), port(8081))
    talk = Talk(ports)
    pid = proxy_pid(agents)
    os.kill(pid, signal.SIGKILL)
    took_s = seconds_until(lambda: proxy_pid(agents) not in (None, pid), 1.0)
    print(f"\nanother proxy after {took_s * 1000:.0f} ms")
    assert not talk.goes_on()
    for number in (8080, 8081):
        assert Talk(ports, number).goes_on()
    assert agents.ask("status")["proxy"]["restarts"] == 1
    assert [line["pid"] for line in agents.logged("proxy-died")] == [pid]
    os.kill(proxy_pid(agents), signal.SIGKILL)
    assert Talk(ports).goes_on(), "it waited in the socket that the agent holds"


def test_everything_is_back_when_agent_and_proxy_were_killed(ports: PortLab, agents: AgentHost, only4: Server) -> None:
    """From the store, and once more when a proxy dies whose sockets the agent never had."""
    ports.publish(only4, port(8080))
    pid = proxy_pid(agents)
    agents.stop(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: ended(pid), DEADLINE_S)
    agents.start()
    wait_until(lambda: agents.ask("status")["ports"]["proxied"] == 1, DEADLINE_S)
    assert Talk(ports).goes_on()
    agents.stop(signal.SIGKILL)
    agents.start()
    wait_until(lambda: agents.ask("status")["ports"] == {"held": 2, "proxied": 1}, DEADLINE_S)
    os.kill(proxy_pid(agents), signal.SIGKILL)
    wait_until(lambda: is_served(ports, 8080), DEADLINE_S)


def test_a_del_without_agent_ends_what_its_proxy_serves(ports: PortLab, agents: AgentHost, only4: Server) -> None:
    """The proxy hears of it from the call itself."""
    ports.publish(only4, port(8080))
    talk = Talk(ports)
    agents.stop(signal.SIGKILL)
    ports.withdraw(only4)
    assert not talk.goes_on()
    assert is_free(ports.host, 8080, 6)


def test_limits_reach_the_proxy(ports: PortLab, agents: AgentHost, only4: Server) -> None:
    """Those of the file when it is started, others at SIGHUP, and the same ones again after its death."""
    agents.configure(QUIET + "proxy_connections = 1\n")
    agents.agents[-1].send_signal(signal.SIGHUP)
    wait_until(lambda: agents.ask("status")["config"]["proxy_connections"] == 1, DEADLINE_S)
    ports.publish(only4, port(8080))
    talk = Talk(ports)
    with pytest.raises(TimeoutError):
        Talk(ports, deadline_s=SHORT_S)
    assert talk.goes_on()
    pid = proxy_pid(agents)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: proxy_pid(agents) not in (None, pid), DEADLINE_S)
    talk = Talk(ports)
    with pytest.raises(TimeoutError):
        Talk(ports, deadline_s=SHORT_S)
    agents.configure(QUIET)
    agents.agents[-1].send_signal(signal.SIGHUP)
    assert Talk(ports).goes_on()
    assert talk.goes_on()


@pytest.mark.needs("python:prometheus_client")
def test_the_proxys_counters_are_among_the_metrics(ports: PortLab, agents: AgentHost) -> None:
    """Ports held and served, connections and bytes; zero without a proxy."""
    agents.start(config=QUIET + 'metrics = "127.0.0.1:9123"\n')
    server = ports.server("c1", network(families=(4,)))

    def scraped() -> dict[str, float]:
        with urllib.request.urlopen("http://127.0.0.1:9123/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("pycni_p")}

    first = ports.host.in_namespace(scraped)
    assert first == {"pycni_ports_held": 0, "pycni_ports_proxied": 0, "pycni_proxy_restarts_total": 0}
    ports.publish(server, port(8080))
    assert Talk(ports).goes_on()
    counted = ports.host.in_namespace(scraped)
    assert (counted["pycni_ports_held"], counted["pycni_ports_proxied"]) == (2, 1)
    assert counted["pycni_proxy_connections_total"] == 1
    assert counted["pycni_proxy_bytes_out_total"] >= len(b"still there?\n")
    assert agents.stop() == 0


def test_proxies_that_die_while_containers_come_and_go(ports: PortLab, agents: AgentHost, closing: ExitStack) -> None:
    """However the deaths fall, each ADD has its port served or says "try again", and in the end nothing is left."""
    agents.start(config=QUIET)
    servers = [ports.server(f"c{number}", network(families=(4,))) for number in range(1, 5)]
    answers: list[CniRun] = []
    unserved: list[int] = []

    killed = 0

    def come_and_go(at: int, server: Server) -> None:
        number = 8080 + at
        rounds = 0
        while rounds < 8 or killed < KILLS:
            rounds += 1
            answer = ports.call("ADD", ports.conf_of(server, port(number)), server)
            answers.append(answer)
            if answer.ok:
                try:
                    wait_until(lambda: is_served(ports, number), DEADLINE_S)
                except AssertionError:
                    unserved.append(number)
            answers.append(ports.lab.call("DEL", ports.conf_of(server), server.ns))

    threads = [Thread(target=come_and_go, args=each) for each in enumerate(servers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        pid = proxy_pid(agents)
        if pid and killed < KILLS:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        threads[0].join(0.1)
    assert killed == KILLS
    failed = [answer for answer in answers if not answer.ok]
    assert {answer.error_code for answer in failed} <= {11}, [answer.stdout for answer in failed]
    assert len(failed) < len(answers) // 2
    assert not unserved
    assert agents.ask("status")["ports"] == {"held": 0, "proxied": 0}
    busy = [(8080 + at, family) for at in range(4) for family in (4, 6) if not is_free(ports.host, 8080 + at, family)]
    assert not busy, ports.host.run(["ss", "-tanp"]).stdout
    agents.stop()
    assert not [words for words in ports.host.holder.inhabitants().values() if "portmap/proxy" in words]


# -- `pycni ports` -----------------------------------------------------------------------------------------------------


def test_ports_are_listed_with_their_owners(
    ports: PortLab, agents: AgentHost, only4: Server, asking: Path, plugins: Path
) -> None:
    """Address, container, who serves and whether it is held; a port of a standalone ADD is not, without an agent nobody
    knows, and nothing published is said in words."""
    assert agents.pycni("ports").stdout == "no container has published a port on this host\n"
    assert agents.json("ports") == []
    ports.publish(only4, port(8080), port(5000, 5000, "udp", hostIP="127.0.0.1"))
    alone = PortLab(Lab(ports.host, plugins), ports.closing)
    alone.publish(alone.server("c2", network("other", 2)), *(port(number, number) for number in range(9000, 9100)))
    head, *rows = [line.split() for line in agents.pycni("ports").stdout.splitlines()]
    assert " ".join(head) == "PROTO HOST CONTAINER ADDRESS NETWORK CONTAINER VIA HELD"
    four, four2, six2 = only4.address(4), alone.servers[0].address(4), alone.servers[0].address(6)
    assert rows == [
        ["udp", "127.0.0.1:5000", f"{four}:5000", "net", "c1", "kernel", "yes"],
        ["tcp", "0.0.0.0:8080", f"{four}:7777", "net", "c1", "kernel", "yes"],
        ["tcp", "[::]:8080", f"{four}:7777", "net", "c1", "proxy", "yes"],
        ["tcp", "0.0.0.0:9000-9099", f"{four2}:9000-9099", "other", "c2", "kernel", "no"],
        ["tcp", "[::]:9000-9099", f"[{six2}]:9000-9099", "other", "c2", "kernel", "no"],
    ]
    assert [row["hostPort"] for row in agents.json("ports", "--network", "other")] == [9000, 9000]
    agents.stop(signal.SIGKILL)
    after = [line.split() for line in agents.pycni("ports", "--network", "net").stdout.splitlines()[1:]]
    assert after == [[*row[:6], "agent", "off"] for row in rows[:3]]
    (first, *_) = agents.json("ports", "--network", "net")
    assert first == {
        "protocol": "udp",
        "family": 4,
        "hostIP": "127.0.0.1",
        "hostPort": 5000,
        "hostPortEnd": 5000,
        "address": four,
        "containerPort": 5000,
        "network": "net",
        "containerID": "c1",
        "ifname": "eth0",
        "via": "kernel",
        "held": None,
    }


def test_a_thousand_ports_are_held(ports: PortLab, agents: AgentHost) -> None:
    """One descriptor each: the agent makes room for them beside its clients."""
    agents.start(config=QUIET)
    server = ports.server("c1")
    ports.publish(server, *(port(number) for number in range(20000, 21000, 2)))
    status = agents.ask("status")
    assert status["ports"]["held"] == 1000
    assert status["descriptors"] > 1000
    assert not is_free(ports.host, 20998, 6)
    ports.withdraw(server)
    assert agents.ask("status")["descriptors"] < 200
