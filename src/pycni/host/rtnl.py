"""rtnetlink by value: links, addresses, routes and neighbours as the kernel has them; waits with a deadline.

Requests are built by `messages`, sent by `Netlink.request`; what the readers answer is in `link_facts`.
"""

from __future__ import annotations

import errno
import time
from ipaddress import IPv4Address, IPv6Address

from pycni.host import inet_messages, link_facts, messages, netns
from pycni.host.link_facts import AddressFacts, Link, Neighbour, RouteFacts
from pycni.host.netlink_socket import NetlinkSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycni.host.link_facts import Address, Interface

__all__ = ["AddressFacts", "Link", "Neighbour", "Netlink", "RouteFacts", "in_namespace", "uplink_mtu"]

FIRST_WAIT_S, LONGEST_WAIT_S = 50e-6, 10e-3
_REFUSED = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)  # no route; unreachable; …; blackhole
_REFUSING = (inet_messages.RTN_BLACKHOLE, inet_messages.RTN_UNREACHABLE, inet_messages.RTN_PROHIBIT)
# Public addresses (a.root-servers.net) that a host has no route of its own for.
_FAR_AWAY = (IPv4Address("198.41.0.4"), IPv6Address("2001:503:ba3e::2:30"))


class Netlink(NetlinkSocket):
    """An rtnetlink socket in the namespace of the creating thread. One thread at a time. Raises OSError only."""

    def link(self, link: int | str) -> Link | None:
        """The link with that index, name or alternative name; None if there is none."""
        try:
            payloads = self.answers(messages.get_link(link))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return None
        return link_facts.read_link(payloads[0])

    def links(self) -> tuple[Link, ...]:
        """Every link of the namespace: costs about 20 µs for each, so not for ADD or DEL."""
        return tuple(link_facts.read_link(payload) for payload in self.answers(messages.list_links()))

    def ports(self, bridge: int) -> tuple[Link, ...]:
        """The links whose master is *bridge*; the kernel filters, but walks all links of the namespace."""
        return tuple(link_facts.read_link(payload) for payload in self.answers(messages.list_ports(bridge)))

    def addresses(self, index: int, family: int = 0) -> tuple[Interface, ...]:
        """The IPv4 and IPv6 addresses of a link with their prefixes; () for a link that is gone."""
        return tuple(one.interface for one in self.address_facts(index, family))

    def address_facts(self, index: int, family: int = 0) -> tuple[AddressFacts, ...]:
        """As `addresses`, with the flags."""
        try:
            payloads = self.answers(messages.list_addresses(index, family))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return ()
        return tuple(link_facts.read_address(payload) for payload in payloads)

    def routes(
        self, *, oif: int = 0, table: int = inet_messages.RT_TABLE_MAIN, protocol: int = 0, family: int = 0
    ) -> tuple[RouteFacts, ...]:
        """The routes of *table* (0: of all); through link *oif* and of *protocol* only, if given."""
        question = inet_messages.list_routes(oif=oif, table=table, protocol=protocol, family=family)
        try:
            payloads = self.answers(question)
        except OSError as error:
            if error.errno != errno.ENOENT:  # a table that was never used, asked for one family
                raise
            return ()
        hops = (hop for payload in payloads for hop in link_facts.read_route(payload))
        return tuple(hop for hop in hops if not oif or hop.oif == oif)

    def route_to(self, address: Address) -> RouteFacts | None:
        """Which way a packet to *address* would go (`dst` is the address itself); None if it would be refused."""
        return next(iter(self._routes_to([address], entry=False)), None)

    def hops_to(self, *addresses: Address) -> tuple[RouteFacts, ...]:
        """The hops of the routes that packets to *addresses* would take; none of one that would be refused."""
        return self._routes_to(addresses, entry=True)

    def _routes_to(self, addresses: Iterable[Address], *, entry: bool) -> tuple[RouteFacts, ...]:
        answers = self.answer_each([inet_messages.get_route(address, entry=entry) for address in addresses])
        hops: list[RouteFacts] = []
        for answer in answers:
            if isinstance(answer, bytes):
                hops += link_facts.read_route(answer)
            elif answer.errno not in _REFUSED:
                raise answer
        # A route that refuses is an error in IPv4, a route of that type in IPv6.
        return tuple(hop for hop in hops if hop.kind not in _REFUSING)

    def neighbours(self, index: int) -> tuple[Neighbour, ...]:
        """The neighbour entries of a link, IPv4 and IPv6, without the proxy ones."""
        payloads = self.answers(inet_messages.list_neighbours(index))
        return tuple(link_facts.read_neighbour(payload) for payload in payloads)

    def wait_port_forwarding(self, index: int, deadline_s: float) -> str | None:
        """Wait at most *deadline_s* seconds for a bridge port to forward; None once it does, else its last state.

        The end of a veth pair gets its carrier, and the bridge hears of it, from a work queue (linkwatch) after the
        request that brought the other end up; what is sent before that, the bridge drops.
        """
        for last in _attempts(deadline_s):
            link = self.link(index)
            if link is not None and link.forwarding:
                return None
            if link is None or link.port_state is None or last:
                break
        return "gone" if link is None else link.state_words

    def wait_up(self, index: int, deadline_s: float) -> str | None:
        """Wait at most *deadline_s* seconds for a link to be operationally up; None once it is, else its last state.

        As with wait_port_forwarding: the end of a pair that was up first has a carrier at once, but its queue, without
        which it drops, comes from the work queue (dev_activate, by linkwatch_do_dev).
        """
        for last in _attempts(deadline_s):
            link = self.link(index)
            if link is None or link.operstate == link_facts.IF_OPER_UP or last:
                break
        if link is None:
            return "gone"
        return None if link.operstate == link_facts.IF_OPER_UP else link_facts.OPERSTATES[link.operstate]

    def wait_dad(self, index: int, deadline_s: float) -> Interface | None:
        """Wait until no IPv6 address of a link is tentative; None if all are usable, else one found to be a duplicate.

        Link-local addresses do not count. ETIMEDOUT after *deadline_s* seconds.
        """
        for last in _attempts(deadline_s):
            facts = [
                one for one in self.address_facts(index, inet_messages.AF_INET6) if not one.interface.is_link_local
            ]
            duplicate = next((one.interface for one in facts if one.duplicate), None)
            if duplicate is not None or not any(one.tentative for one in facts):
                return duplicate
            if last:
                break
        raise OSError(errno.ETIMEDOUT, f"duplicate address detection did not end within {deadline_s:g} s")


def in_namespace(netns_fd: int) -> Netlink:
    """A socket opened inside the namespace of *netns_fd*; the calling thread stays where it is."""
    return netns.inside(netns_fd, Netlink)


def uplink_mtu(socket: Netlink) -> int | None:
    """The MTU in bytes of the way out of the namespace; None without a default route.

    The smaller of IPv4's and IPv6's, the smallest of several hops; that of the route, if it has one, else of its link.
    Look-ups, no list.
    """
    hops = [hop for hop in socket.hops_to(*_FAR_AWAY) if hop.oif]
    links = {oif: socket.link(oif) for oif in {hop.oif for hop in hops}}  # IPv4's and IPv6's is one, as a rule
    reached = [(hop, link) for hop in hops if (link := links[hop.oif]) is not None]
    return min((min(link.mtu, hop.mtu or link.mtu) for hop, link in reached), default=None)


def _attempts(deadline_s: float) -> Iterator[bool]:
    """False for every attempt within *deadline_s*, then True for the last; sleeps in between, longer each time."""
    end, pause_s = time.monotonic() + deadline_s, FIRST_WAIT_S
    while (left_s := end - time.monotonic()) > 0:
        yield False
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, LONGEST_WAIT_S)
    yield True
