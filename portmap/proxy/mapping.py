"""What is served: a host port, whose it is, and where it goes; with what has happened there so far."""

from __future__ import annotations

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    Key = tuple[int, str, str, int]


class Mapping(Value):
    """Of one owner. The key is what the kernel tells ports apart by."""

    owner: str
    family: int  # of the host address: 4 or 6
    proto: str  # "tcp" or "udp"
    host_ip: str  # "": any
    port: int
    to: tuple[str, int]  # the container's address, of either family, and port
    proxy_protocol: bool = False

    @property
    def key(self) -> Key:
        return self.family, self.proto, self.host_ip, self.port


class Counters:
    """Of one port. All but the first two only grow."""

    open: int  # TCP connections now
    flows: int  # UDP clients now
    connections: int  # TCP, accepted
    refused: int  # TCP: the container did not accept; UDP: words of the container's host that nobody listens there
    resets: int  # TCP, ended by a reset, the refused ones among them
    timeouts: int  # TCP, ended by a limit of time
    clients: int  # UDP, ever seen
    evicted: int  # UDP, which made room for others
    packets_in: int  # datagrams to the container
    packets_out: int  # and from it
    dropped: int  # datagrams without room
    bytes_in: int  # to the container
    bytes_out: int
    limited: int  # times that a limit of connections, flows or descriptors was met

    __slots__ = NAMES = tuple(__annotations__)

    def __init__(self) -> None:
        for name in self.NAMES:
            setattr(self, name, 0)

    def add(self, other: Counters) -> None:
        for name in self.NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def total(counters: list[Counters]) -> dict[str, int]:
    return {name: sum(getattr(one, name) for one in counters) for name in Counters.NAMES}
