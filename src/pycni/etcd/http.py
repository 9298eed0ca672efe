"""POST over one HTTP/1.1 connection, with a deadline: what etcd's JSON gateway needs and no more.

`http.client` would double what a process that lives for 20 ms costs (docs/decisions/0008-etcd-without-waiting.md). TLS
brings `ssl` along, 12 ms, in calls that use it.
"""

from __future__ import annotations

import _socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pycni.etcd.conf import Endpoint

MOST_BYTES = 64 * 1024 * 1024  # of one answer; etcd's own limit for a request is 1.5 MiB, a page of ours far less
MOST_HEADER_BYTES = 64 * 1024


class Connection:
    """One connection; after a failure it is made anew. Every failure is an OSError."""

    def __init__(self, endpoint: Endpoint, tls: Any = None) -> None:
        """*tls*: an ssl.SSLContext where the endpoint is https."""
        self._endpoint = endpoint
        self._tls = tls
        self._socket: Any = None

    def connect(self, timeout_s: float) -> None:
        """Make the connection where there is none: a failure here is one before anything was sent."""
        if self._socket is None:
            self._socket = _connect(self._endpoint, self._tls, time.monotonic() + timeout_s)

    def post(self, path: str, body: bytes, headers: dict[str, str], timeout_s: float) -> tuple[int, bytes]:
        """Status and body of the answer, within *timeout_s* from now; `connect` comes first."""
        end = time.monotonic() + timeout_s
        try:
            lines = [f"POST {path} HTTP/1.1", f"Host: {self._endpoint.target}", "Content-Type: application/json"]
            lines += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
            self._socket.settimeout(_left(end))
            self._socket.sendall("\r\n".join(lines).encode("latin-1") + body)
            return _Reader(self._socket, end).answer()
        except OSError:
            self.close()
            raise
        except ValueError as exc:
            self.close()
            raise OSError(f"no HTTP answer: {exc}") from None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connect(endpoint: Endpoint, tls: Any, end: float) -> Any:
    failure: OSError = OSError("the name has no address")
    for family, kind, proto, _, address in _socket.getaddrinfo(
        endpoint.host, endpoint.port, 0, _socket.SOCK_STREAM, 0, 0
    ):
        try:
            if tls is None:
                raw: Any = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, proto)
            else:
                import socket  # ssl has loaded it, and takes no other

                raw = socket.socket(family, kind | socket.SOCK_CLOEXEC, proto)
            try:
                raw.settimeout(_left(end))
                raw.connect(address)
                raw.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
                return raw if tls is None else tls.wrap_socket(raw, server_hostname=endpoint.host)
            except BaseException:
                raw.close()
                raise
        except OSError as exc:
            failure = exc
    raise failure


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class _Reader:
    """One answer (RFC 9112): a body by length, in chunks, or to the end."""

    def __init__(self, sock: Any, end: float) -> None:
        self._socket = sock
        self._end = end
        self._buffer = b""

    def answer(self) -> tuple[int, bytes]:
        while True:
            head = self._until(b"\r\n\r\n", MOST_HEADER_BYTES).decode("latin-1").split("\r\n")
            status = int(head[0].split(" ")[1])
            if status >= 200:  # 1xx comes before the answer
                break
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return status, self._chunks()
        return status, self._exactly(int(headers.get("content-length", "0")))

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while length := int(self._until(b"\r\n", MOST_HEADER_BYTES).partition(b";")[0], 16):
            size += length
            if size > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES} bytes")
            parts.append(self._exactly(length))
            self._until(b"\r\n", 2)
        while self._until(b"\r\n", MOST_HEADER_BYTES):
            pass  # trailers
        return b"".join(parts)

    def _until(self, mark: bytes, most: int) -> bytes:
        while mark not in self._buffer:
            if len(self._buffer) > most:
                raise ValueError(f"a header of more than {most} bytes")
            self._more()
        part, _, self._buffer = self._buffer.partition(mark)
        return part

    def _exactly(self, length: int) -> bytes:
        if not 0 <= length <= MOST_BYTES:
            raise ValueError(f"a body of {length} bytes")
        parts, have = [self._buffer], len(self._buffer)
        while have < length:
            self._buffer = b""
            self._more()
            parts.append(self._buffer)
            have += len(self._buffer)
        joined = b"".join(parts)
        self._buffer = joined[length:]
        return joined[:length]

    def _more(self) -> None:
        self._socket.settimeout(_left(self._end))
        part = self._socket.recv(1 << 16)
        if not part:
            raise OSError("the connection was closed in the middle of an answer")
        self._buffer += part
