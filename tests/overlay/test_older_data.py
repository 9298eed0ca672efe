"""etcd comes back empty, or out of an old backup: it would give out addresses that containers of other hosts have."""

from __future__ import annotations

from collections.abc import Callable

from netns_fixtures import wait_until
from pycni.cni.errors import Code
from tests.overlay.following import start, wait_in_step
from tests.overlay.overlay_lab import OverlayLab


def replace_data(lab: OverlayLab) -> None:
    """Nothing of what etcd had is there any more, and it is at its first revisions."""
    lab.etcd.stop()
    for member in lab.etcd.members:
        member.wipe()
    lab.etcd.start()


def test_with_agents(overlay: Callable[..., OverlayLab]) -> None:
    """ADD is refused by all hosts and says why; who runs goes on, and can be detached."""
    lab = overlay()
    a, b = lab.hosts
    start(lab)
    one, _ = lab.add(a, "one")
    two, second = lab.add(b, "two")
    wait_in_step(lab)
    replace_data(lab)

    def all_know() -> bool:
        clusters = [agent.ask("overlay", network=None)["clusters"][0] for agent in lab.agents]
        return all("revision" in each["reason"] for each in clusters)

    wait_until(all_know, 15.0, "the agents have seen it")
    for host in (a, b):
        told = lab.refused(host, host.container("late"), lab.conf())
        assert (told["code"], "older data" in told["msg"]) == (Code.TRY_AGAIN, True), told
    lab.ping(one, second)
    lab.delete(b, two)
    lab.delete(a, one)


def test_without_agents(overlay: Callable[..., OverlayLab]) -> None:
    """A host that has programmed a later answer of etcd takes no earlier one. If told to, it joins anew."""
    lab = overlay()
    a, b = lab.hosts
    one, _ = lab.add(a, "one")
    two, _ = lab.add(b, "two")
    lab.add(a, "three")
    replace_data(lab)
    told = lab.refused(a, a.container("late"), lab.conf())
    assert (told["code"], "older data" in told["msg"]) == (Code.TRY_AGAIN, True), told
    note = told["details"].rpartition("remove ")[2]
    a.run(["rm", note])
    assert "takes no part" in lab.refused(a, a.container("first"), lab.conf())["msg"]
    _, last = lab.add(a, "last")
    lab.ping(one, last)
    lab.delete_all()
    assert not two.exists()
