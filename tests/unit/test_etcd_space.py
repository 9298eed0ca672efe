"""Drawing candidates: always inside, always the same for the same seed, about evenly."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pycni.etcd.space import Space, draw, draw_some, free_in, shuffled

PIECES = st.lists(st.integers(0, 3000), min_size=2, max_size=12, unique=True).map(
    lambda ends: tuple(zip(sorted(ends)[::2], sorted(ends)[1::2], strict=False))
)


@given(PIECES, st.text(max_size=8))
def test_windows_lie_in_the_space(pieces: tuple[tuple[int, int], ...], seed: str) -> None:
    """Windows hold only addresses of the space, none twice, and all of a small space."""
    space = Space(4, pieces)
    numbers = [space.at(index) for index in range(space.size)]
    assert numbers == [number for first, last in pieces for number in range(first, last + 1)]
    seen = free_in(space.windows(seed), ())
    assert len(seen) == len(set(seen))
    assert set(seen) <= set(numbers)
    assert len(seen) == space.size or not space.is_small
    assert set(draw_some(seed, space, 8)) <= set(numbers)


@given(st.text(max_size=8), st.lists(st.integers(), unique=True, max_size=30), st.integers(0, 40))
def test_shuffled_picks(seed: str, numbers: list[int], count: int) -> None:
    """As many as asked for, or all, none twice; the same seed picks the same."""
    picked = shuffled(seed, numbers, count)
    assert len(picked) == len(set(picked)) == min(count, len(numbers))
    assert set(picked) <= set(numbers)
    assert picked == shuffled(seed, numbers, count)


def test_draws_are_even() -> None:
    """10 000 draws out of 16: each comes 625 times, give or take five standard deviations."""
    counted = Counter(draw(f"seed{at}", 16) for at in range(10_000))
    assert set(counted) == set(range(16))
    assert all(abs(count - 625) < 121 for count in counted.values())
