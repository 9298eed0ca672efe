"""Everything that is served, and what is left of descriptors, connections and flows."""

from __future__ import annotations

import _socket

from pycni.portmap.proxy import limits as limits_module
from pycni.portmap.proxy.listener import RETRY_S, Listener
from pycni.portmap.proxy.mapping import Counters, total
from pycni.portmap.proxy.pipes import MOST_PIPES, Pipes
from pycni.portmap.proxy.udp import Port, Udp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket

    from pycni.portmap.proxy.engine import Engine
    from pycni.portmap.proxy.limits import Limits
    from pycni.portmap.proxy.mapping import Key, Mapping
    from pycni.portmap.proxy.tcp import Connection

SWEEPS = 8  # looks at a connection within the shortest limit of time
LONGEST_SWEEP_S = 5.0


class Owner:
    """Whose ports they are: one container's interface."""

    __slots__ = ("connections", "flows", "ports")

    def __init__(self) -> None:
        self.ports: list[Listener | Port] = []
        self.connections = 0
        self.flows = 0


class Service:
    """*descriptors*: how many the process may have (RLIMIT_NOFILE)."""

    def __init__(self, engine: Engine, limits: Limits, descriptors: int) -> None:
        self.engine = engine
        self.limits = limits
        self.pipes = Pipes(limits_module.pipes(descriptors, MOST_PIPES))
        self.descriptors = limits_module.available(descriptors, self.pipes.most)  # left
        self.owners: dict[str, Owner] = {}
        self.ports: dict[Key, Listener | Port] = {}
        self.connections: set[Connection] = set()
        self._udp = Udp(self)
        self._waiting: list[Listener] = []  # for room
        self._gone = Counters()  # of ports that are served no more: totals never go back

    # -- ports -------------------------------------------------------------------------------------------------------

    def add(self, mapping: Mapping, sock: Socket | None) -> None:
        """Serve it; ValueError says why not. *sock* is not needed where this owner's port is served already; it is then
        closed, and what is served gets the new target."""
        port = self.ports.get(mapping.key)
        if port is not None:
            if port.mapping.owner != mapping.owner:
                raise ValueError(f"{describe(mapping)} is served for {port.mapping.owner}: remove that first")
            port.retarget(mapping)
            if sock is not None:
                sock.close()
            return
        if sock is None:
            raise ValueError(f"{describe(mapping)} is not served yet: send its socket along")
        check_socket(mapping, sock)
        if self.descriptors < 1:
            raise ValueError(f"no descriptor is left for {describe(mapping)}: raise the limit of open files")
        owner = self.owners.get(mapping.owner) or Owner()
        port = Listener(self, owner, mapping, sock) if mapping.proto == "tcp" else Port(self._udp, owner, mapping, sock)
        owner.ports.append(port)
        self.owners[mapping.owner] = owner
        self.ports[mapping.key] = port
        self.descriptors -= 1

    def remove(self, name: str) -> int:
        """Serve no port of this owner: connections are reset, flows dropped. How many ports it had."""
        owner = self.owners.pop(name, None)
        if owner is None:
            return 0
        for port in owner.ports:
            del self.ports[port.mapping.key]
            port.close()
        self._waiting = [port for port in self._waiting if port.owner is not owner]
        if owner.connections:
            for connection in [one for one in self.connections if one.listener.owner is owner]:
                connection.abort()
        for port in owner.ports:
            self._gone.add(port.counters)
        self.descriptors += len(owner.ports)
        return len(owner.ports)

    def close(self) -> None:
        for name in list(self.owners):
            self.remove(name)

    # -- connections -------------------------------------------------------------------------------------------------

    def has_room(self, listener: Listener) -> bool:
        limits = self.limits
        return (
            self.descriptors >= 2
            and len(self.connections) < limits.connections
            and listener.owner.connections < limits.owner_connections
        )

    def began(self, connection: Connection) -> None:
        listener = connection.listener
        listener.owner.connections += 1
        listener.counters.open += 1
        self.descriptors -= 2
        if not self.connections:
            self._sweep_later()
        self.connections.add(connection)

    def ended(self, connection: Connection) -> None:
        connection.count()
        listener = connection.listener
        listener.owner.connections -= 1
        listener.counters.open -= 1
        self.descriptors += 2
        self.connections.discard(connection)
        if self._waiting:
            self.engine.after(0, self._resume)

    def wait_for_room(self, listener: Listener) -> None:
        self._waiting.append(listener)
        if not self.engine.waits_for(self._resume):
            self.engine.after(RETRY_S, self._resume)

    def _resume(self) -> None:
        waiting = self._waiting
        self._waiting = []
        for listener in waiting:
            if self.has_room(listener):
                listener.resume()
            else:
                self.wait_for_room(listener)

    # -- time --------------------------------------------------------------------------------------------------------

    def _sweep_later(self) -> None:
        period = self._sweep_period()
        if period:
            self.engine.after(period, self._sweep)

    def _sweep_period(self) -> float:
        """Seconds from one look at all connections to the next; 0: never."""
        limits = self.limits
        times = [limit for limit in (limits.connect_s, limits.half_open_s, limits.idle_s) if limit]
        return min(LONGEST_SWEEP_S, min(times) / SWEEPS) if times else 0.0

    def _sweep(self) -> None:
        """End connections that were silent for too long. A sweep of ten thousand is 2 ms; a timer for each of them
        would have to be put back at every packet."""
        period = self._sweep_period()
        for connection in list(self.connections):
            connection.quiet += 1
            limit = connection.time_limit(self.limits)
            if limit and connection.quiet * period > limit:
                connection.listener.counters.timeouts += 1
                connection.abort()
        if self.connections:
            self._sweep_later()

    # -- words -------------------------------------------------------------------------------------------------------

    def set_limits(self, limits: Limits) -> None:
        self.limits = limits
        self._udp.set_idle(limits.flow_s)
        if self.connections:
            self._sweep_later()
        if self._waiting:
            self.engine.after(0, self._resume)

    def stats(self, names: list[str]) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
        """Counters of everything since the start, and those of the owners *names*."""
        for connection in self.connections:
            connection.count()
        every = [port.counters for port in self.ports.values()]
        owners = {name: total([port.counters for port in self.owners[name].ports]) for name in names}
        return total([*every, self._gone]), owners


def check_socket(mapping: Mapping, sock: Socket) -> None:
    """ValueError for a socket that is not what the mapping says."""
    family = {_socket.AF_INET: 4, _socket.AF_INET6: 6}.get(sock.family)
    proto = {_socket.SOCK_STREAM: "tcp", _socket.SOCK_DGRAM: "udp"}.get(sock.type)
    if (family, proto) != (mapping.family, mapping.proto):
        raise ValueError(f"the socket for {describe(mapping)} is one for {proto} over IPv{family}")
    if sock.getsockname()[1] != mapping.port:
        raise ValueError(f"the socket for {describe(mapping)} is bound to port {sock.getsockname()[1]}")


def describe(mapping: Mapping) -> str:
    return f"{mapping.proto} port {mapping.port} of {mapping.host_ip or f'any IPv{mapping.family} address'}"
