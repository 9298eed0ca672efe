"""The userland proxy as the agent sees it: started when a port needs it, taken over from an agent before us, started
anew when it dies, left alone when the agent ends."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pycni.agent.config import AgentConfig
from pycni.agent.journal import Journal
from pycni.cni.errors import CniError, Code
from pycni.host import background
from pycni.portmap import holding
from pycni.portmap.holding import PROXY_SOCKET
from pycni.portmap.proxy.client import ProxyClient, ProxyError, command

START_DEADLINE_S = 5.0
START_PAUSE_S = 0.003  # between two looks whether it listens
ATTEMPTS = 3  # of a request, each with a proxy of its own
RETRY_PAUSE_S = 0.05  # before the second attempt, twice that before the third: one may be about to end
SHORT_LIFE_S = 10.0  # one that dies sooner has a reason that its successor will meet too
PAUSES_S = (0.0, 0.1, 0.5, 2.0, 5.0)  # before the first, second, … successor of such ones

T = TypeVar("T")
_UCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid


class _Client(ProxyClient):
    def peer(self) -> int:
        """The pid of the proxy, which has made the socket it listens at."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid: int = _UCRED.unpack(credentials)[0]
        return pid


class ProxyKeeper:
    """At most one proxy, and the connection to it. For any number of threads, which take turns.

    *replay* gives a new proxy all that it should serve; *needed* says whether there is anything.
    """

    def __init__(self, journal: Journal, *, needed: Callable[[], bool], replay: Callable[[ProxyClient], None]) -> None:
        self._journal = journal
        self._needed = needed
        self._replay = replay
        self._limits: dict[str, float] = {}
        self._turn = threading.RLock()
        self._client: _Client | None = None
        self._ended = False
        self._short_lives = 0
        self.pid = 0  # of the proxy that is connected, 0 without one
        self.restarts = 0

    def adopt(self) -> list[dict[str, Any]]:
        """Take over a proxy that runs: what it serves. Nothing where none does, or one that does not answer, which is
        killed."""
        with self._turn:
            try:
                client = _Client(PROXY_SOCKET)
            except (FileNotFoundError, ConnectionRefusedError):
                return []
            try:
                self._attach(client)
                self._set_limits(client)
                found = client.mappings()
            except OSError as failure:
                self._detach(failure)
                return []
            self._journal.note("info", event="proxy-adopted", pid=self.pid)
            return found

    def use(self, work: Callable[[ProxyClient], T]) -> T:
        """What *work* returns, given the proxy, which is started where none runs. CniError 11 where none can be had, or
        for what it refuses."""
        with self._turn:
            for attempt in range(ATTEMPTS):
                time.sleep(attempt * RETRY_PAUSE_S)
                try:
                    return work(self._running())
                except ProxyError as refused:
                    raise CniError(Code.TRY_AGAIN, f"the userland proxy refuses: {refused}") from None
                except OSError as failure:
                    self._detach(failure)
                    last = failure
            raise CniError(
                Code.TRY_AGAIN, f"the userland proxy does not run: {last}", "its words are in the agent's log"
            )

    def tell(self, work: Callable[[ProxyClient], T]) -> T | None:
        """The same with a proxy that runs already; None without one."""
        with self._turn:
            return self.use(work) if self._client is not None else None

    def remove(self, owner: str) -> None:
        """Have the proxy give back what it serves for *owner*: also one that was left, and has not ended yet."""
        with self._turn:
            if self._client is None and not holding.proxy_listens():
                return
            self.use(lambda proxy: holding.remove_from(proxy, owner))
            self._leave()

    def limit(self, config: AgentConfig) -> None:
        """Set the limits of *config*, to the proxy that runs and each later one."""
        limits = {
            "connections": config.proxy_connections,
            "flows": config.proxy_clients,
            "idle_s": config.proxy_idle_s,
        }
        with self._turn:
            self._limits = limits
            self.tell(self._set_limits)

    def end(self) -> None:
        """The agent ends; the proxy lives on with what it serves, so that the next agent finds connections alive."""
        with self._turn:
            self._ended = True
            self._disconnect()
            if not self._needed():
                try:
                    with ProxyClient(PROXY_SOCKET) as proxy:
                        if not proxy.mappings():
                            proxy.stop()
                except (OSError, ProxyError):
                    pass  # none runs, or it ends by itself

    # -- a proxy's life --------------------------------------------------------------------------------------------

    def _running(self) -> ProxyClient:
        if self._client is None:
            try:
                client = _Client(PROXY_SOCKET)  # one that was left and has not ended yet
            except (FileNotFoundError, ConnectionRefusedError):
                client = self._start()
            self._attach(client)
            self._set_limits(client)
            self._replay(client)
        return self._client  # type: ignore[return-value]

    def _set_limits(self, proxy: ProxyClient) -> None:
        try:
            proxy.set(**self._limits)
        except ProxyError as refused:  # one of another version, which serves all the same
            self._journal.note("error", event="proxy-not-limited", msg=str(refused))

    def _start(self) -> _Client:
        os.makedirs(os.path.dirname(PROXY_SOCKET), mode=0o755, exist_ok=True)
        pid = background.start(command(PROXY_SOCKET))
        self._journal.note("info", event="proxy-started", pid=pid)
        end = time.monotonic() + START_DEADLINE_S
        while True:
            try:
                return _Client(PROXY_SOCKET)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > end or background.reap(pid):
                    raise
                time.sleep(START_PAUSE_S)

    def _attach(self, client: _Client) -> None:
        self._client, self.pid = client, client.peer()
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            raise ConnectionResetError("the userland proxy has ended") from None
        threading.Thread(target=self._watch, args=(self.pid, pidfd), name="proxy", daemon=True).start()

    def _leave(self) -> None:
        """Where nothing is to be served: a proxy without mapping and client ends soon, unless somebody comes back."""
        if not self._needed():
            self._disconnect()

    def _detach(self, failure: OSError) -> None:
        """After a failed request: be done with that proxy, and see to it that it is done itself."""
        pid = self.pid
        self._disconnect()
        if pid and isinstance(failure, TimeoutError):
            self._journal.note("error", event="proxy-hangs", pid=pid)
            try:
                os.kill(pid, signal.SIGKILL)  # its peer credentials are those of a connection that stands: no other's
            except ProcessLookupError:
                pass

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client, self.pid = None, 0

    def _watch(self, pid: int, pidfd: int) -> None:
        """On a thread of its own for each proxy: wait for its end, and start the next where one is needed."""
        began = time.monotonic()
        try:
            background.wait_for_end(pidfd)
        finally:
            os.close(pidfd)
        background.reap(pid)
        short = time.monotonic() - began < SHORT_LIFE_S
        with self._turn:
            if self.pid == pid:
                self._disconnect()
            self._short_lives = self._short_lives + 1 if short else 0
            pause_s = PAUSES_S[min(self._short_lives - 1, len(PAUSES_S) - 1)] if short else 0.0
        time.sleep(pause_s)
        with self._turn:
            if self._ended or self._client is not None or not self._needed():
                return
            self.restarts += 1
            self._journal.note("warning", event="proxy-died", pid=pid)
            try:
                self.use(lambda _: None)
            except CniError as refused:
                self._journal.note("error", event="no-proxy", msg=str(refused))
