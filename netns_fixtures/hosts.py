"""A whole "host" on one machine: network, mount and UTS namespaces with directories of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from .holder import Holder, tool
from .namespace import UNFORWARDED, Namespace

#: Fresh and empty on every host. Network plugins, runtimes and their tools keep their state there.
OWN_DIRECTORIES = ("/run", "/var/lib", "/etc/cni")

# /etc becomes writable without touching the machine's: /etc/cni need not exist there, and making it would be a change.
# The first tmpfs holds the overlay's upper layer and is then hidden by the second, so that /run is empty.
_MOUNTS = (
    "mount -t tmpfs tmpfs /run",
    "mkdir /run/upper /run/work",
    "if ! mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc 2>/dev/null; then",
    "    cp -a /etc/. /run/upper && mount --bind /run/upper /etc",
    "fi",
    "mount -t tmpfs -o mode=755 tmpfs /run",
    "mount -t tmpfs -o mode=755 tmpfs /var/lib",
    "mkdir -p /etc/cni /run/netns /run/lock",
    "mount -t tmpfs -o mode=755 tmpfs /etc/cni",
    # /sys/class/net shows the network namespace of the process that mounted it.
    "mount -t sysfs sysfs /sys",
)


class Host(Namespace):
    """A host: its own links, sysctls, firewall, host name, /run, /var/lib, /etc and /sys; the rest is the machine's.

    Programs run in all of its namespaces. Containers made by `container` are deleted with it.
    """

    def __init__(self, name: str, *, sysctls: Mapping[str, str] | None = None) -> None:
        writes = (f"echo '{value}' >/proc/sys/{key}" for key, value in (sysctls or {}).items())
        named = f"echo '{name}' >/proc/sys/kernel/hostname"
        setup = (*_MOUNTS, *UNFORWARDED, named, f"{tool('ip')} link set lo up", *writes)
        self._adopt(name, Holder(("net", "mnt", "uts"), setup), ("net", "mnt", "uts"))
        self.containers: dict[str, Container] = {}

    @property
    def ns(self) -> Namespace:
        """Only the network namespace: programs run there see the machine's files."""
        return _NetworkOf(self)

    def file(self, path: str) -> Path:
        """Where the test process finds the file that the host calls *path* (absolute). Symlinks to / leave the host."""
        return Path(f"/proc/{self.pid}/root{path}")

    def container(self, name: str) -> Container:
        """A new container namespace, also bound to /run/netns/NAME in this host as `ip netns` and CRI-O do."""
        if name in self.containers:
            raise ValueError(f"{self.name} has a container {name!r}")
        self.containers[name] = made = Container(name, self)
        return made

    def delete(self) -> None:
        """Delete the containers, kill what runs on the host, let its namespaces go."""
        with contextlib.ExitStack() as closing:
            closing.callback(super().delete)
            for container in self.containers.values():
                closing.callback(container.delete)


class Container(Namespace):
    """The network namespace of a container on a `Host`.

    `path` is valid everywhere; `file` only on the host, and it outlives the processes of the container, not `delete`.
    """

    def __init__(self, name: str, host: Host) -> None:
        super().__init__(name)
        self.host = host
        self.file = f"/run/netns/{name}"
        host.run(["sh", "-c", ': >"$1" && mount --bind "$2" "$1"', "sh", self.file, self.path])

    def delete(self) -> None:
        if self.holder.alive() and self.host.holder.alive():
            self.host.run(["sh", "-c", '[ ! -e "$1" ] || { umount "$1" && rm "$1"; }', "sh", self.file])
        super().delete()


class _NetworkOf(Namespace):
    def __init__(self, host: Host) -> None:
        self._adopt(host.name, host.holder, ("net",))
