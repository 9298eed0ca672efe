"""Checksum offload of a tunnel's device: off where the underlay's card or the kernel is known to get it wrong.

With it off the checksum of the inner packet is computed before encapsulation, and no 64 KiB packets enter the tunnel: a
quarter of the throughput on links that take them. So it is for those hosts only, and only on the tunnel's own device.
"""

from __future__ import annotations

import _socket
from struct import calcsize, pack

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence

SIOCETHTOOL = 0x8946  # linux/sockios.h
ETHTOOL_GDRVINFO, ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM = 0x03, 0x16, 0x17  # linux/ethtool.h
_DRVINFO_BYTES = 196  # struct ethtool_drvinfo: u32 cmd, char driver[32], …
LOWER, MOST_LINKS = "lower_", 64  # in /sys/class/net/LINK: one for each link below
ON, OFF, AUTO = "on", "off", "auto"


class Fault(Value):
    """A driver or a range of kernels under which packets in a VXLAN tunnel get wrong checksums."""

    driver: str  # "": any
    before: tuple[int, int] | None  # first kernel version without the fault; None: none is known
    what: str


FAULTS = (
    Fault("vmxnet3", None, "its card computes no inner checksums of tunnels other than those that its host allows"),
    Fault("", (5, 7), "kernels before 5.7 spoil the outer checksum of a packet that is masqueraded"),
)


def known_fault(drivers: Sequence[str], release: str) -> str:
    """Why tunnels over links of *drivers* on kernel *release* (as uname tells it) need the offload off; "" where
    nothing is known. Pure."""
    version = _version(release)
    for fault in FAULTS:
        old = fault.before is None or (version is not None and version < fault.before)
        if old and fault.driver in ("", *drivers):
            return fault.what
    return ""


def driver_of(link: str) -> str:
    """The driver's name of a link of the calling thread's namespace; "" where it has none, or there is no such link."""
    from array import array

    data = array("B", pack("=I", ETHTOOL_GDRVINFO) + bytes(_DRVINFO_BYTES - 4))
    try:
        _ethtool(link, data)
    except OSError:
        return ""
    return data.tobytes()[4:36].split(b"\0", 1)[0].decode(errors="replace")


def drivers_of(link: str) -> tuple[str, ...]:
    """The drivers of a link and of those below it (a bond's, a VLAN's, a bridge's), nearest first."""
    import os

    out, waiting = [driver_of(link)], [link]
    while waiting and len(out) < MOST_LINKS:
        try:
            entries = os.listdir(f"/sys/class/net/{waiting.pop(0)}")
        except OSError:
            continue
        below = sorted(entry[len(LOWER) :] for entry in entries if entry.startswith(LOWER))
        out += map(driver_of, below)
        waiting += below
    return tuple(filter(None, out))


def is_on(link: str) -> bool:
    """Whether checksums of what leaves by *link* may be left to whoever sends it on; OSError ENODEV: no such link."""
    from array import array

    data = array("I", (ETHTOOL_GTXCSUM, 0))
    _ethtool(link, data)
    return bool(data[1])


def switch(link: str, *, on: bool) -> bool:
    """Switch it on or off; whether anything was changed. OSError: EOPNOTSUPP, ENODEV."""
    from array import array

    if is_on(link) == on:
        return False
    _ethtool(link, array("I", (ETHTOOL_STXCSUM, int(on))))
    return True


def _ethtool(link: str, data: array[int]) -> None:
    from fcntl import ioctl

    # struct ifreq: a name of 16 bytes and, for this request, where the rest is.
    request = pack("16sP", link.encode(), data.buffer_info()[0])
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        ioctl(sock.fileno(), SIOCETHTOOL, request + bytes(40 - calcsize("16sP")))
    finally:
        sock.close()


def _version(release: str) -> tuple[int, int] | None:
    """The first two numbers of "6.1.0-18-amd64"; None where it begins otherwise."""
    numbers = release.replace("-", ".").replace("+", ".").split(".")
    try:
        return int(numbers[0]), int(numbers[1])
    except (IndexError, ValueError):
        return None
