"""Which host port a mapping gets that leaves the choice to us. Pure: what is taken, the caller asks."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pycni.change.claims import Claim

    Taken = Callable[[int], Claim | None]  # what has that port, None where it is free

FALLBACK = (49153, 65535)  # where the kernel does not say: the range of RFC 6335, as moby takes it


def port_range(text: str | None) -> tuple[int, int]:
    """First and last of net/ipv4/ip_local_port_range ("32768\\t60999"), FALLBACK for what is none."""
    words = (text or "").split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return FALLBACK
    low, high = max(1, int(words[0])), int(words[1])
    return (low, high) if low <= high <= 65535 else FALLBACK


def reserved_ports(text: str | None) -> tuple[tuple[int, int], ...]:
    """The runs of net/ipv4/ip_local_reserved_ports ("8080,10000-10100"), in order."""
    runs = []
    for word in (text or "").split(","):
        low, _, high = word.strip().partition("-")
        if low.isdigit():
            runs.append((int(low), int(high) if high.isdigit() else int(low)))
    return tuple(sorted(runs))


def choose_port(
    within: tuple[int, int], reserved: tuple[tuple[int, int], ...], *, wish: int, after: int, taken: Taken
) -> int:
    """A free port of *within* outside *reserved*: *wish* if it is one, else the next behind *after*, round and round.

    Not the lowest free one: a port that was just given back would go to the next container at once, and clients of
    the former one to it. CniError 101 where none is free.
    """
    low, high = within
    if low <= wish <= high and _run_of(wish, reserved) is None and taken(wish) is None:
        return wish
    start = after + 1 if low <= after < high else low
    for first, last in ((start, high), (low, start - 1)):
        port = first
        while port <= last:
            run = _run_of(port, reserved)
            if run is None:
                have = taken(port)
                if have is None:
                    return port
                run = (have.low, have.high)
            port = run[1] + 1
    raise CniError(
        Code.EXHAUSTED,
        f"no host port of {low} to {high} is free",
        "name a hostPort outside, or widen net.ipv4.ip_local_port_range or ip_local_reserved_ports",
    )


def _run_of(port: int, runs: tuple[tuple[int, int], ...]) -> tuple[int, int] | None:
    return next((run for run in runs if run[0] <= port <= run[1]), None)
