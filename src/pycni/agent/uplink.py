"""What becomes of a tunnel when its uplink changes: another address of this host, another MTU."""

from __future__ import annotations

import os
from collections.abc import Callable

from pycni.cni.errors import CniError
from pycni.cni.value import Value
from pycni.host import messages
from pycni.host.netns import open_netns
from pycni.host.rtnl import AddressFacts, Netlink, in_namespace
from pycni.plugins.overlay.site import Joined, least_mtu
from pycni.store import open_store

IFA_F_TEMPORARY, IFA_F_DEPRECATED = 0x01, 0x20  # linux/if_addr.h; the first is IFA_F_SECONDARY in IPv4


class Uplink(Value):
    """The link that a tunnel goes out by. mtu: bytes. addresses: those that other hosts can send to, as text."""

    index: int
    mtu: int
    addresses: tuple[str, ...]


def read_uplink(netlink: Netlink, name: str, local: str) -> Uplink | None:
    """The link *name* as it is; *local*, the tunnel's address, counts as its as long as any link has it. None: it is
    gone."""
    link = netlink.link(name)
    if link is None:
        return None
    its = tuple(str(one.interface.ip) for one in netlink.address_facts(link.index) if _is_lasting(one))
    if local not in its and any(str(one.interface.ip) == local for one in netlink.address_facts(0)):
        its = (local, *its)
    return Uplink(link.index, link.mtu, its)


def _is_lasting(one: AddressFacts) -> bool:
    passing = IFA_F_TEMPORARY | IFA_F_DEPRECATED if one.interface.version == 6 else IFA_F_DEPRECATED
    return not (one.tentative or one.duplicate or one.interface.is_link_local or one.flags & passing)


def new_tunnel(joined: Joined, before: Uplink | None, now: Uplink, others: Callable[[], int]) -> Joined:
    """The network with its tunnel as the uplink wants it *now*. Pure.

    before: as the uplink was at the last look. A smaller MTU than the link's, that of a route say, stays until the
    link's changes. others: the smallest uplink of the other hosts in bytes, 0 where none is known. An MTU that the
    network's addresses could not live with is not given: see `least_mtu`.
    """
    same = [one for one in now.addresses if (":" in one) == (":" in joined.local)]
    local = joined.local if joined.local in same or not same else same[0]
    has_changed = before is not None and before.mtu != now.mtu
    uplink_mtu = now.mtu if has_changed or not 0 < joined.uplink_mtu <= now.mtu else joined.uplink_mtu
    if joined.fixed_mtu:
        mtu = min(joined.mtu, uplink_mtu - joined.overhead)
    elif uplink_mtu != joined.uplink_mtu:
        mtu = min(uplink_mtu, others() or uplink_mtu) - joined.overhead
    else:
        mtu = joined.mtu
    if mtu < least_mtu(joined.subnets):
        mtu = joined.mtu
    return joined.replace(local=local, uplink_mtu=uplink_mtu, mtu=mtu)


def give_containers_mtu(network: str, mtu: int) -> tuple[str, ...]:
    """Both ends of the veth pairs of *network* get *mtu* bytes; what could not be done, in words.

    A bridge drops what is too long for the port it leaves by, and tells nobody.
    """
    failures = []
    with open_store() as store:
        records = [record for record in store.attachments.all(network=network, part="") if record.state == "ready"]
    with Netlink() as host:
        for record in records:
            try:
                for name in record.host_links[:1]:
                    host.request(messages.set_link(name, mtu=mtu))
                _inside(record.netns, messages.set_link(record.attachment.ifname, mtu=mtu))
            except (CniError, OSError) as failure:
                failures.append(f"{record.attachment.owner}: {failure}")
    return tuple(failures)


def _inside(netns: str, request: bytes) -> None:
    fd = open_netns(netns)
    try:
        with in_namespace(fd) as container:
            container.request(request)
    finally:
        os.close(fd)
