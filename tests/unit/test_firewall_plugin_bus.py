"""D-Bus messages: what the client writes, and that it reads whatever a bus may send."""

from __future__ import annotations

import socket
from pathlib import Path
from struct import pack
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.host import system_bus
from pycni.host.firewalld import as_source
from pycni.host.system_bus import SystemBus, decode_body, decode_message, encode_call, message_size

words = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
FIELDS = {
    system_bus.PATH: "/org/x",
    system_bus.INTERFACE: "org.x",
    system_bus.MEMBER: "addSource",
    system_bus.DESTINATION: "org.y",
}


# An answer to call 1: type 3 (error), its name, "too many".
ERROR = (
    b"l\x03\0\x01\x0d\0\0\0\x02\0\0\0\x1f\0\0\0"
    b"\x05\x01u\0\x01\0\0\0\x04\x01s\0\x03\0\0\0a.b\0\0\0\0\0\x08\x01g\0\x01s\0\0"
    b"\x08\0\0\0too many\0"
)


@given(st.lists(words, max_size=3).map(tuple), st.integers(1, 2**32 - 1))
def test_a_call_reads_back(arguments: tuple[str, ...], serial: int) -> None:
    """Fields, length and first argument; every part stands where its alignment wants it."""
    message = encode_call(serial, FIELDS, arguments)
    assert message_size(message) == len(message)
    assert message_size(message[:15]) is None
    kind, fields, body = decode_message(message)
    assert kind == system_bus.METHOD_CALL
    assert fields == {**FIELDS, **({system_bus.SIGNATURE: "s" * len(arguments)} if arguments else {})}
    assert decode_body("s" * len(arguments), body) == arguments[:1]


def test_the_bytes_of_a_call() -> None:
    """Written out by hand after the specification, "Message Protocol"."""
    assert encode_call(1, {system_bus.PATH: "/", system_bus.MEMBER: "Hi"}, ("a",)) == (
        b"l\x01\x02\x01\x06\0\0\0\x01\0\0\0\x27\0\0\0"
        b"\x01\x01o\0\x01\0\0\0/\0\0\0\0\0\0\0"
        b"\x03\x01s\0\x02\0\0\0Hi\0\0\0\0\0\0"
        b"\x08\x01g\0\x01s\0\0"
        b"\x01\0\0\0a\0"
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_answers_of_either_byte_order(order: str) -> None:
    """A truth value, a text, and an error's text."""
    mark = b"l" if order == "<" else b"B"
    fields = b"\x05\x01u\0" + pack(f"{order}I", 7) + b"\x08\x01g\0\x01b\0\0"
    header = mark + b"\x02\0\x01" + pack(f"{order}III", 4, 9, len(fields) - 1)
    message = header + fields + pack(f"{order}I", 1)
    assert message_size(message) == len(message)
    kind, found, body = decode_message(message)
    assert (kind, found) == (2, {system_bus.REPLY_SERIAL: 7, system_bus.SIGNATURE: "b"})
    assert decode_body("b", body) == (True,)
    assert decode_body("a{sv}", body) == decode_body("", b"") == ()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", "/run/dbus/system_bus_socket"),
        ("unix:path=/x,guid=1", "/x"),
        ("tcp:host=a,port=1;unix:abstract=b", "\0b"),
        ("unixexec:path=/x", "/run/dbus/system_bus_socket"),
    ],
)
def test_where_the_bus_is(monkeypatch: pytest.MonkeyPatch, text: str, address: str) -> None:
    """The first Unix socket among the addresses."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", text)
    assert system_bus.bus_address() == address


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"REJECTED EXTERNAL\r\n", "refuses uid"),
        (b"OK 0\r\n" + ERROR, "the system bus refuses: too many"),
        (b"OK 0\r\n" + ERROR[:20], "has closed the connection"),
        (b"", "has closed the connection"),
    ],
)
def test_a_bus_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, said: str) -> None:
    """No account, a limit that is reached, an end in the middle: OSError, which callers tell as what it is."""
    path = str(tmp_path / "bus")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = Thread(target=_answer_once, args=(listener, answer))
        thread.start()
        with pytest.raises(OSError, match=said):
            SystemBus()
        thread.join()


def _answer_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):  # until the client is gone: an early close would reset the connection
            pass


def test_sources_as_the_reference_writes_them() -> None:
    assert (as_source("10.1.0.5"), as_source("fd00::5")) == ("10.1.0.5/32", "fd00::5/128")
