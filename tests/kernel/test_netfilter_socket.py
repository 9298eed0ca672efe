"""A socket that was given up ends all the same, and nothing stays behind in its place."""

from __future__ import annotations

import _socket
import os
import resource
from collections.abc import Callable

import pytest

from netns_fixtures import Namespace, wait_until
from pycni.host.netfilter_socket import close_unwaited

NETLINK_NETFILTER = 12

pytestmark = pytest.mark.needs("root")


def opened() -> _socket.socket:
    sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, NETLINK_NETFILTER)
    sock.bind((0, 0))
    return sock


def netfilter_sockets() -> int:
    """Of the calling thread's namespace, as the kernel lists them; its own has port 0."""
    with open("/proc/thread-self/net/netlink", encoding="ascii") as file:
        found = [line.split()[1:3] for line in file]
    return sum(protocol == str(NETLINK_NETFILTER) and port != "0" for protocol, port in found)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_it_ends(make_namespace: Callable[..., Namespace]) -> None:
    """A hundred of them: no descriptor stays, and the kernel has closed them all; once more is harmless."""

    def give_up() -> None:
        before = descriptors(), netfilter_sockets()
        for _ in range(100):
            sock = opened()
            close_unwaited(sock)
            close_unwaited(sock)
        assert descriptors() == before[0]
        wait_until(lambda: netfilter_sockets() == before[1], 10, "the kernel closed the sockets")

    make_namespace().in_namespace(give_up)


def test_without_descriptors_it_ends_as_well(make_namespace: Callable[..., Namespace]) -> None:
    """Where no pair of sockets can be had, it is closed the ordinary way."""

    def give_up() -> None:
        sock = opened()
        before = netfilter_sockets()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            close_unwaited(sock)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert sock.fileno() == -1
        assert netfilter_sockets() == before - 1

    make_namespace().in_namespace(give_up)
