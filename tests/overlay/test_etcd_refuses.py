"""etcd answers, and says no: what that costs a host, and what goes on all the same."""

from __future__ import annotations

from collections.abc import Callable

from netns_fixtures import wait_until
from netns_fixtures.etcd_admin import change_password, status, switch_authentication_on
from pycni.cni.conf import Keys as ConfKeys
from pycni.etcd import requests
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.records import Member, Sync
from pycni.etcd.schema import Keys
from tests.overlay.following import events_of, start, wait_in_step
from tests.overlay.overlay_lab import PREFIX, Conf, OverlayLab, forget_tokens, records, with_endpoints, with_user


def test_etcd_is_full(overlay: Callable[..., OverlayLab]) -> None:
    """While etcd takes no more data a host cannot say how far it follows, and says why; it is no double of another
    machine, so a DEL gives back what the container had."""
    lab = overlay()
    a, b = lab.hosts
    start(lab)
    one, _ = lab.add(a, "one")
    two, _ = lab.add(b, "two")
    wait_in_step(lab)
    alarm(lab, "ACTIVATE")
    lab.delete(b, two)  # a follows, which is to be told
    wait_until(lambda: "space exceeded" in str(problems(lab)), 5.0, "the agent says what hinders it")
    lab.delete(a, one)
    assert events_of(lab.agents[0], "overlay-refused") == []
    assert owned(lab, lab.conf()) == set()
    alarm(lab, "DEACTIVATE")
    lab.add(a, "three")
    wait_until(lambda: not problems(lab), 5.0, "and it is over")


def test_changed_password(overlay: Callable[..., OverlayLab]) -> None:
    """DEL and GC use the password that the configuration has now, for containers from before too. With a wrong one DEL
    succeeds, says so, and what is owed is given back by the next call that is let in."""
    lab = overlay(hosts=1)
    (a,) = lab.hosts
    member = lab.etcd.members[0]
    switch_authentication_on(member, {"u": "old"}, {"u": ["root"]})
    old, new = with_user(lab, "old"), with_user(lab, "new")
    for name in ("one", "two", "three", "four"):
        lab.add(a, name, old)
    change_password(member, "u", "new")
    forget_tokens(a)
    lab.delete(a, "one", new)
    assert owned(lab, new) == {"two", "three", "four"}
    forget_tokens(a)
    answer = lab.call("DEL", a, "two", old)
    assert answer.ok, answer
    assert "two is still to be given back" in answer.stderr
    assert "authentication failed" in answer.stderr
    assert owned(lab, new) == {"two", "three", "four"}
    assert lab.gc(a, new, "four").ok
    assert owned(lab, new) == {"four"}
    forget_tokens(a)
    assert lab.call("DEL", a, "four", old).ok
    assert records(a) == {}
    assert lab.devices(a) == []
    assert lab.gc(a, new).ok
    assert owned(lab, new) == set()
    assert not [key for key in keys_of(lab, new) if key.startswith("member/")]


def test_changed_endpoints(overlay: Callable[..., OverlayLab]) -> None:
    """The only member that a container's ADD knew is gone: DEL asks those that the configuration has now. Where it has
    none of them, what is owed is given back by GC with those that answer, and the host is a member no more."""
    lab = overlay(hosts=1, members=3)
    (a,) = lab.hosts
    gone, *others = lab.etcd.endpoints
    old, new = with_endpoints(lab, gone), with_endpoints(lab, *others)
    lab.add(a, "one", old)
    lab.add(a, "two", old)
    lab.etcd.members[0].stop()
    lab.delete(a, "one", new)
    assert owned(lab, new) == {"two"}
    lab.delete(a, "two", old)
    assert owned(lab, new) == {"two"}
    assert lab.gc(a, new).ok
    assert not [key for key in keys_of(lab, new) if key.startswith(("ep/", "own/", "member/"))]


def test_network_that_is_refused(overlay: Callable[..., OverlayLab]) -> None:
    """In one network another host has this one's tunnel address: that is told, once, and tried again; what is to be
    said of the other networks is said all the same, and how far this host follows is, too."""
    lab = overlay(hosts=1)
    (a,) = lab.hosts
    start(lab)
    lab.add(a, "one", lab.conf(name="first"))
    lab.add(a, "two", lab.conf(name="second", number=2))
    own = {name: f"member/{lab.node(a)}/{name}" for name in ("first", "second")}
    wait_until(lambda: f"node/{lab.node(a)}" in [*lab.keys()], 5.0, "the agent is in etcd")
    keys = Keys(PREFIX)
    rival = keys.member("f" * 32, "first")
    claim = requests.put(rival, Member(name="rival", vtep=lab.tunnel_address(a), port=4789).render())
    losses = [requests.delete(f"{keys.base}{key}") for key in own.values()]
    lab.with_etcd(lambda client: client.txn(requests.txn([], [claim, *losses])))
    wait_until(lambda: own["second"] in [*lab.keys()], 5.0, "the other network is said")
    wait_until(lambda: any("network first: " in each for each in problems(lab)), 5.0, "and what is refused, in words")
    assert own["first"] not in [*lab.keys()]
    dead = keys.fence("e" * 32)
    fenced = lab.with_etcd(lambda client: client.txn(requests.txn([], [requests.put(dead, b"{}")]))).revision
    wait_until(lambda: Sync.parse(lab.keys()[f"sync/{lab.node(a)}"].value).revision >= fenced, 5.0, "it is reported")
    assert len(events_of(lab.agents[0], "overlay-unsaid")) == 1
    lab.with_etcd(lambda client: client.txn(requests.txn([], [requests.delete(rival)])))
    wait_until(lambda: own["first"] in [*lab.keys()] and not problems(lab), 5.0, "and it is over")


def keys_of(lab: OverlayLab, conf: Conf) -> list[str]:
    """As `OverlayLab.keys`, asked with the connection of *conf*."""
    base = Keys(PREFIX).base

    def names() -> list[str]:
        with open_client(EtcdConf.parse(ConfKeys(conf["etcd"], "etcd"))) as client:
            return [each.key.removeprefix(base) for each in client.read(base).found]

    return lab.hosts[0].in_namespace(names)


def owned(lab: OverlayLab, conf: Conf) -> set[str]:
    """The containers that have addresses, as etcd says."""
    return {key.split("/")[4] for key in keys_of(lab, conf) if key.startswith("own/")}


def alarm(lab: OverlayLab, action: str) -> None:
    """etcd has no room for more data, or has again."""
    member = lab.etcd.members[0]
    identity = status(member)["header"]["member_id"]
    member.post("/v3/maintenance/alarm", {"action": action, "memberID": identity, "alarm": "NOSPACE"})


def problems(lab: OverlayLab) -> list[str]:
    """What hinders the first host, in the words of its agent."""
    (cluster,) = lab.agents[0].ask("overlay", network=None)["clusters"]
    return list(cluster["problems"])
