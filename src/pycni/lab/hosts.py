"""Machines out of namespaces, and the cables between them. Effects; what they are to be like comes as values.

A namespace lives as long as a process is in it: each machine has a holder, a shell that waits on a FIFO for ever. It is
the init of the machine's PID namespace, so that the kernel ends all that runs there when the holder ends. All segments'
bridges, and the hosts' ports on them, are in one network namespace, that of the switches; its holder also has
the lab's disk, a tmpfs that nobody outside of the lab sees: it outlives the hosts' namespaces, and /run stays small.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterable, Sequence

from pycni.lab.addressing import Route
from pycni.lab.errors import LabError
from pycni.lab.machines import RunningLink
from pycni.lab.process import Process
from pycni.lab.running import RunningLab
from pycni.lab.spawning import Starting
from pycni.lab.state import MARK, SYSTEM_PATH, tool
from pycni.lab.topology import HostSpec, Segment

FIRST_INDEX = 1000
_IFNAME_BYTES = 15

# What the machine has of its own lies below $2 and is bound to its place, so it outlives the namespaces.
# - The first thing is to leave the caller's directory, which would be busy for as long as the lab is up.
# - /etc/resolv.conf is often a link to elsewhere, and its name servers cannot be reached: whoever asked would wait.
# - Where overlayfs refuses (on top of another overlay), /etc is a copy.
# - /proc shows the PID namespace, /sys/class/net the network namespace of the process that mounted it.
# - Forwarding is off as on a fresh machine: a new namespace inherits IPv4's sysctls from the first one.
# - Orphans become children of the holder. The trap has them reaped: by the kernel where the shell ignores SIGCHLD then,
#   else by the shell (dash, busybox), whose wait it interrupts. Without it they would stay zombies while that lasts.
# - A signal from inside does nothing to an init without a handler for it (pid_namespaces(7)), SIGKILL included.
_HOLD_HOST = r"""set -e
cd /
lab=$1 state=$2 name=$3
shift 3
exec 3<>"$lab/hold"
mount -n -t proc -o nosuid,nodev,noexec proc /proc
mount -n -t overlay overlay -o "lowerdir=/etc,upperdir=$state/etc,workdir=$state/work" /etc 2>/dev/null || {
    [ -e "$state/etc/hosts" ] || cp -a /etc/. "$state/etc"
    mount -n --bind "$state/etc" /etc
}
mkdir -p /etc/cni /etc/pycni
rm -f /etc/hosts /etc/hostname /etc/resolv.conf
cat "$lab/hosts" >/etc/hosts
echo "$name" >/etc/hostname
echo "# a lab has no name server: names are in /etc/hosts" >/etc/resolv.conf
mount -n --bind "$state/etc-cni" /etc/cni
mount -n --bind "$state/etc-pycni" /etc/pycni
mount -n --bind "$state/var-lib" /var/lib
mount -n --bind "$state/boot_id" /proc/sys/kernel/random/boot_id
mount -n -t tmpfs -o mode=755 tmpfs "$state/run"
mkdir "$state/run/netns" "$state/run/lock" "$state/run/cni-bin"
mount -n --bind "$lab/disk/bin" "$state/run/cni-bin"
mount -n --move "$state/run" /run
mount -n -t sysfs sysfs /sys
echo "$name" >/proc/sys/kernel/hostname
echo 0 >/proc/sys/net/ipv4/ip_forward
if [ -e /proc/sys/net/ipv6 ]; then
    echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
    echo 0 >/proc/sys/net/ipv6/conf/default/forwarding
fi
for setting do echo "${setting#*=}" >"/proc/sys/${setting%%=*}"; done
trap '' CHLD
echo ready
exec >/dev/null 2>&1
while :; do read -r _ <&3 || :; done
"""
_HOLD_SWITCH = r"""set -e
cd /
exec 3<>"$1/hold"
mount -n -t tmpfs -o mode=700 tmpfs "$1/disk"
mkdir "$1/disk/bin" "$1/disk/machines"
if [ -e /proc/sys/net/ipv6 ]; then
    echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
fi
echo ready
exec >/dev/null 2>&1
while :; do read -r _ <&3; done
"""


def prepare(lab: RunningLab) -> None:
    """The files that holders need, in the lab's directory."""
    for name, text in (("hold-host.sh", _HOLD_HOST), ("hold-switch.sh", _HOLD_SWITCH), ("id", f"{lab.id}\n")):
        with open(os.path.join(lab.directory, name), "w", encoding="utf-8") as file:
            file.write(text)
    for name in ("disk", "logs"):
        os.makedirs(os.path.join(lab.directory, name), exist_ok=True)
    hold = os.path.join(lab.directory, "hold")
    if not os.path.exists(hold):
        os.mkfifo(hold, 0o600)


