"""Set elements as the bytes that nft gives to the kernel, and back.

A key is the concatenation of its fields, each padded to 4 bytes; of an interval set there are two, the first and the
last address of each field. The comment stands in the element's user data (libnftnl: NFTNL_UDATA_SET_ELEM_COMMENT).
Numbers of attributes: enum nft_set_elem_attributes in include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network, summarize_address_range
from struct import pack, unpack_from

from pycni.firewall.rules import Element

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycni.firewall.nft_text import SetType

KEY, USERDATA, KEY_END = 1, 6, 10
VALUE = 1  # NFTA_DATA_VALUE, inside KEY and KEY_END
LIST_ELEM = 1
NESTED = 0x8000

LENGTHS = {"ipv4_addr": 4, "ipv6_addr": 16, "ether_addr": 6, "ifname": 16}  # bytes without padding


def encode_element(spec: SetType, element: Element, *, comment: bool) -> bytes:
    """The attributes of one element of a set of type *spec*, with its comment or (as a mere key) without."""
    first, last = zip(
        *(_bounds(field, part) for field, part in zip(spec.fields, element.key, strict=True)), strict=True
    )
    out = _nested_value(KEY, b"".join(first))
    if spec.interval:
        out += _nested_value(KEY_END, b"".join(last))
    if comment and element.comment:
        text = element.comment.encode() + b"\0"
        out += attribute(USERDATA, pack("BB", 0, len(text)) + text)
    return out


def decode_elements(spec: SetType, data: bytes) -> Iterator[Element]:
    """The elements in the list attribute *data* (NFTA_SET_ELEM_LIST_ELEMENTS)."""
    for kind, payload in each_attribute(data):
        if kind == LIST_ELEM:
            found = dict(each_attribute(payload))
            first = dict(each_attribute(found.get(KEY, b""))).get(VALUE, b"")
            last = dict(each_attribute(found.get(KEY_END, b""))).get(VALUE, b"") or first
            yield Element(spec.name, _key(spec, first, last), _comment(found.get(USERDATA, b"")))


def comments(data: bytes) -> Iterator[str]:
    """The comments of the elements in a list attribute, "" for one that has none; of sets of any type."""
    for kind, payload in each_attribute(data):
        if kind == LIST_ELEM:
            yield _comment(dict(each_attribute(payload)).get(USERDATA, b""))


def _bounds(field: str, part: str) -> tuple[bytes, bytes]:
    """The first and the last value that *part* stands for, padded."""
    if field in ("ipv4_addr", "ipv6_addr"):
        if "/" not in part:
            packed = ip_address(part).packed
            return packed, packed
        network = ip_network(part)
        return network.network_address.packed, network.broadcast_address.packed
    value = bytes.fromhex(part.replace(":", "")) if field == "ether_addr" else part.encode()
    value += bytes((LENGTHS[field] if field == "ifname" else 8) - len(value))
    return value, value


def _key(spec: SetType, first: bytes, last: bytes) -> tuple[str, ...]:
    out = []
    at = 0
    for field in spec.fields:
        length = LENGTHS[field]
        low, high = first[at : at + length], last[at : at + length]
        at += (length + 3) & ~3
        if field == "ifname":
            out.append(low.rstrip(b"\0").decode(errors="replace"))
        elif field == "ether_addr":
            out.append(low.hex(":"))
        elif spec.interval and low != high:
            out.append(str(next(summarize_address_range(ip_address(low), ip_address(high)))))
        else:
            out.append(str(ip_address(low)))
    return tuple(out)


def _comment(userdata: bytes) -> str:
    at = 0
    while at + 2 <= len(userdata):
        kind, length = unpack_from("BB", userdata, at)
        if kind == 0:
            return userdata[at + 2 : at + 2 + length].rstrip(b"\0").decode(errors="replace")
        at += 2 + length
    return ""


def _nested_value(kind: int, value: bytes) -> bytes:
    return attribute(kind | NESTED, attribute(VALUE, value))


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded."""
    return pack("HH", len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type without flags, payload) of each netlink attribute in *data*."""
    at = 0
    while at + 4 <= len(data):
        length, kind = unpack_from("HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3
