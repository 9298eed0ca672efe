"""systemd's variables, read as its manual says."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pycni.agent.notify import activated_socket, notify, watchdog_interval_s


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_reaches_the_socket(tmp_path: Path, abstract: bool) -> None:
    """A path, or an abstract address behind an @."""
    name = str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + name if abstract else name)
        heard.settimeout(10)
        notify("READY=1", {"NOTIFY_SOCKET": "@" + name if abstract else name})
        assert heard.recv(64) == b"READY=1"


def test_nobody_to_tell_is_no_failure(tmp_path: Path) -> None:
    """Not started by systemd, or systemd is just away."""
    notify("READY=1", {})
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0.0),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_bites(environ: dict[str, str], interval_s: float) -> None:
    """Where it watches this very process."""
    assert watchdog_interval_s(environ, 7) == interval_s


@pytest.mark.parametrize("environ", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": "8", "LISTEN_FDS": "1"}])
def test_sockets_of_others_are_not_taken(environ: dict[str, str]) -> None:
    """Without the pid they are meant for a parent or a child."""
    assert activated_socket(dict(environ), 7) is None
