"""`pycni lab up` and `down` as a whole: one at a time for each lab, and an interrupted one leaves nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pycni
from pycni.cni.value import Value
from pycni.lab import removal
from pycni.lab.addressing import addressed
from pycni.lab.breaking import enforce
from pycni.lab.building import Builder
from pycni.lab.cluster import describe
from pycni.lab.errors import LabError
from pycni.lab.plan import Actual, Step, anew, plan
from pycni.lab.process import Process
from pycni.lab.progress import Progress
from pycni.lab.running import RunningLab
from pycni.lab.state import FORMAT, MARK, directory_of, read_state, tool, write_state
from pycni.lab.survey import kept_addresses, survey
from pycni.lab.topology import Lab

HIDDEN = ("/run", "/var/lib")  # by each host's own


class Difference(Value):
    """What `up` will do; *fresh*: there is no such lab; *reason*: why all of it is made anew, "" if it is not."""

    fresh: bool
    reason: str
    steps: tuple[Step, ...]


def bring_up(want: Lab, *, file: str, progress: Progress, dry_run: bool = False) -> Difference:
    """Make the lab, or change the one of that name into it; *file* is where the description came from.

    LabError, OSError or KeyboardInterrupt: a lab that was new is gone again, one that was there stays as far as it got.
    """
    _check_machine(want)
    if dry_run and read_state(want.name) is None:
        return Difference(fresh=True, reason="", steps=plan(Actual(), addressed(want), {}))
    with _locked(want.name, "up"):
        lab = _existing(want.name, progress)
        difference = _difference(lab, want)
        if dry_run:
            return difference
        if not difference.fresh:
            _announce(difference, progress)
        if difference.reason or difference.fresh:
            if lab is not None:
                _take_down(want.name)
            _make(want, difference, file, progress)
        elif lab is not None and difference.steps:
            _change(lab, want, difference, file, progress)
    return difference


def take_down(name: str) -> int:
    """End everything of the lab and forget it; how many processes there were. Nothing is no error: 0."""
    if not os.path.isdir(directory_of(name)):
        return 0
    with _locked(name, "down"):
        return _take_down(name)


# -- up ----------------------------------------------------------------------------------------------------------------


def _check_machine(want: Lab) -> None:
    """What would fail later on, or silently: root, programs, files that the hosts' own directories would hide."""
    if os.geteuid() != 0:
        raise LabError("a lab is made of namespaces", next_step="run the command as root")
    for name in ("ip", "unshare", "nsenter", "mount", *(("etcd",) if want.etcd else ())):
        tool(name)
    if want.etcd and want.etcd.tls:
        tool("openssl")
    for path in (os.path.realpath(sys.prefix), os.path.realpath(os.path.dirname(str(pycni.__file__)))):
        hidden = next((each for each in HIDDEN if f"{path}/".startswith(f"{each}/")), "")
        if hidden:
            raise LabError(
                f"pycni is installed in {path}, and every host of a lab has a {hidden} of its own",
                next_step="install it elsewhere, for example in /opt/pycni",
            )
    for container in want.containers:
        if container.rootfs and not os.path.isdir(container.rootfs):
            raise LabError(f"{container.path}: rootfs {container.rootfs} is no directory")


def _existing(name: str, progress: Progress) -> RunningLab | None:
    """The lab, if there is one; what a killed `up` left is taken away."""
    state = read_state(name)
    if state is None:
        return None
    lab = RunningLab(name, state)
    if lab.phase == "up":
        return lab
    progress.say(f"lab {name} was not finished: what is there of it is taken down first")
    _take_down(name)
    os.makedirs(directory_of(name), exist_ok=True)
    return None


def _difference(lab: RunningLab | None, want: Lab) -> Difference:
    if lab is None:
        resolved = addressed(want)
        return Difference(fresh=True, reason="", steps=plan(Actual(), resolved, _connection(resolved)))
    actual = survey(lab)
    resolved = addressed(want, kept_addresses(lab))
    reason = "its switches are gone" if lab.switch is None or not lab.switch.alive() else anew(actual, resolved)
    if reason:
        resolved = addressed(want)
        return Difference(fresh=False, reason=reason, steps=plan(Actual(), resolved, _connection(resolved)))
    return Difference(fresh=False, reason="", steps=plan(actual, resolved, _connection(resolved)))