def write_names(lab: RunningLab, machines: Iterable[HostSpec]) -> None:
    """/etc/hosts of every machine: each is known to the others by its name."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
    for machine in machines:
        addresses = (address for link in machine.links for address in (link.ipv4, link.ipv6) if address)
        lines += [f"{address} {machine.name}" for address in addresses]
    text = "\n".join(lines) + "\n"
    with open(os.path.join(lab.directory, "hosts"), "w", encoding="utf-8") as file:
        file.write(text)
    for running in lab.machines.values():
        if running.holder.alive():
            with open(running.file("/etc/hosts"), "w", encoding="utf-8") as file:
                file.write(text)


def disk(lab: RunningLab) -> str:
    """Where this machine finds the lab's disk. LabError once its holder is gone, and all that was on it."""
    return f"/proc/{lab.living_switch().pid}/root{lab.directory}/disk"


def machine_directory(lab: RunningLab, name: str) -> str:
    """Where this machine finds a machine's own files, also while it is off."""
    return f"{disk(lab)}/machines/{name}"


def inside_of_labs(lab: RunningLab, name: str) -> str:
    """The same directory as programs in the mount namespace of the switches call it."""
    return f"{lab.directory}/disk/machines/{name}"


def start_switch(lab: RunningLab) -> Starting:
    """The namespace of all segments' bridges."""
    script = [f"{lab.directory}/hold-switch.sh", lab.directory]
    argv = [tool("unshare"), "--net", "--mount", "--", "/bin/sh", *script]
    return Starting("the switches", argv, _environment(lab))


def start_machine(lab: RunningLab, spec: HostSpec) -> Starting:
    """Namespaces of *spec*, with what it had before of /var/lib and /etc, and a boot id of their own."""
    directory = machine_directory(lab, spec.name)
    for name in ("etc", "work", "var-lib", "etc-cni", "etc-pycni", "run"):
        os.makedirs(os.path.join(directory, name), exist_ok=True)
        os.chmod(os.path.join(directory, name), 0o755)  # whatever the caller's umask: /etc is for everybody
    with open(os.path.join(directory, "boot_id"), "w", encoding="ascii") as file:
        file.write(f"{uuid.uuid4()}\n")
    settings = _settings(spec, of_links=False)
    script = [f"{lab.directory}/hold-host.sh", lab.directory, inside_of_labs(lab, spec.name), spec.name, *settings]
    enter = [tool("nsenter"), f"--mount=/proc/{lab.living_switch().pid}/ns/mnt", "--"]
    argv = [*enter, tool("unshare"), "--net", "--mount", "--uts", "--", "/bin/sh", *script]
    return Starting(spec.name, argv, _environment(lab), first=True)


def _settings(spec: HostSpec, *, of_links: bool) -> list[str]:
    """PATH=VALUE below /proc/sys: those of the machine's links, which come later, or the others."""
    found = []
    for key, value in spec.sysctls:
        path = key if "/" in key else key.replace(".", "/")
        if of_links == any(f"/{link.ifname}/" in path for link in spec.links):
            found.append(f"{path}={value}")
    return found


def _environment(lab: RunningLab) -> dict[str, str]:
    return {"PATH": SYSTEM_PATH, MARK: lab.id}


def remove_machine_files(lab: RunningLab, name: str) -> None:
    """Forget the files of a machine that is off."""
    shutil.rmtree(machine_directory(lab, name), ignore_errors=True)


# -- cables ------------------------------------------------------------------------------------------------------------


def bridge_name(segment: str, at: int) -> str:
    """The segment's bridge in the switches' namespace. Ports have a dot in their names, bridges never."""
    name = f"sw-{segment}"
    return name if len(name) <= _IFNAME_BYTES else f"sw-{at}"


def planned_links(spec: HostSpec, bridges: dict[str, str], number: int) -> tuple[RunningLink, ...]:
    """The cables of an addressed machine; *number* is its own, for port names where its name is too long for one."""
    base = spec.name if len(spec.name) <= _IFNAME_BYTES - 2 else f"m{number}"
    return tuple(
        RunningLink(
            host=spec.name,
            segment=link.segment,
            ifname=link.ifname,
            port=f"{base}.{at}",
            bridge=bridges[link.segment],
            ipv4=link.ipv4,
            ipv6=link.ipv6,
            mtu=link.mtu,
        )
        for at, link in enumerate(spec.links)
    )


def add_bridges(lab: RunningLab, segments: Iterable[tuple[Segment, str]]) -> None:
    """A bridge for each segment; it forwards at once and learns as switches do."""
    lines = []
    for segment, name in segments:
        lines.append(f"link add {name} mtu {segment.mtu} type bridge forward_delay 0")
        lines.append(f"link set {name} alias {segment.name} up")
    ip_batch(lab.run_switch, lines)


def bridges(lab: RunningLab) -> set[str]:
    """The names of those there are."""
    said = lab.run_switch([tool("ip"), "-j", "link", "show", "type", "bridge"]).stdout
    return {each["ifname"] for each in json.loads(said or "[]") if each}


def remove_bridges(lab: RunningLab, names: Iterable[str]) -> None:
    ip_batch(lab.run_switch, [f"link del {name}" for name in names])


def link_mac(lab: str, host: str, ifname: str) -> str:
    """The MAC of a machine's interface: the same after a reboot, as neighbours remember it for half a minute."""
    digest = hashlib.sha256(f"{lab}/{host}/{ifname}".encode()).digest()
    return bytes((0x0E, *digest[:5])).hex(":")  # locally administered (IEEE 802)


