"""The host of bench/proxy.py: a bridge, a container that answers, and the ways to it: both proxies, the kernel's
address translation, and directly."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench import setting
from netns_fixtures import Host, wait_until
from pycni.portmap.proxy.client import ProxyClient, command

SOURCE = Path(__file__).with_name("proxy_load.c")
PACKAGE = "docker.io"
DOCKER_PROXIES = (
    "/usr/bin/docker-proxy",
    "/usr/sbin/docker-proxy",
    "/usr/libexec/docker/docker-proxy",
)
BRIDGE, CONTAINER, PREFIX = "10.77.0.1", "10.77.0.2", 24
PORT = 7000  # where the container answers
PYCNI_PORT, DOCKER_PORT, DNAT_PORT = 8001, 8002, 8003
SYSCTLS = {
    # Every measured connection leaves two sockets in TIME-WAIT, and there are no more than 64512 ports.
    "net/ipv4/ip_local_port_range": "20000 65535",
    "net/ipv4/tcp_max_tw_buckets": "2000",
    "net/ipv4/tcp_tw_reuse": "1",
}
CONTROL = "/run/pycni-proxy.sock"


class Way(NamedTuple):
    """How clients reach the container; *pid* of the proxy, 0 without one."""

    name: str
    address: str
    port: int
    pid: int


def find_docker_proxy(directory: str) -> tuple[str, str]:
    """docker-proxy as installed, or from the distribution's package, unpacked in *directory* (nothing is started); and
    the package's name and version."""
    for path in DOCKER_PROXIES:
        if os.access(path, os.X_OK):
            return path, setting.package_version(PACKAGE)
    # The directory is this user's alone, and apt's own user would complain of that at length.
    subprocess.run(["apt-get", "-qq", "download", PACKAGE], cwd=directory, check=True, stderr=subprocess.DEVNULL)
    package = next(Path(directory).glob(f"{PACKAGE}_*.deb"))
    subprocess.run(["dpkg", "-x", package.name, "unpacked"], cwd=directory, check=True)
    unpacked = [f"{directory}/unpacked{path}" for path in DOCKER_PROXIES]
    return next(path for path in unpacked if os.access(path, os.X_OK)), package.stem.replace("_", " ")


def compile_load(directory: str) -> str:
    target = f"{directory}/proxy_load"
    subprocess.run(["cc", "-O2", "-Wall", "-o", target, str(SOURCE)], check=True)
    return target


class Lab:
    """A host with one container in which the load's server runs. *listen*: the address that proxies serve."""

    def __init__(self, listen: str) -> None:
        self.listen = listen
        self.family = 6 if ":" in listen else 4
        self._closing = contextlib.ExitStack()
        try:
            directory = self._closing.enter_context(tempfile.TemporaryDirectory(prefix="pycni-bench-"))
            self.docker_proxy, self.reference = find_docker_proxy(directory)
            self._load = compile_load(directory)
            self.host = Host("proxies", sysctls=SYSCTLS)
            self._closing.callback(self.host.delete)
            self._connect()
        except BaseException:
            self._closing.close()
            raise

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _connect(self) -> None:
        inside = self.host.container("c1")
        self.host.ip_batch(
            "link add br0 type bridge",
            f"addr add {BRIDGE}/{PREFIX} dev br0",
            "link set br0 up",
            f"link add v1 type veth peer name eth0 netns {inside.pid}",
            "link set v1 master br0 up",
        )
        inside.ip_batch(f"addr add {CONTAINER}/{PREFIX} dev eth0", "link set eth0 up", "link set lo up")
        server = inside.popen([self._load, "server", CONTAINER, str(PORT)], stdout=subprocess.PIPE)
        if server.stdout is None or server.stdout.readline() != "ready\n":
            raise RuntimeError("the load's server does not start")

    def start_pycni(self, ports: int = 1) -> subprocess.Popen[str]:
        """This tree's proxy with so many TCP ports from PYCNI_PORT on, and PYCNI_PORT over UDP."""
        process = self.host.popen(command(CONTROL))
        with self._control() as client:
            for port in range(PYCNI_PORT, PYCNI_PORT + ports):
                self._add(client, "tcp", port)
            self._add(client, "udp", PYCNI_PORT)
        return process

    def _control(self) -> ProxyClient:
        def connected() -> ProxyClient | None:
            try:
                return ProxyClient(str(self.host.file(CONTROL)))
            except OSError:
                return None

        client = wait_until(connected, 10, "the proxy listens")
        assert client is not None
        return client

    def _add(self, client: ProxyClient, proto: str, port: int) -> None:
        with self.host.ns.in_namespace(lambda: self._bound(proto, port)) as bound:
            where: dict[str, Any] = {"family": self.family, "proto": proto, "host_ip": self.listen, "port": port}
            client.add(f"bench/{port}", **where, to=(CONTAINER, PORT), listener=bound.fileno())

    def _bound(self, proto: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if self.family == 6 else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM)
        if proto == "tcp":  # connections of the loads before wait for two minutes
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((self.listen, port))
        if proto == "tcp":
            bound.listen(4096)
        return bound

    def start_docker_proxy(self, port: int, proto: str) -> subprocess.Popen[str]:
        """As dockerd starts it: descriptor 3 is where it says that it serves."""
        arguments = ["-proto", proto, "-host-ip", self.listen, "-host-port", str(port)]
        arguments += ["-container-ip", CONTAINER, "-container-port", str(PORT)]
        said = ["sh", "-c", 'exec "$@" 3>&1', "sh", self.docker_proxy, *arguments]
        process = self.host.popen(said, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if process.stdout is None or process.stdout.readline() != "0\n":
            raise RuntimeError(f"docker-proxy does not serve {proto} port {port}")
        return process

    def translate(self) -> None:
        """What the kernel can do alone, for the bridge's address."""
        rule = f"ip daddr {BRIDGE} meta l4proto {{ tcp, udp }} th dport {DNAT_PORT} dnat to {CONTAINER}:{PORT}"
        chain = f"chain output {{ type nat hook output priority -100; {rule}; }}"
        self.host.run(["nft", "-f", "-"], input=f"table ip bench {{\n{chain}\n}}\n")

    def measure(self, way: Way, mode: str, seconds: float, clients: int) -> dict[str, float]:
        """One run of the load: "count", "bytes", "seconds", "p50_us", "p99_us", and "cpu", the proxy's in seconds."""
        before = cpu_of(way.pid)
        argv = [self._load, mode, way.address, str(way.port), f"{seconds:g}", str(clients)]
        said = self.host.run(argv, timeout=seconds + 30).stdout
        cpu = cpu_of(way.pid) - before
        figures = dict(zip(("count", "bytes", "seconds", "p50_us", "p99_us"), map(float, said.split()), strict=True))
        return {**figures, "cpu": cpu}


def cpu_of(pid: int) -> float:
    """Seconds of CPU of a process and all its threads; 0 for pid 0."""
    # The clock of another process, as clock_getcpuclockid(3) makes it: CPUCLOCK_SCHED in linux/posix-timers.h.
    return time.clock_gettime(~pid << 3 | 2) if pid else 0.0


def pss(pids: list[int]) -> float:
    """MB of memory of these processes, what they share divided among those who share it."""
    return sum(_pss_kib(pid) for pid in pids) / 1000 * 1.024


def _pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


@contextlib.contextmanager
def ended(processes: list[subprocess.Popen[str]]) -> Iterator[list[int]]:
    """Their pids; they are ended at the end."""
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
            if process.stdout is not None:
                process.stdout.close()
