"""Keys and values of the shared store: what is written is read back, and nothing else is taken for it."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.etcd.audit import audit
from pycni.etcd.records import (
    Block,
    BlockLength,
    Endpoint,
    Fence,
    Member,
    NetworkRecord,
    Node,
    OwnBlocks,
    OwnEndpoint,
    Record,
    Sync,
    Vni,
)
from pycni.etcd.requests import KeyValue, end_of
from pycni.etcd.schema import Keys, SchemaError
from pycni.etcd.versions import warning

KEYS = Keys("/pycni/lab")
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,20}", fullmatch=True)
NODES = st.from_regex(r"[0-9a-f]{32}", fullmatch=True)
TEXTS = st.text(max_size=20)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
TUPLES = st.lists(TEXTS, max_size=3).map(tuple)
NUMBERS = st.integers(0, 1 << 60)
COUNTS = st.integers(1, (1 << 63) - 1)
FLOATS = st.floats(0, 1e12)


@given(NAMES, ADDRESSES, NODES, NAMES, st.integers(0, (1 << 24) - 1))
def test_keys_are_read_back(name: str, address: IPv4Address | IPv6Address, node: str, other: str, vni: int) -> None:
    """Every key says what it is, whatever the names in it."""
    block = ip_network(f"{address}/{26 if address.version == 4 else 122}", strict=False)
    for key, parts in (
        (KEYS.network(name), ("net", name)),
        (KEYS.vni(vni), ("vni", f"{vni:08}")),
        (KEYS.fence(node), ("fence", node)),
        (KEYS.node(node), ("node", node)),
        (KEYS.member(node, name), ("member", node, name)),
        (KEYS.sync(node), ("sync", node)),
        (KEYS.vtep(address), ("vtep", str(address))),
        (KEYS.endpoint(name, address), ("ep", name, str(address))),
        (KEYS.block(name, block), ("block", name, str(block))),
        (KEYS.block_length(name, 6), ("block", name, "6", "length")),
        (KEYS.own_endpoint(node, name, other, "eth0"), ("own-ep", node, name, other, "eth0")),
        (KEYS.own_blocks(node, name), ("own-block", node, name)),
    ):
        assert KEYS.parse(key) == parts
        assert key.startswith("/pycni/lab/v1/")


@given(ADDRESSES, ADDRESSES, ADDRESSES)
def test_ranges_hold_what_lies_between(
    first: IPv4Address | IPv6Address, middle: IPv4Address | IPv6Address, last: IPv4Address | IPv6Address
) -> None:
    """The keys of addresses sort as the addresses do, and no family is inside a range of the other."""
    if first.version != last.version or first > last:  # type: ignore[operator]
        return
    start, end = KEYS.endpoint_range("n", first.version, int(first), int(last))
    between = middle.version == first.version and int(first) <= int(middle) <= int(last)
    assert (start <= KEYS.endpoint("n", middle) < end) is between
    assert start >= KEYS.endpoints("n", first.version)
    assert end <= end_of(KEYS.endpoints("n", first.version))


@given(NODES, NAMES, ADDRESSES)
def test_agents_follow_one_range(node: str, name: str, address: IPv4Address | IPv6Address) -> None:
    """What every host follows is one range of keys; what only its writer reads lies outside."""
    first, end = KEYS.shared
    block = ip_network(f"{address}/{26 if address.version == 4 else 122}", strict=False)
    followed = (KEYS.endpoint(name, address), KEYS.block(name, block), KEYS.fence(node), KEYS.member(node, name))
    for key in (*followed, KEYS.network(name), KEYS.node(node)):
        assert first <= key < end
    for key in (KEYS.sync(node), KEYS.own_endpoint(node, name, "c", "eth0"), KEYS.vni(7), KEYS.vtep(address)):
        assert not first <= key < end


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/pycni/lab/v2/net/a",
        "/pycni/labs/v1/net/a",
        "/pycni/lab/v1/net/",
        "/pycni/lab/v1/net/a/b",
        "/pycni/lab/v1/ep/n/4/0a01000",
        "/pycni/lab/v1/ep/n/4/0A010000",
        "/pycni/lab/v1/ep/n/5/0a010000",
        "/pycni/lab/v1/ep/n/6/0a010000",
        "/pycni/lab/v1/block/n/4/0a010000",
        "/pycni/lab/v1/block/n/4/0a010000-33",
        "/pycni/lab/v1/block/n/4/0a010000-026",
        "/pycni/lab/v1/block/n/4/0a010000-255.255.255.192",
        "/pycni/lab/v1/ep/n/4/0x010000",
        "/pycni/lab/v1/ep/n/4/0a01_000",
        "/pycni/lab/v1/ep/n/4/-a010000",
        "/pycni/lab/v1/ep/n/6/fd_00000000000000000000000000001",
        "/pycni/lab/v1/own/x/other/n",
        "/pycni/lab/v1/other/n",
    ],
)
def test_foreign_keys_are_refused(key: str) -> None:
    """What is none of ours is an error, not a guess."""
    with pytest.raises(SchemaError):
        KEYS.parse(key)


RECORDS = st.one_of(
    st.builds(Endpoint, node=NODES, container=NAMES, ifname=NAMES, ips=TUPLES, mac=TEXTS, created=FLOATS),
    st.builds(OwnEndpoint, id=NODES, ips=TUPLES, created=FLOATS, boot=TEXTS, netns=TEXTS, netns_id=TEXTS),
    st.builds(Block, node=NODES),
    st.builds(OwnBlocks, id=NODES, blocks=TUPLES),
    st.builds(BlockLength, length=st.integers(1, 128)),
    st.builds(Node, name=NAMES, boot=NAMES, pid=COUNTS, started=COUNTS, problems=TUPLES, mtu=NUMBERS),
    st.builds(NetworkRecord, vni=st.integers(1, 1 << 24), mode=TEXTS, subnets=TUPLES, encrypted=st.booleans()),
    st.builds(Vni, network=NAMES),
    st.builds(Member, name=NAMES, vtep=NAMES, mac=TEXTS, mtu=NUMBERS, port=NUMBERS, agent=st.booleans()),
    st.builds(Sync, revision=NUMBERS, at=FLOATS, problems=TUPLES),
)


@given(RECORDS.filter(lambda record: getattr(record, "ips", ("x",)) != ()))
def test_records_are_read_back(record: Record) -> None:
    """Rendered and parsed a record is the same; a field of a later version is no matter."""
    text = record.render()
    assert type(record).parse(text) == record
    assert type(record).parse(text[:-1] + b', "later": [1, {}]}') == record


@given(st.one_of(st.binary(max_size=40), st.from_regex(rb'\{"v": 1(, "(node|ips|id)": (1|"x"|\["x"\]|null)){0,3}\}')))
def test_anything_else_is_refused(value: bytes) -> None:
    """Bytes that are no such record raise SchemaError and nothing else."""
    for kind in (Endpoint, OwnEndpoint, Block):
        try:
            kind.parse(value, "here")
        except SchemaError as failure:
            assert str(failure).startswith("here: ")


KINDS = (Endpoint, OwnEndpoint, Block, BlockLength, OwnBlocks, Node, Member, Sync, NetworkRecord, Fence, Vni)
# Besides what is likely: numbers that no float and no int of C holds, halves of characters, what nests too deep.
ODD = ["1" + "0" * 400, "-1e999", "NaN", "1" * 5000, str(1 << 63), r'"\ud800"', r'["\udfff"]', "[" * 9999 + "]" * 9999]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)
WRITTEN = st.one_of(st.sampled_from(ODD), VALUES.map(json.dumps))


@given(st.sampled_from(KINDS), st.data())
def test_any_value_in_any_field(kind: type[Record], data: st.DataObject) -> None:
    """Whatever JSON stands in the fields of a record: it is one that can be written again, or SchemaError."""
    sound = {"str": '"x"', "int": "1", "float": "1.5", "bool": "true", "tuple[str, ...]": '["x"]'}
    fields = {name: sound[str(wanted)] for name, wanted in kind.__annotations__.items()}
    fields |= data.draw(st.dictionaries(st.sampled_from(sorted(fields)), WRITTEN, min_size=1, max_size=2))
    fields["v"] = data.draw(st.just("1") | WRITTEN)
    text = ", ".join(f'"{name}": {value}' for name, value in fields.items())
    try:
        record = kind.parse(f"{{{text}}}".encode(), "here")
    except SchemaError as failure:
        assert str(failure).startswith("here: ")
        assert str(failure).encode()
    else:
        again = record.render()
        assert type(again) is bytes
        assert json.loads(again)["v"] == 1


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("field", ["mtu", "agent", "vtep"])
def test_odd_values_are_refused(field: str, value: str) -> None:
    """None of them is taken for a number, a word or a text."""
    with pytest.raises(SchemaError):
        Member.parse(f'{{"v": 1, "name": "h", "vtep": "192.0.2.1", "{field}": {value}}}'.encode())


@pytest.mark.parametrize("value", ODD[:4])
def test_times_that_are_none(value: str) -> None:
    """A time that no clock shows is refused: a quarantine that counts from NaN would be over."""
    with pytest.raises(SchemaError):
        Fence.parse(f'{{"v": 1, "by": "h", "at": {value}}}'.encode())


def test_newer_version_is_named() -> None:
    """A record of a newer pycni is refused with both versions."""
    with pytest.raises(SchemaError, match="version 2: written by a newer pycni than this, which knows 1"):
        Block.parse(b'{"v": 2, "node": "x"}')


def key_value(key: str, record: Record, created: int = 5, modified: int = 0) -> KeyValue:
    return KeyValue(key, record.render(), created, modified or created)


def test_audit() -> None:
    """A sound cluster has no problems; each way to break it is named where it is."""
    ips = ("10.1.0.5", "fd00::5")
    endpoint = Endpoint(node="h1", container="c1", ifname="eth0", ips=ips)
    first, second = KEYS.endpoint("n", ip_address(ips[0])), KEYS.endpoint("n", ip_address(ips[1]))
    own, mine = KEYS.own_endpoint("h1", "n", "c1", "eth0"), KEYS.own_blocks("h1", "n")
    small, large = IPv4Network("10.1.0.0/26"), IPv6Network("fd00::/122")
    sound = [
        key_value(first, endpoint),
        key_value(second, endpoint),
        key_value(own, OwnEndpoint(id="x", ips=ips)),
        key_value(KEYS.block("n", small), Block(node="h1"), 7),
        key_value(KEYS.block("n", large), Block(node="h1"), 8),
        key_value(KEYS.block_length("n", 4), BlockLength(length=26)),
        key_value(mine, OwnBlocks(id="y", blocks=(str(small), str(large))), 7),
        key_value(KEYS.network("n"), NetworkRecord(vni=77)),
        key_value(KEYS.vni(77), Vni(network="n")),
        KeyValue(KEYS.vtep(ip_address("192.0.2.1")), b"h1", 9, 9, 4711),
        KeyValue(KEYS.sync("h1"), Sync(revision=9).render(), 9, 9, 4711),
    ]
    assert audit(KEYS, sound) == []

    def wrong(*changed: KeyValue, without: str = "") -> list[str]:
        kept = {kv.key: kv for kv in sound if kv.key != without} | {kv.key: kv for kv in changed}
        return [problem.key for problem in audit(KEYS, kept.values())]

    assert wrong(without=own) == sorted([first, second])
    assert wrong(without=second) == [own]
    assert wrong(key_value(first, endpoint, 6)) == sorted([first, own])
    assert wrong(key_value(first, endpoint.replace(node="h2"))) == [first], "h2 never said so"
    assert wrong(without=mine) == sorted([KEYS.block("n", small), KEYS.block("n", large)])
    assert wrong(key_value(KEYS.block("n", small), Block(node="h2"))) == sorted([KEYS.block("n", small), mine])
    inner = KEYS.block("n", IPv4Network("10.1.0.16/28"))
    assert wrong(key_value(inner, Block(node="h1"))) == [inner, inner]
    assert wrong(without=KEYS.vni(77)) == [KEYS.network("n")]
    assert KEYS.network("n") in wrong(key_value(KEYS.network("n"), NetworkRecord(vni=77, subnets=("10.1",))))
    assert wrong(without=KEYS.network("n")) == [KEYS.vni(77)]
    assert wrong(KeyValue(first, b"junk", 5, 5)) == sorted([first, own])
    assert wrong(key_value(own, OwnEndpoint(id="x", ips=("10.1",)))) == sorted([first, second, own])
    assert wrong(KeyValue(f"{KEYS.base}junk", b"{}", 5, 5)) == [f"{KEYS.base}junk"]
    fence = KEYS.fence("h1")
    assert wrong(KeyValue(fence, b'{"v": 1, "by": "me"}', 6, 6)) == [own]


def test_audit_of_overlays() -> None:
    """Two hosts at the end of one tunnel, a host that has addresses and takes no part, an address without a MAC, a
    network that is not there, keys that would live too long or not long enough, and what a dead host still has."""
    endpoint = Endpoint(node="h1", container="c1", ifname="eth0", ips=("10.1.0.5",), mac="02:42:0a:01:00:05")
    key, own = KEYS.endpoint("n", ip_address("10.1.0.5")), KEYS.own_endpoint("h1", "n", "c1", "eth0")
    one, two = KEYS.member("h1", "n"), KEYS.member("h2", "n")
    sound = [
        key_value(key, endpoint),
        key_value(own, OwnEndpoint(id="x", ips=endpoint.ips)),
        key_value(KEYS.network("n"), NetworkRecord(vni=77, mode="l2")),
        key_value(KEYS.vni(77), Vni(network="n")),
        key_value(one, Member(name="one", vtep="192.0.2.1")),
        key_value(two, Member(name="two", vtep="192.0.2.2")),
        key_value(KEYS.fence("h3"), Fence(by="me"), 9),
    ]
    assert audit(KEYS, sound) == []

    def wrong(*changed: KeyValue, without: str = "") -> list[str]:
        kept = {kv.key: kv for kv in sound if kv.key != without} | {kv.key: kv for kv in changed}
        return [problem.key for problem in audit(KEYS, kept.values())]

    same = Member(name="two", vtep="192.0.2.1")
    assert wrong(key_value(two, same)) == [two]
    assert wrong(key_value(two, same), key_value(KEYS.fence("h2"), Fence(by="me"), 6)) == [two], "only yet to be freed"
    assert wrong(key_value(two, same.replace(vtep="192.0.2"))) == [two]
    assert wrong(without=one) == [key]
    assert wrong(key_value(key, endpoint.replace(mac=""))) == [key]
    other = KEYS.member("h1", "other")
    assert wrong(key_value(other, Member(name="one", vtep="192.0.2.1"))) == [other]
    assert wrong(KeyValue(one, Member(name="one", vtep="192.0.2.1").render(), 5, 5, 4711)) == [one]
    assert wrong(key_value(KEYS.sync("h1"), Sync(revision=9))) == [KEYS.sync("h1")]


def test_a_damaged_network_is_named_with_the_way_out() -> None:
    """Nothing else makes its name and numbers free again; other records have other ways."""
    (problem,) = audit(KEYS, [KeyValue(KEYS.network("blue"), b"{", 5, 5)])
    assert problem.key == KEYS.network("blue") and "`pycni networks remove blue`" in problem.what
    (problem,) = audit(KEYS, [KeyValue(KEYS.vni(77), b"{", 5, 5)])
    assert "remove" not in problem.what


@pytest.mark.parametrize(
    ("version", "told"),
    [
        (
            "3.4.23",
            "etcd 3.4.23 is dated: its watches can lose events and its leases can end too early; install 3.4.36",
        ),
        ("3.4.36", ""),
        ("3.5.2", "etcd 3.5.2 is dated: a crash under load"),
        ("3.5.3", ""),
        ("3.6.0-rc.1", ""),
        ("3.3.27", "etcd 3.3.27 is not supported: install 3.5.3 or newer"),
        ("unknown", ""),
    ],
)
def test_dated_releases(version: str, told: str) -> None:
    """Releases with known losses are named with the reason and what to install; others are not."""
    assert warning(version).startswith(told)
    assert bool(warning(version)) is bool(told)
