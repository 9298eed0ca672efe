"""What can be asked of a running agent besides plugin calls: JSON in, JSON out, over the same socket.

A question is {"method": NAME, …}. Reading is allowed to root and to the configured group; `reconcile` to root only.
docs/agent.md has the methods.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pycni
from pycni.agent.listener import is_member
from pycni.agent.view import lease_as_json, see_attachments, see_objects, see_ports
from pycni.cni.errors import CniError, Code
from pycni.cni.names import Attachment
from pycni.exe.wire import Answer
from pycni.store import open_store

if TYPE_CHECKING:
    from pycni.agent.main import Agent
    from pycni.agent.ports import AgentPorts
    from pycni.agent.server import Call

NAME = b"pycni-api"  # in place of the executable's path
LONGEST_WAIT_S = 30.0  # for `events`: the client asks again
List = Callable[[str | None], list[dict[str, Any]]]  # of a network, or of all
METHODS = ("status", "attachments", "objects", "leases", "ports", "overlay", "events", "reconcile")


class Api:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._waiting: set[asyncio.Event] = set()
        self._ended = False
        self._lists: dict[str, List] = {
            "attachments": _attachments,
            "leases": _leases,
            "ports": partial(_ports, agent.ports),
        }

    async def answer(self, call: Call) -> Answer:
        """Raises CniError, which is the answer then."""
        try:
            question = json.loads(call.request.stdin)
        except (ValueError, RecursionError) as failure:
            raise CniError(Code.DECODE, f"not a question: {failure}") from None
        if not isinstance(question, dict):
            raise CniError(Code.DECODE, 'not a question: {"method": …} is expected')
        method = question.get("method")
        self._check_permission(call, method)
        return Answer(0, json.dumps(await self._ask(method, question)).encode())

    def end(self) -> None:
        """Those who wait for events get what there is."""
        self._ended = True
        for news in self._waiting:
            news.set()

    def _check_permission(self, call: Call, method: Any) -> None:
        readers = self._agent.config.readers
        if call.uid != 0 and (method == "reconcile" or not (readers and is_member(call.client, readers))):
            who = "only root may" if method == "reconcile" else "root and the group `readers` of agent.toml may"
            raise CniError(Code.ENVIRONMENT, f"uid {call.uid} may not ask for {method}: {who}")

    async def _ask(self, method: Any, question: dict[str, Any]) -> Any:
        if method == "reconcile":
            return (await self._agent.reconcile_now()).as_dict()
        if method == "status":
            return self._status()
        if method == "events":
            return await self._events(_integer(question, "after"))
        if method == "overlay":
            return await self._agent.read(self._agent.overlay.as_json, _text(question, "network"))
        if method in self._lists:
            return await self._agent.read(self._lists[method], _text(question, "network"))
        if method == "objects":
            names = [_text(question, key) or "" for key in ("network", "container_id", "ifname")]
            return await self._agent.read(_objects, Attachment(*names))
        raise CniError(Code.DECODE, f"no method {method!r}", f"known are {', '.join(METHODS)}")

    def _status(self) -> dict[str, Any]:
        agent = self._agent
        calls = [
            {
                "plugin": plugin,
                "command": command,
                "code": code,
                "count": tally.count,
                "seconds": round(tally.seconds, 6),
            }
            for (plugin, command, code), tally in agent.journal.tallies()
        ]
        return {
            "version": pycni.__version__,
            "pid": os.getpid(),
            "started": agent.started,
            "socket": agent.listener.path,
            "clients": agent.server.clients - 1,  # without the one who asks
            "busy": agent.busy,
            "config": agent.config.as_dict(),
            "memory_bytes": _resident_bytes(),
            "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # without the one for looking
            "ports": agent.ports.counts(),
            "overlay": self._agent.overlay.counts(),
            "proxy": {"pid": agent.ports.proxy.pid or None, "restarts": agent.ports.proxy.restarts},
            "calls": calls,
            "reconciled": agent.last.as_dict() if agent.last else None,
        }

    async def _events(self, after: int | None) -> dict[str, Any]:
        """The events above number *after*; waits for one, at most LONGEST_WAIT_S. None: all that are kept, at once."""
        loop = asyncio.get_running_loop()
        journal = self._agent.journal
        news = asyncio.Event()

        def tell() -> None:  # from any thread
            loop.call_soon_threadsafe(news.set)

        journal.listen(tell)
        self._waiting.add(news)
        end = loop.time() + LONGEST_WAIT_S
        try:
            while True:
                news.clear()
                events, last, missed = journal.events(after)
                if events or after is None or self._ended or not await _heard(news, end - loop.time()):
                    return {"events": events, "last": last, "missed": missed}
        finally:
            self._waiting.discard(news)
            journal.unlisten(tell)


async def _heard(news: asyncio.Event, timeout_s: float) -> bool:
    try:
        await asyncio.wait_for(news.wait(), timeout_s)
    except TimeoutError:
        return False
    return True


def _integer(question: dict[str, Any], key: str) -> int | None:
    value = question.get(key)
    if value is not None and type(value) is not int:
        raise CniError(Code.DECODE, f"{key} is {value!r}, not a whole number")
    return value


def _text(question: dict[str, Any], key: str) -> str | None:
    value = question.get(key)
    if value is not None and not isinstance(value, str):
        raise CniError(Code.DECODE, f"{key} is {value!r}, not a text")
    return value


def _attachments(network: str | None) -> list[dict[str, Any]]:
    with open_store() as store:
        return [seen.as_json() for seen in see_attachments(store, network)]


def _objects(attachment: Attachment) -> list[dict[str, str]]:
    with open_store() as store:
        return see_objects(store, attachment)


def _leases(network: str | None) -> list[dict[str, Any]]:
    with open_store() as store:
        return [lease_as_json(lease) for lease in store.leases.all(network)]


def _ports(ports: AgentPorts, network: str | None) -> list[dict[str, Any]]:
    with open_store() as store:
        return [published.as_json() for published in see_ports(store, network, ports)]


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
