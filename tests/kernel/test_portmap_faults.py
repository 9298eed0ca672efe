"""Every step of publishing and withdrawing failing, and the process killed before and after every one."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from netns_fixtures import assert_unchanged, diff
from pycni.host import tracked
from pycni.host.conntrack import Conntrack
from pycni.portmap import flow_lines
from tests.kernel.bridge_lab import words
from tests.kernel.portmap_lab import PortLab, Server, port, portmap, seen
from tests.kernel.test_faults import Faulty

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

# Both families and protocols, a range, one address, a chosen port: every operation there is.
ASKED = (
    port(8080),
    port(8081, proto="udp"),
    port(8100, 8100, hostPortEnd=8199),
    port(8200, 7770, hostPortEnd=8209),
    port(8300, hostIP="127.0.0.1"),
    port(0),
)
LEARNT = ["*/neighbour/*", "*dst=fe80*"]


class FaultyPorts(Faulty):
    """Calls of portmap for *server*."""

    def __init__(self, ports: PortLab, server: Server) -> None:
        super().__init__(ports.lab, {**ports.conf_of(server, *ASKED), "prevResult": server.result})
        self.server = server

    def state(self) -> list[str]:
        """What a leftover would show up in."""
        hairpin = "bridge -d link | grep -o 'veth[0-9a-f]*\\|hairpin o[nf]*'"
        settings = f"cat /proc/sys/net/ipv4/conf/*/route_localnet; ip -6 route show ::1 table local; {hairpin}"
        text = self.lab.host.run(["sh", "-c", f"nft -s list ruleset; {settings}"]).stdout
        rows = self.lab._query("SELECT * FROM host_ports") + self.lab._query("SELECT * FROM link_settings")
        return [*text.splitlines(), *sorted(self.lab.records()), *map(str, rows)]


@pytest.fixture
def ports(port_lab: Callable[..., PortLab]) -> PortLab:
    return port_lab(bridged=True)


@pytest.fixture
def faulty(ports: PortLab) -> FaultyPorts:
    return FaultyPorts(ports, ports.server("c1"))


def withdraw(faulty: FaultyPorts) -> None:
    faulty.lab.delete(faulty.conf, faulty.server.ns)


def flow(ports: PortLab) -> None:
    """Something for the steps that end flows."""
    assert seen(ports.host, "127.0.0.1", 8080)


def test_every_failing_step_of_add_is_undone(ports: PortLab, faulty: FaultyPorts) -> None:
    """Whichever fails: an error that says so, and the host as before the ADD."""
    ns = faulty.server.ns
    events = faulty.events("ADD", ns)
    assert sum(event.startswith("before do ") for event in events) >= 3
    flow(ports)
    withdraw(faulty)
    before, state = ports.lab.traces(ns), faulty.state()
    for number, event in enumerate(events):
        if event.startswith("before"):
            answer = faulty.call("ADD", ns, "fail", number)
            assert answer.error_code is not None and "planted" in words(answer.json), (event, answer)
            assert "bug in pycni" not in answer.stdout, answer
            assert faulty.state() == state, event
    assert diff(before, ports.lab.traces(ns), LEARNT) == []


@pytest.mark.parametrize("way", ["DEL", "ADD", "GC"])
def test_killed_add_is_cleaned_by_whatever_comes_next(ports: PortLab, faulty: FaultyPorts, way: str) -> None:
    """SIGKILL before and after every step: DEL, the next ADD (which works) and DEL, or GC leave no trace."""
    ns = faulty.server.ns
    events = faulty.events("ADD", ns)
    flow(ports)
    withdraw(faulty)
    before, state = ports.lab.traces(ns), faulty.state()
    for number, event in enumerate(events):
        if way == "ADD" and event.startswith("after"):
            continue  # to the kernel and the state file the same as before the next
        faulty.kill("ADD", ns, number)
        if way == "ADD":
            ports.lab.add(faulty.conf, ns)
            flow(ports)
        if way == "GC":
            answer = ports.lab.gc(portmap())
            assert answer.ok, (event, answer)
        else:
            withdraw(faulty)
        assert faulty.state() == state, event
    assert_unchanged(before, ports.lab.traces(ns), ignore=LEARNT)


@pytest.mark.parametrize("neighbour", [False, True])
def test_killed_del_is_finished_by_the_next(ports: PortLab, faulty: FaultyPorts, neighbour: bool) -> None:
    """SIGKILL before and after every step of DEL: a second DEL leaves no trace, and a neighbour's ports unharmed."""
    ns = faulty.server.ns
    other = ports.server("c2") if neighbour else None
    if other is not None:
        ports.publish(other, port(9090))
    before, state = ports.lab.traces(ns), faulty.state()
    ports.lab.add(faulty.conf, ns)
    flow(ports)
    events = faulty.events("DEL", ns)
    assert len(events) >= 10
    for number, event in enumerate(events):
        ports.lab.add(faulty.conf, ns)
        flow(ports)
        faulty.kill("DEL", ns, number)
        if other is not None:
            assert seen(ports.host, "127.0.0.1", 9090), event
        withdraw(faulty)
        assert faulty.state() == state, event
    assert_unchanged(before, ports.lab.traces(ns), ignore=LEARNT)