def remove_ports(lab: RunningLab, names: Iterable[str]) -> None:
    """The switches' ends of cables; those whose machine is gone went with it, a moment after its namespaces."""
    ip_batch(lab.run_switch, [f"link del {name}" for name in names], force=True)


def add_cables(lab: RunningLab, machines: Iterable[tuple[Process, Sequence[RunningLink]]]) -> None:
    """Veth pairs between the switches and the machines' namespaces (by holder); the machines' ends are down."""
    lines = []
    for holder, links in machines:
        for at, link in enumerate(links):
            # The kernel reports a veth's carrier at once only if its index differs from its peer's
            # (linkwatch_urgent_event() in net/core/link_watch.c), and both namespaces would count from 2.
            known = f"index {FIRST_INDEX + at} address {link_mac(lab.name, link.host, link.ifname)}"
            end = f"name {link.ifname} {known} mtu {link.mtu} netns {holder.pid}"
            lines.append(f"link add {link.port} mtu {link.mtu} type veth peer {end}")
            lines.append(f"link set {link.port} master {link.bridge} alias {link.host}/{link.ifname} up")
    ip_batch(lab.run_switch, lines)


def configure(
    lab: RunningLab,
    machine: str,
    links: Sequence[RunningLink],
    routes: Sequence[Route],
    lengths: dict[str, tuple[int, int]],
) -> None:
    """Addresses and routes of a machine whose cables are in; *lengths*: of a segment's prefixes, IPv4 and IPv6."""
    lines = ["link set lo up"]
    for link in links:
        four, six = lengths[link.segment]
        if link.ipv4:
            lines.append(f"addr add {link.ipv4}/{four} brd + dev {link.ifname}")
        if link.ipv6:
            lines.append(f"addr add {link.ipv6}/{six} dev {link.ifname} nodad")
        lines.append(f"link set {link.ifname} up")
    lines += [f"route add {route.prefix} via {route.via}" for route in routes]
    ip_batch(functools.partial(lab.run, machine, None), lines)


def set_of_links(lab: RunningLab, spec: HostSpec) -> None:
    """The sysctls of a machine's links, which are down still."""
    settings = _settings(spec, of_links=True)
    if settings:
        script = 'for setting do echo "${setting#*=}" >"/proc/sys/${setting%%=*}" || exit; done'
        lab.run(spec.name, None, ["/bin/sh", "-c", script, "sh", *settings])


def give_ipv6_back(lab: RunningLab, link: RunningLink) -> None:
    """The address of *link*, its sysctls and the machine's routes, once its MTU has room for them again.

    The kernel takes all that is of IPv6 from a link whose MTU falls below 1280, and brings back no more than the
    link-local address (addrconf_notify() in net/ipv6/addrconf.c).
    """
    spec = lab.lab.machine(link.host)
    if spec is None or not link.ipv6:
        return
    set_of_links(lab, spec)
    prefix = next(each.ipv6 for each in lab.lab.segments if each.name == link.segment)
    routes = [(to, via) for to, via in lab.state["machines"][link.host]["routes"] if ":" in via]
    lines = [f"addr replace {link.ipv6}/{prefix.rpartition('/')[2]} dev {link.ifname} nodad"]
    lines += [f"route replace {to} via {via}" for to, via in routes]
    # A route by another link that has no IPv6 either is refused: it comes back with that one.
    ip_batch(functools.partial(lab.run, link.host, None), lines, force=True)


def change_routes(lab: RunningLab, machine: str, old: Sequence[Route], new: Sequence[Route]) -> None:
    """Replace the routes *old* by *new*, those that a command of the user took away excepted."""
    gone = [f"route del {route.prefix} via {route.via}" for route in old if route not in new]
    fresh = [f"route replace {route.prefix} via {route.via}" for route in new if route not in old]
    ip_batch(functools.partial(lab.run, machine, None), gone, force=True)
    ip_batch(functools.partial(lab.run, machine, None), fresh)


def ip_batch(
    run: Callable[..., subprocess.CompletedProcess[str]], lines: Sequence[str], *, force: bool = False
) -> None:
    """Many `ip` commands in one process of *run*, `RunningLab`'s; *force*: go on after one that failed.

    LabError with what ip said.
    """
    if not lines:
        return
    argv = [tool("ip"), *(("-force",) if force else ()), "-batch", "-"]
    done = run(argv, input="\n".join(lines) + "\n", check=False)
    if done.returncode and not force:
        raise LabError("the underlay cannot be made", (*lines_of(done.stderr, lines),))


def lines_of(said: str, lines: Sequence[str]) -> list[str]:
    """ip's complaints, with the line that each is about."""
    found = []
    for text in said.strip().splitlines():
        found.append(text)
        _, colon, number = text.rpartition("-:")
        if text.startswith("Command failed") and colon and number.isdigit() and int(number) <= len(lines):
            found.append(f"  ip {lines[int(number) - 1]}")
    return found
