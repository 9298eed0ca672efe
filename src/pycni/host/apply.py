"""The one executor: it carries out a plan's operations and takes back what was done when one fails."""

from __future__ import annotations

import errno
import sys

from pycni.change import ops
from pycni.cni.errors import CniError, Code
from pycni.host import inet_messages, link_requests, messages, netns, rtnl, sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pycni.change.ops import Op
    from pycni.host.firewall import Everyone, Firewall
    from pycni.host.link_requests import LinkRequest

PORT_DEADLINE_S = 5.0  # linkwatch tells the bridge of a carrier within a second (link_watch.c); the rest is load
DAD_DEADLINE_S = 10.0
# Inverses of Ensure… operations, on which others may have come to rely: those of the same bridge, or all of the host.
OF_BRIDGE = (ops.DeleteBridge, ops.RemoveAddress, ops.EnsureAddress, ops.SetPromiscuous)
OF_HOST = (ops.EnsureSysctl,)


def apply_plan(plan: Sequence[Op], kernel: Kernel, inverses: list[Op]) -> None:
    """Do every operation and append the inverse of each to *inverses*; CniError for what the kernel refused.

    An inverse is noted after its operation: EEXIST would be somebody else's object.
    """
    for together in link_requests.grouped(plan):
        if len(together) > 1:
            kernel.do_together(together)
        elif (back := kernel.do(together[0])) is not None:
            inverses.append(back)


def take_back(inverses: Sequence[Op], kernel: Kernel, keep: tuple[type[Op], ...]) -> list[str]:
    """Do each inverse whatever the others do, but for the kinds *keep*; what failed is returned as text, for the
    error's details."""
    left: list[str] = []
    for op in inverses:
        if isinstance(op, keep):
            continue
        try:
            kernel.do(op)
        except (OSError, CniError) as failure:
            left.append(f"left behind: {op}: {failure}")
    return left


