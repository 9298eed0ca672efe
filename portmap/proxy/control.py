"""The control socket: one JSON object a packet, an answer for each, listening sockets by SCM_RIGHTS. docs/proxy.md."""

from __future__ import annotations

import _socket
import os
from _socket import socket as Socket
from select import EPOLLIN
from struct import unpack

from pycni.cni import json_text
from pycni.portmap.proxy.engine import Stop, Watcher
from pycni.portmap.proxy.limits import changed
from pycni.portmap.proxy.listener import RETRY_S
from pycni.portmap.proxy.mapping import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pycni.portmap.proxy.engine import Engine
    from pycni.portmap.proxy.service import Service

MAX_PACKET = 65536
PAGE = 100  # mappings or owners in one answer
MOST_CLIENTS = 8
MOST_FDS = 4  # looked at; the kernel closes those that do not fit

DONTWAIT = _socket.MSG_DONTWAIT


class Control(Watcher):
    """Accepts clients. Whoever is root, or the user that started the proxy, may do everything; nobody else anything."""

    __slots__ = ("_clients", "_socket", "_uids", "engine", "service")

    def __init__(self, engine: Engine, service: Service, listener: Socket, uids: frozenset[int]) -> None:
        self.engine = engine
        self.service = service
        self._socket = listener
        self._uids = uids
        self._clients: set[Client] = set()
        listener.setblocking(False)
        self._watch()
        self.look_whether_used()

    def _watch(self) -> None:
        self.engine.watch(self._socket.fileno(), EPOLLIN, self.on_client)

    def on_client(self, _events: int) -> None:
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return
        except OSError:
            # No descriptor is left, and the socket stays readable: come back to it.
            self.engine.forget(self._socket.fileno())
            self.engine.after(RETRY_S, self._watch)
            return
        sock = Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK, 0, fd)
        _pid, uid, _gid = unpack("iII", sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))
        if uid not in self._uids or len(self._clients) >= MOST_CLIENTS:
            sock.close()
            return
        client = Client(self, sock)
        self._clients.add(client)
        self.engine.watch(fd, EPOLLIN, client.on_packet)

    def ended(self, client: Client) -> None:
        self._clients.discard(client)
        self.look_whether_used()

    def look_whether_used(self) -> None:
        if not self._clients and not self.service.ports:
            self.engine.after(self.service.limits.unused_s, self._end_if_unused)

    def _end_if_unused(self) -> None:
        if not self._clients and not self.service.ports:
            raise Stop

    def stop(self) -> None:
        raise Stop

    def abort(self) -> None:
        """A failure with one client that was about to come."""


class Client(Watcher):
    """One connection of an agent."""

    __slots__ = ("_control", "_socket")

    def __init__(self, control: Control, sock: Socket) -> None:
        self._control = control
        self._socket = sock

    def on_packet(self, _events: int) -> None:
        """One packet: the next is seen in the next turn."""
        try:
            packet, extra, flags, _ = self._socket.recvmsg(MAX_PACKET, _socket.CMSG_SPACE(4 * MOST_FDS), DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            packet, extra, flags = b"", [], 0
        if not packet:
            self.abort()
            return
        fds = received(extra)
        try:
            if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC) or len(fds) > 1:
                answer: dict[str, Any] = {"error": f"a packet has at most {MAX_PACKET} bytes and one descriptor"}
            else:
                answer = self._answer(packet, fds)
        finally:
            for fd in fds:
                os.close(fd)
        try:
            self._socket.send(json_text.dumps(answer).encode(), DONTWAIT)
        except OSError:
            self.abort()  # it does not read, or has gone

    def _answer(self, packet: bytes, fds: list[int]) -> dict[str, Any]:
        """What *packet* asks for, done. A descriptor that is taken is taken out of *fds*."""
        try:
            request = json_text.loads(packet.decode())
            if not isinstance(request, dict):
                raise ValueError("a request is an object")
            do = request.get("do")
            if do not in REQUESTS:
                raise ValueError(f"do is {do!r}, not one of {', '.join(REQUESTS)}")
            if fds and do != "add":
                raise ValueError(f"{do} takes no descriptor")
            return {"ok": True, **REQUESTS[do](self._control, request, fds)}
        except (ValueError, RecursionError, OSError) as failure:
            return {"error": str(failure)}
        except ImportError:  # what the library would have said is not to be had, see load_everything
            return {"error": "a request is JSON"}

    def abort(self) -> None:
        if self._socket.fileno() >= 0:
            self._control.engine.close(self._socket)
            self._control.ended(self)


