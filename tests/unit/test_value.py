"""`Value`: the frozen record under every config, plan and result."""

from __future__ import annotations

import pytest

from pycni.cni.value import Value


class Point(Value):
    x: int
    y: int = 0


class Named(Point):
    name: str = "origin"


class Other(Value):
    x: int
    y: int = 0


def test_fields_come_by_place_or_by_name_and_have_defaults() -> None:
    """Both ways of giving a field make the same value, and a field left out has its default."""
    assert Point(1, 2) == Point(x=1, y=2)
    assert Point(1).y == 0


def test_subclass_adds_fields_after_those_of_its_base() -> None:
    """A subclass has the fields of its base first and keeps their defaults."""
    assert Named(1, name="a").as_dict() == {"x": 1, "y": 0, "name": "a"}
    assert list(Named(1).as_dict()) == ["x", "y", "name"]


@pytest.mark.parametrize(
    ("args", "given", "problem"),
    [
        ((), {}, "needs x"),
        ((1,), {"x": 2}, "got x twice"),
        ((1,), {"z": 3}, "has no field z"),
        ((1, 2, 3), {}, "takes 2 fields, 3 were given"),
    ],
)
def test_wrong_fields_are_a_type_error_that_names_them(
    args: tuple[int, ...], given: dict[str, int], problem: str
) -> None:
    """A missing, doubled, unknown or surplus field is refused by name."""
    with pytest.raises(TypeError, match=problem):
        Point(*args, **given)


def test_assignment_and_deletion_are_refused() -> None:
    """A value never changes; the message says how to get another."""
    point = Point(1)
    with pytest.raises(AttributeError, match=r"Point.x is frozen: use replace\(\)"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="frozen"):
        del point.x
    with pytest.raises(AttributeError):
        point.z = 2


def test_replace_copies_and_leaves_the_original() -> None:
    """replace() gives a changed copy and refuses what is no field."""
    point = Point(1, 2)
    assert point.replace(y=3) == Point(1, 3)
    assert point == Point(1, 2)
    with pytest.raises(TypeError, match="has no field z"):
        point.replace(z=1)


def test_equality_asks_for_the_same_type() -> None:
    """Two types with equal fields are different values; equal values have equal hashes."""
    assert Point(1) != Other(1)
    assert Point(1) != (1, 0)
    assert hash(Point(1)) == hash(Point(1, 0))
    assert len({Point(1), Point(1, 0), Other(1)}) == 2


def test_value_with_an_unhashable_field_is_not_hashable() -> None:
    """A list inside makes hash() a TypeError instead of an unstable number."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point([]))  # type: ignore[arg-type]


def test_repr_names_every_field() -> None:
    """repr() shows how the value can be made again."""
    assert repr(Named(1)) == "Named(x=1, y=0, name='origin')"


def test_values_hold_nothing_but_their_fields() -> None:
    """There is no __dict__: a misspelled attribute cannot hide."""
    assert not hasattr(Named(1), "__dict__")


def test_default_of_a_field_is_not_a_class_attribute_that_could_change() -> None:
    """The class gives the field's descriptor, not its default."""
    assert Point.y != 0
