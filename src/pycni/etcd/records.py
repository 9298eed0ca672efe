"""The values of the shared store: what stands behind the keys of `schema`. Pure.

A value is a JSON object with `"v": 1`. A reader ignores what it does not know; a record of a higher version is
SchemaError, as is one that is damaged. docs/etcd-schema.md is `schema` and this in words.
"""

from __future__ import annotations

from math import isfinite

from pycni.cni import json_text
from pycni.cni.addresses import parse_address, parse_prefix
from pycni.cni.errors import shown
from pycni.cni.value import Value
from pycni.etcd.schema import VERSION, SchemaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from pycni.cni.addresses import Address, Network


class Record(Value):
    """What all records share: they render to bytes and parse from them. Field names are the JSON's, empty ones are
    left out."""

    def render(self) -> bytes:
        told = {"v": VERSION, **{name: _plain(value) for name, value in self.as_dict().items() if value not in _EMPTY}}
        return json_text.dumps(told).encode()

    @classmethod
    def parse(cls, value: bytes, where: str = "") -> Self:
        """SchemaError, which begins with *where*, for anything that is no such record."""
        try:
            raw = json_text.loads(value.decode())
            if not isinstance(raw, dict) or type(raw.get("v")) is not int:
                raise SchemaError('no object with a "v"')
            if raw["v"] > VERSION:
                raise SchemaError(f"version {raw['v']}: written by a newer pycni than this, which knows {VERSION}")
            return cls(**{name: _checked(cls, name, raw[name]) for name in _fields(cls) if name in raw})
        except SchemaError as exc:
            raise SchemaError(f"{where or cls.__name__}: {exc.msg}") from None
        except (ValueError, TypeError, OverflowError, RecursionError) as exc:
            raise SchemaError(f"{where or cls.__name__}: {exc}") from None


class Endpoint(Record):
    """An address in use: value of `ep`, the same under each of its addresses. ips: without prefix length. mac: "" where
    only the address is of interest. created: seconds since the epoch."""

    node: str
    container: str
    ifname: str
    ips: tuple[str, ...]
    mac: str = ""
    created: float = 0.0


class OwnEndpoint(Record):
    """What a node took for one interface: value of `own/<node>/ep`. id: of the ADD, drawn anew each time; the rest says
    how to tell whether the container still lives (as in the lease that the host keeps)."""

    id: str
    ips: tuple[str, ...]
    created: float = 0.0
    boot: str = ""
    netns: str = ""
    netns_id: str = ""
    mount_ns: str = ""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """ips as addresses, at least one; SchemaError."""
        if not self.ips:
            raise SchemaError("it has no address")
        try:
            return tuple(map(parse_address, self.ips))
        except ValueError as exc:
            raise SchemaError(str(exc)) from None


class Block(Record):
    """A block of addresses of one host: value of `block`."""

    node: str


class BlockLength(Record):
    """How long all blocks of a network and family are: value of `block/<network>/<family>/length`."""

    length: int


class OwnBlocks(Record):
    """All blocks of a node in one network: value of `own/<node>/block`. id: of the change, drawn anew each time."""

    id: str
    blocks: tuple[str, ...] = ()

    @property
    def networks(self) -> tuple[Network, ...]:
        """The blocks as networks; SchemaError."""
        return _networks(self.blocks)


class Held(Value):
    """The blocks that a host has in a network. revision: of the key that says so, 0 where it has none."""

    blocks: tuple[Network, ...] = ()
    revision: int = 0


class Node(Record):
    """A host that is there: value of `node`, under a lease. vtep4, vtep6: addresses of its tunnel's ends. mtu: of the
    uplink, bytes. boot, pid, started: of the process that keeps the lease. problems: what hinders it, in words."""

    name: str
    boot: str
    pid: int
    started: int
    vtep4: str = ""
    vtep6: str = ""
    mtu: int = 0
    port: int = 0
    version: str = ""
    problems: tuple[str, ...] = ()


class Member(Record):
    """A host takes part in a network: value of `member`, under no lease. name: the host's, for people. vtep: the
    address of its end of the tunnels, text. mac: of its VXLAN device. mtu: of its uplink, bytes. port: UDP. agent:
    whether an agent keeps the host's `node` record, so that its absence says something. created: seconds since the
    epoch."""

    name: str
    vtep: str
    mac: str = ""
    mtu: int = 0
    port: int = 0
    agent: bool = False
    created: float = 0.0


class Sync(Record):
    """Up to which revision a host's kernel holds what etcd says: value of `sync`, under the lease of `node`. at: when
    that was written, seconds since the epoch. problems: what it could not do, in words."""

    revision: int = 0
    at: float = 0.0
    problems: tuple[str, ...] = ()


class NetworkRecord(Record):
    """A network: value of `net`. mode: "l2" or "routed". subnets: prefixes. port: UDP. mtu: bytes, 0: the uplink's."""

    vni: int
    mode: str = ""
    subnets: tuple[str, ...] = ()
    port: int = 0
    mtu: int = 0
    encrypted: bool = False
    created: float = 0.0

    @property
    def networks(self) -> tuple[Network, ...]:
        """The subnets as networks; SchemaError."""
        return _networks(self.subnets)


class Fence(Record):
    """A host was declared dead: value of `fence`. The revision of the key counts: what the host wrote before it may be
    taken away, and it writes nothing more until it knows that revision. at: seconds since the epoch. by: who."""

    by: str
    at: float = 0.0


class Vni(Record):
    """Whose a network identifier is: value of `vni`."""

    network: str


def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    try:
        return tuple(map(parse_prefix, texts))
    except ValueError as exc:
        raise SchemaError(str(exc)) from None


_EMPTY: tuple[Any, ...] = ("", (), 0, 0.0, None, False)
_BEYOND = 1 << 63  # numbers of etcd and of the kernel are smaller


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _fields(cls: type[Record]) -> dict[str, str]:
    return cls.__annotations__


def _checked(cls: type[Record], name: str, value: Any) -> Any:
    """*value*, if it is what the annotation says, and can be written again."""
    kind = _fields(cls)[name]
    if kind == "tuple[str, ...]" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(map(_text, value))
    if kind == "float" and type(value) in (int, float) and isfinite(value):  # a quarantine from NaN on would be over
        return float(value)
    if kind == "int" and type(value) is int and -_BEYOND <= value < _BEYOND:
        return value
    if kind == "str" and isinstance(value, str):
        return _text(value)
    if kind == "bool" and isinstance(value, bool):
        return value
    raise ValueError(f"{name} is {shown(value)}, not {kind}")


def _text(value: str) -> str:
    value.encode()  # JSON can name halves of characters, which nobody can write or print
    return value
