"""Tell the containers of a bridge the MAC of a remote one, unasked.

A container that looked for an address before this host knew its MAC has no answer, and asks again after a second at the
earliest (retrans_time_ms): an announcement ends its waiting at once, and takes the place of what it knew before. It
makes no entry where there is none, so those who never asked are not bothered.
"""

from __future__ import annotations

from pycni.host.arp import close_sender, frame, open_sender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class PeerAnnouncer:
    """A packet socket in the namespace that the calling thread is in now, for a resident process."""

    def __init__(self) -> None:
        self._socket = open_sender()
        self._socket.setblocking(False)

    def close(self) -> None:
        close_sender(self._socket)

    def kick(self, bridge: str, peers: Iterable[tuple[str, str]]) -> None:
        """Announce each (address, MAC) once to all containers of *bridge*; one more of each costs 5 µs and a container.

        OSError where there is no such link (ENODEV), it is down (ENETDOWN) or its queue is full (ENOBUFS, EAGAIN): what
        comes behind it is not announced, and need not be. The frames come from the remote container, so the bridge's
        own address is not told to anybody.
        """
        for address, mac in peers:
            self._socket.sendto(frame(address, mac), (bridge, 0))


_kept: PeerAnnouncer | None = None


def kick(bridge: str, peers: Iterable[tuple[str, str]]) -> None:
    """As PeerAnnouncer.kick, with one that stays open until the process ends, in the namespace of the first call."""
    global _kept  # noqa: PLW0603 - a property of the process
    if _kept is None:
        _kept = PeerAnnouncer()
    _kept.kick(bridge, peers)
