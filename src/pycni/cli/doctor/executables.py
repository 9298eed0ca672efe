"""The installed plugin executables: there, ours, of this version, and runnable with nothing in the environment."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence

from pycni import __version__
from pycni.cli.doctor.finding import FAIL, OK, WARN, Finding
from pycni.cli.install import NO_AGENT, OWN_NAMES
from pycni.cli.launcher import is_launcher
from pycni.cli.manifest import read_manifest
from pycni.cli.parser import DEFAULT_BIN_DIR
from pycni.cni.errors import CniError
from pycni.exe.run import STANDALONE
from pycni.host import program
from pycni.host.delegate import run_plugin

CHECK = "executables"


def check(bin_dirs: Sequence[str]) -> Iterator[Finding]:
    """Every installation of the manifest, and the directories given."""
    wanted = {bin_dir: entry.get("executables", []) for bin_dir, entry in read_manifest().items()}
    wanted.update(
        {os.path.abspath(path): wanted.get(os.path.abspath(path), [STANDALONE, *OWN_NAMES]) for path in bin_dirs}
    )
    if not wanted:
        yield Finding(
            level=WARN,
            check=CHECK,
            found="pycni's plugins are not installed",
            meaning="runtimes do not find them",
            action="pycni install (with --replace also under the names of the reference plugins)",
        )
    for bin_dir, names in wanted.items():
        problems = list(_problems(bin_dir, names))
        yield from problems
        if not problems:
            yield Finding(level=OK, check=CHECK, found=f"{len(names)} in {bin_dir}, version {__version__}")


def _problems(bin_dir: str, names: Sequence[str]) -> Iterator[Finding]:
    action = _install(bin_dir, names)
    for name in names:
        path = os.path.join(bin_dir, name)
        if not is_launcher(path):
            what = "was replaced by something else" if os.path.lexists(path) else "is missing"
            meaning = "networks that use this type do without pycni, or fail"
            yield Finding(level=FAIL, check=CHECK, found=f"{path} {what}", meaning=meaning, action=action)
            continue
        # What the others turn into is tried with them; called by itself it does not know which plugin to be.
        reason = "" if name == STANDALONE else _trouble(path)
        if reason:
            meaning = "every network that uses this type fails"
            yield Finding(level=FAIL, check=CHECK, found=f"{path}: {reason}", meaning=meaning, action=action)


def _install(bin_dir: str, names: Sequence[str]) -> str:
    """The command that makes *names* in *bin_dir* anew."""
    words = ["pycni install"]
    if bin_dir != DEFAULT_BIN_DIR:
        words.append(f"--bin-dir {shlex.quote(bin_dir)}")
    if not {STANDALONE, *OWN_NAMES}.issuperset(names):
        words.append("--replace")
    return " ".join(words)


def _trouble(path: str) -> str:
    """Why the executable does not run by itself in an empty environment, or is another version; "" if all is well."""
    try:
        answer = run_plugin(path, "VERSION", NO_AGENT, b"{}")
        if not isinstance(answer, dict) or "supportedVersions" not in answer:
            return "answers VERSION with something else"
    except (CniError, OSError) as exc:
        return f"does not run with an empty environment: {exc}"
    without_agent = (program.find("env") or "/usr/bin/env", *("=".join(pair) for pair in NO_AGENT))
    status, _, about = program.run((*without_agent, path))  # a bare call tells the version on stderr
    if status == 0 and f"(pycni {__version__})" in about.partition("\n")[0]:
        return ""
    return f"is another version: {about.strip()[:80]}"
