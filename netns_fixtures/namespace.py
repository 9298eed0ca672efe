"""A network namespace made here: run programs or Python in it, ask iproute2 about it, take it away."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from .holder import Holder, tool, tool_path

T = TypeVar("T")

CLONE_FS = 0x00000200
CLONE_FLAGS = {"mnt": 0x00020000, "uts": 0x04000000, "ipc": 0x08000000, "net": 0x40000000}

# os.setns and os.unshare exist from Python 3.12 on.
_libc = ctypes.CDLL(None, use_errno=True)

#: What the machine's own settings would otherwise leak into: a new namespace inherits IPv4 sysctls from the first one
#: (net.core.devconf_inherit_init_net), so a plugin that forgets to enable forwarding would pass on a router.
UNFORWARDED = (
    "echo 0 >/proc/sys/net/ipv4/ip_forward",
    "[ ! -e /proc/sys/net/ipv6 ] || echo 0 >/proc/sys/net/ipv6/conf/all/forwarding",
    "[ ! -e /proc/sys/net/ipv6 ] || echo 0 >/proc/sys/net/ipv6/conf/default/forwarding",
)


class Namespace:
    """A network namespace of its own. `path` serves as CNI_NETNS in any mount namespace that sees the same /proc.

    A new one is as the kernel gives it (`lo` is down), apart from forwarding, which is off.
    """

    def __init__(self, name: str, *, lo_up: bool = False, setup: Iterable[str] = ()) -> None:
        lo = [f"{tool('ip')} link set lo up"] if lo_up else []
        self._adopt(name, Holder(("net",), (*UNFORWARDED, *lo, *setup)), ("net",))

    def _adopt(self, name: str, holder: Holder, kinds: Sequence[str]) -> None:
        self.name = name
        self.holder = holder
        self.kinds = tuple(kinds)  # the namespaces that a program run here enters
        self.path = holder.ns_path("net")

    @property
    def pid(self) -> int:
        """A process inside: what `ip link set … netns PID` wants."""
        return self.holder.pid

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.path}>"

    # -- programs ----------------------------------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        input: str | None = None,
        check: bool = True,
        timeout: float = 30,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end. A failure raises AssertionError with both outputs; `check=False` hands it back instead.

        The program starts in the root directory when a mount namespace is entered. *timeout* is in seconds.
        """
        done = subprocess.run(
            self.argv(argv),
            input=input or "",
            capture_output=True,
            text=True,
            timeout=timeout,
            env=_environment(env),
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {_words(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def popen(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start and return. `Popen.pid` is the program itself, and it dies with the namespace."""
        process = subprocess.Popen(
            self.argv(argv), stdin=stdin, stdout=stdout, stderr=stderr, text=True, env=_environment(env)
        )
        self.holder.started.append(process)
        return process

    def argv(self, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        """The command line that runs *argv* in here, for those who start processes in their own way."""
        program, *rest = [os.fspath(word) for word in argv]
        # setns(2) into a mount namespace moves the working directory to its root.
        found = os.path.abspath(program) if os.sep in program else program
        return [*self.holder.nsenter(self.kinds), found, *rest]

    # -- Python ------------------------------------------------------------------------------------------------------

    def in_namespace(self, work: Callable[[], T]) -> T:
        """What *work* returns or raises when its thread is inside. A socket made there stays there, whoever uses it.

        The thread is thrown away afterwards: going back with setns(2) can fail, and a test would run who knows where.
        In there /proc/net and /proc/self show the main thread's view; /proc/thread-self and /proc/sys/net are right.
        """
        results: list[T] = []
        failures: list[BaseException] = []

        def enter_and_work() -> None:
            try:
                self._enter()
                results.append(work())
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=enter_and_work, name=f"in {self.name}", daemon=True)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        return results[0]

    def _enter(self) -> None:
        enter(self.holder.pid, self.kinds)

    # -- iproute2 ----------------------------------------------------------------------------------------------------

    def ip(self, *args: str) -> str:
        """`ip ARGS`: its output."""
        return self.run(["ip", *args]).stdout

    def ip_json(self, *args: str) -> list[dict[str, Any]]:
        """`ip -j ARGS`, decoded."""
        text = self.ip("-j", *args)
        decoded: list[dict[str, Any]] = json.loads(text) if text.strip() else []
        return [entry for entry in decoded if entry]  # iproute2 prints {} for objects that its filter left out

    def ip_batch(self, *lines: str) -> None:
        """Many `ip` commands in one process."""
        self.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n")

    def links(self) -> list[str]:
        return [link["ifname"] for link in self.ip_json("link", "show")]

    def addresses(self, ifname: str) -> list[str]:
        """The addresses on *ifname* as "address/length", link-local ones left out, in the kernel's order."""
        shown = self.ip_json("addr", "show", "dev", ifname)
        entries = [entry for link in shown for entry in link["addr_info"] if entry["scope"] != "link"]
        return [f"{entry['local']}/{entry['prefixlen']}" for entry in entries]

    def sysctl(self, key: str, value: str | None = None) -> str:
        """Read net/… (slashes: interface names may have dots), or write it first."""
        path = Path("/proc/sys") / key

        def work() -> str:
            if value is not None:
                path.write_text(value)
            return path.read_text().strip()

        return self.in_namespace(work)

    # -- end ---------------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return os.path.exists(self.path)

    def delete(self) -> None:
        """Kill what runs inside and let go. Twice is fine. The kernel takes the links away a few milliseconds later."""
        self.holder.close()


def enter(pid: int, kinds: Iterable[str]) -> None:
    """Move the calling thread into namespaces of *pid*. Never call it on a thread that has a future."""
    descriptors = [(kind, os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)) for kind in kinds]
    try:
        for kind, descriptor in descriptors:
            if kind == "mnt" and _libc.unshare(CLONE_FS):  # the root and working directory are shared by all threads
                raise OSError(ctypes.get_errno(), "unshare(CLONE_FS)")
            if _libc.setns(descriptor, CLONE_FLAGS[kind]):
                number = ctypes.get_errno()
                raise OSError(number, f"setns to {kind} of {pid}: {os.strerror(number)}")
    finally:
        for _, descriptor in descriptors:
            os.close(descriptor)


def _environment(env: Mapping[str, str] | None) -> Mapping[str, str]:
    """That of the test, with the sbin directories that a user's PATH may lack, or exactly *env*."""
    return {**os.environ, "PATH": tool_path()} if env is None else env


def _words(argv: Sequence[str | os.PathLike[str]]) -> str:
    return " ".join(os.fspath(word) for word in argv)
