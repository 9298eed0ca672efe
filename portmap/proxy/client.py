"""How another process starts the proxy and talks to it: one JSON object a packet, listening sockets as descriptors."""

from __future__ import annotations

import array
import os
import socket
import sys

import pycni
from pycni.cni import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self

PATH = "/run/pycni/proxy.sock"
NOBODY = 65534
MAX_PACKET = 65536


class ProxyError(Exception):
    """The proxy refused a request; the message is its own."""


def command(control: str | int = PATH, *, uid: int = NOBODY) -> list[str]:
    """The argv of a proxy. *control*: the path it shall listen at, or an inherited descriptor of a socket (Unix,
    SOCK_SEQPACKET) that listens already. *uid*: what it becomes when it was started by root; 0 for "stay root"."""
    main = os.path.join(os.path.dirname(os.path.abspath(pycni.__file__)), "portmap", "proxy", "__main__.py")
    return [sys.executable, "-I", "-S", main, "--control", str(control), "--uid", str(uid)]


class ProxyClient:
    """A connection to a running proxy. It blocks for at most *timeout_s*; not for several threads at once.

    Raises OSError where no proxy listens (ConnectionRefusedError, FileNotFoundError) or answers (TimeoutError,
    ConnectionResetError), ProxyError for what the proxy refuses.
    """

    def __init__(self, path: str = PATH, *, timeout_s: float = 5.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def add(
        self,
        owner: str,
        *,
        family: int,
        proto: str,
        host_ip: str,
        port: int,
        to: tuple[str, int],
        listener: int = -1,
        proxy_protocol: bool = False,
    ) -> None:
        """Serve *port* with the socket *listener*: bound (UDP), listening (TCP). The proxy gets its own descriptor.

        The same owner, family, proto, host_ip and port again is a new target for what is served already; *listener*
        is then not needed. *family* is 4 or 6; *to* is the container's address and port.
        """
        request = {"do": "add", "owner": owner, "family": family, "proto": proto, "host_ip": host_ip, "port": port}
        self._ask({**request, "to": list(to), "proxy_protocol": proxy_protocol}, listener)

    def remove(self, owner: str) -> int:
        """Serve the owner's ports no more; established connections are reset. How many ports that were."""
        removed: int = self._ask({"do": "remove", "owner": owner})["removed"]
        return removed

    def mappings(self) -> list[dict[str, Any]]:
        """What is served: for each port "owner", "family", "proto", "host_ip", "port", "to", "proxy_protocol"."""
        return [mapping for page in self._pages("list") for mapping in page["mappings"]]

    def stats(self) -> dict[str, Any]:
        """Counters, as docs/proxy.md lists them: "total" since the start, and "owners", of each by name."""
        owners: dict[str, Any] = {}
        page: dict[str, Any] = {}
        for page in self._pages("stats"):
            owners.update(page["owners"])
        return {"total": page["total"], "owners": owners}

    def set(self, **limits: float) -> dict[str, Any]:
        """Change limits (docs/proxy.md); all of them as they are now. Without any: only tell."""
        now: dict[str, Any] = self._ask({"do": "set", "limits": limits})["limits"]
        return now

    def stop(self) -> None:
        """The proxy ends: its ports are closed, connections reset."""
        self._ask({"do": "stop"})

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pages(self, what: str) -> Iterator[dict[str, Any]]:
        start: int | None = 0
        while start is not None:
            page = self._ask({"do": what, "start": start})
            yield page
            start = page["next"]

    def _ask(self, request: dict[str, Any], fd: int = -1) -> dict[str, Any]:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        self._socket.sendmsg([json_text.dumps(request).encode()], rights)
        packet = self._socket.recv(MAX_PACKET)
        if not packet:
            raise ConnectionResetError("the proxy closed the connection")
        answer: dict[str, Any] = json_text.loads(packet.decode())
        if "error" in answer:
            raise ProxyError(answer["error"])
        return answer
