"""What a notification of nf_tables is taken to say was lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pycni.firewall.nft_text import MAIN
from pycni.firewall.rules import Element, comment_of
from pycni.host import netlink
from pycni.host.nft_events import NFNL_SUBSYS_NFTABLES, NFT_MSG_DELSETELEM, Losses, losses
from pycni.host.nft_messages import FAMILIES, add_elements

PORTS = st.integers(0, 0xFFFFFFFF)


def removal(port: int, address: str, owner: str) -> bytes:
    """As the kernel tells that the socket with *port* removed an element."""
    body = add_elements(MAIN, [Element("masq4", (address,), comment_of(owner))]).body
    payload = bytes((FAMILIES["inet"], 0, 0, 0)) + body
    kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELSETELEM
    message = netlink.HEADER.pack(netlink.HEADER.size + len(payload), kind, 0, 1, port) + payload
    return message + bytes(-len(message) % 4)


@given(own=st.sets(PORTS, max_size=4), ports=st.lists(PORTS, max_size=6))
def test_what_own_sockets_removed_is_no_loss(own: set[int], ports: list[int]) -> None:
    """Of a datagram with removals by several sockets the others' count, each with its owner."""
    ports += own  # some of both
    data = b"".join(removal(port, f"10.0.0.{n}", f"net/c{n}/eth0") for n, port in enumerate(ports))
    expected = {f"net/c{n}/eth0" for n, port in enumerate(ports) if port not in own}
    assert losses(data, MAIN.name, own).owners == expected
    assert losses(data, MAIN.name).owners == {f"net/c{n}/eth0" for n in range(len(ports))}


def test_of_other_tables_nothing_is_said() -> None:
    """Removals of elements concern the table that was asked for."""
    assert losses(removal(7, "10.0.0.1", "net/c/eth0"), "docker") == Losses()
