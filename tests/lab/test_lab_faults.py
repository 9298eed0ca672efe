"""Every fault does what it says, and nothing of it is left when it is healed. One lab for all tests of this file."""

from __future__ import annotations

import functools
import json
import re
import socket
from collections.abc import Iterator

import pytest

from netns_fixtures import needs
from netns_fixtures.capabilities import missing
from pycni.lab import breaking
from pycni.lab.checks import open_in
from pycni.lab.errors import LabError
from pycni.lab.faults import TABLE, faults_in
from pycni.lab.picture_of import picture_of
from pycni.lab.pings import Probe, ping
from pycni.lab.running import RunningLab
from pycni.lab.throughput import tcp_bits_per_second

from .broken_lab import RACKS, claim, holds, lab_of, now

pytestmark = pytest.mark.needs("root", "kernel:nft_bridge", "kernel:nft_numgen")


@pytest.fixture(scope="module")
def racks() -> Iterator[RunningLab]:
    with lab_of(RACKS, "faults") as lab:
        yield lab


@pytest.fixture
def lab(racks: RunningLab) -> Iterator[RunningLab]:
    """Whole before the test, and exactly as it was after everything is healed."""
    racks.reload()
    before = everything(racks)
    yield racks
    breaking.heal(racks)
    assert everything(racks) == before
    assert faults_in(racks.state) == ()


def everything(lab: RunningLab) -> dict[str, object]:
    """What faults change: rules and ports of the switch, links and qdiscs of the hosts."""
    found: dict[str, object] = {"rules": lab.run_switch(["nft", "list", "ruleset"]).stdout}
    for name in ("switch", *lab.machines):
        for what in (["ip", "-j", "link"], ["tc", "-j", "qdisc"]):
            run = lab.run_switch(what) if name == "switch" else lab.run(name, None, what)
            kept = ("ifname", "mtu", "kind", "dev", "options", "qdisc")
            shown = json.loads(run.stdout)
            told = [{key: each[key] for key in kept if key in each} | _up(each) for each in shown]
            found[f"{name} {what[0]}"] = sorted(told, key=json.dumps)  # a host that was booted has its ports anew
    return found


def _up(link: dict[str, list[str]]) -> dict[str, bool]:
    """Whether it was set up; whether it runs is noticed later."""
    return {"up": "UP" in link["flags"]} if "flags" in link else {}


def test_cut_lets_nothing_pass_and_keeps_the_carrier(lab: RunningLab) -> None:
    """Both families, both directions; the others go on; the host itself sees nothing of it."""
    assert breaking.break_links(lab, "cut", ["h1"]) == ["h1:eth0 is cut"]
    assert now(lab, claim("unreachable", "h1", "h[23]")).good
    assert now(lab, claim("unreachable", "h[23]", "h1")).good
    assert holds(lab, claim("reach", "h2", "h3"))
    assert "LOWER_UP" in lab.run("h1", None, ["ip", "link", "show", "eth0"]).stdout
    assert breaking.heal(lab) == ["h1:eth0 is cut"]
    assert holds(lab, claim("reach", "h[123]", "h[123]"))
    assert TABLE not in lab.run_switch(["nft", "list", "ruleset"]).stdout


def test_unplugged_has_no_carrier(lab: RunningLab) -> None:
    """As if the plug was pulled: the kernel of the host hears of it."""
    breaking.break_links(lab, "unplug", ["h1:rack1"])
    assert holds(lab, claim("run", "h1", command=("ip", "link", "show", "eth0"), answer="NO-CARRIER"))
    assert now(lab, claim("unreachable", "h2", "h1")).good
    breaking.heal(lab, ["h1:eth0"])
    assert holds(lab, claim("reach", "h2", "h1"))


def test_split_of_a_segment_and_across_a_router(lab: RunningLab) -> None:
    """h1 hears neither its neighbour nor the host behind the router; the router, in no party, hears all."""
    breaking.split(lab, [["h1"], ["h2", "h3"]])
    assert now(lab, claim("unreachable", "h1", "h[23]")).good
    assert now(lab, claim("unreachable", "h[23]", "h1")).good
    assert holds(lab, claim("reach", "h2", "h3"))
    assert holds(lab, claim("reach", "r1", "h*"))
    breaking.split(lab, [["h1", "h2"], ["h3"]])  # instead of the first
    assert holds(lab, claim("reach", "h1", "h2"))
    assert now(lab, claim("unreachable", "h2", "h3")).good
    assert picture_of(lab).notes == ("{h1, h2} and {h3} do not hear each other",)


