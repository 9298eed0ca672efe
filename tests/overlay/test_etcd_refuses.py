"""etcd answers, and says no: what that costs a host, and what goes on all the same."""

from __future__ import annotations

from collections.abc import Callable

from netns_fixtures import wait_until
from netns_fixtures.etcd_admin import status
from tests.overlay.following import events_of, start, wait_in_step
from tests.overlay.overlay_lab import OverlayLab


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
    assert not [key for key in lab.keys() if key.startswith(("ep/", "own"))]
    alarm(lab, "DEACTIVATE")
    lab.add(a, "three")
    wait_until(lambda: not problems(lab), 5.0, "and it is over")


def alarm(lab: OverlayLab, action: str) -> None:
    """etcd has no room for more data, or has again."""
    member = lab.etcd.members[0]
    identity = status(member)["header"]["member_id"]
    member.post("/v3/maintenance/alarm", {"action": action, "memberID": identity, "alarm": "NOSPACE"})


def problems(lab: OverlayLab) -> list[str]:
    """What hinders the first host, in the words of its agent."""
    (cluster,) = lab.agents[0].ask("overlay", network=None)["clusters"]
    return list(cluster["problems"])
