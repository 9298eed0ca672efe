"""Immutable values without `dataclasses`.

`dataclasses` imports `inspect` and compiles source text for every class: 6 ms for the import and 0.35 ms for each
class (measured by bench/imports.py), paid anew by every plugin call because a CNI plugin is one process per call.
This base class gives the part we use in about a tenth of that time. mypy sees an ordinary frozen dataclass.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_: object):  # typing would cost 2 ms at every start
        return lambda cls: cls


_MISSING = object()


@dataclass_transform(frozen_default=True)
class _ValueMeta(type):
    def __new__(mcs, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> _ValueMeta:
        own = tuple(space.get("__annotations__", ()))
        defaults = {field: space.pop(field) for field in own if field in space}
        space["__slots__"] = own
        cls = super().__new__(mcs, name, bases, space)
        base = bases[0] if bases else None
        cls._fields = (getattr(base, "_fields", ())) + own  # type: ignore[attr-defined]
        cls._defaults = {**getattr(base, "_defaults", {}), **defaults}  # type: ignore[attr-defined]
        return cls


class Value(metaclass=_ValueMeta):
    """A frozen record: annotated names are fields, class attributes are their defaults.

    Equal when type and fields are equal; hashable when the fields are. Fields with defaults come last.
    Raises TypeError for a missing, unknown or doubled field, AttributeError on assignment.
    """

    def __init__(self, *args: Any, **given: Any) -> None:
        fields: tuple[str, ...] = self._fields  # type: ignore[attr-defined]
        name = type(self).__name__
        if len(args) > len(fields):
            raise TypeError(f"{name} takes {len(fields)} fields, {len(args)} were given")
        put = object.__setattr__
        for field, value in zip(fields, args, strict=False):
            if field in given:
                raise TypeError(f"{name} got {field} twice")
            put(self, field, value)
        for field in fields[len(args) :]:
            value = given.pop(field, _MISSING) if given else _MISSING
            if value is _MISSING:
                value = self._defaults.get(field, _MISSING)  # type: ignore[attr-defined]
                if value is _MISSING:
                    raise TypeError(f"{name} needs {field}")
            put(self, field, value)
        if given:
            raise TypeError(f"{name} has no field {', '.join(given)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is frozen: use replace()")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is frozen: use replace()")

    def as_dict(self) -> dict[str, Any]:
        """Field name to value, in the order of definition; values are not converted."""
        return {field: getattr(self, field) for field in self._fields}  # type: ignore[attr-defined]

    def replace(self, **changes: Any) -> Self:
        """A copy with *changes*; TypeError for an unknown field."""
        return type(self)(**{**self.as_dict(), **changes})

    def _key(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field) for field in self._fields)  # type: ignore[attr-defined]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((type(self).__name__, *self._key()))

    def __repr__(self) -> str:
        inner = ", ".join(f"{field}={value!r}" for field, value in self.as_dict().items())
        return f"{type(self).__name__}({inner})"