def test_loss_is_about_as_much_as_was_asked_for(lab: RunningLab) -> None:
    """Half of the packets each way: a quarter of the echoes come back (400 sent, four sigmas around 100)."""
    breaking.break_links(lab, "loss", ["h1"], "50%")
    address = lab.link("h2").ipv4
    probes = [Probe("h1", address)] * 400
    lab.run("h1", None, ["ip", "neigh", "replace", address, "lladdr", mac_of(lab, "h2"), "dev", "eth0"])
    lab.run("h2", None, ["ip", "neigh", "replace", lab.link("h1").ipv4, "lladdr", mac_of(lab, "h1"), "dev", "eth0"])
    echoes = ping({"h1": lab.machine("h1").namespace()}, probes, timeout_s=0.1)
    assert sum(each.sent for each in echoes) == 400
    assert 65 <= sum(len(each.rtts_ms) for each in echoes) <= 135
    assert picture_of(lab).hosts[0].wires[0].notes == ("loss 50 %",)


def mac_of(lab: RunningLab, host: str) -> str:
    (link,) = json.loads(lab.run(host, None, ["ip", "-j", "link", "show", "eth0"]).stdout)
    return str(link["address"])


def test_rate_limits_both_directions(lab: RunningLab) -> None:
    """20 Mbit/s, to the host and from it: what TCP gets is close below, and without the limit far above."""
    needs("kernel:tbf")
    breaking.break_links(lab, "rate", ["h1"], "20mbit")
    for source, target in (("h1", "h2"), ("h2", "h1")):
        mbits = throughput(lab, source, target)
        assert 8 < mbits < 25, f"{source} → {target}: {mbits} Mbit/s"
    breaking.break_links(lab, "rate", ["h1"], "100mbit")  # replaces the first
    assert throughput(lab, "h1", "h2") > 30
    breaking.heal(lab, ["rate"])
    assert throughput(lab, "h1", "h2") > 100


def throughput(lab: RunningLab, source: str, target: str) -> float:
    """Mbit/s, by the same measurement that scenarios use."""
    kind = functools.partial(socket.socket, socket.AF_INET, socket.SOCK_STREAM)
    with open_in(lab, target, kind) as listener, open_in(lab, source, kind) as sender:
        return tcp_bits_per_second(listener, sender, lab.link(target).ipv4, 0.2) / 1e6


def test_mtu_of_both_ends(lab: RunningLab) -> None:
    """What is longer does not pass; what fits does. Both ends of the cable have it, and get theirs back."""
    breaking.break_links(lab, "mtu", ["h1"], "1300")
    ends = ["/bin/sh", "-c", f"ping -c1 -W0.3 -M do -s 1272 {lab.link('h2').ipv4}"]
    assert lab.run("h1", None, ends, check=False).returncode == 0
    ends[2] = ends[2].replace("1272", "1273")
    assert lab.run("h1", None, ends, check=False).returncode != 0
    link = lab.link("h1")
    assert "mtu 1300" in lab.run_switch(["ip", "link", "show", link.port]).stdout


def test_an_mtu_without_ipv6_takes_no_address_for_good(lab: RunningLab) -> None:
    """Below 1280 the kernel takes a link's IPv6 addresses and routes; healed, host and router have them again."""
    before = {name: ipv6_of(lab, name) for name in ("h1", "r1")}
    breaking.break_links(lab, "mtu", ["h1", "r1"], "1000")
    assert now(lab, claim("unreachable", "h1", "h3", family=6)).good
    assert holds(lab, claim("reach", "h1", "h3", family=4))
    breaking.break_links(lab, "mtu", ["r1:rack2"], "1400")  # in place of the first
    breaking.heal(lab)
    assert {name: ipv6_of(lab, name) for name in before} == before
    assert holds(lab, claim("reach", "h[123]", "h[123]", family=6))


def ipv6_of(lab: RunningLab, machine: str) -> list[str]:
    """Its addresses and ways on the underlay."""
    addresses = lab.run(machine, None, ["ip", "-6", "-o", "addr", "show", "scope", "global"]).stdout.splitlines()
    routes = lab.run(machine, None, ["ip", "-6", "route"]).stdout.splitlines()
    return sorted(line for line in (*addresses, *routes) if " eth" in line and "fe80" not in line)


