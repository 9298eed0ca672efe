"""Containers of a lab: on each host one process of `pycni lab attach` makes namespaces and calls the real executables.

Jobs go to it as JSON lines, answers come back as JSON lines. All hosts work at the same time.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from pycni.lab.daemons import PYCNI, package_environment
from pycni.lab.errors import LabError
from pycni.lab.hosts import inside_of_labs, machine_directory
from pycni.lab.process import Process
from pycni.lab.running import RunningLab, tool
from pycni.lab.spawning import log_file, spawn
from pycni.lab.topology import AttachmentSpec, ContainerSpec

Job = Mapping[str, Any]
Answer = dict[str, Any]

# $1 is what the container has of its own, $2 its name, $3 the directory of its files or ""; the rest is the command.
# The directory stays as it is: what the container writes lies above it. Where overlayfs refuses, the container can only
# read.
_START_CONTAINER = r"""set -e
cd /
own=$1 name=$2 rootfs=$3
shift 3
echo "$name" >/proc/sys/kernel/hostname
[ -n "$rootfs" ] || exec "$@"
mkdir -p "$own/upper/proc" "$own/upper/dev" "$own/upper/sys" "$own/work" "$own/root"
mount -n -t overlay overlay -o "lowerdir=$rootfs,upperdir=$own/upper,workdir=$own/work" "$own/root" 2>/dev/null || {
    mount -n --bind "$rootfs" "$own/root"
    mount -n -o remount,bind,ro "$own/root"
}
mount -n -t proc proc "$own/root/proc"
mount -n --rbind /dev "$own/root/dev"
mount -n -t sysfs sysfs "$own/root/sys"
exec chroot "$own/root" "$@"
"""


def netns_path(container: str) -> str:
    """CNI_NETNS on the container's host."""
    return f"/run/netns/{container}"


def job(verb: str, name: str, attachments: Sequence[AttachmentSpec]) -> Job:
    """What a host's worker is asked for: "add" or "del" a container with all its interfaces."""
    asked = [
        {"network": each.network, "ifname": each.ifname, "capabilityArgs": _capability_args(each)}
        for each in attachments
    ]
    return {"verb": verb, "container": name, "netns": netns_path(name), "attachments": asked}


def _capability_args(spec: AttachmentSpec) -> dict[str, Any]:
    args: dict[str, Any] = {}
    if spec.ips:
        args["ips"] = list(spec.ips)
    if spec.mac:
        args["mac"] = spec.mac
    if spec.ports:
        args["portMappings"] = [port.mapping() for port in spec.ports]
    return args


def run_jobs(lab: RunningLab, jobs: Mapping[str, Sequence[Job]], answered: Callable[[str, Answer], None]) -> None:
    """Have every host carry out its jobs in order; *answered* hears (host, answer) of each as it comes.

    An answer has "container", "seconds", and "attachments" or "error". LabError where a worker itself fails; the others
    are ended then, too.
    """
    workers: dict[str, _Worker] = {}
    try:
        for host, asked in jobs.items():
            if asked:
                workers[host] = _Worker(lab, host, asked)
        with selectors.DefaultSelector() as selector:
            for worker in workers.values():
                selector.register(worker.output, selectors.EVENT_READ, worker)
            while selector.get_map():
                for key, _ in selector.select():
                    worker = key.data
                    lines = worker.read()
                    if lines is None:
                        selector.unregister(key.fileobj)
                        worker.finish()
                        continue
                    for line in lines:
                        answered(worker.host, json.loads(line))
    finally:
        for worker in workers.values():
            worker.end()


class _Worker:
    """One `pycni lab attach` on a host."""

    def __init__(self, lab: RunningLab, host: str, jobs: Sequence[Job]) -> None:
        self.host = host
        self._said = tempfile.TemporaryFile()
        self._rest = b""
        argv, environment = lab.argv(host, None, [*PYCNI, "lab", "attach"]), lab.environment(package_environment())
        with tempfile.TemporaryFile() as asked:  # a pipe would have to be fed while the answers are read
            asked.write("".join(f"{json.dumps(each)}\n" for each in jobs).encode())
            asked.seek(0)

            def start() -> subprocess.Popen[bytes]:
                return subprocess.Popen(
                    argv,
                    stdin=asked,
                    stdout=subprocess.PIPE,
                    stderr=self._said,
                    env=environment,
                    start_new_session=True,
                )

            self._process = lab.starting(host, start)
        assert self._process.stdout is not None
        self.output: IO[bytes] = self._process.stdout

    def read(self) -> list[bytes] | None:
        """The lines that have come since; None at the end."""
        data = os.read(self.output.fileno(), 1 << 16)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def finish(self) -> None:
        """Wait for its end; LabError where it was not a good one."""
        code = self._process.wait()
        if code:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").splitlines()
            raise LabError(f"containers of {self.host}: the worker ended with exit code {code}", said[-15:])

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.output.close()
        self._said.close()


def start_command(lab: RunningLab, spec: ContainerSpec) -> Process:
    """Start a container's command in its network namespace, with mount and UTS namespaces of its own."""
    machine = lab.machine(spec.host)
    if spec.rootfs and not os.path.isdir(spec.rootfs):
        raise LabError(f"{spec.path}: the directory {spec.rootfs} (rootfs) does not exist")
    os.makedirs(os.path.join(machine_directory(lab, spec.host), "containers", spec.name), exist_ok=True)
    own = os.path.join(inside_of_labs(lab, spec.host), "containers", spec.name)
    # With a directory of its own it needs nothing of its host's files, but to see that directory.
    files = f"/proc/{lab.living_switch().pid}/ns/mnt" if spec.rootfs else machine.namespace("mnt")
    enter = [tool("nsenter"), f"--net={machine.file(netns_path(spec.name))}", f"--mount={files}"]
    argv = [*enter, "--", tool("unshare"), "--mount", "--uts", "--", "/bin/sh", "-c", _START_CONTAINER, spec.name]
    argv += [own, spec.name, spec.rootfs, *spec.command]
    with log_file(lab.log_of_container(spec.host, spec.name)) as log:
        return lab.starting(spec.host, lambda: spawn(argv, lab.environment(dict(spec.environment)), output=log))
