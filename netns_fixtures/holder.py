"""The process that keeps a set of namespaces alive, and that empties them when its owner goes.

A namespace lives as long as a process is in it, so each one made here has a *holder*: `unshare` that became a shell and
waits on a pipe. Nothing is bind-mounted on the machine, so nothing shows up in its `ip netns`.

The pipe is the whole protocol. The owner writes a line to close; the kernel closes the pipe when the owner dies, by
SIGKILL too. Either way the holder kills every process in its namespaces and exits. A parent-death signal would not
do: it fires when the parent *thread* ends, and it leaves grandchildren.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence

READY_DEADLINE_S = 10.0
CLOSE_DEADLINE_S = 10.0

#: Namespace kind as /proc/PID/ns spells it -> the long option of unshare(1) and nsenter(1).
OPTIONS = {"net": "net", "mnt": "mount", "uts": "uts", "ipc": "ipc"}

# `-ef` compares device and inode: no process per process looked at. A zombie has no namespaces and does not match.
# The rounds end when nobody is left; a fork bomb or a process in uninterruptible sleep ends at the owner's deadline.
_WAIT_AND_EMPTY = r"""
echo ready
read -r _
kinds="@KINDS@" me=$$ owner=$PPID_AT_START
while :; do
    left=
    for p in /proc/[0-9]*; do
        pid=${p#/proc/}
        case $pid in "$me" | "$owner") continue ;; esac
        for kind in $kinds; do
            if [ "$p/ns/$kind" -ef "/proc/$me/ns/$kind" ]; then
                left=yes
                kill -9 "$pid" 2>/dev/null
                break
            fi
        done
    done
    [ -n "$left" ] || exit 0
done
"""

# A zombie keeps its pid from being used again. Holders are reaped only when their owner says so: until then a stale
# /proc/PID/ns/net is an error, and never by chance the network of another process (possibly that of the machine).
_unreaped: list[subprocess.Popen[str]] = []


def tool(name: str) -> str:
    """The absolute path of *name*, also from the sbin directories that a user's PATH may lack."""
    found = shutil.which(name, path=tool_path())
    if found is None:
        raise FileNotFoundError(f"{name} is neither in PATH nor in /usr/sbin, /sbin, /usr/bin or /bin")
    return found


def tool_path() -> str:
    return os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin:/usr/bin:/bin"


class Holder:
    """Fresh namespaces of *kinds*, prepared by the shell lines *setup* that run inside before anyone else can."""

    def __init__(self, kinds: Sequence[str], setup: Iterable[str] = ()) -> None:
        self.kinds = tuple(kinds)
        waiting = _WAIT_AND_EMPTY.replace("@KINDS@", " ".join(kinds))
        script = "\n".join(["set -e", "PPID_AT_START=$PPID", *setup, "set +e", waiting])
        argv = [tool("unshare"), *(f"--{OPTIONS[kind]}" for kind in kinds), "--", "/bin/sh", "-c", script]
        # A session of its own: Ctrl-C goes to the owner, who then closes in order.
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PATH": tool_path()},
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.started: list[subprocess.Popen[str]] = []  # inside, by the owner, who reaps them
        self._closed = False
        _unreaped.append(self._process)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        readable, _, _ = select.select([self._process.stdout], [], [], READY_DEADLINE_S)
        if not readable or self._process.stdout.readline() != "ready\n":
            self._process.kill()
            self._closed = True
            raise RuntimeError(f"cannot make namespaces {'+'.join(self.kinds)}: {self._process.stderr.read().strip()}")

    def ns_path(self, kind: str = "net") -> str:
        return f"/proc/{self.pid}/ns/{kind}"

    def nsenter(self, kinds: Iterable[str]) -> list[str]:
        """The argv prefix that runs a program in the namespaces; nsenter becomes the program, so the pid stays."""
        return [tool("nsenter"), *(f"--{OPTIONS[kind]}={self.ns_path(kind)}" for kind in kinds), "--"]

    def alive(self) -> bool:
        return not self._closed and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def inhabitants(self) -> dict[int, str]:
        """Every other process in any of the namespaces, by pid: what a plugin or a daemon left running."""
        mine = {(kind, _ns_id(self.pid, kind)) for kind in self.kinds}
        found = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) in (self.pid, os.getpid()):
                continue
            pid = int(entry)
            if any(identity and (kind, identity) in mine for kind in self.kinds if (identity := _ns_id(pid, kind))):
                found[pid] = _command_line(pid)
        return found

    def close(self) -> None:
        """Kill what is inside, then let the namespaces go. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("close\n")
            self._process.stdin.close()
        pidfd = os.pidfd_open(self.pid)
        try:
            ended, _, _ = select.select([pidfd], [], [], CLOSE_DEADLINE_S)
            if not ended:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [], 1.0)
                raise RuntimeError(f"namespaces of {self.pid} not empty after {CLOSE_DEADLINE_S} s")
        finally:
            os.close(pidfd)
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()
        for process in self.started:
            process.wait(CLOSE_DEADLINE_S)


@atexit.register
def reap_holders() -> None:
    """Give back the pids of the holders that have ended; call when nobody uses their paths any more."""
    for process in _unreaped[:]:
        if process.poll() is not None:
            _unreaped.remove(process)


def _ns_id(pid: int, kind: str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return None  # ended, or a zombie


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            words = stream.read().rstrip(b"\0").split(b"\0")
    except OSError:
        return "?"
    return shlex.join(word.decode(errors="replace") for word in words)
