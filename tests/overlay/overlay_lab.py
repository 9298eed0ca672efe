"""Hosts on one segment, an etcd beside them, and what the tests of the overlay ask of all."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from netns_fixtures import (
    CniRun,
    Container,
    Etcd,
    Host,
    Namespace,
    Snapshot,
    Underlay,
    can_ping,
    run_cni,
    snapshot,
    wait_until,
)
from pycni.cni.conf import Keys as ConfKeys
from pycni.etcd import requests
from pycni.etcd.client import Client
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.requests import KeyValue
from pycni.etcd.schema import Keys
from tests.kernel.agent_lab import AgentHost
from tests.kernel.bridge_lab import address_of

T = TypeVar("T")
Conf = dict[str, Any]
PREFIX = "/pycni/lab"
STATE = "/var/lib/pycni/pycni.db"
SUBNETS = {4: "10.1.0.0/16", 6: "fd00:1::/64"}
# As DEFAULT_NETWORK has them, and what chains and other networks of the tests need.
NAMES = (
    *("pycni-overlay", "pycni-bridge", "pycni-ipam", "pycni-static", "pycni-portmap", "pycni-loopback"),
    *("overlay", "bridge", "host-local", "static", "portmap", "loopback", "firewall", "bandwidth", "tuning", "ptp"),
)


@dataclass
class OverlayLab:
    """*hosts* are h1, h2, …, and `agents` the same for agents on them; *family* is that of the segment's addresses
    which are used: those of etcd, and so of the tunnels. Container ids are the names of the namespaces."""

    segment: Underlay
    etcd: Etcd
    hosts: list[Host]
    agents: list[AgentHost]
    plugins: Path
    family: int = 4

    # -- configurations ------------------------------------------------------------------------------------------------

    def connection(self) -> Conf:
        """The `etcd` object."""
        return {"endpoints": self.etcd.endpoints, "prefix": PREFIX}

    def conf(
        self, mode: str = "l2", *, name: str = "net", families: Sequence[int] = (4, 6), number: int = 1, **keys: Any
    ) -> Conf:
        """A network of 10.NUMBER.0.0/16 and fd00:NUMBER::/64; *keys* on top, None takes one away."""
        subnets = {4: f"10.{number}.0.0/16", 6: f"fd00:{number}::/64"}
        conf: Conf = {
            "cniVersion": "1.1.0",
            "name": name,
            "type": "pycni-overlay",
            "mode": mode,
            "etcd": self.connection(),
            "ipam": {"type": "pycni-ipam", "ranges": [[{"subnet": subnets[family]}] for family in families]},
        }
        return {key: value for key, value in {**conf, **keys}.items() if value is not None}

    # -- calls ---------------------------------------------------------------------------------------------------------

    def call(self, command: str, host: Host, container: Namespace | str, conf: Conf, **how: Any) -> CniRun:
        """One call of the executable that *conf* names; *container* is a namespace, or an id without one."""
        if isinstance(container, Namespace):
            how = {"container_id": container.name, "netns": container, **how}
        else:
            how = {"container_id": container, **how}
        return run_cni(host, self.plugins, conf["type"], command, conf, **how)

    def add(self, host: Host, name: str, conf: Conf | None = None, **how: Any) -> tuple[Container, Conf]:
        """A new container of that name on *host* (or the one that is there), and the result of its ADD."""
        box = host.containers.get(name) or host.container(name)
        return box, self.call("ADD", host, box, conf or self.conf(), **how).result()

    def delete(self, host: Host, container: Namespace | str, conf: Conf | None = None, **how: Any) -> None:
        """A DEL that must work, and say nothing."""
        answer = self.call("DEL", host, container, conf or self.conf(), **how)
        assert answer.ok, answer
        assert answer.stdout == ""

    def delete_all(self, conf: Conf | None = None) -> None:
        """DEL of every container, twice as runtimes do, and its namespace's end."""
        for host in self.hosts:
            for name in list(host.containers):
                self.delete(host, name, conf)
                self.delete(host, name, conf)
                host.containers.pop(name).delete()

    def refused(self, host: Host, container: Namespace | str, conf: Conf, command: str = "ADD", **how: Any) -> Conf:
        """The error of a call that must fail, and fail as the protocol wants it."""
        answer = self.call(command, host, container, conf, **how)
        assert answer.error_code is not None, answer
        assert "Traceback" not in answer.stderr
        return answer.json

    def check(self, host: Host, container: Namespace | str, conf: Conf, result: Conf, **how: Any) -> CniRun:
        return self.call("CHECK", host, container, {**conf, "prevResult": result}, **how)

    def gc(self, host: Host, conf: Conf, *valid: str) -> CniRun:
        """GC with the eth0 of these containers as the valid attachments."""
        listed = [{"containerID": name, "ifname": "eth0"} for name in valid]
        named = {**conf, "cni.dev/valid-attachments": listed}
        return run_cni(host, self.plugins, conf["type"], "GC", named)

    # -- what is so ----------------------------------------------------------------------------------------------------

    def ping(self, source: Namespace, target: Conf | str, families: Sequence[int] = (4, 6), **how: Any) -> None:
        """*source* gets an answer of *target*, which is an address or the result of an ADD."""
        for address in [target] if isinstance(target, str) else [address_of(target, each) for each in families]:
            assert can_ping(source, address, **how), f"{source.name} does not reach {address}"

    def with_etcd(self, work: Callable[[Client], T], host: Host | None = None) -> T:
        """What *work* answers for a client of the lab's etcd on *host*."""
        conf = EtcdConf.parse(ConfKeys(self.connection(), "etcd"))

        def connected() -> T:
            with open_client(conf) as client:
                return work(client)

        return (host or self.hosts[0]).in_namespace(connected)

    def forget_key(self, key: str) -> None:
        """Delete a key, named as in `keys`, as nobody of us would."""
        name = f"{Keys(PREFIX).base}{key}"
        self.with_etcd(lambda client: client.txn(requests.txn([], [requests.delete(name)])))

    def keys(self, host: Host | None = None) -> dict[str, KeyValue]:
        """All that is in etcd below the lab's prefix; names without the prefix and the version."""
        base = Keys(PREFIX).base
        return self.with_etcd(
            lambda client: {each.key.removeprefix(base): each for each in client.read(base).found}, host
        )

    def node(self, host: Host) -> str:
        """The id by which etcd knows *host*."""
        return host.file("/var/lib/pycni/node").read_text().strip()

    def tunnel_address(self, host: Host) -> str:
        return self.segment.address(host, self.family)

    def fdb(self, host: Host, device: str) -> set[tuple[str, str]]:
        """(MAC, tunnel address) of the entries of a VXLAN device."""
        text = host.run(["bridge", "fdb", "show", "dev", device]).stdout
        words = [line.split() for line in text.splitlines()]
        return {(each[0], each[each.index("dst") + 1]) for each in words if "dst" in each}

    def devices(self, host: Host) -> list[str]:
        """The VXLAN devices of *host*."""
        return [link["ifname"] for link in host.ip_json("-d", "link", "show", "type", "vxlan")]

    def traces(self, *hosts: Host) -> Snapshot:
        """All that calls can leave behind on *hosts* (all of them): links, entries, rules, files, records, and the
        keys in etcd. Not: sysctls, which stay as an ADD needs them, and what the agent writes for itself."""
        taken = Snapshot()
        for host in hosts or self.hosts:
            taken.update(snapshot(host, *host.containers.values()))
            for owner, state in records(host).items():
                taken[f"{host.name}/state/{owner}"] = state
        for key in self.keys():
            taken[f"etcd/{key}"] = 1
        return Snapshot({key: value for key, value in taken.items() if not _is_passing(key)})

    def settle(self, conf: Conf) -> Snapshot:
        """`traces` after one ADD and DEL on each host: from then on nothing more stays behind."""
        for host in self.hosts:
            box, _ = self.add(host, f"first-{host.name}", conf)
            self.delete(host, box, conf)
            box.delete()
            del host.containers[box.name]
        return self.traces()


