"""Records of overlay networks in etcd: they belong together in every mode, and a host that has no agent dies by a
person's word and comes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netns_fixtures import Host, can_ping
from pycni.etcd.audit import audit
from pycni.etcd.nodes import Freed, declare_dead, free_behind_barrier
from pycni.etcd.schema import Keys
from tests.kernel.bridge_lab import address_of
from tests.overlay.overlay_lab import PREFIX, OverlayLab

KEYS = Keys(PREFIX)


def wrong(lab: OverlayLab) -> list[str]:
    """What `pycni etcd check` would say about the records."""
    found = lab.with_etcd(lambda client: client.read(KEYS.base).found)
    return [f"{problem.key}: {problem.what}" for problem in audit(KEYS, found)]


def bury(lab: OverlayLab, host: Host) -> Freed:
    """What a person does about a host that is gone, with no quarantine, from another one."""
    node = lab.node(host)
    other = next(each for each in lab.hosts if each is not host)
    lab.with_etcd(lambda client: declare_dead(client, KEYS, node, by="test", now=1.0), other)
    return lab.with_etcd(lambda client: free_behind_barrier(client, KEYS, node, now=2.0, quarantine_s=0.0), other)


@pytest.mark.parametrize("mode", ["l2", "routed"])
def test_a_host_without_an_agent_dies_and_returns(overlay: Callable[..., OverlayLab], mode: str) -> None:
    """Its addresses are free, and in l2 a container of another host takes one over, which is reached from then on. Back
    with its next ADD it has cut off the containers that lost their addresses, which CHECK says; the new one works; and
    all records belong together at every moment."""
    lab = overlay()
    one, two = lab.hosts
    conf = lab.conf(mode)
    lost, of_lost = lab.add(one, "lost", conf)
    near, of_near = lab.add(two, "near", conf)
    lab.add(one, "third", conf)  # h1 learns of h2's
    lab.ping(near, of_lost)
    assert wrong(lab) == []
    freed = bury(lab, one)
    assert freed.waits == ()
    assert freed.count == (4 if mode == "l2" else 2), "two containers, or two blocks"
    assert wrong(lab) == []
    ips = [ip["address"] for ip in of_lost["ips"]]
    if mode == "l2":
        _, of_heir = lab.add(two, "heir", {**conf, "args": {"cni": {"ips": ips}}})
        assert [ip["address"] for ip in of_heir["ips"]] == ips
        lab.ping(near, of_heir)
        assert wrong(lab) == []
    if mode == "routed":  # it took an address of its own block before it asked
        assert lab.refused(one, one.container("fresh"), conf)["code"] == 11
        assert wrong(lab) == []
    fresh, of_fresh = lab.add(one, "fresh", conf)
    assert wrong(lab) == []
    assert lab.check(one, lost, conf, of_lost).error_code is not None
    assert lab.check(one, fresh, conf, of_fresh).ok
    lab.add(two, "last", conf)  # h2 learns that h1 is back
    for family in (4, 6):
        assert not can_ping(lost, address_of(of_near, family), deadline_s=0.3), "what lost its address is cut off"
    lab.ping(fresh, of_near)
    if mode == "l2":
        lab.ping(fresh, of_heir)
    lab.delete_all(conf)
    assert wrong(lab) == []
    assert not [key for key in lab.keys() if key.startswith(("ep/", "member/"))]  # noqa: SIM118 - a method of the lab


def test_its_block_is_another_hosts(overlay: Callable[..., OverlayLab]) -> None:
    """A host that lost its block, and got another one, sends to the containers that have addresses of the lost one now,
    and not to its own bridge."""
    lab = overlay()
    one, two = lab.hosts
    ipam = {"type": "pycni-ipam", "ranges": [[{"subnet": "10.1.0.0/29"}]]}
    conf = lab.conf("routed", blocks={"ipv4": 30}, ipam=ipam)  # two blocks of one container each
    _, of_lost = lab.add(one, "lost", conf)
    bury(lab, one)
    heirs = {address_of(lab.add(two, name, conf)[1], 4): name for name in ("first", "second")}
    heir = address_of(of_lost, 4)
    (other,) = heirs.keys() - {heir}
    lab.delete(two, heirs[other], conf)
    assert lab.gc(two, conf, heirs[heir]).ok, "hands the empty block back"
    _, of_fresh = lab.add(one, "fresh", conf)
    assert address_of(of_fresh, 4) == other
    assert one.ip_json("route", "get", heir)[0]["dev"] == lab.devices(one)[0]
