"""Removing links of the host while the caller does something else."""

from __future__ import annotations

import _thread
import errno

from pycni.host import messages
from pycni.host.netlink_socket import NetlinkSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycni.host.remover import Remover, Request

_remover: Remover | None = None


def remove_in_groups() -> None:
    """From now on removals that overlap in time are one: for the agent, see Remover."""
    global _remover  # noqa: PLW0603 - a property of the process: the agent is resident, an executable is not
    from pycni.host.remover import Remover

    _remover = Remover()


class Removal:
    """Begins at once to remove *names*; wait() gives what could not be removed, as text.

    A veth's peer goes with it, in whatever namespace it is. A link that is gone already is a success.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._failures: list[str] = []
        self._request: Request | None = None
        if _remover is not None:
            self._request = _remover.remove(self._names)
            return
        self._done = _thread.allocate_lock()
        self._done.acquire()
        _thread.start_new_thread(self._remove, ())

    def wait(self) -> list[str]:
        if self._request is not None:
            return self._request.wait()
        with self._done:
            return self._failures

    def _remove(self) -> None:
        try:
            with NetlinkSocket() as host:
                for name in self._names:
                    self._remove_one(host, name)
        except OSError as failure:
            self._failures.append(f"links: {failure.strerror or failure}")
        finally:
            self._done.release()

    def _remove_one(self, host: NetlinkSocket, name: str) -> None:
        try:
            host.request(messages.delete_link(name))
        except OSError as failure:
            if failure.errno != errno.ENODEV:
                self._failures.append(f"link {name}: {failure.strerror or failure}")