class Kernel:
    """The host's kernel as an executor of operations, for the duration of one call.

    `container` is a descriptor of the container's namespace, None where the plan has no operation inside it.
    """

    def __init__(self, container: int | None, firewall: Firewall, everyone: Everyone | None = None) -> None:
        """*everyone* gives the rules of the host's other attachments, which an ADD puts back where they are gone."""
        self._fd = container
        self._firewall = firewall
        self._everyone = everyone
        self.host = rtnl.Netlink()
        self._inside: rtnl.Netlink | None = None
        self._links: dict[tuple[str, str], rtnl.Link] = {}
        self._is_told = False  # that /proc/sys is read only

    def close(self) -> None:
        self.host.close()
        if self._inside is not None:
            self._inside.close()

    def do(self, op: Op) -> Op | None:
        """Carry out one operation; its inverse, None where nothing was changed or nothing can be taken back."""
        act: Callable[[Kernel, Any], Op | None] = _ACTS.get(type(op)) or _late_act(type(op))
        try:
            return act(self, op)
        except OSError as failure:
            from pycni.host.kernel_words import kernel_error

            raise kernel_error(op, failure) from failure

    def do_together(self, together: Sequence[Any]) -> None:
        """Carry out operations that `link_requests.grouped` put together: also those after one that is refused."""
        requests = [self._request(op) for op in together]
        try:
            self.socket(together[0].where).request(*requests)
        except OSError as failure:
            from pycni.host.kernel_words import kernel_error

            raise kernel_error(together[getattr(failure, "position", 0)], failure) from failure

    def link(self, where: str, name: str) -> rtnl.Link:
        """As it is now. CniError 999 when there is no such link."""
        link = self.find(where, name)
        if link is None:
            raise CniError(
                Code.INTERNAL, f"link {name} is gone from the {where}", "something else removed it meanwhile"
            )
        return link

    def find(self, where: str, name: str) -> rtnl.Link | None:
        """As it is now, None when there is none. What was found is `seen` for the rest of the call."""
        link = self.socket(where).link(name)
        if link is not None:
            self._links[where, name] = link
        return link

    def seen(self, where: str, name: str) -> rtnl.Link | None:
        """As it was when this call last looked, None when there is none: each look is a twentieth of a millisecond of
        an ADD that has six."""
        return self._links.get((where, name)) or self.find(where, name)

    def known(self, where: str, name: str) -> rtnl.Link:
        """As `seen`, and CniError 999 when there is none."""
        return self._links.get((where, name)) or self.link(where, name)

    def socket(self, where: str) -> rtnl.Netlink:
        """The rtnetlink socket in the namespace HOST or CONTAINER."""
        if where == ops.HOST:
            return self.host
        if self._inside is None:
            self._inside = self.inside(rtnl.Netlink)
        return self._inside

    def inside(self, function: Callable[..., Any], *args: Any) -> Any:
        """What *function* answers when run in the container's namespace."""
        assert self._fd is not None, "the plan reaches into a container that the call does not name"
        return netns.inside(self._fd, function, *args)

    def index(self, where: str, name: str) -> int:
        """Its number in that namespace; as `known`."""
        return self.known(where, name).index

    # ---- shared: addresses, sysctls --------------------------------------------------------------------------------

    def _ensure_address(self, op: ops.EnsureAddress) -> Op | None:
        index = self.index(ops.HOST, op.link)
        if op.address in self.host.addresses(index):
            return None
        try:
            self.host.request(inet_messages.new_address(index, op.address, nodad=True))
        except FileExistsError:
            return None  # another ADD was faster
        return ops.RemoveAddress(op.link, op.address)

    def _remove_address(self, op: ops.RemoveAddress) -> Op | None:
        try:
            self.host.request(inet_messages.delete_address(self.index(ops.HOST, op.link), op.address))
        except OSError as failure:
            if failure.errno != errno.EADDRNOTAVAIL:
                raise
            return None
        return ops.EnsureAddress(op.link, op.address)

    def _ensure_sysctl(self, op: ops.EnsureSysctl) -> Op | None:
        before = sysctl.read(op.key)
        if before is None and op.optional:
            return None
        if before == op.value:
            return None
        try:
            sysctl.write_only(op.key, op.value)
        except OSError as failure:
            self._do_without(op, failure)
            return None
        return None if before is None else ops.EnsureSysctl(op.key, before, optional=True)

    def _do_without(self, op: ops.EnsureSysctl | ops.SetSysctl, failure: OSError) -> None:
        """In a container, or under systemd's ProtectKernelTunables, /proc/sys may be read only. The reference plugins
        work there once forwarding is on, as they ignore whatever happens to the rest."""
        if failure.errno != errno.EROFS or not op.optional:
            raise failure
        if not self._is_told:
            print(f"pycni: /proc/sys is read only: {op.key} and such stay as they are", file=sys.stderr)
        self._is_told = True

    # ---- owned: the veth pair, its port, the container's side ----------------------------------------------------

    def _create_veth(self, op: ops.CreateVeth) -> Op:
        assert self._fd is not None
        pair = messages.new_veth(
            host=op.host,
            peer=op.ifname,
            netns_fd=self._fd,
            master=self.index(ops.HOST, op.bridge) if op.bridge else 0,
            mtu=op.mtu,
            peer_mac=op.mac,
            host_up=False,
        )
        try:
            self.host.request(pair, messages.set_link(op.host, alias=op.alias))
        except OSError as failure:
            if getattr(failure, "position", 0):  # it was made, and refuses its alias
                self.delete_link(op.host)
            raise
        return ops.DeleteLink(op.host)

    def _delete(self, op: ops.DeleteLink) -> None:
        self.delete_link(op.name)

    def delete_link(self, name: str) -> None:
        """Delete a link of the host; it may be gone already."""
        try:
            self.host.request(messages.delete_link(name))
        except OSError as failure:
            if failure.errno != errno.ENODEV:
                raise

    def _set_port(self, op: ops.SetPort) -> None:
        index = self.index(ops.HOST, op.link)
        self.host.request(messages.bridge_port(index, hairpin=op.hairpin, isolated=op.isolated))

    def set_port_vlans(self, op: ops.SetPortVlans) -> None:
        """The VLANs of a bridge's port."""
        index = self.index(ops.HOST, op.link)
        if op.native:
            self.host.request(messages.bridge_vlan(index, op.native, pvid=True, untagged=True))
        if not op.keep_default and op.native != 1:
            self.host.request(messages.bridge_vlan(index, 1, delete=True))
        for low, high in op.trunk:
            self.host.request(messages.bridge_vlan(index, low, vid_end=high))

    def _set_sysctl(self, op: ops.SetSysctl) -> None:
        try:
            self.inside(self._write_sysctl, op)
        except OSError as failure:
            self._do_without(op, failure)

    @staticmethod
    def _write_sysctl(op: ops.SetSysctl) -> None:
        if not (op.optional and sysctl.read(op.key) is None):
            sysctl.write(op.key, op.value)

    def _send(self, op: LinkRequest) -> None:
        self.socket(op.where).request(self._request(op))

    def _request(self, op: LinkRequest) -> bytes:
        by_name = isinstance(op, ops.SetUp) and (op.where, op.link) not in self._links
        return link_requests.request_of(op, op.link if by_name else self.index(op.where, op.link))

    def _await_up(self, op: ops.AwaitUp) -> None:
        state = self.host.wait_up(self.index(ops.HOST, op.link), PORT_DEADLINE_S)
        if state is not None:
            raise CniError(
                Code.INTERNAL,
                f"{op.link} is {state} after {PORT_DEADLINE_S:g} s",
                "something else took one end of the pair down meanwhile",
            )

    def _await_port(self, op: ops.AwaitPort) -> None:
        link = self.find(ops.HOST, op.link)
        if link is not None and link.forwarding:
            return
        state = "gone" if link is None else self.host.wait_port_forwarding(link.index, PORT_DEADLINE_S)
        if state is not None:
            raise CniError(
                Code.INTERNAL,
                f"bridge port in error state: {state}",
                f"{op.link} does not forward after {PORT_DEADLINE_S:g} s: is spanning tree on, or the bridge down?",
            )

    def _await_dad(self, op: ops.AwaitDad) -> None:
        socket = self.socket(ops.CONTAINER)
        duplicate = socket.wait_dad(self.index(ops.CONTAINER, op.link), DAD_DEADLINE_S)
        if duplicate is not None:
            raise CniError(
                Code.ADDRESS_TAKEN, f"{duplicate} is in use by another host on the link (DAD)", "pick another"
            )

    def _forget_neighbours(self, op: ops.ForgetNeighbours) -> None:
        index = self.index(ops.HOST, op.link)
        for address in op.addresses:
            try:
                self.host.request(inet_messages.delete_neighbour(index, address))
            except FileNotFoundError:
                pass  # the host never spoke to that address

    def _announce(self, op: ops.Announce) -> None:
        from pycni.host import arp  # not for an address that is used for the first time

        assert self._fd is not None, "an announcement comes from a container"
        arp.announce_from(self._fd, self.index(ops.CONTAINER, op.link), op.addresses)

    # ---- firewall ------------------------------------------------------------------------------------------------

    def _apply_firewall(self, op: ops.ApplyFirewall) -> None:
        self._firewall.apply_add(op.network, op.attachment, self._everyone)


