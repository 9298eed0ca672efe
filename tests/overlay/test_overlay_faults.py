"""Steps of ADD and DEL of an overlay network that fail, and the process killed before them."""

from __future__ import annotations

import json
from collections.abc import Callable

from netns_fixtures import CniRun, Container, Host, diff
from pycni.cli.launcher import interpreter, package_parent
from tests.kernel import faulty_call
from tests.kernel.bridge_lab import words
from tests.overlay.overlay_lab import Conf, OverlayLab
from tests.overlay.test_overlay_gateway import GATEWAY

KILLED = -9
# What only this plugin does, and the first and last of what all do (tests/kernel/test_faults.py has every one).
STEPS = (
    *("make_network", "join", "keep_joined", "lease", "do EnsureVxlan", "read_etcd", "guard", "change_entries"),
    *("do SetPort", "do ApplyFirewall", "commit"),
)


class Faulty:
    """Calls in a process of its own that runs the executable with steps to be disturbed."""

    def __init__(self, lab: OverlayLab, host: Host, conf: Conf) -> None:
        self.lab = lab
        self.host = host
        self.conf = conf

    def call(self, command: str, box: Container, action: str, number: int = 0) -> CniRun:
        plugin = self.lab.plugins / "pycni-overlay"
        environ = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": box.name,
            "CNI_NETNS": box.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.lab.plugins),
        }
        argv = [interpreter(), "-SE", str(faulty_call.__file__), str(plugin), package_parent(), action, str(number)]
        done = self.host.run(argv, input=json.dumps(self.conf), check=False, env=environ)
        return CniRun(command=command, rc=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def numbers(self, command: str, box: Container, steps: tuple[str, ...]) -> dict[str, int]:
        """Of each step of a call that works the number of the event before its first time."""
        answer = self.call(command, box, "list")
        assert answer.ok, answer
        events = answer.stderr.splitlines()
        assert set(steps) <= {event.removeprefix("before ") for event in events}, events
        return {step: events.index(f"before {step}") for step in steps}


def test_add_that_fails_or_dies(overlay: Callable[..., OverlayLab]) -> None:
    """Whichever step fails: an error that says so, and hosts and etcd as before. SIGKILL there instead: the next ADD
    works, or the DEL or GC that follows leaves nothing."""
    lab = overlay()
    one, two = lab.hosts
    conf = lab.conf(gatewayBridge=GATEWAY)
    lab.settle(conf)
    faulty = Faulty(lab, one, conf)
    lab.add(two, "far", conf)
    box = one.container("box")
    numbers = faulty.numbers("ADD", box, STEPS)
    lab.delete(one, box, conf)
    before = lab.traces(one)
    for at, (step, number) in enumerate(numbers.items()):
        answer = faulty.call("ADD", box, "fail", number)
        assert answer.error_code is not None, step
        assert "planted" in words(answer.json), (step, answer)
        assert "bug in pycni" not in answer.stdout, answer
        assert diff(before, lab.traces(one)) == [], step
        died = faulty.call("ADD", box, "kill", number)
        assert died.rc == KILLED, (step, died)
        if at % 3 == 0:
            assert lab.call("ADD", one, box, conf).ok, step
        if at % 3 < 2:
            lab.delete(one, box, conf)
        else:
            assert lab.gc(one, conf).ok, step
        assert diff(before, lab.traces(one)) == [], step


def test_delete_that_fails_or_dies(overlay: Callable[..., OverlayLab]) -> None:
    """The DEL of a host's last container, killed or failing at each step of taking the network away: the DEL or GC that
    follows finishes it."""
    lab = overlay()
    one = lab.hosts[0]
    conf = lab.conf("routed", ipMasq=True)
    faulty = Faulty(lab, one, conf)
    box, _ = lab.add(one, "box", conf)
    steps = ("remove", "ask GC", "do DeleteVxlan", "unguard", "leave", "forget_joined")
    numbers = faulty.numbers("DEL", box, steps)
    before = lab.traces(one)
    for at, (step, number) in enumerate(numbers.items()):
        assert lab.call("ADD", one, box, conf).ok, step
        if at % 2:
            answer = faulty.call("DEL", box, "fail", number)
            assert "bug in pycni" not in answer.stdout, (step, answer)
        else:
            assert faulty.call("DEL", box, "kill", number).rc == KILLED, step
        if at % 3:
            assert lab.gc(one, conf).ok, step
        else:
            lab.delete(one, box, conf)
        assert diff(before, lab.traces(one)) == [], step
