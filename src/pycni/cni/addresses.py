"""IP addresses as text, read the way Go's `net` package reads them (configs in use were written against it).

Strict where Python's `ipaddress` is lenient: a CIDR needs its "/" and a decimal length (no "10.0.0.1", no
"10.0.0.1/255.0.0.0"), a zone ("fe80::1%eth0") is refused. IPv4-mapped IPv6 ("::ffff:10.0.0.1") is IPv4.
Host bits are kept by `parse_cidr` and cleared by `parse_prefix`. All raise ValueError with a sentence on *text*.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from pycni.cni.errors import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    Address = IPv4Address | IPv6Address
    Interface = IPv4Interface | IPv6Interface
    Network = IPv4Network | IPv6Network

MAC_BYTES = 6
_MAPPED_BITS = 96  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2


def parse_address(text: str) -> Address:
    """The address *text*, without a prefix length."""
    try:
        return _address(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not an IP address such as 10.1.0.1 or fd00::1") from None


def parse_cidr(text: str) -> Interface:
    """The address and prefix length *text* ("10.1.0.5/16"), host bits kept."""
    try:
        bare, slash, length_text = text.partition("/")
        if not slash or not length_text.isascii() or not length_text.isdigit() or len(length_text) > 3:
            raise ValueError
        address, length = _address(bare), int(length_text)
        if ":" in bare and address.version == 4:
            length -= _MAPPED_BITS
        if not 0 <= length <= address.max_prefixlen:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"invalid CIDR address: {shown(text)} is no address with a prefix length, as 10.1.0.5/16 or fd00::5/64"
        ) from None
    return IPv4Interface((address, length)) if address.version == 4 else IPv6Interface((address, length))


def parse_prefix(text: str) -> Network:
    """The network *text* ("10.1.0.0/16"); host bits are cleared, for the kernel refuses routes that have some."""
    return parse_cidr(text).network


def parse_mac(text: str) -> bytes:
    """The unicast Ethernet address *text*: six bytes in hexadecimal with colons or hyphens between them, or three pairs
    of bytes with dots."""
    width = 4 if "." in text else 2
    parts = text.replace("-", ":").replace(".", ":").split(":")
    digits = "".join(parts)
    try:
        mac = bytes.fromhex(digits) if digits.isalnum() else b""  # which would skip blanks
    except ValueError:
        mac = b""
    if len(mac) != MAC_BYTES or any(len(part) != width for part in parts):
        raise ValueError(f"address {text}: invalid MAC address: write six hexadecimal bytes: 02:00:5e:10:00:01")
    if mac[0] & 1 or not any(mac):
        raise ValueError(f"address {text}: not a unicast MAC address: clear the lowest bit of the first byte")
    return mac


def _address(text: str) -> Address:
    if ":" not in text:
        return IPv4Address(text)
    if "%" in text:
        raise ValueError
    address = IPv6Address(text)
    return address.ipv4_mapped or address
