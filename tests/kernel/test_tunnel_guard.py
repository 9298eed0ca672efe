"""From whom a host takes VXLAN packets: real ones, and the table as nft shows it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable

import pytest

from netns_fixtures import Container, Host, assert_unchanged, can_ping, netns_snapshot, wait_until
from pycni.firewall.tunnel_text import TUNNELS
from pycni.host import tunnel_guard
from tests.kernel.tunnel_lab import BRIDGE, PORT, VNI, Site, l2_entries

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:vxlan", "kernel:bridge", "kernel:nf_tables")

NAME = f"{TUNNELS.family} {TUNNELS.name}"
HERE, THERE, SIXTH = "192.0.2.2", "192.0.2.3", "2001:db8::6"


def guard(host: Host, peers: Iterable[str], vni: int = VNI) -> None:
    host.in_namespace(lambda: tunnel_guard.guard(PORT, vni, peers))


def change(host: Host, add: Iterable[str] = (), remove: Iterable[str] = (), vni: int = VNI) -> bool:
    return host.in_namespace(lambda: tunnel_guard.change_peers(PORT, vni, add, remove))


def peers(host: Host, vni: int = VNI) -> set[str] | None:
    found = host.in_namespace(lambda: tunnel_guard.read_peers(PORT, vni))
    return None if found is None else set(found)


def unguard(host: Host, vni: int = VNI) -> None:
    host.in_namespace(lambda: tunnel_guard.unguard(PORT, vni))


def guarded(host: Host) -> set[tuple[int, int]]:
    """UDP port and VNI of all guarded networks, as nft shows them."""
    listed = json.loads(host.run(["nft", "-j", f"list set {NAME} guarded"]).stdout)
    (found,) = [each["set"] for each in listed["nftables"] if "set" in each]
    return {(int(port), int(str(vni), 0)) for port, vni in (each["concat"] for each in found["elem"])}


def rules(host: Host) -> str:
    return host.run(["nft", "list", "ruleset"]).stdout


def mesh(sites: list[Site]) -> list[Container]:
    """A container on each host, all on one subnet and all known to all."""
    for site in sites:
        site.bridged()
        for other in sites:
            if other is not site:
                number = other.number
                site.change(l2_entries(f"02:42:0a:14:00:{number:02x}", other.local, f"10.20.0.{number}"))
    return [site.container("c", f"10.20.0.{site.number}/24", mac=f"02:42:0a:14:00:{site.number:02x}") for site in sites]


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_stranger_is_dropped_and_a_known_host_passes(sites: Callable[..., list[Site]], family: int) -> None:
    """A host that has the same VNI but is not known reaches no container; from the moment it is known it does, and
    from the moment it is not, no more. Another network's guard is nothing to it."""
    one, two, three = all_sites = sites(3, family=family)
    here, known, stranger = mesh(all_sites)
    del here
    guard(one.host, [THERE], vni=VNI + 1)
    assert can_ping(known, "10.20.0.1", deadline_s=5)
    assert can_ping(stranger, "10.20.0.1", deadline_s=5)
    guard(one.host, [two.local])
    assert not can_ping(stranger, "10.20.0.1", deadline_s=0.3)
    assert can_ping(known, "10.20.0.1")
    assert change(one.host, add=[three.local])
    assert can_ping(stranger, "10.20.0.1")
    assert change(one.host, remove=[three.local, "192.0.2.200"])
    assert not can_ping(stranger, "10.20.0.1", deadline_s=0.3)
    assert can_ping(known, "10.20.0.1")
    unguard(one.host)
    assert can_ping(stranger, "10.20.0.1")


def test_packets_of_a_stranger_are_not_tracked(sites: Callable[..., list[Site]]) -> None:
    """They are dropped before connection tracking (priority -200) sees them: a flood of them fills no table."""
    one, two = pair = sites(2)
    _, stranger = mesh(pair)
    behind = "type filter hook prerouting priority -199;"
    one.host.run(["nft", "-f", "-"], input=f"table inet t {{ chain c {{ {behind} udp dport {PORT} counter; }}; }}\n")

    def seen() -> bool:
        return "counter packets 0 " not in one.host.run(["nft", "list", "table", "inet", "t"]).stdout

    guard(one.host, [])
    assert not can_ping(stranger, "10.20.0.1", deadline_s=0.3)
    assert not seen()
    guard(one.host, [two.local])
    assert can_ping(stranger, "10.20.0.1")
    assert seen()


