"""One thread, one epoll: who is told of what, what is done later, and when."""

from __future__ import annotations

import sys
from select import epoll
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket
    from collections.abc import Callable
    from typing import NoReturn

    Handler = Callable[[int], None]  # a method of a `Watcher`; its argument are the events of epoll(7)
    Action = Callable[[], None]

EVENTS_A_TURN = 512


class Stop(BaseException):
    """Raised out of `Engine.run` when the process shall end."""


class Watcher:
    """What a descriptor belongs to."""

    __slots__ = ()

    def abort(self) -> None:
        """Let go of everything at once, after a failure that nobody foresaw; twice is fine."""
        raise NotImplementedError


class Engine:
    """Calls handlers of descriptors that are ready, then what was put off, then what is due.

    `now` is the time at the beginning of the turn (CLOCK_MONOTONIC, seconds), `turns` counts them.
    """

    def __init__(self) -> None:
        self.now = monotonic()
        self.turns = 0
        self.handlers: dict[int, Handler] = {}
        self.again: list[Action] = []  # of who had their share of this turn: for the next, which does not wait
        self._closing: list[Socket] = []
        self._timers: dict[Action, float] = {}
        self._epoll = epoll()
        self._register = self._epoll.register

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        self._register(fd, events)
        self.handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Hear no more of *fd*: needed where somebody else may hold the same socket open, else `close` does it."""
        if self.handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self, sock: Socket) -> None:
        """Close at the end of the turn: until then events of this turn may be on their way to a descriptor of this
        number, and must not meet another socket that got it."""
        self.handlers.pop(sock.fileno(), None)
        self._closing.append(sock)

    def after(self, seconds: float, action: Action) -> None:
        """Call *action* once, in so many seconds; this replaces an earlier time for the same action."""
        self._timers[action] = self.now + seconds

    def waits_for(self, action: Action) -> bool:
        return action in self._timers

    def run(self) -> NoReturn:
        """Until `Stop` is raised."""
        get = self.handlers.get
        poll = self._epoll.poll
        timers = self._timers
        while True:
            ready = poll(self._patience(), EVENTS_A_TURN)
            self.now = monotonic()
            self.turns += 1
            for fd, events in ready:
                handler = get(fd)
                if handler is not None:
                    try:
                        handler(events)
                    except Exception as failure:
                        self._failed(handler, failure)
            if self.again:
                self._do_again()
            if timers:
                self._do_due()
            if self._closing:
                self.close_all()

    def close_all(self) -> None:
        """Close what `close` has put off."""
        for sock in self._closing:
            sock.close()
        self._closing.clear()

    def _patience(self) -> float:
        """How long the kernel may let us sleep, in seconds; -1: for ever."""
        if self.again:
            return 0
        if not self._timers:
            return -1
        return max(0.0, min(self._timers.values()) - monotonic())

    def _do_again(self) -> None:
        actions = self.again
        self.again = []
        for action in actions:
            self._call(action)

    def _do_due(self) -> None:
        now = self.now
        for action in [action for action, when in self._timers.items() if when <= now]:
            del self._timers[action]
            self._call(action)

    def _call(self, action: Action) -> None:
        try:
            action()
        except Exception as failure:
            self._failed(action, failure)

    def _failed(self, what: Handler | Action, failure: Exception) -> None:
        """One connection's trouble (want of memory, a bug) must not end the service of all ports."""
        watcher = getattr(what, "__self__", None)
        kind = type(failure).__name__
        try:
            print(f"pycni proxy: {type(watcher).__name__}: {kind}: {failure}", file=sys.stderr, flush=True)
        except OSError:
            pass  # stderr is the agent's, and whoever read it has gone with that
        if isinstance(watcher, Watcher):
            watcher.abort()
