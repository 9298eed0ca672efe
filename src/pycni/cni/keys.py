"""`Keys`: the one place that doubts the names and types inside a JSON object."""

from __future__ import annotations

from pycni.cni.addresses import parse_address, parse_cidr, parse_prefix
from pycni.cni.errors import CniError, Code, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from pycni.cni.addresses import Address, Interface, Network

    Parsed = TypeVar("Parsed")


class Keys:
    """A JSON object that is asked key by key, as Go programs read one, since configs in use rely on it.

    Names match in any case (an exact match wins, else the last one); null is the same as absent; keys that nobody asks
    for are no error. A wrong type or an exceeded limit is a CniError 7 that names the key with its path, the value and
    what is allowed. *where* is the path of the object itself: "" for the top, else as "ipam.ranges[0]".
    """

    __slots__ = ("_folded", "_mapping", "where")

    def __init__(self, mapping: Mapping[str, Any], where: str = "") -> None:
        self.where = where
        self._mapping = mapping
        self._folded = {key.lower(): value for key, value in mapping.items() if value is not None}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keys) and self._mapping == other._mapping

    __hash__ = None  # type: ignore[assignment]  # lists and dicts inside

    def __repr__(self) -> str:
        return f"Keys({self._mapping!r}, {self.where!r})"

    def path(self, key: str) -> str:
        """*key* with the path of this object before it: how messages call it."""
        return f"{self.where}.{key}" if self.where else key

    def wrong(self, key: str, problem: str) -> CniError:
        """The CniError 7 to raise for *key*: its path and then *problem*, as in "mtu" and "is 70000, not …"."""
        return CniError(Code.INVALID_CONFIG, f"{self.path(key)} {problem}")

    def as_dict(self) -> dict[str, Any]:
        """A copy of the object as it came: own spelling of the keys, nulls included."""
        return dict(self._mapping)

    def raw(self, key: str) -> Any:
        """The value under *key* as JSON gave it, None where absent."""
        value = self._mapping.get(key)
        return self._folded.get(key.lower()) if value is None else value

    def has(self, key: str) -> bool:
        """Whether *key* is there with a value other than null."""
        return self.raw(key) is not None

    def mentions(self, key: str) -> bool:
        """Whether *key* is there at all, be it with null."""
        folded = key.lower()
        return key in self._mapping or any(name.lower() == folded for name in self._mapping)

    def text(self, key: str, default: str = "") -> str:
        """The string under *key*, *default* where absent. A NUL in it is refused: no path or name can hold one."""
        value = self.raw(key)
        if value is None:
            return default
        return self._checked_text(key, value)

    def integer(self, key: str, low: int, high: int, *, beyond: bool = False) -> int | None:
        """The whole number under *key*, None where absent; it must lie in *low*..*high*, both included. *beyond*: one
        that does not comes back, too, as the caller has words of its own for it."""
        value = self.raw(key)
        if value is None:
            return None
        # type(): JSON true is an int to isinstance; and 1.0 or 1e3 is no integer to the reference either
        if type(value) is not int or not (beyond or low <= value <= high):
            raise self.wrong(key, f"is {shown(value)}, not a whole number in {low}..{high}")
        return value

    def boolean(self, key: str, default: bool = False) -> bool:
        """The truth value under *key*, *default* where absent."""
        value = self.raw(key)
        if value is None:
            return default
        if type(value) is not bool:
            raise self.wrong(key, f"is {shown(value)}, not true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """The strings of the list under *key*, () where absent."""
        return tuple(self._checked_text(f"{key}[{at}]", value) for at, value in enumerate(self._list(key)))

    def object(self, key: str) -> Keys:
        """The object under *key*; where absent one without keys."""
        value = self.raw(key)
        return self._checked_object(key, {} if value is None else value)

    def objects(self, key: str) -> tuple[Keys, ...]:
        """The objects of the list under *key*, () where absent."""
        return tuple(self._checked_object(f"{key}[{at}]", value) for at, value in enumerate(self._list(key)))

    def address(self, key: str) -> Address | None:
        """The IP address under *key* ("10.1.0.1"), None where absent or ""."""
        return self._parsed(key, parse_address)

    def cidr(self, key: str) -> Interface | None:
        """The address with prefix length under *key* ("10.1.0.5/16", host bits kept), None where absent or ""."""
        return self._parsed(key, parse_cidr)

    def prefix(self, key: str) -> Network | None:
        """The network under *key* ("10.1.0.0/16", host bits cleared), None where absent or ""."""
        return self._parsed(key, parse_prefix)

    def _parsed(self, key: str, parse: Callable[[str], Parsed]) -> Parsed | None:
        # An empty list where an address belongs is absent, too: dynamic callers render "no gateway" that way.
        text = "" if self.raw(key) == [] else self.text(key)
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as exc:
            raise self.wrong(key, f"is wrong: {exc}") from None

    def _list(self, key: str) -> list[Any]:
        value = self.raw(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(key, f"is {shown(value)}, not a list")
        return value

    def _checked_text(self, key: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong(key, f"is {shown(value)}, not a string")
        if "\0" in value:
            raise self.wrong(key, f"is {shown(value)}: a NUL character has no place in it")
        return value

    def _checked_object(self, key: str, value: Any) -> Keys:
        if not isinstance(value, dict):
            raise self.wrong(key, f"is {shown(value)}, not an object")
        return Keys(value, self.path(key))
