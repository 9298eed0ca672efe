"""The PROXY protocol, version 2: who the client is, said to the server before the client's first byte.

https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, section 2.2.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
VERSION_2_PROXY = 0x21
TCP_OVER_IPV4, TCP_OVER_IPV6 = 0x11, 0x21
MAPPED = b"\0" * 10 + b"\xff\xff"  # the first 12 bytes of an IPv4 address in IPv6 form, RFC 4291 section 2.5.5.2


def header(client: tuple[str, int], asked: tuple[str, int]) -> bytes:
    """The header of a TCP connection from *client* to the address and port it *asked* for, both of one family."""
    source, destination = packed(client[0]), packed(asked[0])
    if source.startswith(MAPPED) and destination.startswith(MAPPED):
        source, destination = source[12:], destination[12:]
    transport = TCP_OVER_IPV4 if len(source) == 4 else TCP_OVER_IPV6
    ports = client[1].to_bytes(2, "big") + asked[1].to_bytes(2, "big")
    block = source + destination + ports
    return SIGNATURE + bytes((VERSION_2_PROXY, transport)) + len(block).to_bytes(2, "big") + block


def packed(address: str) -> bytes:
    """Network bytes of an address; a scope ("%eth0") is left out, the protocol has no place for it."""
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address.partition("%")[0])
