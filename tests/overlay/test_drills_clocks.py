"""Drill: the clocks of hosts jump. CLOCK_REALTIME is the machine's and no namespace's, so the agents under test read
`time.time` with an offset that their host says."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from netns_fixtures import Host, wait_until
from tests.kernel import agent_lab
from tests.overlay.drill_checks import Drill, address_in, logged, traffic
from tests.overlay.drill_facts import DEADLINE_S
from tests.overlay.overlay_lab import OverlayLab

DAY_S = 86400
LONGER_THAN_DEATH_S = 4.0
# Python imports a module of this name at its start.
CLOCK = """
import sys
import time

now = time.time

def jumped():
    # gRPC tells its C part at what time to give up, and that has the machine's clock.
    if sys._getframe(1).f_globals["__name__"].startswith("grpc"):
        return now()
    try:
        with open("/run/clock") as said:
            return now() + float(said.read() or 0)
    except OSError:
        return now()

time.time = jumped
"""


def jump(host: Host, seconds: float) -> None:
    """From now on the clock of *host* is so many seconds off."""
    host.run(["sh", "-c", f"echo {seconds} >/run/clock.new && mv /run/clock.new /run/clock"])


def test_clocks_jump(overlay: Callable[..., OverlayLab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day forth on one host, a day back on the other, and each the other way, for longer than a silent host has to
    live: nobody is a suspect, no packet is lost, containers come and go, and what was to be given back is."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    path = f"{tmp_path}:{agent_lab.ENVIRONMENT['PYTHONPATH']}"
    monkeypatch.setitem(agent_lab.ENVIRONMENT, "PYTHONPATH", path)
    lab = overlay()
    a, b = lab.hosts
    drill = Drill(lab, "node_ttl_s = 2\nreconcile_s = 1\ndead_after_s = 2.0\n")
    one, _ = drill.add(a, "one")
    two, _ = drill.add(b, "two")
    with traffic(one, address_in(two)), traffic(two, address_in(one, 6)):
        for turn, offset in enumerate((DAY_S, -DAY_S)):
            drill.add(b, f"gone{turn}")
            jump(a, -offset)
            jump(b, offset)
            began = time.monotonic()
            drill.add(a, f"new{turn}")
            lab.etcd.kill()
            drill.delete(f"gone{turn}")
            lab.etcd.start()
            wait_until(lambda: time.monotonic() - began > LONGER_THAN_DEATH_S, DEADLINE_S)  # noqa: B023
            drill.check()
    for agent in lab.agents:
        assert not logged(agent, "overlay-suspect")
        assert not logged(agent, "overlay-dead")
        told = [line["time"] for line in logged(agent, "call")]
        assert max(told) - min(told) > DAY_S, "the clock did jump"
    for host in lab.hosts:
        host.run(["rm", "/run/clock"])
    drill.end()
