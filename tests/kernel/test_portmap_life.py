"""The life of published ports: ADD, DEL, CHECK, GC and STATUS, and what they leave behind: nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from netns_fixtures import assert_unchanged, needs
from tests.kernel.bridge_lab import network, words
from tests.kernel.portmap_lab import PortLab, is_silent, port, portmap, seen

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth", "kernel:nft_nat")

LEARNT = ["*/neighbour/*", "*dst=fe80*"]  # by traffic, and by time


@pytest.fixture
def ports(port_lab: Callable[..., PortLab]) -> PortLab:
    return port_lab()


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize("bridged", [False, True])
def test_add_serves_and_del_leaves_nothing(port_lab: Callable[..., PortLab], bridged: bool, backend: str) -> None:
    """Both families, all protocols; the result is prevResult; after DEL the host is as before, sysctls too."""
    if backend == "iptables":
        needs("tool:iptables", "tool:ip6tables")
    ports = port_lab(bridged=bridged)
    server = ports.server("c1", network(ipMasqBackend=backend))
    before = ports.lab.traces(server.ns)
    wanted = port(8080), port(8081, proto="udp"), port(8080, proto="sctp")
    assert ports.publish(server, *wanted, backend=backend) == server.result
    assert ports.check(server, *wanted, backend=backend).ok
    for address in ("127.0.0.1", "10.1.0.1", "fd00:1::1", *(() if bridged else ("::1",))):
        assert seen(ports.host, address, 8080), address
        assert seen(ports.host, address, 8081, "udp"), address
    ports.withdraw(server)
    # of iptables the way to the published ports stays, with none on it, as long as there is a container
    entry = ["*/nft/ip*", "*tables-nft/*"] if backend == "iptables" else []
    assert_unchanged(before, ports.lab.traces(server.ns), ignore=[*LEARNT, *entry])
    assert "8080" not in ports.lab.ruleset()
    ports.withdraw(server)


def test_serves_where_forwarding_is_closed(port_lab: Callable[..., PortLab]) -> None:
    """A FORWARD policy of DROP, as Docker and ufw set it, is no obstacle to published ports, and stays as it is."""
    needs("tool:iptables", "tool:ip6tables")
    ports = port_lab(outside=True)
    for tool in ("iptables", "ip6tables"):
        ports.host.run([tool, "-P", "FORWARD", "DROP"])
    server = ports.server("c1")
    before = ports.lab.traces()
    ports.publish(server, port(8080))
    assert ports.outside is not None
    for family in (4, 6):
        assert seen(ports.outside, ports.host_address(family), 8080)
    ports.withdraw(server)
    assert_unchanged(before, ports.lab.traces(), ignore=LEARNT)


def test_last_user_puts_settings_back_as_they_were(ports: PortLab) -> None:
    """route_localnet stays as long as somebody needs it; where it was on before, it stays on after."""
    one, two = ports.server("c1"), ports.server("c2")
    elsewhere = ports.server("c3", network("other", 2))
    ports.host.run(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/cni2/route_localnet"])
    before = ports.lab.traces()
    for number, server in enumerate((one, two, elsewhere)):
        ports.publish(server, port(8080 + number))
    ports.withdraw(one)
    ports.withdraw(elsewhere)
    assert seen(ports.host, "127.0.0.1", 8081) and seen(ports.host, "::1", 8081)
    ports.withdraw(two)
    assert_unchanged(before, ports.lab.traces(), ignore=LEARNT)


def test_two_networks_serve_loopback_side_by_side(ports: PortLab) -> None:
    """Each bridge has its own route for ::1."""
    one, two = ports.server("c1"), ports.server("c2", network("other", 2))
    ports.publish(one, port(8080))
    ports.publish(two, port(8081))
    for number, name in ((8080, "c1"), (8081, "c2")):
        for address in ("127.0.0.1", "::1"):
            answer = seen(ports.host, address, number)
            assert answer is not None and answer.server == name


def test_container_on_two_networks(ports: PortLab) -> None:
    """Each of its interfaces has ports of its own; withdrawing one's leaves the other's."""
    server = ports.server("c1")
    other = network("other", 2, isDefaultGateway=None, isGateway=True)
    second = ports.lab.call("ADD", other, server.ns, ifname="eth1").result()
    ports.publish(server, port(8080))
    conf = {**portmap(port(8081), net="other"), "prevResult": second}
    assert ports.lab.call("ADD", conf, server.ns, ifname="eth1").ok
    assert seen(ports.host, "127.0.0.1", 8080) and seen(ports.host, "127.0.0.1", 8081)
    ports.withdraw(server)
    assert is_silent(ports.host, "127.0.0.1", 8080) and seen(ports.host, "127.0.0.1", 8081)
    assert ports.lab.call("DEL", portmap(net="other"), server.ns, ifname="eth1").ok
    assert is_silent(ports.host, "127.0.0.1", 8081)


def test_nothing_asked_is_nothing_done(ports: PortLab) -> None:
    """Without mappings the previous result passes through, and there is no record."""
    server = ports.server("c1")
    before = ports.lab.traces(server.ns)
    assert ports.publish(server) == server.result
    assert ports.check(server).ok
    assert_unchanged(before, ports.lab.traces(server.ns), ignore=LEARNT)


def test_must_be_chained(ports: PortLab) -> None:
    """In the reference's words; and a result without address for this interface is no place to publish to."""
    server = ports.server("c1")
    error = ports.lab.refused(portmap(port(8080)), server.ns)
    assert error["code"] == 7 and error["msg"] == "must be called as chained plugin"
    bare = {**portmap(port(8080)), "prevResult": {"cniVersion": "1.1.0", "ips": []}}
    assert "no address" in words(ports.lab.refused(bare, server.ns))