def with_endpoints(lab: OverlayLab, *endpoints: str, **keys: Any) -> Conf:
    """A network whose configuration names these members of etcd."""
    return lab.conf(etcd={**lab.connection(), "endpoints": list(endpoints)}, **keys)


def with_user(lab: OverlayLab, password: str, **keys: Any) -> Conf:
    """The same where etcd wants the password of the user "u"."""
    return lab.conf(etcd={**lab.connection(), "user": "u", "password": password}, **keys)


def forget_tokens(host: Host) -> None:
    """What the calls before left on *host*, of an earlier password, would be good for some minutes."""
    host.run(["sh", "-c", "rm -f /run/pycni/etcd-*"])


def records(host: Host) -> dict[str, str]:
    """The attachments in the state file of *host*: owner to state."""
    part = "CASE part WHEN '' THEN '' ELSE '/' || part END"
    sql = f"SELECT network || '/' || container_id || '/' || ifname || {part}, state FROM attachments"
    return dict(query(host, sql))


def query(host: Host, sql: str, *values: Any) -> list[Any]:
    """Rows of the state file of *host*, [] where it has none."""

    # Only from inside the host's mount namespace: SQLite resolves /proc/PID/root to the machine's own directories.
    def execute() -> list[Any]:
        if not Path(STATE).exists():
            return []
        with closing(sqlite3.connect(f"file:{STATE}?mode=rw", uri=True)) as connection, connection:
            return connection.execute(sql, values).fetchall()

    return host.in_namespace(execute)


def _is_passing(key: str) -> bool:
    """Sysctls; the state file with its journal; an agent's own files, processes and records under a lease; the host's
    id, locks and hints, and networks, which outlive their containers."""
    if key.startswith("etcd/"):
        return key.split("/")[1] in ("node", "vtep", "sync", "net", "vni") or key.endswith("/length")
    kind = key.split("/", 2)[1]
    stays = "/file/var/lib/pycni" in key and "/overlay-" not in key and "/pending/" not in key
    # A bridge has its link-local address only a moment after its first port.
    return kind in ("sysctl", "process") or stays or "/file/run/pycni" in key or "fe80:" in key


__all__ = ["NAMES", "PREFIX", "Conf", "OverlayLab", "query", "records", "wait_until"]
