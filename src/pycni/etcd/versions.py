"""etcd releases that are too old to be relied on, and why. Pure."""

from __future__ import annotations

#: The first release of a line that is sound, of those lines that have unsound ones.
_SOUND = {(3, 4): 36, (3, 5): 3}
_REASONS = {
    # Changelog of 3.4: watches duplicate events before .24 and lose some behind a compaction before .31 and .36, leases
    # are wrongly revoked before .31.
    (3, 4): "its watches can lose events and its leases can end too early",
    # etcd's notice on data inconsistency, April 2022.
    (3, 5): "a crash under load can leave its members with different data",
}


def warning(version: str) -> str:
    """What is wrong with etcd *version* (as a member says it, "3.4.23"), and what to do; "" where nothing is known to
    be, also of a version that is no such text."""
    numbers = version.split("-", 1)[0].split(".")
    if len(numbers) != 3 or not all(each.isascii() and each.isdigit() for each in numbers):
        return ""
    major, minor, patch = map(int, numbers)
    if (major, minor) < min(_SOUND):
        return f"etcd {version} is not supported: install {_newest()} or newer"
    if patch >= _SOUND.get((major, minor), 0):
        return ""
    line = (major, minor)
    return f"etcd {version} is dated: {_REASONS[line]}; install {major}.{minor}.{_SOUND[line]} or newer"


def _newest() -> str:
    (major, minor), patch = max(_SOUND.items())
    return f"{major}.{minor}.{patch}"
