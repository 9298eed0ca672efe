"""What of the changes to the packet filter reaches those who listen."""

from __future__ import annotations

import _socket
from collections.abc import Callable
from contextlib import closing

import pytest

from netns_fixtures import Namespace
from pycni.firewall.nft_text import MAIN
from pycni.host import nft
from pycni.host.nfnetlink import Nfnetlink
from pycni.host.nft_events import Losses, listen, losses, pass_over
from pycni.host.nft_messages import add_chain, delete_chain

pytestmark = pytest.mark.needs("root", "tool:nft")


def test_what_is_passed_over_does_not_come(make_namespace: Callable[..., Namespace]) -> None:
    """Transactions of the named sockets are kept away, those of all others and of nft(8) come; the names can change."""
    make_namespace().in_namespace(_pass_over)


def _pass_over() -> None:
    nft.run_text(f"table {MAIN.family} {MAIN.name} {{}}")
    with closing(listen()) as ears, Nfnetlink() as first, Nfnetlink() as second:
        assert heard_of(ears, first, second) == [True, True]
        pass_over(ears, [port(first)])
        assert heard_of(ears, first, second) == [False, True]
        pass_over(ears, [port(first), port(second)])
        assert heard_of(ears, first, second) == [False, False]
        pass_over(ears, [port(second)])
        assert heard_of(ears, first, second) == [True, False]
        nft.run_text(f"delete table {MAIN.family} {MAIN.name}")
        nft.run_text("table inet firewalld {}")
        told = losses(received(ears), "pycni")
        assert (told.gone, told.made) == (frozenset({MAIN.name}), frozenset({"firewalld"}))


def port(kernel: Nfnetlink) -> int:
    return int(kernel._socket.getsockname()[0])


def heard_of(ears: _socket.socket, *kernels: Nfnetlink) -> list[bool]:
    """Of each whether a chain that it adds and removes is heard to be lost."""
    out = []
    for kernel in kernels:
        assert not kernel.batch([add_chain(MAIN, "x")])
        assert not kernel.batch([delete_chain(MAIN.family, MAIN.name, "x")])
        told = losses(received(ears), MAIN.name)
        assert told in (Losses(), Losses(tables=frozenset({MAIN.name})))
        out.append(bool(told.tables))
    return out


def received(ears: _socket.socket) -> bytes:
    """Everything that waits: the kernel has delivered when a transaction returns."""
    out = b""
    while True:
        try:
            out += ears.recv(1 << 16)
        except BlockingIOError:
            return out
