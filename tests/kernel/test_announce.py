"""Announcements of addresses, as the other end of the link hears them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address, ip_interface

import pytest

from netns_fixtures import Namespace, wait_until
from pycni.host import arp, messages, netns
from tests.kernel.place import Place

pytestmark = pytest.mark.needs("root", "tool:ip", "kernel:veth", "kernel:bridge")


@pytest.fixture
def place(make_namespace: Callable[..., Namespace], closing: ExitStack) -> Callable[[], Place]:
    return lambda: Place(make_namespace(), closing)


@pytest.fixture
def here(place: Callable[[], Place]) -> Place:
    """The host's side."""
    return place()


@pytest.fixture
def there(place: Callable[[], Place]) -> Place:
    """The container's side."""
    return place()


@pytest.mark.parametrize("changed", [False, True])
def test_announcement_reaches_the_other_end(here: Place, there: Place, *, changed: bool) -> None:
    """Every address: a gratuitous ARP request, or an unsolicited advertisement with the override flag, with the MAC of
    then."""
    here.nl.request(messages.new_veth(host="veth1", peer="eth0", netns_fd=there.fd))
    there.nl.request(messages.set_link("eth0", up=True))
    link = there.link("eth0")
    addresses = [ip_interface("10.1.0.2/24"), ip_interface("10.1.0.3/24"), ip_interface("fd01::2/64")]
    there.nl.request(*(messages.new_address(link.index, address, nodad=True) for address in addresses))
    wait_until(lambda: here.link("veth1").operstate == 6 and there.link("eth0").operstate == 6)
    ears = netns.inside(here.fd, listener)
    try:
        if changed:
            there.nl.request(messages.set_link("eth0", mac=b"\x02\0\0\0\0\x07"))
            link = there.link("eth0")
        arp.announce_from(there.fd, link.index, addresses)
        heard: set[str] = set()

        def all_heard() -> bool:
            heard.update(announcement for frame in frames(ears) if (announcement := announced(frame, link.mac)))
            return {str(address.ip) for address in addresses} <= heard

        wait_until(all_heard)
    finally:
        ears.close()
    assert there.link("eth0").mac == link.mac


def listener() -> socket.socket:
    ears = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    ears.bind(("veth1", 0))
    ears.setblocking(False)
    return ears


def frames(ears: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield ears.recv(2000)
        except BlockingIOError:
            return


def announced(frame: bytes, mac: bytes) -> str | None:
    """The address that a frame announces for *mac*, checked field by field; None if it announces nothing."""
    if frame[12:14] == b"\x08\x06":
        assert frame[:12] == b"\xff" * 6 + mac
        assert frame[14:22] == bytes.fromhex("0001080006040001")  # request
        assert frame[22:28] == mac
        assert frame[28:32] == frame[38:42]  # sender and target are the same
        return str(ip_address(frame[28:32]))
    if frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 136:
        assert (frame[:6], frame[21]) == (b"\x33\x33\0\0\0\x01", 255)
        assert frame[58] & 0x60 == 0x20  # override, not solicited
        assert frame[78:86] == b"\x02\x01" + mac
        return str(ip_address(frame[62:78]))
    return None
