"""Of this process: the addresses whose announcement nobody has heard, as its time had not come when their link went."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_addresses: set[str] = set()


def put(addresses: Iterable[object]) -> None:
    """They are going to be announced."""
    _addresses.update(map(_bare, addresses))


def heard(addresses: Iterable[object]) -> None:
    """They have been."""
    _addresses.difference_update(map(_bare, addresses))


def has_any(addresses: Iterable[object]) -> bool:
    return bool(_addresses) and not _addresses.isdisjoint(map(_bare, addresses))


def _bare(address: object) -> str:
    return str(address).partition("/")[0]
