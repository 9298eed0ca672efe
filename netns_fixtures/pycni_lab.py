"""A lab of `pycni lab` in a test: hosts, etcd, networks and containers of one file, by the command that people use.

The command is run as a program. A second kind of lab, built from `Host`, `Underlay` and `Etcd`, would have to follow
the first in everything (agents, plugins, TLS, changes of the file), and a test on it would prove nothing of the first.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .holder import tool_path
from .namespace import CLONE_FLAGS, Namespace, _libc

_numbers = itertools.count(1)
DEADLINE_S = 120.0


def lab_command() -> list[str] | None:
    """`pycni lab`, of the interpreter that runs or else of the PATH; None where pycni is not installed."""
    if importlib.util.find_spec("pycni") is not None:
        return [sys.executable, "-m", "pycni", "lab"]
    found = shutil.which("pycni", path=tool_path())
    return [found, "lab"] if found else None


class Lab:
    """A lab that is up; `lab["h1"]` is a host, `lab["h1/web"]` a container, both as `Namespace`s for probes.

    *file* is the lab's YAML or JSON, as text or as a path. It gets a name that no other lab of the machine has.
    """

    def __init__(self, file: str | Path, directory: Path) -> None:
        command = lab_command()
        assert command is not None, "pycni is not installed"
        self._command = command
        self.name = f"pytest-{os.getpid()}-{next(_numbers)}"
        self._file = directory / f"{self.name}.yaml"
        self.path = file if isinstance(file, Path) else self._file
        if not isinstance(file, Path):
            self._file.write_text(file)

    def up(self, file: str | Path | None = None) -> None:
        """Bring it up; again, with another *file*, to change it into that."""
        if isinstance(file, Path):
            self.path = file
        elif file is not None:
            self.path = self._file
            self._file.write_text(file)
        self._run(["up", str(self.path), "--name", self.name, "--quiet"])

    def down(self) -> None:
        """Take it away, whatever state it is in."""
        self._run(["down", self.name])

    def __call__(self, verb: str, *words: str, check: bool = True) -> str:
        """`pycni lab VERB --lab NAME WORDS`: what it printed. `lab("cut", "h1")`, `lab("reboot", "h2")`, `lab("heal")`.

        A failure raises AssertionError with both outputs.
        """
        return self._run([verb, "--lab", self.name, *words], check=check).stdout

    def inspect(self) -> dict[str, Any]:
        """Everything that is known of the lab."""
        told: dict[str, Any] = json.loads(self._run(["inspect", self.name]).stdout)
        return told

    def __getitem__(self, where: str) -> LabPlace:
        """HOST or HOST/CONTAINER; KeyError where there is none. After a reboot it is another: ask again."""
        host, _, container = where.partition("/")
        for each in self.inspect()["hosts"]:
            if each["name"] == host and not container:
                links = [address for link in each["links"] for address in (link["ipv4"], link["ipv6"]) if address]
                return LabPlace(self, where, each["namespaces"]["net"], links)
            for found in each["containers"] if each["name"] == host else ():
                if found["name"] == container:
                    given = [address for plug in found["attachments"] for address in plug["addresses"]]
                    return LabPlace(self, where, found["namespace"], [text.partition("/")[0] for text in given])
        raise KeyError(where)

    def exec_argv(self, where: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs *argv* on a host or in a container."""
        return [*self._command, "exec", "--lab", self.name, where, "--", *argv]

    def _run(self, argv: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self._command, *argv], capture_output=True, text=True, timeout=DEADLINE_S, check=False, input=""
        )
        if check and done.returncode:
            words = " ".join(argv)
            raise AssertionError(f"pycni lab {words}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done


class LabPlace(Namespace):
    """A host or container of a `Lab`: programs run there as `pycni lab exec` runs them, probes in its network."""

    def __init__(self, lab: Lab, where: str, path: str, addresses: Sequence[str]) -> None:
        self.name = where
        self.path = path
        self.lab = lab
        self.own_addresses = tuple(addresses)  # on its networks, or on the underlay; without length

    def address(self, family: int = 4) -> str:
        """The first of that family."""
        return next(text for text in self.own_addresses if (":" in text) == (family == 6))

    def argv(self, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        return self.lab.exec_argv(self.name, [os.fspath(word) for word in argv])

    def popen(self, argv: Sequence[str | os.PathLike[str]], **how: Any) -> subprocess.Popen[str]:
        """As `Namespace.popen`, of `pycni lab exec`: it passes signals on, and the program ends with it or the lab."""
        return subprocess.Popen(self.argv(argv), text=True, **{"stdin": subprocess.DEVNULL, **how})

    def _enter(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(descriptor, CLONE_FLAGS["net"]):
                raise OSError(f"{self.name}: {self.path} cannot be entered")
        finally:
            os.close(descriptor)

    def delete(self) -> None:
        """The lab's business."""
        raise TypeError(f"{self.name} belongs to lab {self.lab.name}: change its file, or `lab.down()`")
