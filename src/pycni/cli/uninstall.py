"""`pycni uninstall`: undo what the manifest of `pycni install` says."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import Any

from pycni.cli import systemd
from pycni.cli.bundling import remove_bundle
from pycni.cli.failure import FAILED, OK, Failure
from pycni.cli.install import SAVED_SUFFIX, print_steps
from pycni.cli.launcher import is_launcher, package_parent
from pycni.cli.manifest import Row, read_manifest, remove_directory, remove_written, unlink, write_manifest
from pycni.cli.state import read_records
from pycni.cli.tables import counted
from pycni.exe.run import STANDALONE


def uninstall(given: Namespace) -> int:
    """Undo what the manifest says; what others changed meanwhile stays and is named. Twice is once."""
    installs = read_manifest()
    wanted = [os.path.abspath(given.bin_dir)] if given.bin_dir else list(installs)
    chosen = [bin_dir for bin_dir in wanted if bin_dir in installs]
    if not chosen:
        print_steps(given, [], ())
        return OK
    if not given.force:
        _refuse_while_attached()
    with_units = any(installs[bin_dir].get("units") for bin_dir in chosen)
    if given.now and with_units:
        systemd.run_all(systemd.STOP)  # while it still finds them
    rows: list[Row] = []
    for bin_dir in chosen:
        rows += _undo(bin_dir, installs.pop(bin_dir))
        write_manifest(installs)
    if not installs:
        remove_bundle(package_parent())  # executables of another host with this very package only start slower
    if given.now and with_units:
        systemd.run_all(systemd.FORGET)
    print_steps(given, rows, (*systemd.STOP, *systemd.FORGET) if with_units else ())
    return FAILED if any(what.startswith("left") for _, what in rows) else OK


def _undo(bin_dir: str, entry: dict[str, Any]) -> list[Row]:
    rows = systemd.remove_units(entry.get("units", {}))
    # Last what the others turn into where no agent listens.
    for name in sorted(entry.get("executables", ()), key=lambda name: name == STANDALONE):
        rows.append(_remove_executable(os.path.join(bin_dir, name), saved=name in entry.get("saved", ())))
    conflist = entry.get("conflist", {})
    rows += [remove_written(conflist["path"], conflist["sha256"])] if conflist else []
    for directory in reversed(entry.get("directories", [])):
        rows += remove_directory(directory)
    return rows


def _refuse_while_attached() -> None:
    attached = {record.attachment.replace(part="") for record in read_records()}  # chained plugins have records too
    if attached:
        raise Failure(
            f"{counted(len(attached), 'attachment')} in use; without the executables no runtime could detach them",
            next_step="stop the containers (`pycni list`), `pycni gc NETWORK` for those that are gone, or say --force",
        )


def _remove_executable(path: str, *, saved: bool) -> Row:
    if os.path.lexists(path) and not is_launcher(path):
        kept = f"; the one before pycni is {os.path.basename(path)}{SAVED_SUFFIX}" if saved else ""
        return path, f"left: somebody replaced it since{kept}"
    removed = unlink(path)
    if saved and os.path.lexists(path + SAVED_SUFFIX):
        os.rename(path + SAVED_SUFFIX, path)
        return path, "the former file is back"
    return path, "removed" if removed else "was gone"


HANDLERS = {"uninstall": uninstall}