def _connection(want: Lab) -> dict[str, Any]:
    return describe(want.etcd)[1] if want.etcd else {}


def _announce(difference: Difference, progress: Progress) -> None:
    if difference.reason:
        progress.say(f"everything is made anew: {difference.reason}")
    elif difference.steps:
        for step in difference.steps:
            progress.say(str(step))
    else:
        progress.say("nothing to do: the lab is as the file has it")


def _make(want: Lab, difference: Difference, file: str, progress: Progress) -> None:
    resolved = addressed(want)
    members, connection = describe(resolved.etcd) if resolved.etcd else ({}, {})
    state = {
        "format": FORMAT,
        "name": want.name,
        "id": uuid.uuid4().hex,
        "created": time.time(),
        "phase": "building",
        "builder": Process.own().as_json(),
        "file": os.path.abspath(file),
        "document": want.document,
        "directory": want.directory,
        "switch": None,
        "segments": {},
        "conflists": {},
        "machines": {},
        "etcd": members,
        "etcd_connection": connection,
    }
    os.makedirs(directory_of(want.name), exist_ok=True)
    write_state(want.name, state)
    try:
        with _interruptible():
            lab = RunningLab(want.name, state)
            Builder(lab, resolved, progress).carry_out(difference.steps)
            with lab.changing() as newest:
                newest["phase"] = "up"
                newest["took_s"] = round(progress.elapsed_s, 3)
    except BaseException as failure:
        progress.end()
        progress.say(
            "interrupted: taking down what is there"
            if isinstance(failure, KeyboardInterrupt)
            else "failed: taking down what is there"
        )
        with _uninterruptible():
            _take_down(want.name)
        raise


def _change(lab: RunningLab, want: Lab, difference: Difference, file: str, progress: Progress) -> None:
    resolved = addressed(want, kept_addresses(lab))
    try:
        with _interruptible():
            Builder(lab, resolved, progress).carry_out(difference.steps)
    except BaseException:
        progress.end()
        progress.say("the lab stays as far as it came: `pycni lab up` goes on, `pycni lab down` takes it away")
        raise
    with lab.changing() as state:
        state |= {"document": want.document, "directory": want.directory, "file": os.path.abspath(file)}
        state["faults"] = [fault for fault in state.get("faults", ()) if fault["kind"] != "kill"]  # all runs again
    enforce(lab, [step.name for step in difference.steps if (step.verb, step.kind) == ("add", "host")])


# -- down --------------------------------------------------------------------------------------------------------------


def _take_down(name: str) -> int:
    try:
        state = read_state(name)
    except LabError:  # of another version, or torn: its id is in a file of its own, too
        state = None
    ended = 0
    if state is not None:
        _refuse_inside(str(state["id"]))
        ended = removal.end_lab(str(state["id"]), RunningLab(name, state).machines.values())
    else:
        lab_id = _bare_id(name)
        if lab_id:
            _refuse_inside(lab_id)
            ended = removal.end_lab(lab_id, ())
    removal.remove_directory(name)
    return ended


def _bare_id(name: str) -> str:
    try:
        with open(os.path.join(directory_of(name), "id"), encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def _refuse_inside(lab_id: str) -> None:
    if os.environ.get(MARK) == lab_id:
        raise LabError("this shell is itself inside of the lab", next_step="leave it first (exit)")


# -- one at a time -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(name: str, verb: str) -> Iterator[None]:
    directory = directory_of(name)
    path = os.path.join(directory, "lock")
    while True:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with open(path, "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LabError(
                    f"another `pycni lab` works on lab {name} right now",
                    next_step=f"wait for it, or interrupt it (Ctrl-C): it cleans up; then {verb} again",
                ) from None
            if not _is_same(lock.fileno(), path):
                continue  # it was taken down between opening and locking
            try:
                yield
            finally:
                _remove_if_bare(directory)
            return


def _is_same(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _remove_if_bare(directory: str) -> None:
    """A directory with nothing but the lock is no lab."""
    try:
        if set(os.listdir(directory)) <= {"lock"}:
            removal.remove_directory(os.path.basename(directory))
    except FileNotFoundError:
        pass


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end the work as Ctrl-C does: in order."""
    before = {}

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not the main thread: signals are somebody else's
        for number in (signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _uninterruptible() -> Iterator[None]:
    """A second Ctrl-C does not end the cleaning up."""
    before = {}
    with contextlib.suppress(ValueError):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
