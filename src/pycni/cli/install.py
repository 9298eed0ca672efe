"""`pycni install`: executables, a default network, the agent's units, and a manifest of the way back."""

from __future__ import annotations

import json
import os
import shutil
from argparse import Namespace
from typing import Any

from pycni.cli import systemd
from pycni.cli.failure import OK, USAGE, Failure, warn
from pycni.cli.launcher import (
    CLIENT_MODULE,
    FLAGS,
    STANDALONE_MODULE,
    compile_package,
    interpreter,
    is_launcher,
    launcher_text,
    package_parent,
)
from pycni.cli.manifest import (
    Row,
    digest,
    make_directories,
    read_manifest,
    remove_directory,
    replace_file,
    unlink,
    write_manifest,
)
from pycni.cli.tables import print_table
from pycni.cni.errors import CniError
from pycni.exe import build_launcher
from pycni.exe.plugins import PLUGINS
from pycni.exe.run import STANDALONE
from pycni.host.delegate import run_plugin

OWN_NAMES = tuple(f"pycni-{plugin.name}" for plugin in PLUGINS)
DROP_IN_NAMES = tuple(plugin.drop_in for plugin in PLUGINS)
SAVED_SUFFIX = ".pycni-saved"
CONFLIST_NAME = "10-pycni.conflist"
NO_AGENT = (("PYCNI_SOCKET", ""),)  # a launcher that is to work by itself

