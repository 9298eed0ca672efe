"""The `lab` fixture: the hosts of `pycni lab` for anybody's tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from netns_fixtures import EchoServer, Lab, can_ping, lab, tcp_peer_seen

__all__ = ["lab"]  # the fixture; this folder's conftest.py has another of that name

pytestmark = pytest.mark.needs("root", "python:yaml", "kernel:nft_bridge")

FILE = """
networks: {blue: {ipv4: 10.88.0.0/24, ipv6: "fd00:88::/64"}}
hosts: {"h[1-2]": {agent: false, containers: {a: {}, b: {}}}}
"""


def test_hosts_containers_and_faults(lab: Callable[..., Lab]) -> None:
    """Probes work on hosts and containers of both families; verbs break and mend; another file changes it."""
    made = lab(FILE)
    h1, h2, a, b = made["h1"], made["h2"], made["h1/a"], made["h1/b"]
    assert can_ping(a, b.address()) and can_ping(a, b.address(6))
    assert a.run(["hostname"]).stdout.strip() == "h1"
    assert b.address() + "/24" in b.addresses("eth0")
    server = EchoServer(b)
    try:
        assert tcp_peer_seen(a, b.address(), server.port).address == a.address()
    finally:
        server.close()
    assert can_ping(h1, h2.address())
    assert made("cut", "h1") == "h1:eth0 is cut\n"
    assert not can_ping(h1, h2.address(), deadline_s=0.2)
    made("heal")
    assert can_ping(h1, h2.address(6))
    made.up(FILE.replace("b: {}", "b: {}, c: {}"))
    assert can_ping(made["h2/c"], made["h2/a"].address())
    with pytest.raises(KeyError):
        made["h3"]
    with pytest.raises(AssertionError, match="has no host 'h9'"):
        made("cut", "h9")
    with pytest.raises(TypeError, match="belongs to lab"):
        a.delete()
    running = h1.popen(["sleep", "60"], stdout=subprocess.DEVNULL)
    path = h1.path
    assert os.path.exists(path)
    made.down()
    assert not os.path.exists(path) and running.wait(5) != 0


def test_a_lab_from_a_file_is_taken_down_by_the_fixture(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """Two at once have different names and the same addresses."""
    path = tmp_path / "lab.yaml"
    path.write_text(FILE)
    one, two = lab(path), lab(path)
    assert one.name != two.name
    assert one["h1/a"].address() == two["h1/a"].address()
