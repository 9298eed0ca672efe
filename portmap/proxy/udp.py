"""UDP: each client of a host port gets a socket of its own towards the container, until both have been silent."""

from __future__ import annotations

import _socket
from _socket import socket as Socket
from errno import ECONNREFUSED
from select import EPOLLIN

from pycni.portmap.proxy.datagrams import Datagrams
from pycni.portmap.proxy.engine import Watcher
from pycni.portmap.proxy.mapping import Counters
from pycni.portmap.proxy.mmsg import BATCH, LAYOUTS, errno
from pycni.portmap.proxy.wheel import Wheel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import OrderedDict

    from pycni.portmap.proxy.mapping import Mapping
    from pycni.portmap.proxy.service import Owner, Service
else:
    from _collections import OrderedDict  # the package around it loads five more

TURN_BATCHES = 4  # of one socket in one turn
QUEUE_BYTES = 1 << 20  # of a port; the kernel makes it net.core.rmem_max at most
IPPROTO_IP, IP_PKTINFO = 0, 8  # linux/in.h
IPV6_RECVPKTINFO = 49  # linux/in6.h
DATAGRAM = _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK


class Udp:
    """What all UDP ports share."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.engine = service.engine
        self.flows = 0
        self._wheel = Wheel(service.limits.flow_s, self.engine.now)
        self._datagrams: Datagrams | None = None

    @property
    def datagrams(self) -> Datagrams:
        if self._datagrams is None:
            self._datagrams = Datagrams()
        return self._datagrams

    def set_idle(self, idle_s: float) -> None:
        old = self._wheel
        self._wheel = Wheel(idle_s, self.engine.now)
        for flow in old.flows():
            self._wheel.add(flow, self.engine.now)
        self._turn_later()

    def began(self, flow: Flow) -> None:
        self.flows += 1
        self._wheel.add(flow, self.engine.now)
        if not self.engine.waits_for(self._turn):
            self._turn_later()

    def _turn(self) -> None:
        self._wheel.turn(self.engine.now)
        self._turn_later()

    def _turn_later(self) -> None:
        if self._wheel.waiting:
            self.engine.after(self._wheel.tick_s, self._turn)


class Port(Watcher):
    """One mapping and its bound socket, which is this object's now."""

    __slots__ = ("_datagrams", "_flows", "_to_family", "counters", "family", "fd", "mapping", "owner", "socket", "udp")

    def __init__(self, udp: Udp, owner: Owner, mapping: Mapping, sock: Socket) -> None:
        self.udp = udp
        self.owner = owner
        self.socket = sock
        self.counters = Counters()
        self.family = sock.family
        self.fd = sock.fileno()
        self._flows: OrderedDict[bytes, Flow] = OrderedDict()  # the client that spoke last is last
        self._datagrams = udp.datagrams
        # A host has many addresses, and a client takes an answer only from the one that it asked.
        if self.family == _socket.AF_INET:
            sock.setsockopt(IPPROTO_IP, IP_PKTINFO, 1)
        else:
            sock.setsockopt(_socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, QUEUE_BYTES)
        sock.setblocking(False)
        self.retarget(mapping)
        udp.engine.watch(self.fd, EPOLLIN, self.on_client)

    def retarget(self, mapping: Mapping) -> None:
        """Clients that come from now on are served there."""
        self.mapping = mapping
        self._to_family = _socket.AF_INET6 if ":" in mapping.to[0] else _socket.AF_INET

    def on_client(self, _events: int) -> None:
        datagrams, layout = self._datagrams, LAYOUTS[self.family]
        flows = self._flows
        for _ in range(TURN_BATCHES):
            received = datagrams.receive_from_clients(self.fd, self.family)
            if received <= 0:
                return
            for envelope, first, count in datagrams.envelopes(self.family, received):
                key = envelope[layout.key]
                flow = flows.get(key)
                if flow is None:
                    flow = self._new_flow(key, layout.reply(envelope))
                    if flow is None:
                        self.counters.dropped += count
                        continue
                flow.forward(first, count)
                flows.move_to_end(key)
            if received < BATCH:
                return

    def _new_flow(self, key: bytes, reply: bytes) -> Flow | None:
        """A socket for a client; where there is no room, that of the client of this port that spoke least recently."""
        limits, service = self.udp.service.limits, self.udp.service
        if service.descriptors < 1 or self.udp.flows >= limits.flows or self.owner.flows >= limits.owner_flows:
            self.counters.limited += 1
            if not self._flows:
                return None
            self.counters.evicted += 1
            next(iter(self._flows.values())).close()
        sock = None
        try:
            sock = Socket(self._to_family, DATAGRAM)
            sock.connect(self.mapping.to)
            flow = Flow(self, sock, key, reply)
            self.udp.engine.watch(flow.fd, EPOLLIN, flow.on_backend)
        except OSError:
            if sock is not None:
                sock.close()
            self.counters.refused += 1
            return None
        self._flows[key] = flow
        self.owner.flows += 1
        self.counters.flows += 1
        self.counters.clients += 1
        service.descriptors -= 1
        self.udp.began(flow)
        return flow

    def ended(self, flow: Flow) -> None:
        del self._flows[flow.key]
        self.owner.flows -= 1
        self.counters.flows -= 1
        self.udp.flows -= 1
        self.udp.service.descriptors += 1
        self.udp.engine.close(flow.socket)

    def abort(self) -> None:
        """A failure with one batch, which is lost."""

    def close(self) -> None:
        for flow in list(self._flows.values()):
            flow.close()
        self.udp.engine.forget(self.fd)  # the agent may hold the same socket open
        self.udp.engine.close(self.socket)


class Flow(Watcher):
    """One client that asks one address of ours."""

    __slots__ = (
        "_datagrams",
        "_reply",
        "_segments_in",
        "_segments_out",
        "closed",
        "fd",
        "key",
        "port",
        "seen",
        "socket",
    )

    def __init__(self, port: Port, sock: Socket, key: bytes, reply: bytes) -> None:
        self.port = port
        self.socket = sock
        self.fd = sock.fileno()
        self.key = key
        self.seen = port.udp.engine.now
        self.closed = False
        self._reply = reply
        self._datagrams = port.udp.datagrams
        self._segments_in = self._segments_out = True  # until the path refuses them

    def forward(self, first: int, count: int) -> None:
        """To the container, from the batch that was received last."""
        port = self.port
        self.seen = port.udp.engine.now
        counters = port.counters
        sent, self._segments_in = self._datagrams.send(self.fd, first, count, segments=self._segments_in)
        counters.packets_in += sent
        counters.bytes_in += self._datagrams.sizes(first, count)
        if sent < count:
            counters.dropped += count - sent

    def on_backend(self, _events: int) -> None:
        port = self.port
        self.seen = port.udp.engine.now
        datagrams, counters = self._datagrams, port.counters
        for _ in range(TURN_BATCHES):
            count = datagrams.receive(self.fd)
            if count <= 0:
                if count < 0 and errno() == ECONNREFUSED:
                    counters.refused += 1  # the container does not listen, or not yet: it may, and the client repeats
                return
            counters.bytes_out += datagrams.sizes(0, count)
            sent, self._segments_out = datagrams.reply(
                port.fd, port.family, self._reply, count, segments=self._segments_out
            )
            counters.packets_out += sent
            if sent < count:
                counters.dropped += count - sent
            if count < BATCH:
                return

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.port.ended(self)

    def abort(self) -> None:
        self.close()
