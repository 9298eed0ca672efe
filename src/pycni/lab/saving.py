"""`pycni lab save`: one archive with all that a report of a bug needs. No keys and no passwords are in it."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from typing import BinaryIO

from pycni.lab.errors import LabError
from pycni.lab.looking import as_json
from pycni.lab.running import RunningLab, tool

# What a host's kernel has, as text; a program that is missing leaves an empty section.
_KERNEL = (
    ("links", "ip -d -s link show"),
    ("addresses", "ip addr show"),
    ("routes", "ip -4 route show table all; ip -6 route show table all; ip rule show"),
    ("neighbours", "ip neigh show; ip neigh show proxy"),
    ("fdb", "bridge fdb show; bridge link show"),
    ("nftables", "nft list ruleset"),
    ("qdiscs", "tc -s qdisc show"),
    ("sockets", "ss -anp"),
    ("sysctls", "grep -rs '' /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf"),
)
_SCRIPT = "\n".join(f"echo '== {name}'; {{ {command}; }} 2>&1" for name, command in _KERNEL)
_ETCDCTL = ("get", "", "--from-key", "--write-out=json")


def save(lab: RunningLab, path: str, stream: BinaryIO | None = None) -> list[str]:
    """Write the archive (tar, gzip) to *path*, or to *stream*, called so; the names of its entries.

    A host that is off is left out of the rest.
    """
    with tarfile.open(path, "w:gz", stream) as archive:
        names = []
        for name, data in _entries(lab):
            entry = tarfile.TarInfo(f"{lab.name}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(data))
            names.append(name)
    return names


def _entries(lab: RunningLab) -> Iterator[tuple[str, bytes]]:
    yield "lab.json", json.dumps(lab.state["document"], indent=2).encode()
    yield "state.json", json.dumps(lab.state, indent=2).encode()
    yield "inspect.json", json.dumps(as_json(lab), indent=2).encode()
    yield "uname.txt", " ".join(os.uname()).encode()
    logs = os.path.join(lab.directory, "logs")
    for name in sorted(os.listdir(logs)):
        with open(os.path.join(logs, name), "rb") as file:
            yield f"logs/{name}", file.read()
    for machine in lab.machines.values():
        if not machine.holder.alive():
            continue
        yield f"kernel/{machine.name}.txt", _said(lab, machine.name, None)
        for container in machine.containers:
            yield f"kernel/{machine.name}.{container.name}.txt", _said(lab, machine.name, container.name)
    if lab.switch is not None and lab.switch.alive():
        yield "kernel/switches.txt", lab.run_switch(["/bin/sh", "-c", _SCRIPT], check=False).stdout.encode()
    member = next((each for each in lab.etcd.values() if each.process and each.process.alive()), None)
    if member is not None:
        yield "etcd.json", _etcd_dump(lab, member.name)


def _said(lab: RunningLab, host: str, container: str | None) -> bytes:
    return lab.run(host, container, ["/bin/sh", "-c", _SCRIPT], check=False).stdout.encode()


def _etcd_dump(lab: RunningLab, member: str) -> bytes:
    """Every key and value in base64, as etcdctl has them; or why not: it is not installed, etcd does not answer."""
    connection = lab.etcd_connection
    files = (("cacert", "ca"), ("cert", "cert"), ("key", "key"))
    # On a member's host the certificate is the server's, which serves for a client, too.
    options = [
        f"--{option}={connection[key].replace('client', 'server')}" for option, key in files if key in connection
    ]
    try:
        argv = [tool("etcdctl"), f"--endpoints={lab.etcd[member].client_url}", *options, *_ETCDCTL]
        done = lab.run(member, None, argv, check=False, env={"ETCDCTL_API": "3"})
    except LabError as failure:
        return f"{failure}\n".encode()
    return (done.stdout or done.stderr).encode()
