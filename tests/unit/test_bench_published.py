"""README.md says of speed what was measured, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import published

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("table", [published.calls, published.proxy])
def test_readme_shows_the_figures_of_the_results(table: object) -> None:
    """After new results: `python -m bench.published`, and its tables into README.md."""
    assert callable(table)
    assert table() in README.read_text()
