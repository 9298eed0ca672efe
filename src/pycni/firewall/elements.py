"""Elements of sets and maps as the bytes that nft gives to the kernel, and back.

A key is the concatenation of its fields, each padded to 4 bytes; of an interval set there are two, the first and the
last value of each field. What a map's key leads to is written likewise, or is a verdict. The comment stands in the
element's user data (libnftnl: NFTNL_UDATA_SET_ELEM_COMMENT).
Numbers of attributes: enum nft_set_elem_attributes in include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address, ip_network, summarize_address_range
from struct import pack, unpack_from

from pycni.firewall.rules import Element

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycni.firewall.nft_text import SetType

KEY, DATA, USERDATA, KEY_END = 1, 2, 6, 10
VALUE, VERDICT = 1, 2  # NFTA_DATA_…, inside KEY, KEY_END and DATA
VERDICT_CODE, VERDICT_CHAIN = 1, 2
LIST_ELEM = 1
NESTED = 0x8000

# bytes without padding
LENGTHS = {"ipv4_addr": 4, "ipv6_addr": 16, "ether_addr": 6, "ifname": 16, "inet_proto": 1, "inet_service": 2, "vni": 3}
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
VERDICTS = {"jump": -3, "goto": -4}  # NFT_JUMP, NFT_GOTO
VERDICT_NAMES = {code: name for name, code in VERDICTS.items()}


def encode_element(spec: SetType, element: Element, *, comment: bool) -> bytes:
    """The attributes of one element of a set of type *spec*, with comment and data or (as a mere key) without."""
    first, last = encode_key(spec, element)
    out = _nested_value(KEY, first)
    if spec.interval:
        out += _nested_value(KEY_END, last)
    if comment and spec.data:
        out += _encode_data(spec, element.data)
    if comment and element.comment:
        text = element.comment.encode() + b"\0"
        out += attribute(USERDATA, pack("BB", 0, len(text)) + text)
    return out


def encode_key(spec: SetType, element: Element) -> tuple[bytes, bytes]:
    """The first and the last values of the fields; of a set without intervals the same."""
    bounds = [_bounds(field, part) for field, part in zip(spec.fields, element.key, strict=True)]
    first = b"".join([low for low, _ in bounds])
    return first, b"".join([high for _, high in bounds]) if spec.interval else first


def decode_elements(spec: SetType, data: bytes) -> Iterator[Element]:
    """The elements in the list attribute *data* (NFTA_SET_ELEM_LIST_ELEMENTS)."""
    for kind, payload in each_attribute(data):
        if kind == LIST_ELEM:
            found = attributes(payload)
            first, last = _ends(found)
            leads_to = _decode_data(spec, found.get(DATA, b"")) if spec.data else ()
            comment = _comment(found.get(USERDATA, b""))
            yield Element(spec.name, _fields(spec.fields, first, last if spec.interval else first), comment, leads_to)


def keys_and_comments(data: bytes) -> Iterator[tuple[tuple[bytes, bytes], str]]:
    """What `encode_key` says of each element in a list attribute, and its comment: a third of decode_elements' time."""
    for kind, payload in each_attribute(data):
        if kind == LIST_ELEM:
            found = attributes(payload)
            yield _ends(found), _comment(found.get(USERDATA, b""))


def comments(data: bytes) -> Iterator[str]:
    """The comments of the elements in a list attribute, "" for one that has none; of sets of any type."""
    for kind, payload in each_attribute(data):
        if kind == LIST_ELEM:
            yield _comment(attributes(payload).get(USERDATA, b""))


@lru_cache(maxsize=1024)  # a hundred ports of one container are a hundred times one address
def _bounds(field: str, part: str) -> tuple[bytes, bytes]:
    """The first and the last value that *part* stands for, padded."""
    if field in ("ipv4_addr", "ipv6_addr"):
        if "/" not in part:
            packed = ip_address(part).packed
            return packed, packed
        network = ip_network(part)
        return network.network_address.packed, network.broadcast_address.packed
    if field == "inet_service":
        low, _, high = part.partition("-")
        return pack(">Hxx", int(low)), pack(">Hxx", int(high or low))
    if field == "inet_proto":
        value = bytes((PROTOCOLS[part], 0, 0, 0))
    elif field == "vni":
        value = pack(">I", int(part) << 8)
    elif field == "ether_addr":
        value = bytes.fromhex(part.replace(":", "")) + bytes(2)
    else:
        value = part.encode() + bytes(LENGTHS[field] - len(part.encode()))
    return value, value