@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0"])
def test_result_is_the_previous_one_in_the_version_asked(ports: PortLab, version: str) -> None:
    """Of every version; chosen ports are in all of them, and the next plugin hands them on."""
    server = ports.server("c1", network(cniVersion=version))
    result = ports.publish(server, port(0), cniVersion=version)
    chosen = result.pop("pycni/portMappings")
    assert result == server.result
    assert chosen == [{"hostPort": chosen[0]["hostPort"], "containerPort": 7777, "protocol": "tcp"}]
    assert 32768 <= chosen[0]["hostPort"] <= 60999
    assert all(seen(ports.host, address, chosen[0]["hostPort"]) for address in ("127.0.0.1", "::1", "10.1.0.1"))
    conf = {**portmap(cniVersion=version), "prevResult": {**result, "pycni/portMappings": chosen}}
    assert ports.lab.add(conf, server.ns)["pycni/portMappings"] == chosen


def test_del_needs_nothing_but_names(ports: PortLab) -> None:
    """No mappings, no result, an empty or vanished namespace; the ports are free for the next container."""
    one, two = ports.server("c1"), ports.server("c2")
    for how in ({"netns": ""}, {"netns": "/run/netns/gone"}):
        ports.publish(one, port(8080))
        ports.withdraw(one, **how)
        ports.publish(two, port(8080))
        assert (answer := seen(ports.host, "127.0.0.1", 8080)) and answer.server == "c2"
        ports.withdraw(two)


def test_add_twice_is_refused_and_changes_nothing(ports: PortLab) -> None:
    """As the bridge plugin has it: what works, works on."""
    server = ports.server("c1")
    ports.publish(server, port(8080))
    before = ports.lab.traces(server.ns)
    assert ports.refused(server, port(8080))["code"] == 105
    assert ports.refused(server, port(8090))["code"] == 105
    assert_unchanged(before, ports.lab.traces(server.ns), ignore=LEARNT)
    assert seen(ports.host, "127.0.0.1", 8080)


TAKEN = [
    ({}, {}, True),
    ({"hostIP": "127.0.0.1"}, {}, True),
    ({}, {"hostIP": "10.1.0.1"}, True),
    ({"hostIP": "0.0.0.0"}, {"hostIP": "::"}, False),
    ({"hostIP": "127.0.0.1"}, {"hostIP": "10.1.0.1"}, False),
    ({}, {"protocol": "udp"}, False),
    ({"hostPort": 8000, "hostPortEnd": 8100}, {}, True),
    ({}, {"hostPort": 8000, "hostPortEnd": 8100}, True),
    ({"hostPort": 8000, "hostPortEnd": 8079}, {}, False),
    ({"hostPort": 8081, "hostPortEnd": 8100}, {}, False),
]


@pytest.mark.parametrize(("first", "second", "clash"), TAKEN)
def test_a_port_is_one_containers(ports: PortLab, first: Any, second: Any, clash: bool) -> None:
    """Wildcard and single addresses, ranges, families and protocols: as the kernel has it for sockets. The error names
    the owner, and leaves nothing."""
    one, two = ports.server("c1"), ports.server("c2")
    ports.publish(one, {**port(8080), **first})
    before = ports.lab.traces(two.ns)
    if not clash:
        ports.publish(two, {**port(8080), **second})
        return
    error = ports.refused(two, {**port(8080), **second})
    assert error["code"] == 100
    assert "taken by container c1 of network net" in error["msg"]
    assert_unchanged(before, ports.lab.traces(two.ns), ignore=LEARNT)


