"""Who follows the peers of this host's networks: an agent, if this process is one."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from pycni.plugins.overlay.site import Joined

    class Follower(Protocol):
        """Keeps the kernel's entries of all peers as etcd says, for as long as it lives."""

        def admit(self, connection: str, prefix: str) -> None:
            """CniError 11 where this host must not take part in that cluster, because another one has its id or tunnel
            address. To be asked before anything is written to etcd. As in Joined."""

        def follow(self, joined: Joined) -> bool:
            """From now on keep *joined* up to date, with what changed of it; at once where it is followed already.

            To be called when its member key is written, and what is kept of it on the host. True when its peers have
            been programmed; False where etcd gives no answer now, then they will be.
            """

        def leave(self, network: str, prefix: str) -> None:
            """Follow *network* no more, and write nothing about it from then on; what the kernel holds is the caller's
            to remove."""


_follower: Follower | None = None


def install(follower: Follower | None) -> None:
    """From now on `follower` answers *follower*, in this process."""
    global _follower  # noqa: PLW0603 - a property of the process: an agent has one, an executable has none
    _follower = follower


def follower() -> Follower | None:
    """None in a process that ends with its call: then the caller programs what it finds, once."""
    return _follower


def older_data(prefix: str, how: str, remedy: str) -> CniError:
    """The answer to an ADD while etcd has older data than it had: it gives out addresses that containers have."""
    return CniError(
        Code.TRY_AGAIN,
        f"etcd has older data of {prefix} than it had ({how}): no address is taken from it, others may have it",
        f"restore what it had; {remedy}",
    )