def test_container_cannot_send_into_the_tunnels(sites: Callable[..., list[Site]]) -> None:
    """Masqueraded it would have the address of its host, whom the others know: so that host itself drops it."""
    one, two = sites(2)
    one.bridged()
    one.host.ip("addr", "add", "10.20.0.254/24", "dev", BRIDGE)
    one.host.sysctl("net/ipv4/ip_forward", "1")
    masquerade = 'type nat hook postrouting priority srcnat; oifname "eth0" masquerade;'
    one.host.run(["nft", "-f", "-"], input=f"table ip t {{ chain c {{ {masquerade} }}; }}\n")
    arriving = f"type filter hook prerouting priority -400; ip saddr {one.local} udp dport {PORT} counter;"
    two.host.run(["nft", "-f", "-"], input=f"table ip t {{ chain c {{ {arriving} }}; }}\n")
    container = one.container("c", "10.20.0.2/24", gateways=("10.20.0.254",))
    frame = b"\x08\0\0\0" + (VNI << 8).to_bytes(4, "big") + bytes(60)

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(frame, (two.local, PORT))

    def arrived() -> int:
        return int(rules(two.host).partition("counter packets ")[2].split()[0])

    container.in_namespace(send)
    wait_until(lambda: arrived() == 1)
    guard(one.host, [two.local])
    container.in_namespace(send)
    assert can_ping(container, two.local)  # the same way, and after it
    assert arrived() == 1


def test_table_as_nft_shows_it(host: Host) -> None:
    """What was encoded here is what nft reads; each network has its own; the number of rules is the same for all."""
    before = netns_snapshot(host)
    assert peers(host) is None
    assert not change(host, [HERE])
    guard(host, [HERE, THERE, SIXTH])
    count = rules(host).count("@th,96,24 ")
    guard(host, [HERE], vni=(1 << 24) - 1)
    assert rules(host).count("@th,96,24 ") == count
    assert peers(host) == {HERE, THERE, SIXTH}
    assert peers(host, (1 << 24) - 1) == {HERE}
    for found in (
        f"guarded {{ {PORT} . {VNI} }}",
        f"vteps4 {{ {PORT} . 0xffffff . {HERE} }}",
        f"vteps6 {{ {PORT} . {VNI} . {SIXTH} }}",
    ):
        host.run(["nft", f"get element {NAME} {found}"])
    assert change(host, ["192.0.2.4", HERE], [HERE, SIXTH])
    assert peers(host) == {HERE, THERE, "192.0.2.4"}
    guard(host, [SIXTH])
    assert peers(host) == {SIXTH}
    assert guarded(host) == {(PORT, VNI), (PORT, (1 << 24) - 1)}
    unguard(host)
    assert (peers(host), peers(host, (1 << 24) - 1)) == (None, {HERE})
    unguard(host, (1 << 24) - 1)
    unguard(host)
    assert_unchanged(before, netns_snapshot(host))


def test_flushed_table_is_told_and_made_again(host: Host) -> None:
    """Whether the whole ruleset went, or the rules of the table only: the network counts as unguarded until it is
    guarded anew, and what others had in the table stays."""
    for flush in ("flush ruleset", f"flush table {NAME}"):
        guard(host, [HERE])
        guard(host, [THERE], vni=7)
        host.run(["nft", *flush.split()])
        assert peers(host) is None
        assert not change(host, [THERE])
        guard(host, [HERE])
        assert peers(host) == {HERE}
        assert peers(host, 7) == (None if flush == "flush ruleset" else {THERE})


def test_second_table_of_a_host_needs_no_nft(host: Host) -> None:
    """What the kernel said of the first is kept, and makes the next one without nft and its library."""
    host.run(["mkdir", "/var/lib/pycni"])
    guard(host, [HERE])
    first = rules(host)
    unguard(host)

    def without_nft() -> None:
        def refuse(text: str) -> None:
            raise AssertionError("nft was run")

        from pycni.host import nft

        kept, nft.run_text = nft.run_text, refuse
        try:
            tunnel_guard.guard(PORT, VNI, [HERE])
        finally:
            nft.run_text = kept

    host.in_namespace(without_nft)
    assert rules(host) == first


def test_many_at_once_lose_nothing(host: Host) -> None:
    """Networks that come and go at the same time: what is guarded in the end is what was guarded last."""

    def come_and_go(vni: int) -> None:
        for _ in range(4):
            guard(host, [HERE, SIXTH], vni=vni)
            unguard(host, vni)
        guard(host, [HERE, SIXTH], vni=vni)

    threads = [threading.Thread(target=come_and_go, args=(vni,)) for vni in range(10, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert guarded(host) == {(PORT, vni) for vni in range(10, 15)}
    assert [peers(host, vni) for vni in range(10, 15)] == [{HERE, SIXTH}] * 5


def test_many_peers(host: Host) -> None:
    """A thousand hosts in one call."""
    many = [f"10.9.{number >> 8}.{number & 255}" for number in range(1000)]
    guard(host, many)
    assert peers(host) == set(many)
    assert change(host, [], many[500:])
    assert peers(host) == set(many[:500])
