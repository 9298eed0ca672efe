"""Removing many links as one: for a resident process, where several callers wait at the same time.

The kernel waits for RCU grace periods once for each RTM_DELLINK, 16 to 24 ms under RTNL; links that leave as a group
wait together, 1.1 ms each. So whoever comes while a removal runs is put into the next group.
"""

from __future__ import annotations

import _thread
import errno

from pycni.host import messages, rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# IFLA_GROUP of links on their way out: any number nobody else uses. A link that a dead process left in it is one whose
# owner is being deleted anyway, so the next group may take it along.
LEAVING = 0x70796364


class Request:
    """Some links that one caller wants gone; wait() gives what could not be removed, as text."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.failures: list[str] = []
        self._done = _thread.allocate_lock()
        self._done.acquire()

    def finish(self) -> None:
        self._done.release()

    def wait(self) -> list[str]:
        with self._done:
            return self.failures


class Remover:
    """Starts a thread when there is something to remove, which ends when nothing is left."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._waiting: list[Request] = []
        self._running = False

    def remove(self, names: Sequence[str]) -> Request:
        """Begin to remove *names* from the namespace of the process; links that are gone already are a success."""
        request = Request(names)
        with self._lock:
            self._waiting.append(request)
            if not self._running:
                _thread.start_new_thread(self._run, ())
                self._running = True
        return request

    def _run(self) -> None:
        while True:
            with self._lock:
                batch, self._waiting = self._waiting, []
                if not batch:
                    self._running = False
                    return
            try:
                with rtnl.Netlink() as host:
                    _remove(host, batch)
            except OSError as failure:
                for request in batch:
                    request.failures.append(f"links: {failure.strerror or failure}")
            finally:
                for request in batch:
                    request.finish()


def _remove(host: rtnl.Netlink, batch: Sequence[Request]) -> None:
    marked = 0
    for request in batch:
        for name in request.names:
            try:
                # No traffic from the first moment on, and it is no port any more, whenever its turn comes.
                host.request(messages.set_link(name, up=False, group=LEAVING))
                marked += 1
            except OSError as failure:
                if failure.errno != errno.ENODEV:
                    request.failures.append(f"link {name}: {failure.strerror or failure}")
    if marked:
        try:
            host.request(messages.delete_group(LEAVING))
        except OSError as failure:
            if failure.errno != errno.ENODEV:
                raise
