"""IPAM calls on etcd as tests state them: which host, which container, which keys of `ipam`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from netns_fixtures import Etcd
from pycni.cni.conf import NetConf, parse_conf
from pycni.cni.env import Call
from pycni.etcd.client import Client
from pycni.etcd.schema import Keys
from pycni.ipam import backend
from pycni.store import Store, open_store
from tests.etcd.place import conf_of, gateway_client, keys_of

NETWORK = "net1"
SUBNET = "10.1.0.0/24"


class HostCalls:
    """The IPAM of one host: a store in a directory of its own."""

    def __init__(self, etcd: Etcd, directory: Path, prefix: str, ipam: dict[str, Any] | None = None) -> None:
        self.etcd = etcd
        self.prefix = prefix
        self.directory = directory
        self.ipam: dict[str, Any] = {"subnet": SUBNET} if ipam is None else ipam
        self.keys = keys_of(etcd, prefix=prefix)

    def store(self) -> Store:
        return open_store(f"{self.directory}/pycni.db")

    def conf(self, command: str, valid: list[tuple[str, str]] | None = None, **more: Any) -> NetConf:
        config: dict[str, Any] = {
            "cniVersion": "1.1.0",
            "name": NETWORK,
            "type": "bridge",
            "ipam": {"type": "pycni-ipam", **self.ipam, **more, "etcd": {**self.keys, **more.get("etcd", {})}},
        }
        if valid is not None:
            config["cni.dev/valid-attachments"] = [{"containerID": one, "ifname": other} for one, other in valid]
        return parse_conf(json.dumps(config).encode(), command)

    def call(self, command: str, container: str, *, netns: str = "", args: str = "") -> Call:
        return Call(command, container_id=container, netns=netns, ifname="eth0", args=args)

    def add(self, container: str, *, netns: str = "", args: str = "", **more: Any) -> list[str]:
        conf = self.conf("ADD", **more)
        with self.store() as store:
            result = backend(conf).add(self.call("ADD", container, netns=netns, args=args), conf, store)
        return [str(each.address) for each in result.ips]

    def delete(self, container: str, **more: Any) -> None:
        conf = self.conf("DEL", **more)
        with self.store() as store:
            backend(conf).delete(self.call("DEL", container), conf, store)

    def check(self, container: str) -> None:
        conf = self.conf("CHECK")
        with self.store() as store:
            backend(conf).check(self.call("CHECK", container), conf, store)

    def gc(self, valid: list[tuple[str, str]] | None = None) -> None:
        conf = self.conf("GC", valid)
        with self.store() as store:
            backend(conf).gc(self.call("GC", ""), conf, store)

    def status(self, **more: Any) -> None:
        conf = self.conf("STATUS", **more)
        with self.store() as store:
            backend(conf).status(self.call("STATUS", ""), conf, store)

    def leased(self) -> dict[str, str]:
        """Address to container id of what this host's store has."""
        with self.store() as store:
            return {str(each.address): each.container_id for each in store.leases.all()}

    @property
    def node(self) -> str:
        return (self.directory / "node").read_text().strip()

    def in_etcd(self) -> list[str]:
        """Everything below the prefix, as kind and parts."""
        keys = Keys(self.prefix)
        with self.client() as client:
            return [" ".join(keys.parse(each.key)) for each in client.read(keys.base).found]

    def client(self) -> Client:
        return gateway_client(conf_of(self.etcd))

    def pending(self) -> int:
        return sum("." not in each.name for each in self.directory.glob("etcd/*/pending/*"))
