"""`pycni trace` over real hosts: a whole way is all right from both sides, and each planted fault is what it names."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from netns_fixtures import EchoServer, Host, can_tcp
from tests.kernel.agent_lab import AgentHost
from tests.kernel.bridge_lab import address_of
from tests.kernel.portmap_lab import port
from tests.overlay.overlay_lab import OverlayLab

BRIDGED = {"type": "pycni-bridge", "isGateway": True, "isDefaultGateway": True, "ipMasq": True}


def missing(place: AgentHost, *argv: str) -> dict[str, Any] | None:
    """What `pycni trace ARGV` names first; the exit code says the same."""
    done = place.pycni("trace", *argv, "--json", rc=None)
    told: dict[str, Any] = json.loads(done.stdout)
    assert "steps" in told, done.stdout
    assert done.returncode == (1 if told["missing"] else 0), done
    found: dict[str, Any] | None = told["missing"]
    return found


def named(place: AgentHost, *argv: str) -> str:
    """As WHAT on WHERE, "" where nothing is missing."""
    found = missing(place, *argv)
    return f"{found['what']} on {found['where']}" if found else ""


def test_l2_from_both_ends(overlay: Callable[..., OverlayLab]) -> None:
    """A container that came after this host's last ADD is what a standalone host does not know: the trace says so and
    that an agent would. Once known, both halves are whole, over IPv4 and IPv6, by id, attachment and address; each
    fault on either host is named where it is."""
    lab = overlay()
    (h1, h2), (one, two) = lab.hosts, lab.agents
    lab.add(h1, "c1")
    _, second = lab.add(h2, "c2")
    unknown = missing(one, "c1", "c2")
    assert unknown is not None
    assert unknown["what"] == "neighbour entry" and "no agent runs" in unknown["action"]
    lab.add(h1, "c3")  # a standalone ADD programs its host anew
    lab.ping(h1.containers["c1"], second)
    for target in ("c2", "c2/eth0", "net/c2/eth0", address_of(second, 4), address_of(second, 6)):
        assert named(one, "c1", target) == ""
        assert named(two, "c1", target) == ""
    text = one.pycni("trace", "c1", "c2").stdout
    for words in ("host h2", "nothing is missing on this host", "on host h2: pycni trace 10.1.", "vxlan", "MTU"):
        assert words in text
    assert named(one, "c1", "c3") == ""
    faults_on_the_sending_side(lab, one, h1, second)
    faults_on_the_receiving_side(lab, two, h2)
    nobody = one.pycni("trace", "c1", "cx", rc=3)
    assert "no container called 'cx'" in nobody.stderr


@pytest.mark.parametrize("mode", ["l2", "routed"])
def test_an_address_chooses_the_family_and_is_what_the_other_half_names(
    overlay: Callable[..., OverlayLab], mode: str
) -> None:
    """Each host has a c1: the other half is found by the packet's addresses, of the family of the address that was
    given, on either end; and what is broken for IPv6 alone is missing for IPv6 alone."""
    lab = overlay()
    (h1, h2), (one, two) = lab.hosts, lab.agents
    conf = lab.conf(mode)
    _, second = lab.add(h2, "c1", conf)
    _, first = lab.add(h1, "c1", conf)
    lab.add(h2, "c2", conf)  # from now on h2 knows the c1 of h1
    for family in (4, 6):
        start, goal = address_of(first, family), address_of(second, family)
        for given in (("c1", goal), (start, goal)):
            told = one.json("trace", *given)
            assert (told["source"]["address"], told["target"]["address"]) == (start, goal)
            assert told["missing"] is None
        where, command = told["otherHalf"].split(": pycni ")
        assert where == "on host h2"
        half = two.json(*command.split())
        assert (half["source"]["address"], half["target"]["address"], half["missing"]) == (start, goal, None)
        assert half["target"]["container"] == "c1"
    break_ipv6(lab, h1, second)
    found = named(one, "c1", address_of(second, 6)), named(one, address_of(first, 6), address_of(second, 6))
    assert found == (("neighbour entry on h1",) * 2 if mode == "l2" else ("route on h1",) * 2)
    assert named(one, "c1", address_of(second, 4)) == ""
    apart = one.pycni("trace", address_of(first, 4), address_of(second, 6), rc=2)
    assert "no address of the same family" in apart.stderr


def break_ipv6(lab: OverlayLab, host: Host, far: dict[str, Any]) -> None:
    """What the kernel of *host* needs for the IPv6 address in *far*, and for that alone: in l2 the entry for it, in
    routed mode the route to its block."""
    device = device_of(lab, host)
    routes = [each for each in host.ip_json("-6", "route", "show", "dev", device) if "gateway" in each]
    for route in routes:
        host.ip("-6", "route", "del", route["dst"], "dev", device)
    if not routes:
        host.ip("neigh", "del", address_of(far, 6), "dev", device)


def device_of(lab: OverlayLab, host: Host) -> str:
    (name,) = lab.devices(host)
    return name


def faults_on_the_sending_side(lab: OverlayLab, place: AgentHost, host: Host, second: dict[str, Any]) -> None:
    """From the container outwards, each undone before the next."""
    device, box = device_of(lab, host), host.containers["c1"]
    address, vtep = address_of(second, 4), lab.tunnel_address(lab.hosts[1])
    mac = next(each["mac"] for each in second["interfaces"] if each.get("sandbox"))
    entry = ["bridge", "fdb"]

    box.ip("link", "set", "eth0", "down")
    assert named(place, "c1", "c2") == "interface on c1"
    box.ip("link", "set", "eth0", "up")
    box.ip("neigh", "replace", address, "lladdr", "02:00:00:00:00:99", "dev", "eth0")
    assert named(place, "c1", "c2") == "neighbour on c1"
    box.ip("neigh", "del", address, "dev", "eth0")
    host.ip("neigh", "del", address, "dev", device)
    assert named(place, "c1", "c2") == "neighbour entry on h1"
    host.ip("neigh", "add", address, "lladdr", mac, "dev", device, "nud", "permanent")
    host.run([*entry, "replace", mac, "dev", device, "dst", "203.0.113.9", "self", "permanent"])
    assert named(place, "c1", "c2") == "tunnel entry on h1"
    host.run([*entry, "del", mac, "dev", device, "self"])
    assert named(place, "c1", "c2") == "tunnel entry on h1"
    host.run([*entry, "add", mac, "dev", device, "dst", vtep, "self", "permanent"])
    host.ip("link", "set", device, "down")
    assert named(place, "c1", "c2") == "VXLAN device on h1"
    host.ip("link", "set", device, "up")
    assert named(place, "c1", "c2") == "neighbour entry on h1"  # the kernel dropped them with the link
    host.ip("neigh", "add", address, "lladdr", mac, "dev", device, "nud", "permanent")
    host.ip("link", "set", "eth0", "mtu", "1400")
    assert named(place, "c1", "c2") == "MTU on h1"
    host.ip("link", "set", "eth0", "mtu", "1500")


def faults_on_the_receiving_side(lab: OverlayLab, place: AgentHost, host: Host) -> None:
    """From the tunnel inwards."""
    device = device_of(lab, host)
    host.run(["nft", "delete", "table", "inet", "pycni_tunnels"])
    told = place.json("trace", "c1", "c2")
    assert [step["what"] for step in told["steps"] if step["result"] == "note"] == ["tunnel guard"]
    host.ip("link", "set", veth_of(host), "down")
    assert named(place, "c1", "c2") == "host link on h2"
    host.ip("link", "set", veth_of(host), "up")
    host.containers["c2"].ip("addr", "flush", "dev", "eth0")
    assert named(place, "c1", "c2") == "address on c2"
    host.ip("link", "del", device)
    assert named(place, "c1", "c2") == "VXLAN device on h2"


def veth_of(host: Host) -> str:
    names: list[str] = [link["ifname"] for link in host.ip_json("link", "show", "type", "veth")]
    return next(name for name in names if name != "eth0")


def test_routed_and_to_the_world(overlay: Callable[..., OverlayLab]) -> None:
    """In routed mode the way goes by the block's route and the other host's tunnel; to an address that is nobody's it
    ends at the host's own way out, with etcd gone too, where what it says is a note."""
    lab = overlay()
    (h1, h2), (one, two) = lab.hosts, lab.agents
    conf = lab.conf("routed")
    box, first = lab.add(h1, "c1", conf)
    _, second = lab.add(h2, "c2", conf)
    lab.add(h1, "c3", conf)
    address = address_of(second, 4)
    lab.ping(box, second)
    assert named(one, "c1", address) == ""
    assert named(two, address_of(first, 4), address) == ""
    assert named(two, address_of(first, 6), "c2") == ""
    told = one.json("trace", "c1", address)
    assert {"route", "tunnel entry", "forwarding"} <= {step["what"] for step in told["steps"]}
    assert told["otherHalf"].startswith("on host h2")
    h1.run(["sysctl", "-qw", "net.ipv4.ip_forward=0"])
    assert named(one, "c1", address) == "forwarding on h1"
    h1.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    route = next(
        each for each in h1.ip_json("route", "show") if each["dev"] == device_of(lab, h1) and "gateway" in each
    )
    h1.ip("route", "del", route["dst"])
    assert named(one, "c1", address) == "route on h1"
    lab.etcd.kill()
    assert named(one, "c1", "203.0.113.7") == "route on h1"
    h1.ip("route", "add", "203.0.113.0/24", "dev", "eth0")
    notes = [step["what"] for step in one.json("trace", "c1", "203.0.113.7")["steps"] if step["result"] == "note"]
    assert notes == ["masquerade"]


