"""D-Bus, as little of it as asking firewalld takes: method calls with text arguments on the system bus.

A plugin call is a process of about 20 ms; importing jeepney, the lightest of the libraries, would add 15 to it. Format:
D-Bus specification, "Message Protocol".
"""

from __future__ import annotations

import _socket
import errno
import os
from struct import pack, unpack_from

PLACE = "/run/dbus/system_bus_socket"
DEADLINE_S = 20.0  # firewalld answers nobody while it reloads, which takes some seconds with many rules
METHOD_CALL, METHOD_RETURN, ERROR = 1, 2, 3
NO_AUTO_START = 2  # do not start the service: one that is stopped has been stopped on purpose
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_TYPES = {PATH: "o", SIGNATURE: "g"}  # of header fields; the others that are sent are strings
_FIXED = 16  # bytes of a header before its fields


class BusError(Exception):
    """An error that the service answered."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.name = name
        self.message = message


def bus_address() -> str:
    """The first Unix socket of DBUS_SYSTEM_BUS_ADDRESS, by default the usual place; an abstract one begins with NUL."""
    for one in os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", "").split(";"):
        transport, _, rest = one.partition(":")
        keys = dict(pair.partition("=")[::2] for pair in rest.split(","))
        if transport == "unix" and ("path" in keys or "abstract" in keys):
            return keys.get("path") or "\0" + keys["abstract"]
    return PLACE


class SystemBus:
    """A connection to the system bus. OSError where there is none, where it refuses us or does not answer in time."""

    def __init__(self) -> None:
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._serial = 0
        self._pending = b""
        try:
            self._socket.settimeout(DEADLINE_S)
            self._socket.connect(bus_address())
            uid = str(os.geteuid()).encode().hex().encode()
            self._socket.sendall(b"\0AUTH EXTERNAL " + uid + b"\r\nBEGIN\r\n")
            while b"\r\n" not in self._pending:
                self._receive()
            line, self._pending = self._pending.split(b"\r\n", 1)
            if not line.startswith(b"OK "):
                raise OSError(errno.EACCES, f"the system bus refuses uid {os.geteuid()}: {line.decode('latin-1')}")
            self._ask_bus("Hello")
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def has_owner(self, name: str) -> bool:
        """Whether somebody has the well-known *name* now."""
        (answer,) = self._ask_bus("NameHasOwner", name)
        return bool(answer)

    def _ask_bus(self, member: str, *arguments: str) -> tuple[object, ...]:
        try:
            return self.call(
                "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", member, *arguments
            )
        except BusError as failure:
            raise OSError(errno.EACCES, f"the system bus refuses: {failure.message or failure.name}") from failure

    def call(self, destination: str, path: str, interface: str, member: str, *arguments: str) -> tuple[object, ...]:
        """The answer to a method call with text arguments: (text,), (truth value,), or () for anything else."""
        self._serial += 1
        fields = {PATH: path, INTERFACE: interface, MEMBER: member, DESTINATION: destination}
        self._socket.sendall(encode_call(self._serial, fields, arguments))
        while True:
            kind, found, answer = self._next_message()
            if found.get(REPLY_SERIAL) != self._serial:
                continue  # a signal, such as the one that tells us our name
            if kind == ERROR:
                raise BusError(str(found.get(ERROR_NAME, "")), str(next(iter(decode_body("s", answer)), "")))
            if kind == METHOD_RETURN:
                return decode_body(str(found.get(SIGNATURE, "")), answer)

    def _next_message(self) -> tuple[int, dict[int, object], bytes]:
        while (size := message_size(self._pending)) is None or len(self._pending) < size:
            self._receive()
        message, self._pending = self._pending[:size], self._pending[size:]
        return decode_message(message)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, f"no answer on the system bus within {DEADLINE_S:g} s") from None
        if not data:
            raise OSError(errno.ECONNRESET, "the system bus has closed the connection")
        self._pending += data


def encode_call(serial: int, fields: dict[int, str], arguments: tuple[str, ...]) -> bytes:
    """A method call with its header *fields* but the signature, little-endian."""
    body = b""
    for argument in arguments:
        body = _padded(body, 4) + _text(argument)
    if arguments:
        fields = {**fields, SIGNATURE: "s" * len(arguments)}
    array = b""
    for code, value in fields.items():
        kind = _TYPES.get(code, "s")
        array = _padded(array, 8) + bytes((code,)) + _short(kind)
        array += _short(value) if kind == "g" else _text(value)
    header = pack("<cBBBIII", b"l", METHOD_CALL, NO_AUTO_START, 1, len(body), serial, len(array))
    return _padded(header + array, 8) + body


def message_size(data: bytes) -> int | None:
    """The length of the message that *data* begins with; None where too little of it is there to tell."""
    if len(data) < _FIXED:
        return None
    order = "<" if data[:1] == b"l" else ">"
    body, _, array = unpack_from(f"{order}III", data, 4)
    return int((_FIXED + array + 7) // 8 * 8 + body)


def decode_message(message: bytes) -> tuple[int, dict[int, object], bytes]:
    """(type, header fields that are text or a number, body) of a message; the body only where it is little-endian."""
    order = "<" if message[:1] == b"l" else ">"
    size, _, array = unpack_from(f"{order}III", message, 4)
    fields: dict[int, object] = {}
    at, end = _FIXED, _FIXED + array
    while at < end:
        at = (at + 7) // 8 * 8
        code, kind = message[at], message[at + 2 : at + 3]  # a variant: the length of its signature (1), the signature
        at += 4
        if kind == b"g":
            length = message[at]
            fields[code] = message[at + 1 : at + 1 + length].decode()
            at += length + 2
        elif kind in (b"s", b"o"):
            at = (at + 3) // 4 * 4
            (length,) = unpack_from(f"{order}I", message, at)
            fields[code] = message[at + 4 : at + 4 + length].decode(errors="replace")
            at += length + 5
        else:  # "u": numbers of file descriptors and of the call that is answered
            at = (at + 3) // 4 * 4
            (fields[code],) = unpack_from(f"{order}I", message, at)
            at += 4
    return message[1], fields, _little(message[len(message) - size :], order)


def decode_body(signature: str, body: bytes) -> tuple[object, ...]:
    """The first argument of a body, if it is a text or a truth value."""
    if signature.startswith("b") and len(body) >= 4:
        return (bool(unpack_from("<I", body)[0]),)
    if signature.startswith("s") and len(body) >= 4:
        (length,) = unpack_from("<I", body)
        return (body[4 : 4 + length].decode(errors="replace"),)
    return ()


def _little(body: bytes, order: str) -> bytes:
    """*body* with its first number turned round where the sender's byte order is the other one."""
    return body if order == "<" or len(body) < 4 else body[3::-1] + body[4:]


def _padded(data: bytes, to: int) -> bytes:
    return data + bytes(-len(data) % to)


def _text(value: str) -> bytes:
    data = value.encode()
    return pack("<I", len(data)) + data + b"\0"


def _short(value: str) -> bytes:
    data = value.encode()
    return bytes((len(data),)) + data + b"\0"