def test_delay_needs_netem_and_says_so(lab: RunningLab) -> None:
    """Where the kernel has it, an echo takes twice the delay; where not, nothing is changed and the error names it."""
    if missing("kernel:netem") is None:
        breaking.break_links(lab, "delay", ["h1"], "30ms")
        (echo,) = ping({"h1": lab.machine("h1").namespace()}, [Probe("h1", lab.link("h2").ipv4, 2)])
        assert min(echo.rtts_ms) >= 60
        return
    before = everything(lab)
    with pytest.raises(LabError, match="it has no netem"):
        breaking.break_links(lab, "delay", ["h1"], "30ms")
    assert everything(lab) == before
    assert faults_in(lab.state) == ()


def test_a_fault_that_cannot_be_is_taken_back_whole(lab: RunningLab) -> None:
    """Two links, of which the second refuses: neither has the fault, and none is remembered."""
    before = everything(lab)
    lab.run("h2", None, ["ip", "link", "set", "eth0", "name", "away"])
    lab.run("h2", None, ["ip", "link", "set", "away", "up"], check=False)
    try:
        with pytest.raises(LabError, match="h2"):
            breaking.break_links(lab, "mtu", ["h1", "h2"], "1300")
    finally:
        lab.run("h2", None, ["ip", "link", "set", "away", "name", "eth0"])
    assert faults_in(lab.state) == ()
    assert everything(lab)["h1 ip"] == before["h1 ip"]


def test_reboot_keeps_the_disk_and_the_faults(lab: RunningLab) -> None:
    """Namespaces, links and rules are new; /var/lib stays; the cable is as slow as before; containers are back."""
    breaking.break_links(lab, "mtu", ["h2"], "1400")
    breaking.break_links(lab, "rate", ["h2"], "50mbit")
    holder = lab.machine("h2").holder
    lab.run("h2", None, ["sh", "-c", "echo kept >/var/lib/mark; nft add table inet gone; ip link add x type bridge"])
    breaking.reboot(lab, "h2")
    assert lab.machine("h2").holder != holder and not holder.alive()
    assert lab.run("h2", None, ["cat", "/var/lib/mark"]).stdout == "kept\n"
    assert "gone" not in lab.run("h2", None, ["nft", "list", "tables"]).stdout
    assert "mtu 1400" in lab.run("h2", None, ["ip", "link", "show", "eth0"]).stdout
    assert "rate 50Mbit" in lab.run("h2", None, ["tc", "qdisc", "show", "dev", "eth0"]).stdout
    assert holds(lab, claim("reach", "h2/*", "h2/*"))


def test_a_killed_host_is_off_until_it_is_started(lab: RunningLab) -> None:
    """`kill host` and `start`; `heal` starts what `start` was forgotten for."""
    assert breaking.kill(lab, "host h3") == "host h3 is off"
    assert now(lab, claim("unreachable", "h1", "h3")).good
    assert [each.trouble for each in picture_of(lab).hosts] == ["", "", "off"]
    with pytest.raises(LabError, match="h3 is off"):
        lab.run("h3", None, ["true"])
    assert breaking.start(lab, "host h3") == "host h3 runs"
    assert faults_in(lab.state) == ()
    assert holds(lab, claim("reach", "h1", "h3"))
    breaking.kill(lab, "host h3")
    assert breaking.heal(lab, ["host h3"]) == ["host h3 is off"]
    assert holds(lab, claim("reach", "h3/*", "h3/*"))


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (lambda lab: breaking.break_links(lab, "cut", ["h9"]), "has no host 'h9'"),
        (lambda lab: breaking.break_links(lab, "cut", ["h1:eth9"]), "h1 has no link 'eth9'"),
        (lambda lab: breaking.break_links(lab, "rate", ["h1"], "fast"), "'fast' is no rate"),
        (lambda lab: breaking.split(lab, [["h1"]]), "at least two parties"),
        (lambda lab: breaking.split(lab, [["h1"], ["h1", "h2"]]), "h1 cannot be in two parties"),
        (lambda lab: breaking.kill(lab, "agent h1"), "h1 has no agent"),
        (lambda lab: breaking.kill(lab, "etcd etcd1"), "no etcd member 'etcd1'"),
        (lambda lab: breaking.kill(lab, "h1"), "is not `agent HOST`"),
        (lambda lab: breaking.heal(lab, ["h1:eth9"]), "h1 has no link 'eth9'"),
    ],
)
def test_what_is_not_there_cannot_be_broken(lab: RunningLab, verb: object, said: str) -> None:
    """Named with what there is."""
    with pytest.raises(LabError, match=re.escape(said)):
        verb(lab)  # type: ignore[operator]
    assert faults_in(lab.state) == ()
