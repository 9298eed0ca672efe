"""The way to etcd changes under running agents: its members, the password."""

from __future__ import annotations

from collections.abc import Callable

from netns_fixtures import wait_until
from netns_fixtures.etcd_admin import change_password, switch_authentication_on
from tests.overlay.following import start
from tests.overlay.overlay_lab import OverlayLab, forget_tokens, with_endpoints, with_user

CONFIG = "node_ttl_s = 30\nreconcile_s = 0\n"


def test_members_are_replaced(overlay: Callable[..., OverlayLab]) -> None:
    """The only member that the agents knew is gone for good. The next ADD on each host names others: its agent follows
    by way of these, for containers from before too, and keeps the lease it had. An outdated DEL does not change it."""
    lab = overlay(members=3)
    a, b = lab.hosts
    start(lab, CONFIG)
    gone, *others = lab.etcd.endpoints
    old, new = with_endpoints(lab, gone), with_endpoints(lab, *others)
    one, _ = lab.add(a, "one", old)
    lab.add(a, "two", old)
    lab.add(b, "far", old)
    wait_until(lambda: lease_of(lab), 5.0)
    lease = lease_of(lab)
    lab.etcd.members[0].stop()
    wait_until(lambda: all(silent(lab)), 10.0, "they notice")
    four, _ = lab.add(a, "four", new)
    _, three = lab.add(b, "three", new)
    wait_until(lambda: not any(silent(lab)), 15.0, "the others are heard")
    lab.ping(one, three)
    lab.ping(four, three)
    lab.delete(a, "two", old)
    _, late = lab.add(b, "late", new)
    lab.ping(one, late)
    wait_until(lambda: lab.agents[0].logged("overlay-lease")[-1]["held"], 5.0)
    assert lease_of(lab) == lease
    lab.agents[0].pycni("reconcile")
    assert not any("/two/" in key for key in [*lab.keys()]), "what the DEL owed was given back over the new connection"


def test_password_changes(overlay: Callable[..., OverlayLab]) -> None:
    """A password that was changed while no agent ran on a host: its agent begins with that of one of its networks, and
    goes on at the next comparison with that of the other one, which is let in. A running one takes an ADD's."""
    lab = overlay()
    a, b = lab.hosts
    member = lab.etcd.members[0]
    switch_authentication_on(member, {"u": "old"}, {"u": ["root"]})
    old, new = with_user(lab, "old"), with_user(lab, "new")
    lab.agents[0].start(config=CONFIG)
    one, _ = lab.add(a, "one", old)
    lab.add(b, "two", old)
    change_password(member, "u", "new")
    forget_tokens(b)
    lab.add(b, "other", with_user(lab, "new", name="other", number=2))
    lab.etcd.stop()
    lab.etcd.start()  # which forgets all tokens
    lab.agents[1].start(config=CONFIG)
    forget_tokens(b)
    wait_until(lambda: all(silent(lab)), 10.0, "the old password is good for nothing")
    lab.agents[1].pycni("reconcile", rc=None)
    wait_until(lambda: silent(lab) == [True, False], 15.0)
    lab.add(a, "three", new)
    wait_until(lambda: not any(silent(lab)), 15.0)
    _, late = lab.add(b, "late", new)
    lab.ping(one, late)


def lease_of(lab: OverlayLab) -> int:
    """Of the first host, as etcd says; 0: none."""
    found = lab.keys().get(f"node/{lab.node(lab.hosts[0])}")
    return found.lease if found is not None else 0


def silent(lab: OverlayLab) -> list[bool]:
    """Of each host's agent, whether it hears nothing of etcd."""
    return [bool(agent.ask("overlay", network=None)["clusters"][0]["staleSince"]) for agent in lab.agents]
