"""One plugin call in this process with a clock at the borders of its phases: the child of breakdown.py.

Nothing of the product knows about it: functions are replaced by ones that note the time, as soon as their module is
loaded. Time belongs to the innermost phase, but what the firewall asks netlink is the firewall's. Only the main thread
is measured; what it waits for in another one counts as its own.

The phases go to stderr as JSON, in seconds: {"phases": {...}, "born": CLOCK_MONOTONIC, "end": the same}.
"""

from __future__ import annotations

import _thread
import builtins
import importlib
import sys
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Function = Callable[..., Any]

REST = "plan and order"
IMPORTS = "imports"
FIREWALL = "firewall"
TRACING = "tracing"  # this file's own work: not a part of the call

# Module → phase, and by class ("": functions of the module) the names that are its borders.
BORDERS: dict[str, tuple[str, dict[str, str]]] = {
    "pycni.exe.run": ("JSON in and out", {"": "parse_call read_all write_all"}),
    "pycni.cni.conf": ("JSON in and out", {"": "parse_conf"}),
    "pycni.cni.result": ("JSON in and out", {"": "render_result dump"}),
    "pycni.store.db": ("store", {"Database": "opened begin_level end_level query run close"}),
    "pycni.store.attachments": ("store", {"Attachments": "begin update commit remove get"}),
    "pycni.store.leases": ("store", {"Leases": "pool make_pool", "Pool": "of_owner at run_below put release"}),
    "pycni.store.boot": ("store", {"": "boot_id own_process"}),
    "pycni.store.host_ports": (
        "store",
        {"HostPorts": "holder take keep before settings is_used last_chosen choose"},
    ),
    "pycni.portmap.holding": ("reservation", {"Standalone": "reserve"}),
    "pycni.portmap.flows": ("conntrack", {"": "end_stale end_translated"}),
    "pycni.host.netlink_socket": ("netlink", {"NetlinkSocket": "__init__ request answers close"}),
    "pycni.host.rtnl": (
        "netlink",
        {"Netlink": "link addresses routes wait_port_forwarding wait_dad", "": "uplink_mtu"},
    ),
    "pycni.host.netns": ("namespace and sysctl", {"": "open_netns identity own_identity inside"}),
    "pycni.host.sysctl": ("namespace and sysctl", {"": "read write"}),
    "pycni.host.links": ("waiting for the link to go", {"Removal": "__init__ wait"}),
    "pycni.host.firewall": (FIREWALL, {"": "open_firewall"}),
    "pycni.host.nftables": (FIREWALL, {"NftFirewall": "__init__ apply_add apply_delete remove_all missing close"}),
}


class Clock:
    """Seconds by phase. A phase begins when a function of it is entered, and ends where another begins."""

    def __init__(self, born: float) -> None:
        self.totals: dict[str, float] = {}
        self._phases = [TRACING]
        self._since = born
        self._main = _thread.get_ident()
        self._waiting = dict(BORDERS)

    def book(self) -> float:
        """Give the time since the last border to the phase it was in; the time now."""
        now = monotonic()
        phase = self._phases[-1]
        self.totals[phase] = self.totals.get(phase, 0.0) + now - self._since
        self._since = now
        return now

    def begin_rest(self) -> None:
        """From here on what is in no phase is the product's."""
        self.book()
        self._phases[0] = REST

    def timed(self, phase: str, function: Function) -> Function:
        """*function*, with its time given to *phase*."""

        def measured(*args: Any, **named: Any) -> Any:
            if _thread.get_ident() != self._main:
                return function(*args, **named)
            self.book()
            self._phases.append(FIREWALL if self._phases[-1] == FIREWALL and phase != IMPORTS else phase)
            try:
                return function(*args, **named)
            finally:
                self.book()
                self._phases.pop()

        return measured

    def timed_import(self, function: Function) -> Function:
        """An importing *function* that also puts the clock into what it has loaded."""
        importing, tracing = self.timed(IMPORTS, function), self.timed(TRACING, self._put_borders)

        def imported(*args: Any, **named: Any) -> Any:
            if self._phases[-1] in (IMPORTS, TRACING) or _thread.get_ident() != self._main:
                return function(*args, **named)
            answer = importing(*args, **named)
            tracing()
            return answer

        return imported

    def _put_borders(self) -> None:
        for name in [name for name in self._waiting if name in sys.modules]:
            phase, owners = self._waiting.pop(name)
            for owner, functions in owners.items():
                for function in functions.split():
                    if owner:
                        self._replace_method(getattr(sys.modules[name], owner), function, phase)
                    else:
                        self._replace_everywhere(getattr(sys.modules[name], function), phase)

    def _replace_method(self, owner: type, name: str, phase: str) -> None:
        found = vars(owner)[name]
        if isinstance(found, classmethod):
            setattr(owner, name, classmethod(self.timed(phase, found.__func__)))
        else:
            setattr(owner, name, self.timed(phase, found))

    def _replace_everywhere(self, function: Function, phase: str) -> None:
        """In its module, and wherever `from … import` has put it."""
        clocked = self.timed(phase, function)
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "pycni":
                for key in [key for key, value in vars(module).items() if value is function]:
                    setattr(module, key, clocked)


def run(born: float, parent: str, executable: str) -> None:
    """The call as the launcher makes it. *born*: when the interpreter came to its first line."""
    clock = Clock(born)
    builtins.__import__ = clock.timed_import(builtins.__import__)
    importlib.import_module = clock.timed_import(importlib.import_module)
    sys.path.append(parent)
    sys.argv[0] = executable
    clock.begin_rest()
    from pycni.exe.run import main

    code = main()
    end = clock.book()
    import json

    sys.stderr.write(json.dumps({"phases": clock.totals, "born": born, "end": end}))
    sys.stderr.flush()
    sys.exit(code)