def received(extra: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in the control messages of a packet."""
    fds: list[int] = []
    for level, kind, data in extra:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            fds += unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])
    return fds


def add(control: Control, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    mapping = parse_mapping(request)
    control.service.add(mapping, Socket(fileno=fds.pop()) if fds else None)
    return {}


def remove(control: Control, request: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
    removed = control.service.remove(text(request, "owner"))
    control.look_whether_used()
    return {"removed": removed}


def list_mappings(control: Control, request: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
    ports = list(control.service.ports.values())
    start, following = page(request, len(ports))
    return {"mappings": [port.mapping.as_dict() for port in ports[start : start + PAGE]], "next": following}


def stats(control: Control, request: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
    names = list(control.service.owners)
    start, following = page(request, len(names))
    total, owners = control.service.stats(names[start : start + PAGE])
    return {"total": total, "owners": owners, "next": following}


def set_limits(control: Control, request: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
    given = request.get("limits", {})
    if not isinstance(given, dict):
        raise ValueError("limits is not an object")
    if given:
        control.service.set_limits(changed(control.service.limits, given))
    return {"limits": control.service.limits.as_dict()}


def stop(control: Control, _request: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
    control.engine.after(0, control.stop)  # the answer goes out first
    return {}


REQUESTS = {"add": add, "remove": remove, "list": list_mappings, "stats": stats, "set": set_limits, "stop": stop}


def parse_mapping(request: dict[str, Any]) -> Mapping:
    """ValueError says which key is wrong, and what it may be."""
    family, proto, host_ip = request.get("family"), request.get("proto"), request.get("host_ip", "")
    if type(family) is not int or family not in (4, 6):
        raise ValueError(f"family is {family!r}, not 4 or 6")
    if proto not in ("tcp", "udp"):
        raise ValueError(f"proto is {proto!r}: only tcp and udp can be proxied")
    if not isinstance(host_ip, str) or (host_ip and not is_address(host_ip, (family,))):
        raise ValueError(f'host_ip is {host_ip!r}, not an IPv{family} address or ""')
    to = request.get("to")
    if not isinstance(to, list) or len(to) != 2 or not is_address(to[0], (4, 6)):
        raise ValueError(f"to is {to!r}, not [address, port]")
    return Mapping(
        owner=text(request, "owner"),
        family=family,
        proto=proto,
        host_ip=host_ip,
        port=port_number(request.get("port"), "port"),
        to=(to[0], port_number(to[1], "to")),
        proxy_protocol=proto == "tcp" and request.get("proxy_protocol") is True,
    )


def text(request: dict[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is {value!r}, not a text")
    return value


def port_number(value: object, key: str) -> int:
    if type(value) is not int or not 1 <= value <= 65535:
        raise ValueError(f"{key} is {value!r}, not a port in 1..65535")
    return value


def is_address(value: object, families: tuple[int, ...]) -> bool:
    """Whether it is a numeric address without a scope: anything else would be asked of a resolver, which can wait."""
    if not isinstance(value, str):
        return False
    family = 6 if ":" in value else 4
    try:
        _socket.inet_pton(_socket.AF_INET6 if family == 6 else _socket.AF_INET, value)
    except OSError:
        return False
    return family in families


def page(request: dict[str, Any], length: int) -> tuple[int, int | None]:
    """Where the page that was asked for starts, and the next one, if there is one."""
    start = request.get("start", 0)
    if type(start) is not int or start < 0:
        raise ValueError(f"start is {start!r}, not a number from 0 on")
    return start, start + PAGE if start + PAGE < length else None
