"""The lab's etcd: its members' command lines, their health, and what plugins are told of it."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import time
from typing import Any

from pycni.host import netns
from pycni.lab.certificates import make_certificates
from pycni.lab.errors import LabError
from pycni.lab.hosts import machine_directory
from pycni.lab.process import Process
from pycni.lab.running import RunningLab, tool
from pycni.lab.spawning import log_file, spawn, tail
from pycni.lab.topology import EtcdSpec, HostSpec

CLIENT_PORT, PEER_PORT = 2379, 2380
DATA = "/var/lib/etcd"
TLS_DIRECTORY = "/etc/pycni/etcd"  # on every machine
HEALTHY_S = 30.0
ASK_S = 2.0
_PAUSE_S = 0.02
# A lab's links have no latency to speak of: a dead leader is replaced in half the time of etcd's default.
_HEARTBEAT_MS, _ELECTION_MS = "100", "500"


def describe(spec: EtcdSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """(members for the state, the `etcd` object of plugins) of an addressed etcd."""
    scheme = "https" if spec.tls else "http"
    members = {
        host.name: {
            "process": None,
            "client_url": f"{scheme}://{_authority(host)}:{CLIENT_PORT}",
            "peer_url": f"http://{_authority(host)}:{PEER_PORT}",
        }
        for host in spec.hosts
    }
    connection: dict[str, Any] = {
        "endpoints": [each["client_url"] for each in members.values()],
        "prefix": spec.prefix,
    }
    if spec.tls:
        files = {"ca": "ca.crt", "cert": "client.crt", "key": "client.key"}
        connection |= {key: f"{TLS_DIRECTORY}/{file}" for key, file in files.items()}
    return members, connection


def _authority(host: HostSpec) -> str:
    link = host.links[0]
    return link.ipv4 or f"[{link.ipv6}]"


def provide_certificates(lab: RunningLab, spec: EtcdSpec) -> None:
    """Make the lab's certificates, if it has TLS."""
    if spec.tls:
        links = [link for host in spec.hosts for link in host.links]
        addresses = [address for link in links for address in (link.ipv4, link.ipv6) if address]
        make_certificates(os.path.join(lab.directory, "tls"), addresses)


def place_certificates(lab: RunningLab, machine: str) -> None:
    """Copy what a machine needs to its /etc/pycni/etcd; the authority's key stays where it is."""
    source = os.path.join(lab.directory, "tls")
    if not os.path.isdir(source):
        return
    target = os.path.join(machine_directory(lab, machine), "etc-pycni", "etcd")
    os.makedirs(target, mode=0o700, exist_ok=True)
    pair = "server" if machine in lab.etcd else "client"
    for name in ("ca.crt", f"{pair}.crt", f"{pair}.key"):
        shutil.copy(os.path.join(source, name), target)


def spawn_member(lab: RunningLab, name: str) -> Process:
    """Start the member *name*; it becomes healthy only when most are there."""
    members = lab.etcd
    member = members[name]
    arguments = {
        "name": name,
        "data-dir": DATA,
        "listen-client-urls": member.client_url,
        "advertise-client-urls": member.client_url,
        "listen-peer-urls": member.peer_url,
        "initial-advertise-peer-urls": member.peer_url,
        "initial-cluster": ",".join(f"{each.name}={each.peer_url}" for each in members.values()),
        "initial-cluster-state": "new",
        "heartbeat-interval": _HEARTBEAT_MS,
        "election-timeout": _ELECTION_MS,
    }
    if member.client_url.startswith("https"):
        files = {"cert-file": "server.crt", "key-file": "server.key", "trusted-ca-file": "ca.crt"}
        arguments |= {key: f"{TLS_DIRECTORY}/{file}" for key, file in files.items()}
        arguments["client-cert-auth"] = "true"
    argv = lab.argv(name, None, [tool("etcd"), *(f"--{key}={value}" for key, value in arguments.items())])
    environment = {key: value for key, value in lab.environment().items() if not key.startswith("ETCD_")}
    with log_file(lab.log(name)) as log:
        return lab.starting(name, lambda: spawn(argv, environment, output=log))


def wait_healthy(lab: RunningLab, name: str, deadline_s: float = HEALTHY_S) -> None:
    """Until the member answers and belongs to a majority with a leader; LabError with its log where it does not."""
    end = time.monotonic() + deadline_s
    while not healthy(lab, name):
        process = lab.etcd[name].process
        if process is None or not process.alive():
            raise LabError(f"etcd member {name} ended", tail(lab.log(name)))
        if time.monotonic() > end:
            raise LabError(f"etcd member {name} is not healthy after {deadline_s:g} s", tail(lab.log(name)))
        time.sleep(_PAUSE_S)


def healthy(lab: RunningLab, name: str) -> bool:
    """Whether the member answers "yes" at /health."""
    member = lab.etcd[name]
    scheme, _, rest = member.client_url.partition("://")
    address = rest.rpartition(":")[0].strip("[]")

    def connected() -> socket.socket:
        return socket.create_connection((address, CLIENT_PORT), timeout=ASK_S)

    try:
        fd = netns.open_netns(lab.machine(name).namespace())
        try:
            # Only the connection is made there: it stays in the namespace in which it was born.
            opened = netns.inside(fd, connected)
        finally:
            os.close(fd)
        connection = http.client.HTTPConnection(address, CLIENT_PORT, timeout=ASK_S)
        connection.sock = _secured(lab, opened, address) if scheme == "https" else opened
        try:
            connection.request("GET", "/health")
            return b'"true"' in connection.getresponse().read()
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False


def _secured(lab: RunningLab, opened: socket.socket, address: str) -> socket.socket:
    directory = os.path.join(lab.directory, "tls")
    context = ssl.create_default_context(cafile=os.path.join(directory, "ca.crt"))
    context.load_cert_chain(os.path.join(directory, "client.crt"), os.path.join(directory, "client.key"))
    try:
        return context.wrap_socket(opened, server_hostname=address)
    except BaseException:
        opened.close()
        raise
