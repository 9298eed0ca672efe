"""How much the proxy takes on, and how many descriptors that may need. Pure."""

from __future__ import annotations

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST = 1 << 20  # connections, flows: a number of descriptors that no kernel gives by default
LEAST_S = {"flow_s": 0.05, "unused_s": 0.05}  # of the others, 0 is none
LONGEST_S = 7 * 86400.0
MOST_DESCRIPTORS = 1 << 18  # asked of the kernel; /proc/sys/fs/nr_open is four times that
FIXED = 64  # standard streams, epoll, control: listener, clients, a socket in each hand
PIPE_SHARE = 16  # of the descriptors, one in so many may be an end of a pipe


class Limits(Value):
    """What `set` may change."""

    connections: int = 65536  # TCP, of all owners
    owner_connections: int = 16384
    flows: int = 65536  # UDP clients, of all owners; the one that was silent longest makes room
    owner_flows: int = 16384
    connect_s: float = 30.0  # for a container to accept; the kernel alone would try for two minutes
    half_open_s: float = 0.0  # silence of a connection of which one side has ended
    idle_s: float = 0.0  # silence of any connection
    flow_s: float = 90.0  # silence of a UDP client, both ways
    unused_s: float = 10.0  # without a port and without a client of the control socket; then the process ends


def changed(limits: Limits, given: dict[str, Any]) -> Limits:
    """*limits* with those *given*; ValueError says which one is wrong and what it may be."""
    for name, value in given.items():
        if name not in Limits._fields:  # type: ignore[attr-defined]
            raise ValueError(f"no limit is called {name!r}: there are {', '.join(limits.as_dict())}")
        in_seconds = name.endswith("_s")
        least, most = (LEAST_S.get(name, 0.0), LONGEST_S) if in_seconds else (1, MOST)
        kinds: tuple[type, ...] = (int, float) if in_seconds else (int,)
        if type(value) not in kinds or not least <= value <= most:
            unit = " seconds" if in_seconds else ""
            raise ValueError(f"{name} is {value!r}, not a number in {least}..{most}{unit}")
    return limits.replace(**given)


def pipes(descriptors: int, most: int) -> int:
    """How many pipes there may be, at most *most*, for a process that may have so many *descriptors*."""
    return min(most, descriptors // PIPE_SHARE // 2)


def available(descriptors: int, pipes: int) -> int:
    """What is left for listeners, connections (two each) and flows (one each)."""
    return max(0, descriptors - FIXED - 2 * pipes)