def _fields(types: tuple[str, ...], first: bytes, last: bytes) -> tuple[str, ...]:
    """Each field as text, of one that stands for several values from *first* to *last* as prefix or range."""
    out = []
    at = 0
    for field in types:
        length = LENGTHS[field]
        low, high = first[at : at + length], last[at : at + length]
        at += (length + 3) & ~3
        if field == "ifname":
            out.append(low.rstrip(b"\0").decode(errors="replace"))
        elif field == "ether_addr":
            out.append(low.hex(":"))
        elif field == "inet_proto":
            out.append(PROTOCOL_NAMES.get(low[0], str(low[0])))
        elif field == "vni":
            out.append(str(int.from_bytes(low, "big")))
        elif field == "inet_service":
            ports = str(int.from_bytes(low, "big")), str(int.from_bytes(high, "big"))
            out.append("-".join(dict.fromkeys(ports)))
        else:
            out.append(_as_prefix(low, high))
    return tuple(out)


@lru_cache(maxsize=1024)
def _as_prefix(first: bytes, last: bytes) -> str:
    if first == last:
        return str(ip_address(first))
    return str(next(summarize_address_range(ip_address(first), ip_address(last))))


def _encode_data(spec: SetType, data: tuple[str, ...]) -> bytes:
    if spec.data != ("verdict",):
        value = b"".join(_bounds(field, part)[0] for field, part in zip(spec.data, data, strict=True))
        return _nested_value(DATA, value)
    kind, _, chain = data[0].partition(" ")
    verdict = attribute(VERDICT_CODE, pack(">i", VERDICTS[kind])) + attribute(VERDICT_CHAIN, chain.encode() + b"\0")
    return attribute(DATA | NESTED, attribute(VERDICT | NESTED, verdict))


def _decode_data(spec: SetType, payload: bytes) -> tuple[str, ...]:
    if spec.data != ("verdict",):
        value = _value(payload)
        return _fields(spec.data, value, value) if value else ()
    verdict = attributes(attributes(payload).get(VERDICT, b""))
    (code,) = unpack_from(">i", verdict.get(VERDICT_CODE, bytes(4)))
    chain = verdict.get(VERDICT_CHAIN, b"").rstrip(b"\0").decode(errors="replace")
    return (f"{VERDICT_NAMES.get(code, str(code))} {chain}",)


def _comment(userdata: bytes) -> str:
    at = 0
    while at + 2 <= len(userdata):
        kind, length = unpack_from("BB", userdata, at)
        if kind == 0:
            return userdata[at + 2 : at + 2 + length].rstrip(b"\0").decode(errors="replace")
        at += 2 + length
    return ""


def _nested_value(kind: int, value: bytes) -> bytes:
    length = len(value)  # a multiple of 4, as every field is padded
    return pack("HHHH", length + 8, kind | NESTED, length + 4, VALUE) + value


def _ends(found: dict[int, bytes]) -> tuple[bytes, bytes]:
    """The first and the last values of an element with these attributes; of a set without intervals the same."""
    first = _value(found.get(KEY, b""))
    return first, _value(found.get(KEY_END, b"")) or first


def _value(payload: bytes) -> bytes:
    """What `_nested_value` put in; b"" where there is none."""
    return attributes(payload).get(VALUE, b"")


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded."""
    return pack("HH", len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in *data* by type; of several of one type the last."""
    found = {}
    at, end = 0, len(data)
    while at + 4 <= end:  # not by each_attribute: half the time, of which a hundred ports take a millisecond
        length, kind = unpack_from("HH", data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type without flags, payload) of each netlink attribute in *data*."""
    at = 0
    while at + 4 <= len(data):
        length, kind = unpack_from("HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3
