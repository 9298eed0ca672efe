"""What `pycni install` did, for `pycni uninstall`; and small changes of files that are whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

MANIFEST = "/var/lib/pycni/install.json"

Row = tuple[str, str]  # a path, and what was done to it


def read_manifest() -> dict[str, dict[str, Any]]:
    """Installations by directory of executables; empty if there are none or the file makes no sense. OSError."""
    try:
        with open(MANIFEST, "rb") as file:
            installs = json.loads(file.read())["installs"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    return installs if isinstance(installs, dict) else {}


def write_manifest(installs: dict[str, dict[str, Any]]) -> None:
    """Remember these installations; without any the file goes."""
    if not installs:
        unlink(MANIFEST)
        return
    os.makedirs(os.path.dirname(MANIFEST), mode=0o700, exist_ok=True)
    replace_file(MANIFEST, json.dumps({"version": 1, "installs": installs}, indent=2) + "\n", 0o600)


def replace_file(path: str, text: str, mode: int) -> None:
    """Write *text* with *mode*, whatever the umask; readers find the old file or the new one."""
    temporary = f"{path}.{os.getpid()}.pycni-tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with open(fd, "w") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
        os.rename(temporary, path)
    except BaseException:
        unlink(temporary)
        raise


def unlink(path: str) -> bool:
    """Remove a file; whether there was one."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def make_directories(path: str) -> Iterator[str]:
    """Make *path* and its parents; yields those that were missing, outermost first."""
    if os.path.isdir(path):
        return
    yield from make_directories(os.path.dirname(path))
    os.mkdir(path, 0o755)
    yield path


def remove_directory(path: str) -> list[Row]:
    try:
        os.rmdir(path)
    except OSError:
        return []  # others put files there, or it is gone: not ours to say more about
    return [(path, "removed")]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def is_as_written(path: str, sha256: str) -> bool:
    """Whether the file is the one with that digest; FileNotFoundError."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest() == sha256


def remove_written(path: str, sha256: str) -> Row:
    """Remove a file of ours; one that was changed since stays."""
    try:
        same = is_as_written(path, sha256)
    except FileNotFoundError:
        return path, "was gone"
    if not same:
        return path, "left: it was changed since"
    os.unlink(path)
    return path, "removed"
