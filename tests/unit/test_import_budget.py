"""What an executable loads before it can do anything: a count of modules, which no load of the machine can blur."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from pycni.exe.plugins import PLUGINS

SRC = Path(__file__).parents[2] / "src"

# Each costs a standalone call milliseconds: bench/imports.py. `contextlib` and `socket` are the ones that slip in.
FORBIDDEN = {
    *(
        "argparse",
        "asyncio",
        "contextlib",
        "dataclasses",
        "datetime",
        "enum",
        "inspect",
        "json",
        "logging",
        "netaddr",
        "pathlib",
    ),
    *("pyroute2", "re", "socket", "subprocess", "tempfile", "threading", "traceback", "typing"),
}
# Loaded by functions, so that only calls that need them pay: on the way of every ADD, DEL or CHECK with ipMasq.
LATE = {
    ("bridge", "add"): ("pycni.host.nftables",),
    ("bridge", "check"): ("pycni.host.nftables",),
    ("bridge", "delete"): ("pycni.exe.head_start", "pycni.host.nftables", "pycni.attach.release", "pycni.store"),
}
# Modules beyond those of a bare interpreter: pycni's own, and all others, which differ a little between versions of
# Python. Raise one only for a figure of bench/add_del.py that is worth it; lower it whenever there is less.
BUDGET = {
    ("bridge", "add"): (54, 27),
    ("bridge", "check"): (48, 27),
    ("bridge", "delete"): (45, 27),
    ("loopback", "add"): (36, 25),
    ("ipam", "add"): (30, 22),
    ("static", "add"): (18, 20),
}


@cache
def modules_after(*names: str) -> frozenset[str]:
    """The modules in a bare interpreter, started as the launcher starts it, once it has imported *names*."""
    code = "import sys; sys.path.append(sys.argv[1]); [__import__(name) for name in sys.argv[2:]]; print(*sys.modules)"
    argv = [sys.executable, "-ISE", "-c", code, str(SRC), *names]
    return frozenset(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())


def loaded_by(name: str, function: str) -> frozenset[str]:
    module = next(plugin.module_of(function) for plugin in PLUGINS if plugin.name == name)
    return modules_after("pycni.exe.run", "pycni.cni.conf", module, *LATE.get((name, function), ())) - modules_after()


def test_every_plugin_has_a_budget() -> None:
    """No plugin escapes the two tests below."""
    assert {name for name, _ in BUDGET} == {plugin.name for plugin in PLUGINS}


@pytest.mark.parametrize(("name", "function"), BUDGET)
def test_executable_stays_within_its_budget_of_modules(name: str, function: str) -> None:
    """Every module is paid at every call, since a standalone call is a process of its own."""
    loaded = loaded_by(name, function)
    ours = {module for module in loaded if module.partition(".")[0] == "pycni"}
    own_limit, other_limit = BUDGET[name, function]
    assert len(ours) <= own_limit, sorted(ours)
    assert len(loaded - ours) <= other_limit, sorted(loaded - ours)


@pytest.mark.parametrize(("name", "function"), BUDGET)
def test_executable_loads_nothing_heavy(name: str, function: str) -> None:
    """Not even by way of another module."""
    assert loaded_by(name, function).isdisjoint(FORBIDDEN)
