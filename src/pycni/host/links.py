"""Removing links of the host while the caller does something else."""

from __future__ import annotations

import _thread
import errno

from pycni.host import messages
from pycni.host.netlink import I32, U32, pick
from pycni.host.netlink_socket import NetlinkSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycni.host.remover import Remover, Request

_PEER = frozenset((messages.IFLA_LINK, messages.IFLA_LINK_NETNSID))
_MAC = frozenset((messages.IFLA_ADDRESS,))

_remover: Remover | None = None
_begun: Removal | None = None  # of a process that does one DEL


def begin(names: Sequence[str]) -> None:
    """Begin to remove *names* before anybody asks for that: the `removal` of the same names then is this one."""
    global _begun  # noqa: PLW0603 - a property of the process, which has nothing else to do
    _begun = Removal(names)


def removal(names: Sequence[str]) -> Removal:
    """The removal of *names*, begun now or before."""
    if _begun is not None and _begun.names == tuple(names):
        return _begun
    return Removal(names)


def remove_in_groups() -> None:
    """From now on removals that overlap in time are one: for the agent, see Remover."""
    global _remover  # noqa: PLW0603 - a property of the process: the agent is resident, an executable is not
    from pycni.host.remover import Remover

    _remover = Remover()


def is_resident() -> bool:
    """Whether this process goes on when its callers have their answers."""
    return _remover is not None


class Removal:
    """Begins at once to remove *names*; wait() gives what could not be removed, as text.

    A veth's peer goes with it, in whatever namespace it is. A link that is gone already is a success.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.mac = b""  # which the other end of the first of the links had to the end; b"" where nobody could see that
        self._failures: list[str] = []
        self._request: Request | None = None
        self._done = _thread.allocate_lock()
        try:
            host = NetlinkSocket()
        except OSError as failure:
            self._failures.append(f"links: {failure.strerror or failure}")
            return
        self.mac = peer_mac(host, self.names)
        if _remover is not None:
            host.close()
            self._request = _remover.remove(self.names)
            return
        self._done.acquire()
        sending = _thread.allocate_lock()
        sending.acquire()
        try:
            _thread.start_new_thread(self._remove, (host, sending))
        except RuntimeError:  # no more threads for us: then one after the other
            self._remove(host, sending)
        # Else that thread would get the interpreter when this one can spare it, or after 5 ms (the switch interval).
        sending.acquire()

    def wait(self) -> list[str]:
        if self._request is not None:
            return self._request.wait()
        with self._done:
            return self._failures

    def _remove(self, host: NetlinkSocket, sending: _thread.LockType) -> None:
        sending.release()  # who waits for it goes on when the first request is with the kernel
        try:
            with host:
                for name in self.names:
                    self._remove_one(host, name)
        finally:
            self._done.release()

    def _remove_one(self, host: NetlinkSocket, name: str) -> None:
        try:
            host.request(messages.delete_link(name))
        except OSError as failure:
            if failure.errno != errno.ENODEV:
                self._failures.append(f"link {name}: {failure.strerror or failure}")


def peer_mac(host: NetlinkSocket, names: Sequence[str]) -> bytes:
    """The MAC of the other end of the veth pair *names[0]*; b"" where that is none, or that end cannot be seen.

    Of a link in another namespace the kernel tells by that namespace's id (rtnl_getlink, rtnetlink.c), which the pair
    itself has brought into being (rtnl_fill_link_netnsid): nobody has to go there.
    """
    if not names:
        return b""
    start = messages.IFINFOMSG.size
    try:
        link = pick(_PEER, host.answers(messages.get_link(names[0]))[0], start)
        if len(link) < len(_PEER):
            return b""
        (index,), (netnsid,) = U32.unpack(link[messages.IFLA_LINK]), I32.unpack(link[messages.IFLA_LINK_NETNSID])
        peer = host.answers(messages.get_link(index, netnsid=netnsid))[0]
    except OSError:  # gone, or the id is (NETNSA_NSID_NOT_ASSIGNED: -1)
        return b""
    return pick(_MAC, peer, start).get(messages.IFLA_ADDRESS, b"")
