"""The steps of `pycni trace` over facts: what is in order is all right, and whatever is taken away is named first."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cli.trace.facts import Packet, Path, Ports
from pycni.cli.trace.steps import MISSING, NOTE, Step, first_missing, until_missing
from pycni.cli.trace.walk import walk
from pycni.host.link_facts import Neighbour
from tests.unit.trace_paths import (
    BRIDGE,
    BY_PROXY,
    FIRST,
    GATEWAY,
    HOST_PORT,
    IN,
    ITS_PORT,
    MAC1,
    MAC2,
    NUD_FAILED,
    OTHER_BRIDGE,
    OUT,
    OWN_PORT,
    PUBLISHED,
    SOME,
    TO_HOST,
    TWO,
    WHOLE,
    Change,
    far,
    link,
    on_device,
    on_far,
    on_host,
    on_ports,
    on_source,
    on_target,
    on_tunnel,
    raw,
)


def steps_of(path: Path) -> list[Step]:
    return list(until_missing(walk(path)))


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_is_missing_on_a_whole_path(name: str) -> None:
    """Every step of a path that is in order is "ok"."""
    assert [step for step in steps_of(WHOLE[name]) if step.result != "ok"] == []


DOWN = {"flags": 0, "operstate": 2}
PORT = FIRST.host_link
assert PORT is not None
FAULTS: list[tuple[str, Change, str, str]] = [
    ("out", on_source(state="netns gone"), "container", "netns gone"),
    ("out", on_source(link=None), "interface", "there is no eth0"),
    ("out", on_source(link=link(2, "eth0").replace(**DOWN)), "interface", "eth0 is down"),
    ("out", on_source(addresses=()), "address", "10.1.0.5 is not on eth0"),
    ("out", on_source(next_hop=None), "route", "no route to 10.1.0.9"),
    ("out", on_source(next_hop_link="eth1"), "route", "goes by eth1"),
    ("out", on_source(neighbour=Neighbour(2, TWO, raw(MAC1), 2)), "neighbour", f"which is {MAC2}"),
    ("out", on_source(host_link=None), "host link", "vethc1 is gone"),
    ("out", on_source(host_link=PORT.replace(**DOWN)), "host link", "vethc1 is down"),
    ("out", on_source(host_link=PORT.replace(master=0)), "host link", "no port of ovl7"),
    ("out", on_source(host_link=PORT.replace(port_state=0)), "host link", "does not forward"),
    ("out", on_source(bridge=None), "bridge", "ovl7 is gone"),
    ("out", on_source(bridge=BRIDGE.replace(**DOWN)), "bridge", "ovl7 is down"),
    ("out", on_tunnel(device=None), "VXLAN device", "vxlan7 is gone"),
    ("out", on_device(up=False), "VXLAN device", "vxlan7 is down"),
    ("out", on_device(vni=8), "VXLAN device", "VNI 8"),
    ("out", on_device(port=8472), "VXLAN device", "UDP 8472"),
    ("out", on_device(local="192.0.2.77"), "VXLAN device", "from 192.0.2.77"),
    ("out", on_device(master=0), "VXLAN device", "no port of ovl7"),
    ("out", on_far(state="dead"), "record in etcd", "declared dead"),
    ("out", on_far(vtep=""), "record in etcd", "no member"),
    ("out", on_tunnel(neighbour=None), "neighbour entry", "none for 10.1.0.9"),
    ("out", lambda path: on_far(mac=MAC1)(on_source(neighbour=None)(path)), "neighbour entry", f"etcd says {MAC1}"),
    ("out", on_tunnel(mac_port="vethc1"), "bridge entry", "leads to vethc1"),
    ("out", on_tunnel(vtep=""), "tunnel entry", "does not know"),
    ("out", on_tunnel(vtep="192.0.2.3"), "tunnel entry", "leads to 192.0.2.3"),
    ("out", on_tunnel(underlay=None), "uplink", "no route to 192.0.2.2"),
    ("out", on_tunnel(uplink=link(5, "eth0").replace(**DOWN)), "uplink", "eth0 is down"),
    ("out", on_tunnel(uplink=link(5, "eth0", mtu=1400)), "MTU", "more than the 1400 of eth0"),
    ("out", on_source(link=link(2, "eth0", mac=MAC1, mtu=1500)), "MTU", "sends up to 1500"),
    ("out", on_tunnel(guard=frozenset()), "way back", "takes nothing from 192.0.2.2"),
    ("in", on_tunnel(guard=frozenset(["192.0.2.9"])), "tunnel guard", "drops what comes from 192.0.2.2"),
    ("in", lambda path: path.replace(recorded_vtep="192.0.2.88"), "record in etcd", "send to 192.0.2.88"),
    ("in", lambda path: path.replace(recorded_mac=MAC2), "record in etcd", f"send to {MAC2}"),
    ("in", on_device(up=False), "VXLAN device", "is down"),
    ("in", on_target(fdb_port="vethc2"), "bridge entry", "to vethc2"),
    ("in", on_target(link=None), "interface", "there is no eth0"),
    ("out", lambda path: path.replace(other_network="two"), "network", "the other on two"),
    ("in", lambda path: path.replace(other_network="two"), "network", "the one is on net"),
    ("routed", on_host(forwards=False), "forwarding", "IPv4 forwarding is off"),
    ("routed", on_host(out=None), "route", "none to 10.1.4.0/26"),
    ("routed", on_host(out_link=link(5, "eth0")), "route", "goes by eth0"),
    ("routed", on_tunnel(neighbour=None), "neighbour entry", "none for 10.1.4.9"),
    ("routed", on_tunnel(vtep=""), "tunnel entry", "does not know"),
    ("routed in", on_host(forwards=False), "forwarding", "IPv4 forwarding is off"),
    ("routed in", on_target(way_link="eth0"), "route", "leads to eth0"),
    ("beside", on_target(host_link=None), "host link", "vethc2 is gone"),
    ("across", on_host(isolated=True), "isolation", "net and other are kept apart"),
    ("across", on_host(forwards=False), "forwarding", "is off"),
    ("across", on_target(way_link="eth0"), "route", "leads to eth0"),
    ("outwards", on_host(out=None), "route", "the host has no route to 198.51.100.1"),
    ("outwards", on_source(rules=("masq4 10.1.0.5",)), "packet filter", "masq4 10.1.0.5"),
    ("to host", on_source(next_hop=None), "route", "no route to 192.0.2.1"),
    ("to host", on_source(bridge=BRIDGE.replace(**DOWN)), "bridge", "ovl7 is down"),
    ("to gateway", on_source(neighbour=Neighbour(2, GATEWAY, raw(MAC2), 2)), "neighbour", "is 02:42:0a:01:00:01"),
    ("from host", on_target(way_link=""), "route", "the host's route to 10.1.0.5 is not there"),
    ("from host", on_target(link=None), "interface", "there is no eth0"),
    ("its port", on_host(forwards=False), "forwarding", "IPv4 forwarding is off"),
    ("its port", on_ports(missing=("map x",)), "published port", "map x"),
    ("its port", on_ports(masquerades=False), "masquerade", "would not answer 10.1.0.5 by way"),
    ("its port", on_target(way_link=""), "route", "the host's route to 10.1.0.9 is not there"),
    ("own port", on_source(next_hop=None), "route", "no route to 192.0.2.1"),
    ("own port", on_ports(masquerades=False), "masquerade", "would not answer 10.1.0.5 by way"),
    ("by gateway", on_source(neighbour=Neighbour(2, GATEWAY, raw(MAC2), 2)), "neighbour", "is 02:42:0a:01:00:01"),
    ("host port", on_ports(missing=("map x",)), "published port", "map x"),
    ("host port", on_ports(masquerades=False), "masquerade", "would not answer 127.0.0.1"),
    ("itself", on_source(state="netns gone"), "container", "netns gone"),
    ("itself", on_source(link=link(1, "lo").replace(**DOWN)), "interface", "lo is down"),
    ("itself", on_source(next_hop_link="eth0"), "address", "10.1.0.5 is none of the container's"),
    ("published", lambda path: path.replace(ports=Ports(guarded=True)), "guard of direct access", "tcp 80 is none"),
    ("published", on_ports(missing=("map x",)), "published port", "map x"),
]


@pytest.mark.parametrize(
    ("name", "fault", "what", "found"), FAULTS, ids=[f"{name}: {found}" for name, _, _, found in FAULTS]
)
def test_what_is_taken_away_is_named_first(name: str, fault: Change, what: str, found: str) -> None:
    """One fault: the trace ends there, says what is wrong, and what to do."""
    steps = steps_of(fault(WHOLE[name]))
    missing = first_missing(steps)
    assert missing is steps[-1]
    assert missing.what == what and found in missing.found
    assert missing.action


@given(st.lists(st.sampled_from([(name, fault) for name, fault, _, _ in FAULTS]), min_size=1, max_size=4))
def test_several_faults_are_found_one_after_the_other(faults: list[tuple[str, Change]]) -> None:
    """Of faults of one path the trace names that which comes first on the way, whatever their number."""
    name = faults[0][0]
    mine = [fault for other, fault in faults if other == name]
    alone = [len(steps_of(fault(WHOLE[name]))) for fault in mine]
    path = WHOLE[name]
    for fault in mine:
        path = fault(path)
    steps = steps_of(path)
    assert steps[-1].result == MISSING
    assert all(step.result != MISSING for step in steps[:-1])
    # A later fault on the same object may win over an earlier one, which then is no longer there.
    assert len(steps) <= max(alone) + 1


def test_what_stays_on_the_host_is_not_said_to_leave_it() -> None:
    """A packet to the host itself is not masqueraded, whatever its container's network does."""
    masqueraded = TO_HOST.replace(host=TO_HOST.host.replace(masquerades=True))
    assert {step.what for step in steps_of(masqueraded)} & {"forwarding", "masquerade", "uplink"} == set()