def test_killed_del_frees_the_port_for_others(ports: PortLab, faulty: FaultyPorts) -> None:
    """The next container gets the port, wherever the DEL of the former one ended: what is half deleted is dead."""
    ns, other = faulty.server.ns, ports.server("c2")
    ports.lab.add(faulty.conf, ns)
    events = faulty.events("DEL", ns)
    first = next(number for number, event in enumerate(events) if event in ("after apply_delete", "after remove_all"))
    for number in range(first + 1, len(events)):
        ports.lab.add(faulty.conf, ns)
        faulty.kill("DEL", ns, number)
        ports.publish(other, port(8080))
        assert (answer := seen(ports.host, "127.0.0.1", 8080)) and answer.server == "c2", events[number]
        ports.withdraw(other)
        withdraw(faulty)


# ---- flows -------------------------------------------------------------------------------------------------------


def udp_client(address: str) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(0.5)
    client.connect((address, 8080))
    return client


def ask(client: socket.socket) -> str:
    """Who answers, "" if nobody does."""
    try:
        client.send(b"x")
        return client.recv(100).decode().split()[0]
    except OSError:
        return ""


def flows_to(ports: PortLab, address: str) -> set[bytes]:
    def look() -> set[bytes]:
        with Conntrack() as kernel:
            return {flow.key for flow in kernel.to_port(4, "udp", 8080) if flow.target == address}

    return ports.host.in_namespace(look)


def crowd_of_flows(ports: PortLab) -> None:
    """More flows than are looked at one by one."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(1024, 1024 + tracked.FEW + 1):
                sender.sendto(b"x", ("127.0.0.1", number))
        assert tracked.listed() is None

    ports.host.in_namespace(send)


@pytest.mark.parametrize("crowd", [False, True])
def test_udp_client_that_never_pauses_gets_to_the_container(port_lab: Callable[..., PortLab], *, crowd: bool) -> None:
    """Before the ADD, between two containers, after the DEL: one client, one source port, no pause. A flow to the same
    port of another host, and one to another address of this, stay as they are. Few flows or many: the same."""
    ports = port_lab(outside=True)
    outside, one, two = ports.outside, ports.server("c1"), ports.server("c2")
    assert outside is not None
    far, near = outside.address(4), "10.1.0.1"
    with (
        outside.in_namespace(lambda: udp_client(ports.host_address(4))) as client,
        two.ns.in_namespace(lambda: udp_client(far)) as to_far,
        two.ns.in_namespace(lambda: udp_client(near)) as to_near,
    ):
        assert (ask(client), ask(to_far), ask(to_near)) == ("", "", "")
        others = {far: flows_to(ports, far), near: flows_to(ports, near)}
        assert all(others.values())
        if crowd:
            crowd_of_flows(ports)
        published = port(8080, proto="udp", hostIP=ports.host_address(4))
        ports.publish(one, published)
        assert ask(client) == "c1"
        ports.withdraw(one)
        assert ask(client) == ""
        ports.publish(two, published)
        assert ask(client) == "c2"
        assert others == {far: flows_to(ports, far), near: flows_to(ports, near)}
        ports.withdraw(two)
        ports.publish(two, port(8080, proto="udp"))
        assert ask(client) == "c2"
        assert flows_to(ports, far) == others[far]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("crowd", [False, True])
def test_tcp_connections_end_with_the_publication(
    port_lab: Callable[..., PortLab], family: int, *, crowd: bool
) -> None:
    """The client of a withdrawn port is told at its next packet; the container's own connections live on."""
    ports = port_lab(outside=True)
    outside, server = ports.outside, ports.server("c1")
    assert outside is not None
    ports.publish(server, port(8080), port(8081))
    if crowd:
        crowd_of_flows(ports)

    def connect(address: str, number: int) -> socket.socket:
        stream = socket.create_connection((address, number), timeout=2)
        stream.recv(100)
        return stream

    with (
        outside.in_namespace(lambda: connect(ports.host_address(family), 8080)) as client,
        server.ns.in_namespace(lambda: connect(outside.address(family), outside.port)) as own,
    ):
        ports.withdraw(server)
        with pytest.raises(ConnectionError):
            talk(client)
        own.send(b"still here")
        assert own.recv(100) == b"still here"


