"""A real etcd, of one or more members, in namespaces: to be stopped, killed, paused and started again."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from .etcd_tls import Authority
from .holder import tool, tool_path
from .namespace import Namespace
from .waiting import wait_until

CLIENT_PORT, PEER_PORT = 2379, 2380
PORT_STEP = 100  # between members that share an address
START_DEADLINE_S = 20.0


class EtcdMember:
    """One etcd process. It keeps its data, addresses and name over stop and start; `wipe` forgets the data."""

    def __init__(
        self,
        name: str,
        namespace: Namespace,
        address: str,
        offset: int,
        directory: Path,
        *,
        authority: Authority | None = None,
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.address = address
        self.client_port = CLIENT_PORT + offset
        host = f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
        self.authority = authority
        self.client_url = f"{'https' if authority else 'http'}://{host}:{self.client_port}"
        self.peer_url = f"http://{host}:{PEER_PORT + offset}"
        self.data = directory / name
        self.log = directory / f"{name}.log"
        self.process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    def start(self, initial_cluster: str) -> None:
        """Start the process, and return at once: a member of several becomes healthy only when most are there."""
        arguments = {
            "name": self.name,
            "data-dir": str(self.data),
            "listen-client-urls": self.client_url,
            "advertise-client-urls": self.client_url,
            "listen-peer-urls": self.peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": initial_cluster,
            "initial-cluster-state": "new",
        }
        if self.authority is not None:
            certificate, key = self.authority.server([self.address])
            arguments |= {"cert-file": str(certificate), "key-file": str(key)}
            arguments |= {"trusted-ca-file": str(self.authority.ca), "client-cert-auth": "true"}
        # ETCD_* of the test's environment would override what is not on the command line.
        environment = {"PATH": tool_path()}
        with self.log.open("a") as log:
            argv = [tool("etcd"), *(f"--{key}={value}" for key, value in arguments.items())]
            self.process = self.namespace.popen(argv, stdout=log, stderr=log, env=environment)

    def stop(self) -> None:
        """SIGTERM, and wait: etcd hands leadership over and closes its files."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(self._is_stopped)  # threads on other processors go on for a moment, in which they could answer

    def _is_stopped(self) -> bool:
        tasks = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def wipe(self) -> None:
        """Forget the data of a member that does not run."""
        assert not self.running(), f"{self.name} is running"
        shutil.rmtree(self.data, ignore_errors=True)

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def healthy(self) -> bool:
        """Whether it answers, and belongs to a majority with a leader."""
        try:
            answer = self.get("/health")
        except (OSError, http.client.HTTPException, ValueError):
            return False
        return isinstance(answer, dict) and answer.get("health") == "true"

    def get(self, path: str, *, timeout: float = 2.0) -> object:
        """The JSON at *path* of the client port."""
        return self._request("GET", path, None, timeout)

    def post(self, path: str, body: object, *, token: str = "", timeout: float = 2.0) -> object:
        """The gateway to the v3 API: `post("/v3/kv/range", {"key": base64…})`; *token*: of an authentication."""
        return self._request("POST", path, json.dumps(body), timeout, token)

    def _request(self, method: str, path: str, body: str | None, timeout: float, token: str = "") -> object:
        def connected() -> socket.socket:
            made = socket.create_connection((self.address, self.client_port), timeout=timeout)
            if self.authority is None:
                return made
            context = ssl.create_default_context(cafile=str(self.authority.ca))
            context.load_cert_chain(*self.authority.client("test-observer"))
            return context.wrap_socket(made, server_hostname=self.address)

        connection = http.client.HTTPConnection(self.address, self.client_port, timeout=timeout)
        connection.sock = self.namespace.in_namespace(connected)
        try:
            connection.request(method, path, body, {"Authorization": token} if token else {})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def _end(self, number: int) -> None:
        if self.process is None or not self.running():
            return
        os.kill(self.pid, number)
        os.kill(self.pid, signal.SIGCONT)  # a paused one would keep SIGTERM pending
        self.process.wait(timeout=START_DEADLINE_S)


class Etcd:
    """A cluster with one member per (namespace, address) in *places*; the data and logs are below *directory*.

    *tls*: clients need a certificate of `authority`.
    """

    def __init__(self, places: Sequence[tuple[Namespace, str]], directory: Path, *, tls: bool = False) -> None:
        self.authority = Authority(directory / "tls") if tls else None
        used: dict[tuple[str, str], int] = {}
        self.members: list[EtcdMember] = []
        for number, (namespace, address) in enumerate(places, start=1):
            offset = used.get((namespace.path, address), 0)
            used[namespace.path, address] = offset + PORT_STEP
            name = f"etcd{number}"
            self.members.append(EtcdMember(name, namespace, address, offset, directory, authority=self.authority))

    @property
    def endpoints(self) -> list[str]:
        """The client URLs of all members; valid where the members' addresses can be reached."""
        return [member.client_url for member in self.members]

    @property
    def namespace(self) -> Namespace:
        """That of the first member."""
        return self.members[0].namespace

    def start(self, *, members: Sequence[EtcdMember] | None = None, deadline_s: float = START_DEADLINE_S) -> None:
        """Start every member that does not run, or only *members*, and wait until all of these are healthy."""
        cluster = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        wanted = self.members if members is None else members
        for member in wanted:
            if not member.running():
                member.start(cluster)
        for member in wanted:
            self._wait(member, member.healthy, deadline_s)

    def stop(self) -> None:
        """Stop all members in order."""
        for member in self.members:
            member.stop()

    def kill(self) -> None:
        """Kill all members at once."""
        for member in self.members:
            member.kill()

    delete = kill

    def _wait(self, member: EtcdMember, condition: Callable[[], bool], deadline_s: float) -> None:
        def ready() -> bool:
            if not member.running():
                raise AssertionError(f"{member.name} ended:\n{_tail(member.log)}")
            return condition()

        try:
            wait_until(ready, deadline_s, f"{member.name} is healthy")
        except AssertionError as failure:
            failure.add_note(_tail(member.log))
            raise


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
