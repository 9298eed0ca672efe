"""Where labs keep what is known of them, and the programs that they need."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from typing import Any

from pycni.cni.errors import Code
from pycni.lab.errors import USAGE, LabError

BASE = "/run/pycni-lab"
MARK = "PYCNI_LAB"  # in the environment of every process of a lab: its id
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FORMAT = 1
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\Z")  # a host name's label (RFC 1123), and a part of paths
NAME_WORDS = "1 to 32 lower case letters, digits and inner hyphens"


def directory_of(name: str) -> str:
    """The lab's directory. LabError for what cannot be a lab's name: it would be a directory elsewhere."""
    if not NAME.match(name):
        raise LabError(f"{name!r} cannot be a lab's name: {NAME_WORDS}", exit_code=USAGE)
    return os.path.join(BASE, name)


def names() -> list[str]:
    """The labs that are known, sorted. LabError for who may not look."""
    return [name for name in traces() if _is_there(os.path.join(directory_of(name), "state.json"))]


def traces() -> list[str]:
    """As `names`, with those of which a killed command left no more than a directory."""
    try:
        return sorted(entry for entry in os.listdir(BASE) if NAME.match(entry) and os.path.isdir(directory_of(entry)))
    except FileNotFoundError:
        return []
    except PermissionError as refused:
        raise _not_for_you(refused) from None


def _is_there(path: str) -> bool:
    """As os.path.exists, which has "no" also for who may not look."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as refused:
        raise _not_for_you(refused) from None
    return True


def _not_for_you(refused: PermissionError) -> LabError:
    return LabError(
        f"labs are root's: {refused.filename}: {refused.strerror}", next_step="run the command as root", code=Code.IO
    )


def read_state(name: str) -> dict[str, Any] | None:
    """The state of the lab *name*, None where there is none. LabError for one of another version or a broken one."""
    path = os.path.join(directory_of(name), "state.json")
    try:
        with open(path, encoding="utf-8") as file:
            state = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as failure:
        raise LabError(f"{path} cannot be read: {failure}", next_step=f"`pycni lab down {name}`") from None
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise LabError(f"{path} has format {found}, this pycni knows {FORMAT}", next_step=f"`pycni lab down {name}`")
    known: dict[str, Any] = state
    return known


def write_state(name: str, state: Mapping[str, Any]) -> None:
    """Replace the state in one step."""
    path = os.path.join(directory_of(name), "state.json")
    fresh = f"{path}.{os.getpid()}"
    with open(fresh, "w", encoding="utf-8") as file:
        file.write(json.dumps(state))  # with indentation it would be written by Python instead of C
    os.rename(fresh, path)


def tool(name: str) -> str:
    """The absolute path of a program; LabError where it is not installed."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
    if found is None:
        raise LabError(f"a lab needs the program {name}, which is not installed", next_step=_PACKAGES.get(name, ""))
    return found


_PACKAGES = {
    "etcd": "Debian, Ubuntu: apt install etcd-server",
    "ip": "Debian, Ubuntu: apt install iproute2",
    "nsenter": "Debian, Ubuntu: apt install util-linux",
    "openssl": "Debian, Ubuntu: apt install openssl",
}
