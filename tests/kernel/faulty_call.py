"""A plugin call that is killed, or gets an error, at one of its steps. test_faults.py runs this file as a process.

usage: faulty_call.py EXECUTABLE PACKAGE_PARENT ACTION NUMBER, the rest as for the executable.

Every step has two events, "before" and "after" it. ACTION "list" writes the events to stderr, one a line; "kill" ends
the process at event NUMBER by SIGKILL, "interrupt" sends it SIGINT there; "fail" lets that step fail with EIO. A call
that had fewer events, since its threads raced, is not killed and says so on stderr: "events: COUNT".
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from typing import Any


class Steps:
    def __init__(self, action: str, number: int) -> None:
        self._action = action
        self._number = number
        self._events = 0
        self._counting = threading.Lock()  # links are removed by a thread of their own

    def tell(self) -> None:
        if self._action == "kill":
            sys.stderr.write(f"events: {self._events}\n")

    def wrap(self, owner: Any, name: str) -> None:
        """Make every call of *owner*.*name* a step."""
        original = getattr(owner, name)

        def step(*args: Any, **named: Any) -> Any:
            what = f"{name} {args[0]}" if name == "ask" else name
            if name in ("do", "do_together"):
                together = args[1] if name == "do_together" else [args[1]]
                what = f"do {' '.join(type(op).__name__ for op in together)}"
            self._event(f"before {what}", args)
            answer = original(*args, **named)
            self._event(f"after {what}", ())
            return answer

        setattr(owner, name, step)

    def _event(self, what: str, args: tuple[Any, ...]) -> None:
        with self._counting:
            number, self._events = self._events, self._events + 1
        if self._action == "list":
            sys.stderr.write(f"{what}\n")
        elif number == self._number:
            if self._action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self._action == "interrupt":
                signal.raise_signal(signal.SIGINT)
            else:
                self._fail(what, args)

    def _fail(self, what: str, args: tuple[Any, ...]) -> None:
        from pycni.host.kernel_words import kernel_error

        failure = OSError(errno.EIO, "planted")
        if what.startswith("before do "):
            op = args[1][-1] if isinstance(args[1], list) else args[1]
            raise kernel_error(op, failure) from failure  # as Kernel.do tells it
        raise failure


def wrap_portmap(steps: Steps) -> None:
    from pycni.portmap import flows, withdraw
    from pycni.portmap.holding import Standalone

    for name in ("reserve", "activate", "release"):
        steps.wrap(Standalone, name)
    steps.wrap(flows, "end_stale")
    steps.wrap(flows, "end_translated")
    steps.wrap(withdraw, "restore_settings")


def wrap_companion(steps: Steps, plugin: str) -> None:
    if plugin == "bandwidth":
        from pycni.plugins.bandwidth import delete

        steps.wrap(delete, "give_back")
    else:
        from pycni.host import tuning

        for name in ("write_file", "remove_file"):
            steps.wrap(tuning, name)


def wrap_overlay(steps: Steps) -> None:
    from pycni.etcd import members
    from pycni.host import tunnel_guard
    from pycni.plugins.overlay import enrolling, joining, leaving, outside, program

    for name in ("guard", "change_peers", "unguard"):
        steps.wrap(tunnel_guard, name)
    for name in ("join", "leave"):
        steps.wrap(members, name)
    for module, name in (
        *((program, "read_etcd"), (program, "change_entries"), (enrolling, "make_network"), (joining, "keep_joined")),
        *((leaving, "forget_joined"), (outside, "lease"), (outside, "release"), (outside, "remove_bridge")),
    ):
        steps.wrap(module, name)


def main() -> int:
    executable, parent, action, number = sys.argv[1:5]
    sys.argv[:] = [executable]
    sys.path.append(parent)
    from pycni.exe import run
    from pycni.host.apply import Kernel
    from pycni.host.iptables_firewall import IptablesFirewall
    from pycni.host.links import Removal
    from pycni.host.nftables import NftFirewall
    from pycni.ipam import delegate
    from pycni.store.attachments import Attachments

    steps = Steps(action, int(number))
    steps.wrap(Kernel, "do")
    steps.wrap(Kernel, "do_together")
    steps.wrap(Removal, "_remove_one")
    steps.wrap(delegate, "ask")
    for firewall in (NftFirewall, IptablesFirewall):
        steps.wrap(firewall, "apply_delete")
        steps.wrap(firewall, "remove_all")
    for name in ("begin", "update", "commit", "remove"):
        steps.wrap(Attachments, name)
    plugin = os.path.basename(executable)
    if plugin == "portmap":
        wrap_portmap(steps)
    if plugin == "firewall":
        from pycni.plugins.firewall import delete

        steps.wrap(delete, "_open_ports")
    if plugin == "pycni-overlay":
        wrap_overlay(steps)
    if plugin in ("bandwidth", "tuning"):
        wrap_companion(steps, plugin)
    try:
        return run.main()
    finally:
        steps.tell()


if __name__ == "__main__":
    sys.exit(main())
