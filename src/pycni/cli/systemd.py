"""The agent's systemd units: a socket that systemd holds, and the service that it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pycni.agent.config import DEFAULT_SOCKET
from pycni.cli.failure import Failure
from pycni.cli.launcher import package_parent
from pycni.cli.manifest import Row, digest, is_as_written, remove_written, replace_file
from pycni.host import program

DEFAULT_UNIT_DIR = "/etc/systemd/system"
SERVICE, SOCKET = "pycni-agent.service", "pycni-agent.socket"

Command = tuple[str, ...]
START: tuple[Command, ...] = (
    ("systemctl", "daemon-reload"),
    ("systemctl", "enable", "--now", SOCKET, SERVICE),
    ("systemctl", "try-restart", SERVICE),  # after an upgrade the old one would go on
)
STOP: tuple[Command, ...] = (("systemctl", "stop", SOCKET, SERVICE),)
FORGET: tuple[Command, ...] = (("systemctl", "daemon-reload"),)

# The socket belongs to systemd alone: RuntimeDirectory= in the service would remove it whenever the agent stops, and
# callers would find no agent until somebody restarts the socket unit. RemoveOnStop: a socket unit that was stopped
# leaves nothing to connect to, so that calls go standalone.
SOCKET_TEXT = f"""\
[Unit]
Description=pycni agent socket
Documentation=man:pycni(1)

[Socket]
ListenStream={DEFAULT_SOCKET}
SocketMode=0600
DirectoryMode=0755
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""

# No option that gives the service a mount namespace of its own (ProtectSystem=, PrivateTmp=, ProtectHome=, …): the
# agent must see the namespaces that runtimes bind to files later, and the IPAM plugins of others run as its children.
# None that keeps it from its work: RestrictNamespaces= forbids setns(2), ProtectKernelTunables= the sysctls. Nor a
# smaller set of capabilities: with CAP_SYS_ADMIN and CAP_NET_ADMIN, which it needs, the rest would guard nothing.
# KillMode=process: the userland proxy, a child, serves on while the agent restarts, and the next one takes it over.
# With StartLimit at its default an agent that cannot start makes the socket fail, and calls go standalone.
_SERVICE_TEXT = """\
[Unit]
Description=pycni agent
Documentation=man:pycni(1)
Requires={socket}

[Service]
Type=notify
{environment}ExecStart={start}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
WatchdogSec=30s
TimeoutStopSec=90s
KillMode=process
OOMPolicy=continue
OOMScoreAdjust=-500
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native

[Install]
Also={socket}
WantedBy=multi-user.target
"""


def service_text(python: str, python_path: str) -> str:
    """The service, started by that interpreter; *python_path* is the package's directory, "" if it finds it itself."""
    environment = f"Environment={_quoted(f'PYTHONPATH={python_path}')}\n" if python_path else ""
    program_word = _quoted(python).replace("$", "$$")  # only command lines have variables
    start = f"{program_word} -P -m pycni agent"
    return _SERVICE_TEXT.format(socket=SOCKET, environment=environment, start=start)


def _quoted(text: str) -> str:
    """One word of a unit file that means itself (systemd.syntax(7), "Quoting"; systemd.unit(5), "Specifiers")."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if escaped != text or " " in text else text


def _python_path() -> str:
    """What must be in PYTHONPATH for the agent to be this package; "" if it is so by itself."""
    look = "import os, pycni; print(os.path.dirname(os.path.dirname(os.path.abspath(pycni.__file__))))"
    _, found, _ = program.run((sys.executable, "-P", "-c", look))
    parent = package_parent()
    return "" if found.strip() == parent else parent


def write_units(directory: str, before: dict[str, str]) -> tuple[list[Row], dict[str, str]]:
    """Write both units; what was done, and the digest of each by its path. *before*: those of the last time.

    A unit that somebody else wrote or edited stays as it is.
    """
    if not os.path.isdir(directory):
        raise Failure(f"{directory} is no directory", next_step="say with --unit-dir where systemd reads its units")
    texts = {SOCKET: SOCKET_TEXT, SERVICE: service_text(sys.executable, _python_path())}
    rows: list[Row] = []
    digests = dict(before)
    for name, text in texts.items():
        path = os.path.join(directory, name)
        exists = os.path.lexists(path)
        if exists and not (path in before and is_as_written(path, before[path])):
            rows.append((path, "left as it is"))
            continue
        replace_file(path, text, 0o644)
        rows.append((path, "renewed" if exists else "written"))
        digests[path] = digest(text)
    return rows, digests


def remove_units(digests: dict[str, str]) -> list[Row]:
    """Remove the units, and the links by which `systemctl enable` made them start."""
    rows = []
    for path, sha256 in digests.items():
        row = remove_written(path, sha256)
        rows.append(row)
        directory, name = os.path.split(path)
        for target in ("sockets.target.wants", "multi-user.target.wants"):
            link = os.path.join(directory, target, name)
            if row[1] == "removed" and os.path.islink(link):
                os.unlink(link)
                rows.append((link, "removed"))
    return rows


def run_all(commands: Sequence[Command]) -> None:
    """Run *commands*; Failure at the first that fails."""
    for command in commands:
        found = program.find(command[0])
        if found is None:
            raise Failure(f"{command[0]} is not installed", next_step="leave --now away")
        status, out, err = program.run((found, *command[1:]))
        if status:
            raise Failure(f"`{' '.join(command)}` failed", details=(err or out).strip())
