"""Tell the link which MAC an interface's addresses have now, so that nobody goes on using an old one."""

from __future__ import annotations

import _socket
import os

from pycni.host import messages, netns, rtnl, sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pycni.host.link_facts import Address, Interface

_rest: Any = None  # a thread-local with the list `calls`, once put_off() was called


def put_off() -> None:
    """For a resident process: from now on `announce_from` waits for `announce_rest` of the same thread.

    An announcement is a broadcast, which the bridge copies to each of its ports while RTNL is held: 3.4 of 10 ms of an
    ADD next to 1000 of them. Nobody waits for it, so the caller has its answer first.
    """
    global _rest  # noqa: PLW0603 - a property of the process
    from _thread import _local

    _rest = _local()


def announce_from(fd: int, index: int, mac: bytes, addresses: Iterable[Address | Interface]) -> None:
    """`announce` in the network namespace *fd*, now or after the answer."""
    if _rest is None:
        netns.inside(fd, announce, index, mac, addresses)
        return
    if not hasattr(_rest, "calls"):
        _rest.calls = []
    _rest.calls.append((os.dup(fd), index, mac, addresses))


def announce_rest() -> None:
    """Announce what the calling thread has put off; containers that have gone meanwhile are passed over."""
    calls = getattr(_rest, "calls", None)
    while calls:
        fd, *what = calls.pop()
        try:
            netns.inside(fd, announce, *what)
        except OSError:
            pass
        finally:
            os.close(fd)


def announce(index: int, mac: bytes, addresses: Iterable[Address | Interface]) -> None:
    """Have the kernel announce all addresses of a link that is up; call it inside the namespace (`netns.inside`).

    IPv4: a gratuitous ARP request each; IPv6: an unsolicited neighbour advertisement each, with the override flag, to
    all nodes. *addresses* only tell which families are wanted, *mac* is the one the link has.

    Setting a link's MAC, even to what it is, makes the kernel announce it if told so by these sysctls (arp_notify in
    inetdev_event, devinet.c; ndisc_notify in ndisc_netdev_event, ndisc.c), which stay on for later changes. Frames of
    our own would need a packet socket, whose close waits for an RCU grace period (packet_release, af_packet.c):
    10 to 35 ms against 0.1.
    """
    name = _socket.if_indextoname(index)
    versions = {address.version for address in addresses}
    steps = [messages.set_link(index, arp_notify=True)] if 4 in versions else []
    if 6 in versions:
        sysctl.write(f"net/ipv6/conf/{name}/ndisc_notify", "1")
    if versions:
        with rtnl.Netlink() as socket:
            socket.request(*steps, messages.set_link(index, mac=mac))
