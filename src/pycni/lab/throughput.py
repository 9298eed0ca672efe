"""How much TCP passes between two namespaces: one connection, one second, nothing installed."""

from __future__ import annotations

import socket
import threading
import time

CHUNK = 1 << 18
START_S = 5.0  # for the connection to come up


def tcp_bits_per_second(listener: socket.socket, sender: socket.socket, address: str, seconds: float) -> float:
    """What arrives at *listener* of what *sender* sends to *address*; both are new sockets, each in its namespace.

    Counted from the first byte to the last one that arrived, so that waiting for a connection is not in it. 0.0 where
    none came about.
    """
    listener.settimeout(START_S)
    listener.bind((address, 0))
    listener.listen(1)
    port = listener.getsockname()[1]
    counted: list[float] = []
    receiver = threading.Thread(target=_receive, args=(listener, counted), name="throughput", daemon=True)
    receiver.start()
    try:
        sender.settimeout(START_S)
        sender.connect((address, port))
        payload = memoryview(bytes(CHUNK))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            sender.sendall(payload)
        sender.shutdown(socket.SHUT_WR)
    except OSError:  # no connection, or it broke: what arrived is counted
        pass
    receiver.join(START_S + 2)
    return counted[0] if counted else 0.0


def _receive(listener: socket.socket, counted: list[float]) -> None:
    buffer = bytearray(CHUNK)
    try:
        stream, _ = listener.accept()
    except OSError:
        return
    with stream:
        stream.settimeout(START_S)
        total, began, last = 0, 0.0, 0.0
        try:
            while size := stream.recv_into(buffer):
                last = time.perf_counter()
                began = began or last
                total += size
        except OSError:
            pass
    if last > began:
        counted.append(8 * total / (last - began))