# containerd 1.6 and CRI-O read cniVersion alone and do not know 1.1.0; newer libcni takes the best of cniVersions, and
# with 1.1.0 runtimes ask for STATUS and GC.
DEFAULT_NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "cniVersions": ["1.0.0", "1.1.0"],
    "name": "pycni",
    "plugins": [
        {
            "type": "pycni-bridge",
            "bridge": "pycni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "capabilities": {"ips": True, "mac": True, "ipRanges": True, "dns": True},
            "ipam": {
                "type": "pycni-ipam",
                "ranges": [[{"subnet": "10.77.0.0/16"}], [{"subnet": "fd00:7079:636e:69::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        },
        {"type": "pycni-portmap", "capabilities": {"portMappings": True}},
    ],
}


# -- install -----------------------------------------------------------------------------------------------------------


class _Steps:
    """What was done, for the table, the manifest and, if a later step fails, for going back."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.written: list[str] = []  # names that were free
        self.renewed: list[str] = []  # names that held an older launcher of ours
        self.saved: list[str] = []  # names whose former file was kept aside

    def note(self, path: str, what: str) -> None:
        self.rows.append((path, what))


def install(given: Namespace) -> int:
    """Write executables, configuration and units; a failure of the executables takes back what was written."""
    bin_dir, conf_dir = os.path.abspath(given.bin_dir), os.path.abspath(given.conf_dir)
    names = OWN_NAMES + (DROP_IN_NAMES if given.replace else ())
    if given.now and not given.systemd:
        raise Failure("--now starts the units that --systemd writes", exit_code=USAGE)
    _refuse_foreign(bin_dir, (STANDALONE, *names), replace=given.replace)
    compiled = compile_package(package_parent())
    installs = read_manifest()
    before = installs.get(bin_dir, {})
    steps = _Steps()
    made = list(make_directories(bin_dir))
    stage = os.path.join(bin_dir, f".pycni-stage.{os.getpid()}")
    try:
        kind = _stage(stage, given.launcher)
        # First what the others turn into where no agent listens.
        _link_executable(steps, bin_dir, STANDALONE, os.path.join(stage, STANDALONE))
        for name in names:
            _link_executable(steps, bin_dir, name, os.path.join(stage, OWN_NAMES[0]))
        entry = installs[bin_dir] = {
            "launcher": kind,
            "executables": sorted({*before.get("executables", ()), STANDALONE, *names}),
            "saved": sorted({*before.get("saved", ()), *steps.saved}),
            "conflist": before.get("conflist", {}),
            "directories": [*before.get("directories", ()), *made],
            "units": before.get("units", {}),
        }
        write_manifest(installs)  # before the rest may fail: without it there is no way back
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        _take_back(steps, bin_dir, made)
        raise
    shutil.rmtree(stage)
    if not given.no_conf:
        try:
            _write_conflist(steps, conf_dir, entry)
        finally:
            write_manifest(installs)
    commands: tuple[systemd.Command, ...] = ()
    if given.systemd:
        rows, entry["units"] = systemd.write_units(os.path.abspath(given.unit_dir), entry["units"])
        steps.rows += rows
        write_manifest(installs)
        commands = systemd.START
    if given.now:
        systemd.run_all(commands)
    print_steps(given, steps.rows, commands)
    if not compiled:
        warn("the package's directory cannot be written: without bytecode every call takes about three times as long")
    if given.launcher is None and kind != "c":
        warn("no native launcher came along and none could be compiled: calls to an agent take ten times as long")
    return OK


def _refuse_foreign(bin_dir: str, names: tuple[str, ...], *, replace: bool) -> None:
    paths = {name: os.path.join(bin_dir, name) for name in names}
    foreign = [name for name, path in paths.items() if os.path.lexists(path) and not is_launcher(path)]
    stopping = [name for name in foreign if not (replace and name in DROP_IN_NAMES)]
    if stopping:
        raise Failure(
            f"{', '.join(stopping)} in {bin_dir} is not pycni's; nothing was changed",
            next_step="move it away, or choose another --bin-dir",
        )


def _stage(stage: str, wanted: str | None) -> str:
    """Write the executables in *stage* and try them; the kind of launcher: *wanted*, or the best that runs."""
    standalone = launcher_text(interpreter(), package_parent(), STANDALONE_MODULE)
    path = os.path.join(stage, OWN_NAMES[0])
    os.mkdir(stage, 0o700)
    replace_file(os.path.join(stage, STANDALONE), standalone, 0o755)
    for kind in (wanted,) if wanted else ("c", "python"):
        reason = _write_launcher(kind, path) or _trouble_with(path)
        if not reason:
            return kind
    raise Failure(
        "the plugin executable does not run; nothing was changed",
        details=reason,
        next_step=f"try `env -i {interpreter()} {FLAGS} -c 'import sqlite3, ctypes'`, or another --launcher",
    )


def _write_launcher(kind: str, path: str) -> str:
    """Why there can be no such launcher, "" once it is at *path*."""
    if kind == "c":
        found = build_launcher.provide(path)
        return "" if found else f"no C compiler ({', '.join(build_launcher.COMPILERS)}) and no prebuilt launcher"
    module = CLIENT_MODULE if kind == "python" else STANDALONE_MODULE
    replace_file(path, launcher_text(interpreter(), package_parent(), module), 0o755)
    return ""


def _trouble_with(path: str) -> str:
    """Ask for its VERSION as the barest runtime would, and without an agent; why that failed, "" if it did not."""
    try:
        answer = run_plugin(path, "VERSION", NO_AGENT, b'{"cniVersion": "1.0.0"}')
        return "" if "1.0.0" in answer["supportedVersions"] else f"it answered {answer}"
    except (CniError, OSError, KeyError, TypeError) as exc:
        return str(exc)


def _link_executable(steps: _Steps, bin_dir: str, name: str, source: str) -> None:
    """One file under every name: a plugin that finds its IPAM to be the same inode needs no second process."""
    path = os.path.join(bin_dir, name)
    ours = is_launcher(path)
    done = "renewed" if ours else "written"
    if os.path.lexists(path) and not ours:
        os.rename(path, path + SAVED_SUFFIX)
        steps.saved.append(name)
        done = f"written, the former file is {name}{SAVED_SUFFIX}"
    fresh = f"{path}.{os.getpid()}.pycni-tmp"
    os.link(source, fresh)
    os.rename(fresh, path)  # atomic: a runtime that calls it now finds the old or the new one
    (steps.renewed if ours else steps.written).append(name)
    steps.note(path, done)


def _take_back(steps: _Steps, bin_dir: str, made: list[str]) -> None:
    for name in steps.written:
        unlink(os.path.join(bin_dir, name))
    for name in steps.saved:
        path = os.path.join(bin_dir, name)
        os.rename(path + SAVED_SUFFIX, path)
    for directory in reversed(made):
        remove_directory(directory)


def _write_conflist(steps: _Steps, conf_dir: str, entry: dict[str, Any]) -> None:
    """The default network, unless there is one already; its path and digest, and new directories, into the manifest's
    *entry*."""
    path = os.path.join(conf_dir, CONFLIST_NAME)
    text = json.dumps(DEFAULT_NETWORK, indent=2) + "\n"
    if os.path.lexists(path):
        steps.note(path, "left as it is")
        return
    try:
        entry["directories"] += make_directories(conf_dir)
        others = sorted(name for name in os.listdir(conf_dir) if name.endswith((".conflist", ".conf", ".json")))
        replace_file(path, text, 0o644)
    except OSError as failure:
        raise Failure(
            f"{failure.filename or path}: {failure.strerror}",
            code=5,
            details="the executables are installed, the default network is not",
            next_step="--no-conf leaves the network away, `pycni uninstall` takes the executables back",
        ) from failure
    first = others and others[0] < CONFLIST_NAME
    steps.note(path, "written" + (f"; containerd takes the first in name order, which is {others[0]}" if first else ""))
    entry["conflist"] = {"path": path, "sha256": digest(text)}


def print_steps(given: Namespace, rows: list[Row], commands: tuple[systemd.Command, ...]) -> None:
    """What was done, and the commands that were run (--now) or are to be run."""
    lines = [" ".join(command) for command in commands]
    done = "was run" if given.now else "is to be run"
    if given.json:
        shown = [{"path": path, "done": what} for path, what in rows]
        print(json.dumps(shown + [{"command": line, "done": done} for line in lines], indent=4))
    elif rows:
        print_table(("FILE", "DONE"), rows)
        if lines:
            print("\n" + "\n".join([f"what {done} now:", *(f"  {line}" for line in lines)]))
    else:
        print("pycni is not installed: there is nothing to undo")


HANDLERS = {"install": install}