def test_own_mappings_that_exclude_each_other_are_refused(ports: PortLab) -> None:
    """Before anything is done."""
    error = ports.refused(ports.server("c1"), port(8080), port(8080, 7000, hostIP="127.0.0.1"))
    assert error["code"] == 7 and "ask twice for the same host port" in error["msg"]


def test_port_of_a_dead_container_is_free(ports: PortLab) -> None:
    """Nobody waits for the DEL of a container that is gone, and its DEL does no harm to the next owner."""
    one, two = ports.server("c1"), ports.server("c2")
    ports.publish(one, port(8080))
    one.die()
    ports.publish(two, port(8080))
    ports.withdraw(one)
    assert (answer := seen(ports.host, "127.0.0.1", 8080)) and answer.server == "c2"


def test_port_of_a_foreign_process_is_its_own(ports: PortLab) -> None:
    """A listener on the host is found and named; afterwards there is no trace of the attempt."""
    server = ports.server("c1")
    before = ports.lab.traces(server.ns)
    with ports.host.in_namespace(lambda: socket.create_server(("127.0.0.1", 8080))):
        error = ports.refused(server, port(8080))
        assert error["code"] == 100, error
    assert_unchanged(before, ports.lab.traces(server.ns), ignore=LEARNT)
    ports.publish(server, port(8080))


# ---- hostPort 0 --------------------------------------------------------------------------------------------------


def chosen(result: Any) -> list[int]:
    return [one["hostPort"] for one in result["pycni/portMappings"]]


def test_chosen_ports(ports: PortLab) -> None:
    """Of the kernel's range outside the reserved ones, one after the other, the same for all addresses and both
    families; the same container gets the same again, nobody else right away."""
    one, two = ports.server("c1"), ports.server("c2")
    settings = {"ip_local_port_range": "40000 40005", "ip_local_reserved_ports": "40001"}
    for key, value in settings.items():
        ports.host.run(["sh", "-c", f"echo {value} >/proc/sys/net/ipv4/{key}"])
    result = ports.publish(one, port(0), port(0, 7777, "udp"))
    assert chosen(result) == [40000, 40002]
    assert ports.check(one, port(0), port(0, 7777, "udp")).ok
    ports.withdraw(one)
    assert chosen(ports.publish(two, port(0, hostIP="127.0.0.1"), port(0, hostIP="10.1.0.1"))) == [40003, 40003]
    assert chosen(ports.publish(one, port(0), port(0, 7777, "udp"))) == [40000, 40002]
    ports.withdraw(two)
    with ports.host.in_namespace(lambda: socket.create_server(("127.0.0.1", 40003))):
        assert chosen(ports.publish(two, port(0, 7000))) == [40004]
    for number, expected in ((7001, 40005), (7002, 40002)):  # 40000 is taken, 40001 reserved, 40002 taken for udp only
        ports.withdraw(two)
        assert chosen(ports.publish(two, port(0, number))) == [expected]


def test_no_port_left_to_choose(ports: PortLab) -> None:
    """Code 101, and nothing is left of the attempt."""
    ports.host.run(["sh", "-c", "echo 40000 40001 >/proc/sys/net/ipv4/ip_local_port_range"])
    server = ports.server("c1")
    before = ports.lab.traces(server.ns)
    error = ports.refused(server, port(0, 1), port(0, 2), port(0, 3))
    assert error["code"] == 101 and "no host port of 40000 to 40001 is free" in error["msg"]
    assert_unchanged(before, ports.lab.traces(server.ns), ignore=LEARNT)


# ---- the proxy's part, without an agent --------------------------------------------------------------------------


def test_what_only_the_proxy_can_serve_needs_the_agent(ports: PortLab) -> None:
    """An IPv6 address of the host for an IPv4 container: refused by name, unless it may be left out."""
    server = ports.server("c1", network(families=[4]))
    before = ports.lab.traces(server.ns)
    for keys, ask in (
        ({}, port(8080, hostIP="::1")),
        ({}, port(8080, hostIP="::")),
        ({"proxy": "always"}, port(8080)),
        ({}, port(8080, proxyProtocol=True)),
    ):
        error = ports.refused(server, ask, **keys)
        assert error["code"] == 107 and "pycni agent" in error["details"], error
    assert_unchanged(before, ports.lab.traces(server.ns), ignore=LEARNT)
    ports.publish(server, port(8080, hostIP="::"), port(8081), proxy="never")
    assert seen(ports.host, "127.0.0.1", 8081) and is_silent(ports.host, "::1", 8080)