@pytest.mark.parametrize("mode", ["l2", "routed"])
def test_a_published_port_of_another_host(overlay: Callable[..., OverlayLab], closing: ExitStack, mode: str) -> None:
    """A container that asks for it goes out to the world and comes in from there, not by the tunnel, although both are
    on one network: both halves say so, and that is what happens."""
    lab = overlay()
    (h1, h2), (one, two) = lab.hosts, lab.agents
    conf = lab.conf(mode, ipMasq=True)
    server, result = lab.add(h1, "server", conf)
    client, asking = lab.add(h2, "client", conf)
    ports = {"cniVersion": "1.1.0", "name": "net", "type": "pycni-portmap", "prevResult": result}
    lab.add(h1, "server", {**ports, "runtimeConfig": {"portMappings": [port(8080)]}})
    closing.callback(EchoServer(server).close)
    for family in (4, 6):
        address, start = lab.segment.address(h1, family), address_of(asking, family)
        assert can_tcp(client, address, 8080)
        given = (start, address, "--port", "8080")
        out = two.json("trace", *given)
        assert (out["target"]["place"], out["missing"]) == ("outside", None)
        told = one.json("trace", *given)
        assert (told["target"]["container"], told["port"], told["missing"]) == ("server", 7777, None)
        steps = {step["what"] for step in told["steps"]}
        assert "published port" in steps and "tunnel guard" not in steps
        assert told["otherHalf"] == f"on host h2: pycni trace {' '.join(given)}"


