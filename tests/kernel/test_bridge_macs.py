"""An address keeps its MAC from container to container, so that nobody has to be told; who must be told, is."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import Container, Host, Namespace, can_ping, wait_until
from tests.kernel.agent_lab import AgentHost
from tests.kernel.bridge_lab import Frames, Lab, address_of, mac_bytes, network, static
from tests.kernel.chain_lab import Chain
from tests.kernel.test_faults import Faulty

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

QUIET = 'reconcile_s = 0\nlog_level = "error"\n'
OWN = "02:00:00:00:00:77"
BOTH = ("10.1.0.5", "fd00:1::5")
MARK = ("10.1.0.99", "fd00:1::99")


class Neighbourhood:
    """A network of one IPv4 and one IPv6 address, which every container gets in turn, and a neighbour that listens."""

    def __init__(self, lab: Lab, neighbour: Container, mark: Container) -> None:
        self.lab = lab
        self._mark = mark
        self._others = network("others", bridge="cni1", ipam=static("10.1.0.98/24", "fd00:1::98/64"))
        lab.add(self._others, neighbour)
        self._neighbour = neighbour
        self._heard = Frames(neighbour, "eth0")

    @property
    def conf(self) -> dict[str, Any]:
        one = [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.5", "rangeEnd": "10.1.0.5"}]
        other = [{"subnet": "fd00:1::/64", "rangeStart": "fd00:1::5", "rangeEnd": "fd00:1::5"}]
        return network(ipam={"type": "host-local", "ranges": [one, other]}, capabilities={"mac": True})

    def add(self, container: Container, **keys: Any) -> str:
        """Attach *container*; its MAC."""
        result = self.lab.add({**self.conf, **keys}, container)
        assert (address_of(result, 4), address_of(result, 6)) == BOTH
        mac: str = result["interfaces"][2]["mac"]
        assert self.lab.link("eth0", container)["address"] == mac
        return mac

    def delete(self, container: Container | str, **keys: Any) -> None:
        self.lab.delete({**self.conf, **keys}, container)

    def announced(self) -> list[tuple[str, str]]:
        """(address, MAC) of what was announced of the two since the last time, up to what is announced for this
        question: the addresses of a static network."""
        conf = network("mark", bridge="cni1", ipam=static(*(f"{each}/{64 if ':' in each else 24}" for each in MARK)))
        self.lab.add(conf, self._mark)
        waiting, told = set(MARK), []

        def ended(frame: bytes) -> bool:
            address = announced_by(frame)
            if address in MARK:
                waiting.discard(address)
            elif address in BOTH:
                told.append((address, frame[6:12].hex(":")))
            return not waiting

        self._heard.until(ended)
        self.lab.delete(conf, self._mark)
        return told

    def close(self) -> None:
        self._heard.close()


def announced_by(frame: bytes) -> str:
    """The address that an ARP request or an unsolicited neighbour advertisement is about which nobody asked for."""
    if frame[12:14] == b"\x08\x06" and frame[28:32] == frame[38:42]:
        return socket.inet_ntop(socket.AF_INET, frame[28:32])
    if (
        frame[12:14] == b"\x86\xdd"
        and frame[20] == 58
        and frame[54] == 136
        and frame[:6] == mac_bytes("33:33:00:00:00:01")
    ):
        return socket.inet_ntop(socket.AF_INET6, frame[62:78])
    return ""


@pytest.fixture(params=["standalone", "agent"])
def near(
    request: pytest.FixtureRequest, host: Host, plugins: Path, asking: Path, agents: AgentHost
) -> Iterator[Neighbourhood]:
    if request.param == "agent":
        agents.start(config=QUIET)
    lab = Lab(host, plugins if request.param == "standalone" else asking)
    made = Neighbourhood(lab, host.container("neighbour"), host.container("mark"))
    yield made
    made.close()


def test_a_container_that_returns_is_not_announced(near: Neighbourhood, c1: Container) -> None:
    """It has the MAC that its neighbours know, and they reach it without asking anew."""
    mac = near.add(c1)
    neighbour = near.lab.host.containers["neighbour"]
    for address in BOTH:
        assert can_ping(neighbour, address)
    known = macs_known(neighbour)
    near.delete(c1)
    assert near.add(c1) == mac
    assert near.announced() == []
    assert macs_known(neighbour) == known == {"10.1.0.5": mac, "fd00:1::5": mac}
    for address in BOTH:
        assert can_ping(neighbour, address, deadline_s=0.5)


def test_the_next_container_with_the_address_has_its_mac(near: Neighbourhood, c1: Container, c2: Container) -> None:
    """Unicast, locally administered, and of no other address. It is announced all the same: its predecessor may have
    had another interface on the link, by which the neighbours came to know the address."""
    mac = near.add(c1)
    assert int(mac[:2], 16) & 3 == 2
    near.delete(c1)
    assert near.add(c2) == mac
    assert sorted(near.announced()) == [("10.1.0.5", mac), ("fd00:1::5", mac)]
    other = near.lab.add(network("other", bridge="cni1"), c1, ifname="eth1")["interfaces"][2]["mac"]
    assert other != mac


def test_what_somebody_gave_the_container_meanwhile_is_corrected(near: Neighbourhood, c1: Container) -> None:
    """A chained plugin, or the container itself: its neighbours remember that one, and hear of the old one again."""
    mac = near.add(c1)
    c1.ip("link", "set", "eth0", "address", OWN)
    near.announced()
    near.delete(c1)
    assert near.add(c1) == mac
    assert sorted(near.announced()) == [("10.1.0.5", mac), ("fd00:1::5", mac)]


def test_a_configured_mac_is_announced_once(near: Neighbourhood, c1: Container) -> None:
    """By who gets it in place of the address's own, not by who has it again; and the address's own after it."""
    first = near.add(c1)
    near.delete(c1)
    configured = {"runtimeConfig": {"mac": OWN}}
    assert near.add(c1, **configured) == OWN
    assert sorted(near.announced()) == [("10.1.0.5", OWN), ("fd00:1::5", OWN)]
    near.delete(c1, **configured)
    assert near.add(c1, **configured) == OWN
    assert near.announced() == []
    near.delete(c1, **configured)
    assert near.add(c1) == first
    assert sorted(near.announced()) == [("10.1.0.5", first), ("fd00:1::5", first)]


def test_a_container_that_was_gone_before_its_del_leaves_doubt(near: Neighbourhood, c1: Container) -> None:
    """Nobody saw which MAC it had in the end: what comes after it is announced."""
    mac = near.add(c1)
    port = next(name for name in near.lab.ports() if near.lab.link(name)["ifalias"].startswith("pycni net/"))
    near.lab.host.ip("link", "del", port)
    near.delete(c1)
    assert near.add(c1) == mac
    assert sorted(near.announced()) == [("10.1.0.5", mac), ("fd00:1::5", mac)]


def test_an_add_that_failed_leaves_doubt(near: Neighbourhood, c1: Container) -> None:
    """It had the MAC that the next one has, and has told nobody."""
    neighbour = near.lab.host.containers["neighbour"]
    configured = {"runtimeConfig": {"mac": OWN}}
    near.add(c1, **configured)
    assert all(can_ping(neighbour, address) for address in BOTH)
    near.delete(c1, **configured)
    no_way = [{"dst": "10.99.0.0/16", "gw": "192.0.2.1"}]
    near.lab.refused({**near.conf, "ipam": {**near.conf["ipam"], "routes": no_way}}, c1)
    near.delete(c1)
    mac = near.add(c1)
    assert sorted(near.announced()) == [("10.1.0.5", mac), ("fd00:1::5", mac)]
    assert macs_known(neighbour) == dict.fromkeys(BOTH, mac)


def test_an_add_that_was_killed_leaves_doubt(lab: Lab, c1: Container, c2: Container) -> None:
    """Before it announced what it had made. (An agent is killed with all that it does: see test_agent_faults.)"""
    near = Neighbourhood(lab, c2, lab.host.container("mark"))
    configured = {"runtimeConfig": {"mac": OWN}}
    near.add(c1)
    near.delete(c1)
    near.add(c1, **configured)
    near.delete(c1, **configured)
    faulty = Faulty(lab, near.conf)
    before = next(at for at, one in enumerate(faulty.events("ADD", c1)) if one.startswith("before do Announce"))
    near.delete(c1)
    near.add(c1, **configured)
    near.delete(c1, **configured)
    faulty.kill("ADD", c1, before)
    near.delete(c1)
    near.announced()
    mac = near.add(c1)
    assert sorted(near.announced()) == [("10.1.0.5", mac), ("fd00:1::5", mac)]
    near.close()


def test_a_del_that_overtakes_the_announcement_leaves_doubt(near: Neighbourhood, c1: Container) -> None:
    """An agent announces a moment after its answer."""
    configured = {"runtimeConfig": {"mac": OWN}}
    near.add(c1, **configured)
    near.delete(c1, **configured)
    near.announced()
    assert near.lab.call("ADD", near.conf, c1).ok
    near.delete(c1)
    near.announced()
    mac = near.add(c1)
    told = set(near.announced())
    # Standalone the ADD had told everybody before it answered; an agent may have, on a machine that is busy.
    assert told in (set(), {("10.1.0.5", mac), ("fd00:1::5", mac)})
    neighbour = near.lab.host.containers["neighbour"]
    assert all(can_ping(neighbour, address) for address in BOTH)
    assert macs_known(neighbour) == dict.fromkeys(BOTH, mac)


@pytest.mark.parametrize("by", ["itself", "tuning"])
def test_a_change_is_announced_by_the_kernel(near: Neighbourhood, c1: Container, plugins: Path, by: str) -> None:
    """For both families, also of a container that was not announced itself: what DEL sees is what neighbours know."""
    neighbour = near.lab.host.containers["neighbour"]
    near.add(c1)
    near.delete(c1)
    if by == "tuning":
        chain = Chain(near.lab, [near.conf, {"type": "tuning", "mac": OWN}], by={"tuning": plugins})
        chain.add(c1)
    else:
        near.add(c1)
        c1.ip("link", "set", "eth0", "address", OWN)
    assert all(can_ping(neighbour, address) for address in BOTH)
    assert macs_known(neighbour) == dict.fromkeys(BOTH, OWN)
    if by == "tuning":
        chain.delete(c1)
    else:
        near.delete(c1)
    mac = near.add(c1)
    wait_until(lambda: macs_known(neighbour) == dict.fromkeys(BOTH, mac), 2.0, "the neighbour knows the new MAC")


def test_two_hosts_have_two_macs_for_an_address(make_host: Callable[..., Host], plugins: Path) -> None:
    """Their bridges may share a link."""
    macs = set()
    for _ in range(2):
        host = make_host()
        macs.add(Lab(host, plugins).add(network(), host.container("c1"))["interfaces"][2]["mac"])
    assert len(macs) == 2


def macs_known(namespace: Namespace) -> dict[str, str]:
    """What *namespace* knows of the two addresses."""
    entries = namespace.ip_json("neigh", "show", "dev", "eth0")
    return {each["dst"]: each["lladdr"] for each in entries if each["dst"] in BOTH}