def test_wildcard_serves_what_the_kernel_can(ports: PortLab) -> None:
    """No host address given, an IPv4 container: IPv4 by the kernel, IPv6 when there is a proxy."""
    server = ports.server("c1", network(families=[4]))
    ports.publish(server, port(8080))
    assert seen(ports.host, "127.0.0.1", 8080) and is_silent(ports.host, "::1", 8080)
    assert ports.check(server, port(8080)).ok


# ---- direct access -----------------------------------------------------------------------------------------------


def test_guarded_container_is_reached_by_its_ports_only(port_lab: Callable[..., PortLab]) -> None:
    """directAccess false: not by its address from outside, but by published ports; from trusted interfaces it is."""
    ports = port_lab(outside=True)
    assert ports.outside is not None
    wanted: list[dict[str, Any]] = [{}, {"directAccess": False}]
    wanted.append({"directAccess": False, "trustedInterfaces": ["uplink"]})
    for number, keys in enumerate(wanted):
        server = ports.server(f"c{number}")
        ports.publish(server, port(8080 + number), **keys)
        ports.outside.ip_batch(*(f"route replace 10.1.0.0/24 via {ports.host_address(4)}",))
        direct = not is_silent(ports.outside, server.address(4), 7777)
        assert direct == (number != 1), keys
        assert seen(ports.outside, ports.host_address(4), 8080 + number)
        ports.withdraw(server)


# ---- CHECK, GC, STATUS -------------------------------------------------------------------------------------------


BROKEN = {
    "rules": ("nft flush table inet pycni", "rules of chain prerouting"),
    "table": ("nft delete table inet pycni", "table inet pycni"),
    "localnet": ("echo 0 >/proc/sys/net/ipv4/conf/cni1/route_localnet", "route_localnet is off on cni1"),
    "::1": ("ip -6 route del local ::1 dev cni1 table local", "route of ::1 is off on cni1"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_check_names_what_is_missing(ports: PortLab, what: str) -> None:
    """Code 106, and DEL works all the same."""
    server = ports.server("c1")
    before = ports.lab.traces(server.ns)
    ports.publish(server, port(8080))
    command, said = BROKEN[what]
    ports.host.run(["sh", "-c", command])
    answer = ports.check(server, port(8080))
    assert answer.error_code == 106 and said in answer.json["msg"], answer
    ports.withdraw(server)
    if what not in ("rules", "table"):
        assert_unchanged(before, ports.lab.traces(server.ns), ignore=LEARNT)


def test_check_compares_with_what_is_asked(ports: PortLab) -> None:
    """A mapping that ADD was not asked for; an attachment that is not published at all."""
    server = ports.server("c1")
    assert ports.check(server, port(8080)).error_code == 106
    ports.publish(server, port(8080))
    answer = ports.check(server, port(8080), port(9090))
    assert answer.error_code == 106 and "0.0.0.0:9090/tcp is not published" in answer.json["msg"]


def test_gc_keeps_what_is_valid(ports: PortLab) -> None:
    """Ports of attachments that are not listed go, those of a listed one and of another network stay."""
    one, two = ports.server("c1"), ports.server("c2")
    other = ports.server("c3", network("other", 2))
    for number, server in enumerate((one, two, other)):
        ports.publish(server, port(8080 + number))
    answer = ports.lab.gc(portmap(), one.ns)
    assert answer.ok and not answer.stdout, answer
    assert seen(ports.host, "127.0.0.1", 8080) and seen(ports.host, "127.0.0.1", 8082)
    assert is_silent(ports.host, "127.0.0.1", 8081)
    assert sorted(owner for owner in ports.lab.records() if owner.endswith("portmap")) == sorted(
        ["net/c1/eth0/portmap", "other/c3/eth0/portmap"]
    )


def test_gc_without_a_list_takes_the_dead(ports: PortLab) -> None:
    """Namespace gone: ports gone; a living container keeps its own."""
    one, two = ports.server("c1"), ports.server("c2")
    ports.publish(one, port(8080))
    ports.publish(two, port(8081))
    one.die()
    assert ports.lab.call("GC", portmap()).ok
    assert seen(ports.host, "127.0.0.1", 8081)
    assert [owner for owner in ports.lab.records() if owner.endswith("portmap")] == ["net/c2/eth0/portmap"]


def test_status_says_whether_add_could_work(ports: PortLab) -> None:
    """0 where it could; 50 with the reason where there is no agent for "proxy": "always"."""
    assert ports.lab.call("STATUS", portmap()).ok
    answer = ports.lab.call("STATUS", portmap(proxy="always"))
    assert answer.error_code == 50 and "agent" in answer.json["msg"]