def test_every_question_for_flows_has_the_same_answer(port_lab: Callable[..., PortLab]) -> None:
    """All translated ones, those to an address, those to a port: filtered by the kernel or not, of both families; and
    as many are in the text that is looked at first."""
    ports = port_lab()
    server = ports.server("c1")
    ports.publish(server, port(8080))
    for address in ("127.0.0.1", "10.1.0.1", "fd00:1::1"):
        assert seen(ports.host, address, 8080) and seen(ports.host, server.address(4), 7777)

    def look() -> list[set[bytes]]:
        with Conntrack() as kernel:
            by_address = [flow for family in (4, 6) for flow in kernel.translated_to(server.address(family))]
            by_port = [flow for family in (4, 6) for flow in kernel.to_port(family, "tcp", 8080)]
            by_protocol = [flow for family in (4, 6) for flow in kernel.to_port(family, "tcp")]
            all_to_port = [flow for flow in by_protocol if flow.target_port == 8080]
            return [{flow.key for flow in found} for found in (kernel.translated(), by_address, by_port, all_to_port)]

    answers = ports.host.in_namespace(look)
    assert len(answers[0]) >= 3 and all(one == answers[0] for one in answers)
    servers = {flow_lines.spelled(server.address(family)) for family in (4, 6)}
    lines = ports.host.in_namespace(tracked.listed) or []
    ours = [line for line in lines if flow_lines.answers_from(line) in servers and flow_lines.asked_port(line) == 8080]
    assert len(ours) == len(answers[0])


def talk(stream: socket.socket) -> None:
    for _ in range(100):
        stream.send(b"x")
        stream.recv(100)


# ---- many at once ------------------------------------------------------------------------------------------------


def test_one_of_many_gets_the_port(ports: PortLab) -> None:
    """Four ADDs at once for one port: one succeeds, the others are told whose it is; ports of our choice are four."""
    servers = [ports.server(f"c{number}") for number in range(4)]
    before = ports.lab.traces()
    with ThreadPoolExecutor(len(servers)) as pool:
        for _ in range(2):
            answers = list(pool.map(lambda one: ports.call("ADD", ports.conf_of(one, port(8080)), one), servers))
            (winner,) = [one for one, answer in zip(servers, answers, strict=True) if answer.ok]
            assert all(answer.error_code == 100 for answer in answers if not answer.ok), answers
            assert (answer := seen(ports.host, "127.0.0.1", 8080)) and answer.server == winner.ns.name
            list(pool.map(ports.withdraw, servers))
        results = list(pool.map(lambda one: ports.publish(one, port(0)), servers))
        chosen = {result["pycni/portMappings"][0]["hostPort"] for result in results}
        assert len(chosen) == len(servers)
        assert all(seen(ports.host, "127.0.0.1", number) for number in chosen)
        list(pool.map(ports.withdraw, servers))
    assert_unchanged(before, ports.lab.traces(), ignore=LEARNT)


def test_last_leaves_while_the_next_comes(ports: PortLab) -> None:
    """DEL of the last and ADD of the first at the same time: the one that is there works, by loopback too."""
    one, two = ports.server("c1"), ports.server("c2")
    ports.publish(one, port(8080))
    with ThreadPoolExecutor(2) as pool:
        for number in range(8):
            leaving, coming = (one, two) if number % 2 == 0 else (two, one)
            gone = pool.submit(ports.withdraw, leaving)
            ports.publish(coming, port(8081 + number))
            gone.result()
            assert seen(ports.host, "127.0.0.1", 8081 + number), number


def test_whatever_is_asked_is_answered_and_taken_back(ports: PortLab) -> None:
    """Random mappings and keys, seeds fixed: a result or an error, never a traceback, and nothing after the DEL."""
    server = ports.server("c1")
    before = ports.lab.traces(server.ns)
    dice = random.Random(4)
    values: list[Any] = [
        0,
        1,
        80,
        8080,
        65535,
        65536,
        -1,
        None,
        "",
        "80",
        True,
        [],
        {},
        "::1",
        "127.0.0.1",
        "10.1.0.1",
        "udp",
        "x",
    ]
    names = "hostPort containerPort protocol hostIP hostPortEnd sources proxyProtocol".split()
    keys = "snat masqAll backend conditionsV4 proxy directAccess trustedInterfaces hostIP markMasqBit".split()
    for _ in range(25):
        asked = [
            {
                **port(dice.randrange(1, 9)),
                **{dice.choice(names): dice.choice(values) for _ in range(dice.randrange(3))},
            }
            for _ in range(dice.randrange(1, 4))
        ]
        more: dict[str, Any] = {dice.choice(keys): dice.choice(values) for _ in range(dice.randrange(2))}
        answer = ports.call("ADD", portmap(*asked, **more), server)
        assert answer.ok or answer.error_code in (7, 100, 107), (asked, more, answer)
        assert "Traceback" not in answer.stderr
        ports.withdraw(server)
    assert_unchanged(before, ports.lab.traces(server.ns), ignore=LEARNT)
