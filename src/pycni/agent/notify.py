"""systemd by its environment variables: readiness, watchdog (sd_notify(3)), socket activation (sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

LISTEN_FDS_START = 3


def notify(state: str, environ: MutableMapping[str, str]) -> None:
    """Tell systemd "READY=1", "STOPPING=1", "WATCHDOG=1"; nothing where it did not start us."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(state.encode(), name)
        except OSError:
            pass  # systemd is restarting; it asks again


def watchdog_interval_s(environ: MutableMapping[str, str], pid: int) -> float:
    """How often to say WATCHDOG=1: half of what systemd waits for; 0 where it does not."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    return int(environ.get("WATCHDOG_USEC", "0")) / 2e6


def activated_socket(environ: MutableMapping[str, str], pid: int) -> socket.socket | None:
    """The listening socket that systemd made, None where it made none. The variables are consumed."""
    if environ.pop("LISTEN_PID", "") != str(pid) or int(environ.pop("LISTEN_FDS", "0")) < 1:
        return None
    os.set_inheritable(LISTEN_FDS_START, False)
    return socket.socket(fileno=LISTEN_FDS_START)
