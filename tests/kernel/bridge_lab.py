"""A host with the plugins' executables, and what the tests of the bridge plugin ask of it."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netns_fixtures import CniRun, Container, Host, Namespace, Snapshot, run_cni, snapshot

Conf = dict[str, Any]
STATE = "/var/lib/pycni/pycni.db"
ETH_P_ALL = 3


def network(name: str = "net", number: int = 1, families: Sequence[int] = (4, 6), **keys: Any) -> Conf:
    """A gateway network with 10.NUMBER.0.0/24 and fd00:NUMBER::/64; *keys* on top, None takes one away."""
    subnets = {4: f"10.{number}.0.0/24", 6: f"fd00:{number}::/64"}
    conf = {
        "cniVersion": "1.1.0",
        "name": name,
        "type": "bridge",
        "bridge": f"cni{number}",
        "isDefaultGateway": True,
        "ipMasq": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": subnets[family]}] for family in families]},
    }
    return {key: value for key, value in {**conf, **keys}.items() if value is not None}


def static(*addresses: str, routes: Sequence[Conf] = (), **keys: Any) -> Conf:
    """An ipam object that gives these addresses ("10.1.0.5/24") and routes."""
    return {"type": "static", "addresses": [{"address": each} for each in addresses], "routes": list(routes), **keys}


@dataclass
class Lab:
    """One host and the directory of the executables. Container ids are the names of the namespaces."""

    host: Host
    plugins: Path

    def call(self, command: str, conf: Conf | str, container: Container | str = "", **how: Any) -> CniRun:
        """One call of the plugin that *conf* names; *container* is a namespace, or an id without one."""
        kind = conf["type"] if isinstance(conf, dict) else "bridge"
        if isinstance(container, Container):
            how = {"container_id": container.name, "netns": container, **how}
        elif container:
            how = {"container_id": container, **how}
        return run_cni(self.host, self.plugins, kind, command, conf, **how)

    def add(self, conf: Conf, container: Container, **how: Any) -> Conf:
        """The result of an ADD that must work."""
        return self.call("ADD", conf, container, **how).result()

    def refused(self, conf: Conf, container: Container | str, command: str = "ADD", **how: Any) -> Conf:
        """The error of a call that must fail, and fail as the protocol wants it."""
        answer = self.call(command, conf, container, **how)
        assert answer.error_code is not None, answer
        assert "Traceback" not in answer.stderr
        return answer.json

    def delete(self, conf: Conf, container: Container | str, **how: Any) -> None:
        """A DEL that must work, and say nothing."""
        answer = self.call("DEL", conf, container, **how)
        assert answer.ok, answer
        assert answer.stdout == ""

    def check(self, conf: Conf, container: Container, result: Conf, **how: Any) -> CniRun:
        return self.call("CHECK", {**conf, "prevResult": result}, container, **how)

    def gc(self, conf: Conf, *valid: Container | str, **keys: Any) -> CniRun:
        """GC with these attachments (their eth0) as the valid ones, or with *keys* in place of the list."""
        names = [each if isinstance(each, str) else each.name for each in valid]
        listed = {"cni.dev/valid-attachments": [{"containerID": name, "ifname": "eth0"} for name in names]}
        return self.call("GC", {**conf, **(keys or listed)})

    def traces(self, *containers: Namespace) -> Snapshot:
        """All that can be left behind: both sides of every link, rules, sysctls, files; of the state file its rows."""
        taken = snapshot(self.host, *containers)
        for key in [key for key in taken if "/file/var/lib/pycni" in key]:
            del taken[key]
        for owner, state in self.records().items():
            taken[f"state/attachment/{owner}"] = state
        for address in self.leases():
            taken[f"state/lease/{address}"] = 1
        return taken

    def records(self) -> dict[str, str]:
        """The attachments in the state file: owner to state."""
        part = "CASE part WHEN '' THEN '' ELSE '/' || part END"
        rows = self._query(f"SELECT network || '/' || container_id || '/' || ifname || {part}, state FROM attachments")
        return dict(rows)

    def leases(self) -> list[str]:
        """The addresses that are leased."""
        rows = self._query("SELECT address FROM leases WHERE released IS NULL")
        return [_address(key) for (key,) in rows]

    def change_state(self, sql: str, *values: Any) -> None:
        """Write to the state file, as what happened while nobody looked."""
        self.host.in_namespace(lambda: _execute(sql, values))

    def _query(self, sql: str) -> list[Any]:
        return self.host.in_namespace(lambda: _execute(sql) if os.path.exists(STATE) else [])

    def ports(self, bridge: str = "cni1") -> list[str]:
        """The links on a bridge."""
        return [link["ifname"] for link in self.host.ip_json("link", "show", "master", bridge)]

    def link(self, name: str, of: Namespace | None = None) -> Conf:
        """`ip -d link show NAME`, decoded."""
        (link,) = (of or self.host).ip_json("-d", "link", "show", name)
        return link

    def ruleset(self) -> str:
        return self.host.run(["nft", "list", "ruleset"]).stdout


def masqueraded(lab: Lab) -> set[str]:
    """The container addresses in our table."""
    listed = json.loads(lab.host.run(["nft", "-j", "list", "ruleset"]).stdout)["nftables"]
    sets = [entry["set"] for entry in listed if "set" in entry]
    elements = [element for one in sets if one["name"] in ("masq4", "masq6") for element in one.get("elem", ())]
    return {element["elem"]["val"] if isinstance(element, dict) else element for element in elements}


def gateway_of(result: Conf, family: int) -> str:
    return str(next(ip["gateway"] for ip in result["ips"] if (":" in ip["address"]) == (family == 6)))


def address_of(result: Conf, family: int) -> str:
    return str(next(ip["address"] for ip in result["ips"] if (":" in ip["address"]) == (family == 6))).split("/")[0]


def mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


class Frames:
    """Every frame that arrives at one link, from the construction on."""

    def __init__(self, namespace: Namespace, ifname: str) -> None:
        self._socket = namespace.in_namespace(lambda: self._open(ifname))

    @staticmethod
    def _open(ifname: str) -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        opened.bind((ifname, ETH_P_ALL))
        return opened

    def until(self, wanted: Callable[[bytes], bool], deadline_s: float = 3.0) -> list[bytes]:
        """The frames up to the first that is *wanted*, with it; AssertionError when none comes."""
        seen = []
        end = time.monotonic() + deadline_s
        while (left_s := end - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                seen.append(self._socket.recv(2048))
            except TimeoutError:
                break
            if wanted(seen[-1]):
                return seen
        raise AssertionError(f"no such frame among {[frame.hex() for frame in seen]}")

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def close(self) -> None:
        self._socket.close()


def frame(source: str, body: bytes, target: str = "ff:ff:ff:ff:ff:ff") -> bytes:
    """An Ethernet frame of the local experimental type (IEEE 802: 88b5)."""
    return mac_bytes(target) + mac_bytes(source) + b"\x88\xb5" + body.ljust(46, b"\0")


def without(taken: Snapshot, *words: str) -> Snapshot:
    """The snapshot less the entries whose key has one of these words in it."""
    return Snapshot({key: value for key, value in taken.items() if not any(word in key for word in words)})


def every(texts: Sequence[str], sizes: int) -> Iterator[Sequence[str]]:
    """*texts* in pieces of at most *sizes*."""
    return (texts[at : at + sizes] for at in range(0, len(texts), sizes))


def words(error: Conf) -> str:
    """Message and details of an error object."""
    return json.dumps(error, ensure_ascii=False)


def _execute(sql: str, values: Sequence[Any] = ()) -> list[Any]:
    # Only from inside the host's mount namespace: SQLite resolves /proc/PID/root to the machine's own directories.
    with closing(sqlite3.connect(f"file:{STATE}?mode=rw", uri=True)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def _address(key: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if key[0] == 4 else socket.AF_INET6, key[1:])
