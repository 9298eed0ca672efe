"""Put right what of a network is not as it should be on this host: its tunnel, as the uplink is by now, its device, and
what `followed` compares. All is called with the lock of the network's `cluster` held."""

from __future__ import annotations

from collections.abc import Callable

from pycni.agent.followed import Followed
from pycni.agent.restoring import restore_links
from pycni.agent.uplink import give_containers_mtu, new_tunnel, read_uplink
from pycni.cni.errors import CniError
from pycni.host.rtnl import Netlink
from pycni.host.vxlan import read_vxlan
from pycni.ipam.etcd_state import HostState
from pycni.plugins.overlay.joining import lock_of
from pycni.plugins.overlay.site import L2, Joined, keep_joined, least_mtu, read_joined
from pycni.store import open_store


class Repairs:
    """For all networks of a cluster. note(level, event, network, …) tells of it; moved(network, former address) that
    the tunnel's end is elsewhere; others(network) is the smallest uplink of the other hosts, bytes, 0: unknown."""

    def __init__(
        self,
        state: HostState,
        netlink: Netlink,
        note: Callable[..., None],
        moved: Callable[[str, str], None],
        others: Callable[[str], int],
    ) -> None:
        self._state = state
        self._netlink = netlink
        self._note = note
        self._moved = moved
        self._others = others

    def put_right(self, network: Followed) -> bool:
        """Compare all of it; False where this host does not take part any more: a DEL was carried out elsewhere."""
        joined = network.joined
        if not self._is_ours(joined):
            return False
        if read_vxlan(self._netlink, joined.vxlan) is not None:
            self._compare(network)
            return True
        # Somebody deleted it, or the last DEL is at it, which holds this lock; and as that one may want the lock of the
        # cluster next, this must not wait for it.
        lock = self._state.lock(lock_of(joined.network))
        if not lock.take_now():
            network.postpone()
            return True
        try:
            if self._is_ours(joined):
                self._compare(network)
                return True
        finally:
            lock.__exit__()
        return False

    def follow_uplink(self, network: Followed) -> None:
        """What the uplink has become, the tunnel becomes: in place, at once, and etcd is told when it answers."""
        try:
            self._follow_uplink(network)
        except (CniError, OSError) as failure:
            self._note("warning", "overlay-problem", network.joined.network, msg=str(failure))
            network.postpone()

    def _follow_uplink(self, network: Followed) -> None:
        old = network.joined
        now = read_uplink(self._netlink, old.uplink, old.local)
        if now is None:
            return  # the device went with it; a comparison says so until it is there again
        new = new_tunnel(old, network.uplink, now, lambda: self._others(old.network))
        network.uplink = now
        if new == old:
            return
        network.joined = new
        keep_joined(self._state, new)
        told = {"local": new.local, "mtu": new.mtu, "was": {"local": old.local, "mtu": old.mtu}}
        self._note("warning", "overlay-uplink", old.network, **told)
        self._moved(new.network, old.local if new.local != old.local else "")
        least = least_mtu(new.subnets)
        if new.uplink_mtu - new.overhead < least:
            msg = (
                f"{new.uplink} has MTU {new.uplink_mtu}, of which the tunnel takes {new.overhead}: the network needs "
                f"{least}, so containers keep {new.mtu} and learn of less by path MTU discovery"
            )
            self._note("error", "overlay-problem", old.network, msg=msg)
        if network.in_step:
            network.ensure_device()
        if new.mtu != old.mtu:
            for failure in give_containers_mtu(new.network, new.mtu):
                self._note("warning", "overlay-problem", old.network, msg=failure)

    def _compare(self, network: Followed) -> None:
        name = network.joined.network
        network.restored += self._bring_back_bridge(network.joined)
        self.follow_uplink(network)
        before = network.problems
        repair = network.compare()
        if repair:
            self._note("warning", "overlay-restored", name, **repair.as_dict())
        if network.problems and network.problems != before:
            self._note("error", "overlay-problem", name, msg="; ".join(network.problems))

    def _bring_back_bridge(self, joined: Joined) -> bool:
        """Whether it was gone and is back. The device is to be a port of it, so this does not wait until attachments
        are compared."""
        if joined.mode != L2 or self._netlink.link(joined.bridge) is not None:
            return False
        failures: list[str] = []
        with open_store() as store:
            restored = restore_links(store, failures, joined.network)
        if restored:
            self._note("warning", "overlay-restored", joined.network, links=restored)
        if failures:
            self._note("error", "overlay-problem", joined.network, msg="; ".join(failures))
        return bool(restored)

    def _is_ours(self, joined: Joined) -> bool:
        """Whether this host takes part, as is kept on it."""
        there = read_joined(self._state, joined.network)
        return there is not None and not there.left
