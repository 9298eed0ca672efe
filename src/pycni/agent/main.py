"""`pycni agent`: start, serve, reconcile, stop."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakValueDictionary

import pycni
from pycni.agent import api, notify
from pycni.agent.acceptors import refusal
from pycni.agent.calls import Calls
from pycni.agent.config import AT_START_ONLY, AgentConfig
from pycni.agent.idle_rules import IdleRules
from pycni.agent.journal import Journal, Words
from pycni.agent.listener import Listener
from pycni.agent.metrics import MetricsServer
from pycni.agent.notices import Notices
from pycni.agent.overlay import Overlay
from pycni.agent.ports import AgentPorts
from pycni.agent.reconcile import DeadSince, Reconciled, reconcile
from pycni.agent.server import Call, Server, namespace_in
from pycni.cni.errors import CniError, Code
from pycni.etcd import connect
from pycni.exe.wire import Answer, Request
from pycni.host import arp, netfilter_socket
from pycni.host.links import remove_in_groups
from pycni.portmap import holding
from pycni.portmap.proxy.client import ProxyError
from pycni.store import keep_open, open_store

FLUSH_PAUSE_S = 0.05  # a flush is many notices; and firewalld reloads in several steps
READERS = 2  # threads for questions: apart from the calls', so that neither waits for the other
SPARE_DESCRIPTORS = 256  # besides two for each client: its socket and the namespace that came with it

T = TypeVar("T")
Load = Callable[[], AgentConfig]


class Agent:
    """One agent; run() returns when it was told to stop and every call was answered."""

    def __init__(self, load: Load, listener: Listener) -> None:
        self._load = load
        self.config = load()
        self.listener = listener
        self.journal = Journal(self.config.log_level)
        sys.stderr = Words(self.journal, sys.stderr)
        self.started = time.time()
        self.last: Reconciled | None = None
        self.restored = 0  # by all comparisons
        self._handed = 0  # plugin calls that came by the loop and are carried out or wait for a worker
        self.server = Server(listener, self.config, self._handle, self._answer_here)
        self._pool = ThreadPoolExecutor(self.config.workers, thread_name_prefix="call")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="read")
        self._upkeep = ThreadPoolExecutor(1, thread_name_prefix="upkeep")
        self._calls = Calls(self.journal)
        self.ports = AgentPorts(self.journal, self._allow_sockets)
        self.overlay = Overlay(lambda: self.config, self.journal)
        self._api = api.Api(self)
        self._dead_since = DeadSince()
        self._wake = asyncio.Event()
        self._turns: WeakValueDictionary[tuple[bytes, ...], asyncio.Lock] = WeakValueDictionary()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._admit_readers()
        self._allow_sockets(0)
        await self._adopt_proxy()
        self.overlay.install()
        self.idle_rules = IdleRules(lambda: self.config.keep_rules_s, self._upkeep, self.journal)
        self.idle_rules.install()
        metrics = MetricsServer(self) if self.config.metrics else None
        notices = Notices(
            self.journal,
            self.overlay,
            look=self._wake.set,
            apart=self._readers.submit,
            flushed=self.idle_rules.remove,
        )
        tasks = [asyncio.ensure_future(self._reconcile_for_ever()), asyncio.ensure_future(self._watchdog())]
        about = {"version": pycni.__version__, "pid": os.getpid(), "socket": self.listener.path}
        self.journal.note("info", event="started", **about)
        notify.notify("READY=1", os.environ)
        try:
            await self.server.serve()
        finally:
            for task in tasks:
                task.cancel()
            notices.close()
            if metrics is not None:
                metrics.close()
            for pool in (self._pool, self._readers, self._upkeep):
                pool.shutdown()
            self.idle_rules.close()
            self.overlay.close()
            self.ports.close()
            self.journal.note("info", event="stopped", pid=os.getpid())

    async def _handle(self, call: Call) -> Answer:
        if call.request.executable == api.NAME:
            return await self._api.answer(call)
        if call.uid != 0:
            return refusal(Code.ENVIRONMENT, f"uid {call.uid} may not call plugins: the agent does so for root only")
        loop = asyncio.get_running_loop()
        turn = self._turns.setdefault(_interface(call.request), asyncio.Lock())
        self._handed += 1
        try:
            async with turn:  # and not on the pool's threads: repeats of a call that hangs would take all of them
                return await loop.run_in_executor(self._pool, self._calls.run, call.request, call.netns_fd)
        finally:
            self._handed -= 1

    def _answer_here(self, request: Request, fd: int) -> Answer | None:
        """The answer to a call of root's; None for a question, one client too many, and where it had to wait for
        another call."""
        if request.executable == api.NAME or self.server.clients > self.config.connections:
            return None
        return self._calls.run_here(request, namespace_in([fd] if fd >= 0 else []))

    @property
    def busy(self) -> int:
        """Plugin calls that are carried out or wait for a worker."""
        return self._handed + self.server.accepted

    async def read(self, look: Callable[..., T], *args: object) -> T:
        """What *look* answers, on a thread for questions."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, look, *args)

    def read_now(self, look: Callable[[], T]) -> T:
        """The same for another thread than the loop's."""
        return self._readers.submit(look).result()

    # -- upkeep --------------------------------------------------------------------------------------------------------

    async def reconcile_now(self) -> Reconciled:
        """Compare store and kernel now; what was done, or why it could not be."""
        done = await asyncio.get_running_loop().run_in_executor(self._upkeep, self._reconcile)
        self.last = done
        self.restored += len(done.restored)
        if done.restored or done.released or done.foreign or done.failures:
            self.journal.note("warning", event="reconciled", **done.as_dict())
        return done

    def _reconcile(self) -> Reconciled:
        began, now = time.monotonic(), time.time()
        try:
            overlay = self.overlay.adopt()  # first: traffic of other hosts must not wait for what is over here
            with open_store() as store:
                alone = self._calls.alone_for
                refused = self.overlay.refused
                done = reconcile(
                    store, self.config.grace_s, now, self._dead_since, alone, ports=self.ports, refused=refused
                )
                overlay += self.overlay.compare() + self.overlay.finish(store)
                return done.replace(failures=(*done.failures, *overlay))
        except (CniError, OSError) as failure:
            reason = str(failure)
        except Exception as failure:  # a bug must not end the upkeep for ever, without a word
            traceback.print_exception(failure)
            reason = f"bug in pycni: {type(failure).__name__}: {failure}"
        return Reconciled(at=now, ms=round((time.monotonic() - began) * 1000, 2), attachments=0, failures=(reason,))

    async def _reconcile_for_ever(self) -> None:
        while True:
            self._wake.clear()
            await self.reconcile_now()
            try:
                await asyncio.wait_for(self._wake.wait(), self.config.reconcile_s or None)
                await asyncio.sleep(FLUSH_PAUSE_S)
            except TimeoutError:
                pass

    # -- systemd and signals -------------------------------------------------------------------------------------------

    async def _watchdog(self) -> None:
        interval = notify.watchdog_interval_s(os.environ, os.getpid())
        while interval:
            notify.notify("WATCHDOG=1", os.environ)
            await asyncio.sleep(interval)

    def _stop(self) -> None:
        notify.notify("STOPPING=1", os.environ)
        self._api.end()
        self.server.stop()

    def _reload(self) -> None:
        try:
            new = self._load()
        except (CniError, OSError) as failure:
            self.journal.note("error", event="reload-refused", msg=str(failure))
            return
        old = self.config.as_dict()
        changed = {key for key, value in new.as_dict().items() if value != old[key]}
        later = changed.intersection(AT_START_ONLY)
        self.config = self.server.config = new.replace(**{key: old[key] for key in later})
        self.journal.level = new.log_level
        self._admit_readers()
        self._allow_sockets(self.ports.room)
        self._upkeep.submit(self._limit_proxy)
        self.journal.note("info", event="reloaded", changed=sorted(changed - later), at_restart=sorted(later))
        self._wake.set()  # with the new interval, and at once

    async def _adopt_proxy(self) -> None:
        """Before any call is answered: what a proxy serves already is nobody else's to bind."""

        def adopt() -> None:
            try:
                self.ports.proxy.limit(self.config)
                self.ports.adopt()
            except (CniError, ProxyError) as failure:
                self.journal.note("error", event="proxy-not-adopted", msg=str(failure))

        await asyncio.get_running_loop().run_in_executor(self._upkeep, adopt)
        holding.install(self.ports)

    def _limit_proxy(self) -> None:
        try:
            self.ports.proxy.limit(self.config)
        except CniError as failure:
            self.journal.note("error", event="proxy-not-limited", msg=str(failure))

    def _allow_sockets(self, ports: int) -> None:
        _allow_descriptors(2 * self.config.connections + SPARE_DESCRIPTORS + ports)

    def _admit_readers(self) -> None:
        try:
            self.listener.admit(self.config.readers)
        except (CniError, OSError) as failure:
            self.journal.note("error", event="no-readers", msg=str(failure))


def run(load: Load) -> None:
    """Serve until SIGTERM or SIGINT. *load* gives the configuration, now and at each SIGHUP.

    OSError where the socket cannot be had; CniError for a wrong configuration, and where metrics cannot be served.
    """
    keep_open()
    connect.keep_open()
    remove_in_groups()
    netfilter_socket.keep_open()
    pycni.stays_home = True
    arp.put_off()
    inherited = notify.activated_socket(os.environ, os.getpid())
    listener = Listener.activated(inherited) if inherited else Listener.made(load().socket)

    async def serve() -> None:
        await Agent(load, listener).run()

    try:
        asyncio.run(serve())
    finally:
        listener.close()


def _interface(request: Request) -> tuple[bytes, ...]:
    """What calls for the same interface have in common."""
    return tuple(one for one in request.environment if one.startswith((b"CNI_CONTAINERID=", b"CNI_IFNAME=")))


def _allow_descriptors(number: int) -> None:
    """1024 are the rule, and one for each client and its namespace would be refused at the thousandth."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
