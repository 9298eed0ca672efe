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
_OF_OVERLAY = (
    *("pycni.host.nftables", "pycni.host.tunnels", "pycni.ipam.etcd_plugin"),
    *("pycni.etcd.gateway", "pycni.etcd.hints"),
)
LATE = {
    ("bridge", "add"): ("pycni.host.nftables",),
    ("bridge", "check"): ("pycni.host.nftables",),
    ("ipam", "add"): ("pycni.ipam.plugin",),
    ("firewall", "add"): ("pycni.host.nftables", "pycni.host.program"),
    ("firewall", "delete"): ("pycni.host.nftables",),
    ("bridge", "delete"): ("pycni.exe.head_start", "pycni.host.nftables", "pycni.attach.release", "pycni.store"),
    ("portmap", "add"): ("pycni.portmap.publish", "pycni.host.nftables", "pycni.host.publishing"),
    ("portmap", "check"): ("pycni.host.nftables", "pycni.host.publishing"),
    ("portmap", "delete"): ("pycni.portmap.withdraw", "pycni.host.nftables"),
    ("tuning", "add"): ("pycni.plugins.tuning.tune", "pycni.host.tuning"),
    ("bandwidth", "add"): ("pycni.plugins.bandwidth.limit", "pycni.host.traffic_control"),
    ("overlay", "add"): _OF_OVERLAY,
    ("overlay", "check"): _OF_OVERLAY,
    ("overlay", "delete"): (*_OF_OVERLAY, "pycni.exe.head_start", "pycni.plugins.overlay.leaving"),
    ("ptp", "add"): ("pycni.host.nftables",),
    ("ptp", "check"): ("pycni.host.nftables",),
    ("ptp", "delete"): ("pycni.exe.head_start", "pycni.host.nftables", "pycni.attach.release", "pycni.store"),
}
# Modules beyond those of a bare interpreter: pycni's own, and all others, which differ a little between versions of
# Python. Raise one only for a figure of bench/add_del.py that is worth it; lower it whenever there is less.
BUDGET = {
    ("bridge", "add"): (54, 27),
    ("bridge", "check"): (52, 27),
    ("bridge", "delete"): (47, 27),
    ("firewall", "add"): (55, 28),
    ("firewall", "delete"): (47, 27),
    ("loopback", "add"): (36, 25),
    ("ipam", "add"): (30, 22),
    ("static", "add"): (18, 20),
    ("overlay", "add"): (98, 27),
    ("overlay", "check"): (95, 27),
    ("overlay", "delete"): (85, 27),
    ("portmap", "add"): (61, 26),
    ("portmap", "check"): (55, 26),
    ("portmap", "delete"): (56, 27),
    ("tuning", "add"): (48, 26),
    ("tuning", "delete"): (32, 24),
    ("bandwidth", "add"): (51, 26),
    ("bandwidth", "delete"): (51, 26),
    ("ptp", "add"): (53, 27),
    ("ptp", "check"): (52, 27),
    ("ptp", "delete"): (47, 27),
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


@pytest.mark.parametrize("module", ["pycni.plugins.tuning.add", "pycni.plugins.bandwidth.add", "pycni.portmap.add"])
def test_a_chained_plugin_with_nothing_to_do_is_light(module: str) -> None:
    """Lists name them just in case: what reaches into the kernel or the store is loaded by those that use it."""
    loaded = modules_after("pycni.exe.run", "pycni.cni.conf", module) - modules_after()
    assert not [name for name in loaded if name.startswith(("pycni.host", "pycni.store", "pycni.attach", "sqlite3"))]
