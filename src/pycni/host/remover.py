"""Removing links for a resident process, whose callers need not wait for the end of it.

RTM_DELLINK takes a link (a veth with its peer, wherever that is) off all lists under RTNL in about a millisecond: from
then on nobody sees it and its name is free. Then the request waits 20 ms more, outside of RTNL, for RCU to let the
memory go (netdev_run_todo, net/core/dev.c). A process that ends has to wait for that; here only our own threads do.
Links that leave at the same time leave as a group, with one such wait for all.
"""

from __future__ import annotations

import _thread
import errno
import time

from pycni.host import messages, rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

THREADS = 4  # in the kernel at the same time: one comes free every 5 ms
FIRST_LOOK_S, LAST_LOOK_S = 50e-6, 2e-3
# IFLA_GROUP of links on their way out: any number nobody else uses. A link that a dead process left in it is one whose
# owner is being deleted anyway, so the next group may take it along.
LEAVING = 0x70796364


class Request:
    """Some links that one caller wants gone."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.failures: list[str] = []
        self.finished = False

    def wait(self) -> list[str]:
        """Wait until none of the links is there any more; what could not be removed, as text."""
        pause_s = FIRST_LOOK_S
        with rtnl.Netlink() as look:
            # The look itself waits for RTNL, so there are few of them.
            while not self.finished and any(look.link(name) is not None for name in self.names):
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LAST_LOOK_S)
        return self.failures


class Remover:
    """Starts threads when there is something to remove, which end when nothing is left."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._waiting: list[Request] = []
        self._running = 0

    def remove(self, names: Sequence[str]) -> Request:
        """Begin to remove *names* from the namespace of the process; links that are gone already are a success."""
        request = Request(names)
        with self._lock:
            self._waiting.append(request)
            if self._running < THREADS:
                _thread.start_new_thread(self._run, ())
                self._running += 1
        return request

    def _run(self) -> None:
        while True:
            with self._lock:
                batch, self._waiting = self._waiting, []
                if not batch:
                    self._running -= 1
                    return
            try:
                with rtnl.Netlink() as host:
                    _remove(host, batch)
            except OSError as failure:
                for request in batch:
                    request.failures.append(f"links: {failure.strerror or failure}")
            finally:
                for request in batch:
                    request.finished = True


def _remove(host: rtnl.Netlink, batch: Sequence[Request]) -> None:
    marked = 0
    for request in batch:
        for name in request.names:
            try:
                host.request(messages.set_link(name, group=LEAVING))
                marked += 1
            except OSError as failure:
                if failure.errno != errno.ENODEV:
                    request.failures.append(f"link {name}: {failure.strerror or failure}")
    if marked:
        try:
            host.request(messages.delete_group(LEAVING))
        except OSError as failure:
            if failure.errno != errno.ENODEV:  # another thread's group took them along
                raise