def test_networks_of_one_host(overlay: Callable[..., OverlayLab]) -> None:
    """Bridge networks without etcd: containers beside each other, kept apart from another network, out to the world,
    in by a published port, which a guard makes the only way; and out by the second interface of an overlay's container,
    where that is its way."""
    lab = overlay(hosts=1)
    (host,), (one,) = lab.hosts, lab.agents
    conf_of: dict[str, dict[str, Any]] = {}
    for name, number, boxes in (("one", 1, ("c1", "c2")), ("two", 2, ("c3",))):
        conf = {**lab.conf(name=name, number=number, etcd=None), **BRIDGED, "bridge": f"cni{number}"}
        for box in boxes:
            _, result = lab.add(host, box, conf)
            conf_of[box] = conf
    assert named(one, "c1", "c2") == ""
    assert named(one, "c1", "c3") == "isolation on h1"
    ports = {"cniVersion": "1.1.0", "name": "two", "type": "pycni-portmap", "directAccess": False, "prevResult": result}
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    lab.add(host, "c3", {**ports, "runtimeConfig": {"portMappings": [mapping]}})
    told = one.json("trace", "203.0.113.7", "c3", "--port", "80")
    published = [step["found"] for step in told["steps"] if step["what"] == "published port"]
    assert published == [f"0.0.0.0:8080 leads to {address_of(result, 4)}:80 (kernel)"]
    assert told["missing"] is None
    behind = one.json("trace", "203.0.113.7", lab.tunnel_address(host), "--port", "8080")
    assert (behind["target"]["container"], behind["port"], behind["missing"]) == ("c3", 80, None)
    assert (
        "published tcp port 8081" in one.pycni("trace", "c1", lab.tunnel_address(host), "--port", "8081", rc=3).stderr
    )
    assert named(one, "203.0.113.7", "c3", "--port", "81") == "guard of direct access on h1"
    assert named(one, "203.0.113.7", "c3", "--port", "80", "--proto", "udp") == "guard of direct access on h1"
    host.ip("route", "add", "203.0.113.0/24", "dev", "eth0")
    rules_come_back(lab, conf_of["c1"])
    lab.add(host, "c4", lab.conf(name="out", number=4, gatewayBridge={"subnet": "172.30.0.0/24", "ifname": "eth1"}))
    told = one.json("trace", "c4", "203.0.113.7")
    assert (told["source"]["ifname"], told["source"]["address"], told["missing"]) == ("eth1", "172.30.0.2", None)
    wrong = one.pycni("trace", "c1", "c2", "--port", "80", "--proto", "icmp", rc=2)
    assert "icmp has no ports" in wrong.stderr


def rules_come_back(lab: OverlayLab, conf: dict[str, Any]) -> None:
    """What is advised where the rules of c1 are gone: without an agent another ADD, with one its comparison."""
    (host,), (place,) = lab.hosts, lab.agents
    delete_table = ["nft", "delete", "table", "inet", "pycni"]
    host.run(delete_table)
    gone = missing(place, "c1", "203.0.113.7")
    assert gone is not None and gone["what"] == "packet filter" and "reconcile" not in gone["action"]
    lab.delete(host, "c1", conf)
    lab.add(host, "c1", conf)
    assert named(place, "c1", "203.0.113.7") == ""
    agent = place.start()
    agent.send_signal(signal.SIGSTOP)  # else it is faster than the trace
    host.run(delete_table)
    gone = missing(place, "c1", "203.0.113.7")
    assert gone is not None and gone["what"] == "packet filter" and "`pycni reconcile`" in gone["action"]
    agent.send_signal(signal.SIGCONT)
    place.pycni("reconcile")
    assert named(place, "c1", "203.0.113.7") == ""
    assert place.stop() == 0