_ACTS: dict[type[Op], Any] = {
    ops.EnsureAddress: Kernel._ensure_address,
    ops.RemoveAddress: Kernel._remove_address,
    ops.EnsureSysctl: Kernel._ensure_sysctl,
    ops.CreateVeth: Kernel._create_veth,
    ops.DeleteLink: Kernel._delete,
    ops.SetPort: Kernel._set_port,
    ops.SetPortVlans: Kernel.set_port_vlans,
    ops.SetSysctl: Kernel._set_sysctl,
    ops.AddAddress: Kernel._send,
    ops.SetUp: Kernel._send,
    ops.AddRoute: Kernel._send,
    ops.AwaitUp: Kernel._await_up,
    ops.AwaitPort: Kernel._await_port,
    ops.AwaitDad: Kernel._await_dad,
    ops.ForgetNeighbours: Kernel._forget_neighbours,
    ops.Announce: Kernel._announce,
    ops.ApplyFirewall: Kernel._apply_firewall,
}
# Where the operations of bridges and of the chained plugins are carried out: other calls do not load them.
_LATE = {
    "pycni.change.ops": "pycni.host.bridging",
    "pycni.change.publishing": "pycni.host.publishing",
    "pycni.change.rejoining": "pycni.host.rejoining",
    "pycni.change.shaping": "pycni.host.traffic_control",
    "pycni.change.tuning": "pycni.host.tuning",
    "pycni.change.tunnels": "pycni.host.tunnels",
    "pycni.change.zones": "pycni.host.firewalld",
}


def _late_act(kind: type[Op]) -> Any:
    name = _LATE[kind.__module__]
    __import__(name)
    return sys.modules[name].ACTS[kind]
