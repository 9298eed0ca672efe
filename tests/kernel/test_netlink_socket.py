"""What a netlink socket does with errors, large batches, large and changing lists, and answers it did not ask for."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_interface, ip_network

import pytest

from netns_fixtures import Namespace
from pycni.host import link_facts, messages, netlink, netns, rtnl
from tests.kernel.place import Place, refused

pytestmark = pytest.mark.needs("root", "tool:ip", "kernel:veth", "kernel:bridge")


@pytest.fixture
def place(make_namespace: Callable[..., Namespace], closing: ExitStack) -> Callable[[], Place]:
    return lambda: Place(make_namespace(), closing)


@pytest.fixture
def here(place: Callable[[], Place]) -> Place:
    """The host's side."""
    return place()


@pytest.fixture
def pair(here: Place) -> Place:
    """`here` with a veth pair a–b, both up."""
    here.nl.request(messages.new_veth_pair_here("a", "b"))
    return here


def test_error_has_the_kernels_words(pair: Place) -> None:
    """The ext_ack text where there is one, else what the errno means."""
    assert "mtu" in str(refused(pair, messages.set_link("a", mtu=20)))
    assert os.strerror(errno.ENODEV) in str(refused(pair, messages.delete_link(4711)))


def test_batch_goes_on_after_an_error(pair: Place) -> None:
    """All that can be done is done; the first failure is raised, with its place in the batch."""
    failure = refused(
        pair,
        messages.set_link("a", mtu=1300),
        messages.set_link("no", mtu=1300),
        messages.set_link(4711, mtu=20),
        messages.set_link("b", mtu=1200),
    )
    assert (failure.errno, failure.position) == (errno.ENODEV, 1)  # type: ignore[attr-defined]
    assert (pair.link("a").mtu, pair.link("b").mtu) == (1300, 1200)


def test_socket_works_on_after_an_error(pair: Place) -> None:
    """No answer of a failed batch is taken for that of the next request."""
    for _ in range(3):
        refused(pair, messages.delete_link("no"), messages.set_link("no", up=True))
        assert pair.link("a").name == "a"


def test_thousand_requests_in_one_call(pair: Place) -> None:
    """More acknowledgements than the receive buffer holds are all read: the batch is sent in parts."""
    index = pair.link("a").index
    wanted = [ip_interface(f"10.7.{n >> 8}.{n & 255}/32") for n in range(1000)]
    pair.nl.request(*(messages.new_address(index, one) for one in wanted))
    assert set(pair.nl.addresses(index, 2)) == set(wanted)
    failure = refused(pair, *(messages.new_address(index, one) for one in [*wanted[:5], ip_interface("10.8.0.1/32")]))
    assert (failure.errno, failure.position) == (errno.EEXIST, 0)  # type: ignore[attr-defined]
    assert ip_interface("10.8.0.1/32") in pair.nl.addresses(index)


def test_lost_acknowledgement_is_enobufs_not_a_hang(pair: Place) -> None:
    """A receive buffer too small for the answers of one lot gives ENOBUFS at once, and the socket can go on."""
    index = pair.link("a").index
    pair.nl._socket.setsockopt(1, 8, 1)  # SO_RCVBUF: the smallest there is
    failure = refused(pair, *(messages.set_link(index, up=True) for _ in range(64)))
    assert failure.errno == errno.ENOBUFS
    assert pair.link("a").index == index


def test_list_larger_than_one_datagram_is_whole(pair: Place) -> None:
    """Thousands of routes come in many datagrams, all of them, and the next answer is the right one."""
    index = pair.link("a").index
    wanted = {ip_network(f"10.{100 + (n >> 8)}.{n & 255}.0/24") for n in range(3000)}
    pair.nl.request(*(messages.new_route(dst, oif=index, protocol=99) for dst in wanted))
    assert {route.dst for route in pair.nl.routes(protocol=99)} == wanted
    assert pair.link("a").index == index


class Disturbed(rtnl.Netlink):
    """A socket that changes the list it reads, between two datagrams of it."""

    def disturb(self, other: rtnl.Netlink, changes: list[bytes]) -> None:
        self.other, self.changes = other, changes

    def _receive(self) -> Iterator[tuple[int, int, int, memoryview]]:
        yield from super()._receive()
        if self.changes:
            self.other.request(self.changes.pop(0))


def test_list_that_changes_meanwhile_is_read_again(pair: Place) -> None:
    """A list that changed between two of its datagrams is read anew until it holds still; if it never does: EINTR."""
    index = pair.link("a").index
    fixed = {ip_interface(f"10.7.{n >> 8}.{n & 255}/32") for n in range(1500)}
    pair.nl.request(*(messages.new_address(index, one) for one in fixed))
    extra = ip_interface("10.9.0.1/32")
    add, remove = messages.new_address(index, extra), messages.delete_address(index, extra)
    everything = messages.list_addresses(0, 2)  # the kernel marks changes in the list of all links, not in that of one
    with netns.inside(pair.fd, Disturbed) as disturbed:
        disturbed.disturb(pair.nl, [add, remove, add])
        found = [link_facts.read_address(payload).interface for payload in disturbed.answers(everything)]
        assert len(found) == 1501
        assert set(found) == {*fixed, extra}
        disturbed.disturb(pair.nl, [remove, add] * 500)
        with pytest.raises(InterruptedError, match="incomplete"):
            disturbed.answers(everything)
        disturbed.disturb(pair.nl, [])
        assert len(disturbed.answers(everything)) in (1500, 1501)


def test_strays_are_not_taken_for_answers(pair: Place) -> None:
    """Answers nobody asked for (an old request's) are skipped by their sequence number."""
    pair.nl._socket.send(
        netlink.message(18, 4, messages.IFINFOMSG.pack(0, 0, 1, 0, 0))
    )  # RTM_GETLINK of lo, sequence 0
    assert pair.link("a").name == "a"
    assert refused(pair, messages.delete_link("no")).errno == errno.ENODEV