def test_a_published_port_masquerades_who_would_be_answered_directly() -> None:
    """The container itself and its neighbours are seen as the gateway; one of another network as itself, also where the
    networks are kept apart; whom the proxy serves has no packets forwarded."""
    for path in (OWN_PORT, ITS_PORT, HOST_PORT):
        assert "masquerade" in {step.what for step in steps_of(path)}
    stranger = ITS_PORT.replace(packet=ITS_PORT.packet.replace(source=ip_address("10.2.0.5")), target=OTHER_BRIDGE)
    stranger = on_source(address=ip_address("10.2.0.5"), addresses=(ip_interface("10.2.0.5/24"),))(stranger)
    steps = steps_of(on_host(isolated=True)(stranger))
    assert first_missing(steps) is None and "masquerade" not in {step.what for step in steps}
    assert {"forwarding", "masquerade"} & {step.what for step in steps_of(BY_PROXY)} == set()


def test_who_is_not_among_the_sources_is_not_let_in() -> None:
    """By the port; there may be a way past it to the container's own address. From another host a container comes with
    an address that nobody here knows."""
    shut = first_missing(steps_of(ITS_PORT.replace(ports=SOME)))
    assert shut is not None and shut.what == "sources"
    assert shut.found == "0.0.0.0:8080 lets in 198.51.100.0/24: not 10.1.0.5"
    stranger = PUBLISHED.replace(packet=PUBLISHED.packet.replace(source=ip_address("203.0.113.9")), ports=SOME)
    assert first_missing(steps_of(stranger)) is not None
    past = steps_of(stranger.replace(ports=SOME.replace(guarded=False)))
    assert [step.what for step in past if step.result == NOTE] == ["sources", "direct access"]
    at_port = stranger.replace(packet=stranger.packet.replace(host_address=ip_address("192.0.2.1"), host_port=8080))
    elsewhere = steps_of(at_port.replace(far=far(MAC2)))
    assert [step.what for step in elsewhere if step.result != "ok"] == ["sources"]
    assert first_missing(elsewhere) is None and first_missing(steps_of(at_port)) is not None


