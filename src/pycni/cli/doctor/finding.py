"""What an examination of the host found."""

from __future__ import annotations

from pycni.cni.value import Value

OK, WARN, FAIL = "OK", "WARN", "FAIL"  # from harmless to harmful


class Finding(Value):
    """One thing looked at: *found* is the fact, *meaning* what follows for containers, *action* what to do."""

    level: str
    check: str
    found: str
    meaning: str = ""
    action: str = ""
