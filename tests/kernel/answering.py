"""Answers plugin calls in one process, one JSON line each, for the fuzz tests: they run it inside a host.

usage: answering.py EXECUTABLE PACKAGE_PARENT. A line of stdin is {"environ": {…}, "config": "latin-1 text"}; the
answer is {"code": exit status, "text": what would be on stdout, "traces": what a leftover would show up in}.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from functools import partial
from typing import Any

STATE = "/var/lib/pycni/pycni.db"
ROWS = "SELECT 'attachment', network || container_id || ifname FROM attachments"
LEASES = "SELECT 'lease', hex(address) FROM leases WHERE released IS NULL"


def main() -> None:
    executable, parent = sys.argv[1:3]
    sys.path.append(parent)
    from pycni.exe.plugins import find_plugin
    from pycni.exe.run import answer

    plugin = find_plugin(os.path.basename(executable))
    assert plugin is not None
    for line in sys.stdin:
        call = json.loads(line)
        config = call["config"].encode("latin-1")
        code, text = answer(plugin, call["environ"], partial(bytes, config), executable=executable)
        sys.stdout.write(json.dumps({"code": code, "text": text, "traces": _traces()}) + "\n")
        sys.stdout.flush()


def _traces() -> list[Any]:
    """Links, addresses, forwarding, records and leases, without the help of what is tested."""
    return [
        sorted(os.listdir("/sys/class/net")),
        sorted(line.split()[0] for line in _lines("/proc/net/if_inet6") if not line.startswith("fe80")),
        sorted(line.split()[-1] for line in _lines("/proc/net/fib_trie") if "|--" in line),
        _lines("/proc/sys/net/ipv4/ip_forward") + _lines("/proc/sys/net/ipv6/conf/all/forwarding"),
        _rows(),
    ]


def _lines(path: str) -> list[str]:
    with open(path) as file:
        return file.read().splitlines()


def _rows() -> list[Any]:
    if not os.path.exists(STATE):
        return []
    connection = sqlite3.connect(STATE)
    try:
        return connection.execute(ROWS).fetchall() + connection.execute(LEASES).fetchall()
    finally:
        connection.close()


if __name__ == "__main__":
    main()