def test_an_unknown_neighbour_of_the_container_comes_by_the_bridge() -> None:
    """As in multicast networks, of which nobody records who is where: nothing is forwarded."""
    beside = PUBLISHED.replace(packet=Packet(TWO, PUBLISHED.packet.target), ports=None, host=TO_HOST.host)
    steps = steps_of(beside)
    assert [(step.what, step.result) for step in steps if step.result != "ok"] == [("sender", NOTE)]
    assert "forwarding" not in {step.what for step in steps}


def test_conditions_are_told_and_not_judged() -> None:
    """They are words of a rule: only the kernel knows which packets match."""
    steps = steps_of(on_ports(conditions=("tcp", "dport", "1-99"))(PUBLISHED))
    assert [(step.what, "`tcp dport 1-99`" in step.found) for step in steps if step.result == NOTE] == [
        ("conditions", True)
    ]


def test_what_may_matter_is_a_note() -> None:
    """An etcd that is silent, no guard, a peer that does not know yet: the trace goes on."""
    path = OUT.replace(
        far=far(MAC2).replace(silent="etcd does not answer", vtep="", mac="", state=""),
        tunnel=OUT.tunnel.replace(mac_port="") if OUT.tunnel else None,
    )
    notes = {step.what for step in walk(path) if step.result == NOTE}
    assert {"record in etcd", "bridge entry"} <= notes
    behind = steps_of(OUT.replace(far=far(MAC2).replace(state="behind", missing=3)))
    assert (behind[-1].what, behind[-1].result) == ("agent", NOTE)
    unguarded = steps_of(IN.replace(tunnel=IN.tunnel.replace(guard=None) if IN.tunnel else None))
    assert [step.what for step in unguarded if step.result == NOTE] == ["tunnel guard"]
    failed = on_source(neighbour=Neighbour(2, TWO, b"", NUD_FAILED))(OUT)
    assert [step.what for step in steps_of(failed) if step.result == NOTE] == ["neighbour"]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("out", on_source(bridge=None)),
        ("outwards", on_source(rules=("masq4 10.1.0.5",))),
        ("published", lambda path: path.replace(ports=Ports(missing=("map x",)))),
        ("published", on_target(rules=("masq4 10.1.0.5",))),
        ("beside", on_source(rules=("masq4 10.1.0.5",))),
    ],
)
def test_only_a_running_agent_is_asked_to_reconcile(name: str, fault: Change) -> None:
    """Where none runs, what is advised works without: `pycni reconcile` would find nobody."""
    path = fault(WHOLE[name])
    (alone,) = [step.action for step in steps_of(path) if step.result != "ok"]
    assert "`pycni del`, then `pycni add`" in alone and "reconcile" not in alone
    (helped,) = [step.action for step in steps_of(on_host(agent=True)(path)) if step.result != "ok"]
    assert "`pycni reconcile`" in helped


def test_frames_to_unknown_macs_need_their_bridge_entry_where_the_device_is_not_flooded() -> None:
    """Without the bridge's entry nothing passes if the device's port takes no unknown unicast."""
    path = on_device(port_flags=(0, 0, 0))(on_tunnel(mac_port="")(OUT))
    missing = first_missing(steps_of(path))
    assert missing is not None and missing.what == "bridge entry"
