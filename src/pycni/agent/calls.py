"""The plugins' commands, carried out for a client: the same handlers that an executable runs by itself."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from pycni.agent.journal import Journal
from pycni.exe.plugins import find_plugin
from pycni.exe.run import about, answer
from pycni.exe.wire import Answer, Request
from pycni.store import Record

AT_ONCE = 2  # one in the interpreter, one in the kernel
PATIENCE_S = 0.1


class Calls:
    """Carries out plugin calls, from any number of threads; calls of one plugin for one interface one after the other.

    The record in the store settles what processes do to each other; here the lock says that a half-made record of
    this process is nobody's work any more.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._guard = threading.Lock()
        self._working = threading.Semaphore(AT_ONCE)
        self._busy: dict[tuple[str, str, str], tuple[threading.Lock, int]] = {}

    def run(self, request: Request, netns_fd: int) -> Answer:
        """The answer to one call; every failure is an answer. *netns_fd*: CNI_NETNS as the caller opened it, or -1."""
        return self._run(request, request.environ(), netns_fd)

    def _run(self, request: Request, environ: dict[str, str], netns_fd: int) -> Answer:
        executable = request.path()
        name = os.path.basename(executable)
        plugin = find_plugin(name)
        if plugin is None:
            return Answer(1, b"", f"{name}: no pycni plugin has that name\n".encode())
        if not environ.get("CNI_COMMAND"):
            return Answer(0, b"", about(plugin).encode())
        began = time.monotonic()
        key = plugin.name, environ.get("CNI_CONTAINERID", ""), environ.get("CNI_IFNAME", "")
        with self._alone(key), self._turnstile(environ["CNI_COMMAND"]):
            code, text = answer(plugin, environ, lambda: request.stdin, executable=executable, netns_fd=netns_fd)
        self._journal.call(plugin.name, environ, code, text, time.monotonic() - began)
        return Answer(code, text.encode())

    def run_here(self, request: Request, netns_fd: int) -> Answer | None:
        """As `run`; None where a call for the same interface is being carried out, which could take long."""
        environ = request.environ()
        interface = environ.get("CNI_CONTAINERID", ""), environ.get("CNI_IFNAME", "")
        with self._guard:
            if any(key[1:] == interface for key in self._busy):
                return None
        return self._run(request, environ, netns_fd)

    def alone_for(self, record: Record) -> AbstractContextManager[None]:
        """Keeps calls for that attachment waiting."""
        return self._alone((record.plugin, record.attachment.container_id, record.attachment.ifname))

    @contextmanager
    def _turnstile(self, command: str) -> Iterator[None]:
        """Let AT_ONCE calls through at a time, since the interpreter runs one thread: eight that take turns at every
        system call use half as much processor time again. A call may also wait for long, for an IPAM plugin or the
        kernel: after PATIENCE_S the next one goes ahead all the same. DEL mostly waits, so it never does here.
        """
        passed = command != "DEL" and self._working.acquire(timeout=PATIENCE_S)
        try:
            yield
        finally:
            if passed:
                self._working.release()

    @contextmanager
    def _alone(self, key: tuple[str, str, str]) -> Iterator[None]:
        with self._guard:
            lock, users = self._busy.get(key, (threading.Lock(), 0))
            self._busy[key] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._busy[key]
                if users == 1:
                    del self._busy[key]
                else:
                    self._busy[key] = lock, users - 1
