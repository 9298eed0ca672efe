"""Namespaces and cgroups for a container runtime on a `Host`: own pids, mounts, IPC and cgroups, own directories."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from netns_fixtures import Host, wait_until
from tests.runtime.command_line import ARGV, environment

BIN_DIR = "/opt/cni/bin"
CONF_DIR = "/etc/cni/net.d"
CALL_DEADLINE_S = 60.0
# nsenter(1) option → file in /proc/PID/ns. unshare(1) itself stays in the old pid namespace, its child does not.
_NAMESPACES = {
    "mount": "mnt", "net": "net", "uts": "uts", "ipc": "ipc", "cgroup": "cgroup", "pid": "pid_for_children"
}  # fmt: skip
# The tree of every cgroup hierarchy, as the machine has it, is mounted here while the cgroups are made and removed.
HIERARCHIES = "/run/cgroup"

# runc makes cgroups below the one its runtime is in, so the runtime gets one of its own in every hierarchy and takes
# that for the root. A new cpuset has neither CPUs nor memory nodes, and takes no process without them (cpusets.rst).
_JOIN_CGROUPS = """
set -e
cgroups=$(cat /proc/self/cgroup)
while IFS=: read -r _ kind path; do
    tree=@HIERARCHIES@/${kind:-unified}
    mkdir -p "$tree"
    case $kind in
        "") mount -t cgroup2 cgroup2 "$tree" ;;
        name=*) mount -t cgroup -o "none,$kind" cgroup "$tree" ;;
        *) mount -t cgroup -o "$kind" cgroup "$tree" ;;
    esac
    own=$tree$path/$1
    for old in "$tree$path"/pycni-test-*; do  # of a test run that was killed; named after the host's process
        [ -d "$old" ] && [ ! -d "/proc/${old##*-}" ] && find "$old" -depth -type d -exec rmdir {} +
    done
    mkdir -p "$own"
    for file in cpuset.cpus cpuset.mems; do
        [ -n "$kind" ] && [ -e "$own/$file" ] && cat "$tree$path/$file" >"$own/$file"
    done
    echo $$ >"$own/cgroup.procs"
done <<END
$cgroups
END
shift
exec "$@"
"""

# /opt is a tmpfs because `ctr` looks for plugins in /opt/cni/bin, whatever its configuration says. The shell is the
# first process of its pid namespace, which takes in the orphans that runtimes make on purpose.
_START = """
set -e
mount -t tmpfs -o mode=755 tmpfs /opt
if [ "$(cat /proc/self/cgroup)" = "0::/" ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    while IFS=: read -r _ kind _; do
        mkdir "/sys/fs/cgroup/${kind:-unified}"
        case $kind in
            "") mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified ;;
            name=*) mount -t cgroup -o "none,$kind" cgroup "/sys/fs/cgroup/$kind" ;;
            *) mount -t cgroup -o "$kind" cgroup "/sys/fs/cgroup/$kind" ;;
        esac
    done </proc/self/cgroup
fi
[ -s /etc/resolv.conf ] || { rm -f /etc/resolv.conf; echo "nameserver 192.0.2.53" >/etc/resolv.conf; }
echo ready
@SERVICE@ &
wait
"""


class Isolated:
    """The place of a runtime, and the one *service* (a shell command) that runs there as long as it is open.

    `close` ends everything that was started in it.
    """

    def __init__(self, host: Host, service: str = "sleep infinity") -> None:
        self.host = host
        self._cgroup = f"pycni-test-{host.pid}"
        isolate = ["unshare", "--pid", "--mount", "--ipc", "--cgroup", "--fork", "--kill-child", "--mount-proc"]
        join = _JOIN_CGROUPS.replace("@HIERARCHIES@", HIERARCHIES)
        start = _START.replace("@SERVICE@", service)
        self._process = host.popen(
            ["sh", "-c", join, "sh", self._cgroup, *isolate, "--", "sh", "-c", start],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            assert self._process.stdout is not None
            self._await_ready(self._process.stdout)
        except BaseException:
            self.close()
            raise

    def _await_ready(self, said: IO[str]) -> None:
        first = said.readline()
        assert first == "ready\n", f"the runtime's namespaces could not be made: {first}{said.read()}"

    def ended(self) -> bool:
        """Whether the service, and so the place, is gone."""
        return self._process.poll() is not None

    def file(self, path: str) -> Path:
        """Where the test finds the file that the runtime calls *path*."""
        if path.startswith("/var/run/"):  # a symbolic link to /run, which from here would be the machine's
            path = path.removeprefix("/var")
        return Path(f"/proc/{self._process.pid}/root{path}")

    def log(self) -> str:
        """What the runtime said beside its answers."""
        return ""

    def run(self, argv: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program beside the runtime, in its namespaces. A failure raises AssertionError with its output."""
        inside = f"/proc/{self._process.pid}/ns"
        enter = ["nsenter", *(f"--{option}={inside}/{file}" for option, file in _NAMESPACES.items()), "--", *argv]
        done = subprocess.run(
            enter, capture_output=True, text=True, timeout=CALL_DEADLINE_S, env=environment(), check=False, input=""
        )
        if check and done.returncode:
            raise AssertionError(f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}\n{self.log()[-3000:]}")
        return done

    def pycni(self, *args: str) -> str:
        """The output of `pycni ARGS`, which must succeed."""
        return self.run([*ARGV, *args]).stdout

    def pycni_json(self, *args: str) -> Any:
        return json.loads(self.pycni(*args, "--json"))

    def install(self, launcher: str = "standalone") -> None:
        """Make pycni's executables, under the drop-in names too, the only plugins."""
        self.pycni("install", "--replace", "--no-conf", "--bin-dir", BIN_DIR, "--launcher", launcher)

    def write_list(self, conf: Mapping[str, Any]) -> None:
        """Make *conf* a network of this place; a runtime notices by itself, a moment later."""
        self.run(["mkdir", "-p", CONF_DIR])
        path = self.file(f"{CONF_DIR}/10-{conf['name']}.conflist")
        path.with_suffix(".new").write_text(json.dumps(conf))
        path.with_suffix(".new").rename(path)

    def close(self) -> None:
        """Kill all of it (the pid namespace dies with its first process) and remove the cgroups."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        remove = f"find {HIERARCHIES} -depth -type d -path '*/{self._cgroup}*' -exec rmdir {{}} + ; "
        left = f"find {HIERARCHIES} -type d -name '{self._cgroup}'"
        wait_until(lambda: not self.host.run(["sh", "-c", remove + left], check=False).stdout, 10.0, "cgroups are gone")


def nothing_attached(place: Isolated) -> bool:
    """No veth, rule, lease, record or cached result is left; a container's link goes with it, a moment later."""
    host = place.host
    wait_until(lambda: not [name for name in host.links() if name.startswith("veth")], 10, f"{host.links()}")
    assert host.run(["nft", "list", "ruleset"]).stdout == ""
    assert place.pycni_json("list") == place.pycni_json("ipam", "list") == []
    return place.run(["ls", "/var/lib/cni/results"]).stdout == ""


def leases(place: Isolated) -> dict[str, list[str]]:
    """Container id → its addresses."""
    found: dict[str, list[str]] = {}
    for lease in place.pycni_json("ipam", "list"):
        found.setdefault(lease["containerID"], []).append(lease["address"])
    return found
