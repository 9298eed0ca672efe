"""Several runtimes at once, each with containers of its own; runs inside a host as a process, see agent_load.Load.

One JSON object on stdin says what to do, the end of stdin ends it (after the calls in flight), a JSON object on stdout
says what happened:

    {"plugins": [DIR, ...], "workers": 8, "containers": {ID: NETNS, ...}, "conf": {...}, "seed": 1,
      "check": true, "pairs": 0, "settled": {ID: RESULT, ...}}

Every call is of the executable in one of *plugins*, drawn anew each time. A runtime ADDs, maybe CHECKs, DELs; after
any failed ADD, and after a failed DEL, it DELs until that works, as the specification asks it to. With *pairs* they end
after that many ADD and DEL together. The end leaves things as they are.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from typing import Any

MOST_REPEATS = 30  # of a DEL: an agent that dies during each of them has been killed as often
MOST_KEPT = 50  # of each kind of complaint
HARMLESS_CODES = (0, 11)  # worked, "try again later"


class Runtimes:
    def __init__(self, wanted: dict[str, Any]) -> None:
        self.plugins: list[str] = wanted["plugins"]
        self.conf: dict[str, Any] = wanted["conf"]
        self.containers: dict[str, str] = wanted["containers"]
        self.workers: int = wanted["workers"]
        self.check: bool = wanted["check"]
        self.seed: int = wanted["seed"]
        self.pairs: int = wanted["pairs"]
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.holders: dict[str, str] = {}  # address to container, from the end of its ADD to the start of its DEL
        self.attached: dict[str, Any] = dict(wanted.get("settled", {}))  # container to the result that stands
        self.counts: dict[str, int] = {}  # "ADD 0", "DEL 11": command and code
        self.done = 0
        self.complaints: dict[str, list[Any]] = {"indefinite": [], "duplicate": [], "unexpected": [], "stuck": []}
        self.slowest_s = 0.0
        for container, result in self.attached.items():
            self._hold(container, result)

    def run(self) -> dict[str, Any]:
        names = list(self.containers)
        began = time.monotonic()
        shares = [names[number :: self.workers] for number in range(self.workers)]
        threads = [
            threading.Thread(target=self._runtime, args=(number, share)) for number, share in enumerate(shares) if share
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {
            "attached": self.attached,
            "counts": self.counts,
            "pairs": self.done,
            "seconds": time.monotonic() - began,
            "slowest_s": self.slowest_s,
            **self.complaints,
        }

    def _runtime(self, number: int, names: list[str]) -> None:
        draw = random.Random(self.seed * 1000 + number)
        while not self.ended.is_set():
            name = draw.choice(names)
            if name not in self.attached:
                self._attach(draw, name)
            elif self.check and draw.random() < 0.3:
                self._look(draw, name)
            else:
                self._detach(draw, name)

    def _attach(self, draw: random.Random, name: str) -> None:
        code, said = self._call(draw, "ADD", name, self.conf)
        if code == 0:
            with self.lock:
                self.attached[name] = said
            self._hold(name, said)
        else:
            self._detach(draw, name)

    def _look(self, draw: random.Random, name: str) -> None:
        self._call(draw, "CHECK", name, {**self.conf, "prevResult": self.attached[name]})

    def _detach(self, draw: random.Random, name: str) -> None:
        with self.lock:
            result = self.attached.pop(name, None)
            if result is not None:
                for ip in result["ips"]:
                    self.holders.pop(ip["address"], None)
        conf = {**self.conf, "prevResult": result} if result is not None else self.conf
        for _ in range(MOST_REPEATS):
            code, _ = self._call(draw, "DEL", name, conf)
            if code == 0:
                break
        else:
            self._complain("stuck", name)
        with self.lock:
            self.done += result is not None
            if self.pairs and self.done >= self.pairs:
                self.ended.set()

    def _hold(self, name: str, result: dict[str, Any]) -> None:
        with self.lock:
            for ip in result["ips"]:
                other = self.holders.setdefault(ip["address"], name)
                if other != name:
                    self.complaints["duplicate"].append([ip["address"], other, name])

    def _call(self, draw: random.Random, command: str, name: str, conf: dict[str, Any]) -> tuple[int, Any]:
        """The error code, or 0, and what was said; a call that says nothing definite counts as code -1."""
        plugins = draw.choice(self.plugins)
        environ = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": name,
            "CNI_NETNS": self.containers[name],
            "CNI_IFNAME": "eth0",
            "CNI_PATH": plugins,
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        began = time.monotonic()
        rc, out, err = spawn(f"{plugins}/{conf['type']}", environ, json.dumps(conf).encode())
        spent = time.monotonic() - began
        code, said = _understood(command, rc, out)
        with self.lock:
            self.slowest_s = max(self.slowest_s, spent)
            key = f"{command} {code}"
            self.counts[key] = self.counts.get(key, 0) + 1
        if code not in HARMLESS_CODES:
            what = [command, name, rc, out.decode(errors="replace"), err.decode(errors="replace")]
            self._complain("indefinite" if code < 0 else "unexpected", what)
        return code, said

    def _complain(self, kind: str, what: Any) -> None:
        with self.lock:
            if len(self.complaints[kind]) < MOST_KEPT:
                self.complaints[kind].append(what)


def _understood(command: str, rc: int, out: bytes) -> tuple[int, Any]:
    """A definite answer is a result (ADD), nothing at all (the others), or one error object with exit code 1."""
    if rc == 0 and command != "ADD":
        return (0, None) if not out else (-1, None)
    try:
        said = json.loads(out)  # ValueError for nothing, half a document or two of them
        if rc == 0:
            return (0, said) if said["ips"] and said["interfaces"] else (-1, None)
        return (int(said["code"]), said) if rc == 1 and said["code"] and said["msg"] else (-1, None)
    except (ValueError, KeyError, TypeError):
        return -1, None


def spawn(path: str, environ: dict[str, str], stdin: bytes) -> tuple[int, bytes, bytes]:
    """Exit code (minus the signal that killed it), stdout and stderr of one process."""
    streams = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdin", "stdout", "stderr")]
    try:
        os.pwrite(streams[0], stdin, 0)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)]
        # Python ignores these two, and an ignored signal would stay so in the plugin.
        pid = os.posix_spawn(path, [path], environ, file_actions=actions, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])
        rc = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out, err = (os.pread(fd, os.fstat(fd).st_size, 0) for fd in streams[1:])
        return rc, out, err
    finally:
        for fd in streams:
            os.close(fd)


def main() -> None:
    runtimes = Runtimes(json.loads(sys.stdin.readline()))

    def wait_for_the_end() -> None:
        sys.stdin.read()
        runtimes.ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    print(json.dumps(runtimes.run()), flush=True)


if __name__ == "__main__":
    main()
