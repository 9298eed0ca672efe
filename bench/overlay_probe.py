"""Runs inside a container of bench/overlay.py: pings an address without pause until it answers for the first time.

An address per line on stdin; answered by a line once the first request was sent, and a second one with the time of the
first answer in seconds of CLOCK_MONOTONIC (0 where none came within DEADLINE_S).
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time

INTERVAL_S = 0.001
DEADLINE_S = 10.0
ECHO, ECHO_REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}


def request(family: int, sequence: int) -> bytes:
    """An echo request; the kernel computes the checksum of ICMPv6 itself."""
    body = struct.pack("!BBHHH", ECHO[family], 0, 0, 0x7079, sequence & 0xFFFF)
    total = sum(struct.unpack("!4H", body))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBHHH", ECHO[family], 0, ~total & 0xFFFF, 0x7079, sequence & 0xFFFF)


def probe(address: str) -> float:
    family = 6 if ":" in address else 4
    kind = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if family == 6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    end = time.monotonic() + DEADLINE_S
    with socket.socket(kind[0], socket.SOCK_RAW, kind[1]) as raw:
        sequence = 0
        while time.monotonic() < end:
            try:
                raw.sendto(request(family, sequence), (address, 0))
            except OSError:
                pass  # nobody answers ARP yet: the kernel gives an address up and begins anew
            if sequence == 0:
                print("begun", flush=True)
            sequence += 1
            while select.select([raw], [], [], INTERVAL_S)[0]:
                data, sender = raw.recvfrom(2048)
                at = time.monotonic()
                offset = (data[0] & 15) * 4 if family == 4 else 0
                if sender[0] == address and data[offset] == ECHO_REPLY[family]:
                    return at
    return 0.0


def main() -> None:
    for line in sys.stdin:
        print(probe(line.strip()), flush=True)


if __name__ == "__main__":
    main()
