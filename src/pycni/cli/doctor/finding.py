"""What an examination of the host found."""

from __future__ import annotations

from collections.abc import Sequence

from pycni.cni.value import Value

FEW = 5  # names in a finding
OK, WARN, FAIL = "OK", "WARN", "FAIL"  # from harmless to harmful


class Finding(Value):
    """One thing looked at: *found* is the fact, *meaning* what follows for containers, *action* what to do."""

    level: str
    check: str
    found: str
    meaning: str = ""
    action: str = ""


def few(names: Sequence[str]) -> str:
    """The first of *names*, and how many more there are."""
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if names[FEW:] else "")
