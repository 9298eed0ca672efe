"""A real containerd on a `Host`: own pid, mount, IPC and cgroup namespaces, own cgroups, own directories."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from netns_fixtures import Host, wait_until
from tests.runtime.command_line import ARGV, environment

SOCKET = "/run/containerd/containerd.sock"
LOG = "/run/containerd.log"
CONFIG = "/run/containerd.toml"
CONF_DIR = "/etc/cni/net.d"
PAUSE_IMAGE = "localhost/pycni-pause:1"
START_DEADLINE_S = 60.0
CALL_DEADLINE_S = 60.0
# nsenter(1) option → file in /proc/PID/ns. unshare(1) itself stays in the old pid namespace, its child does not.
_NAMESPACES = {
    "mount": "mnt", "net": "net", "uts": "uts", "ipc": "ipc", "cgroup": "cgroup", "pid": "pid_for_children"
}  # fmt: skip
# The tree of every cgroup hierarchy, as the machine has it, is mounted here while the cgroups are made and removed.
HIERARCHIES = "/run/cgroup"

_CONFIG = f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
# Pods get no CPU weight, and so need no cgroup controller that the machine may not hand down.
disable_cgroup = true
# Lowering oom_score_adj needs CAP_SYS_RESOURCE, which root in a container or a small VM may lack.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "{CONF_DIR}"
"""

# runc makes cgroups below the one containerd is in, so containerd gets one of its own in every hierarchy and takes that
# for the root. A new cpuset has neither CPUs nor memory nodes, and takes no process without them (cpusets.rst).
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

# /opt is a tmpfs because `ctr` looks for plugins in /opt/cni/bin, whatever its configuration says.
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
containerd --config @CONFIG@ >@LOG@ 2>&1 &
wait
"""


class Containerd:
    """A running containerd; `close` ends everything that it started."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._cgroup = f"pycni-test-{host.pid}"
        host.file(CONFIG).write_text(_CONFIG)
        start = _START.replace("@CONFIG@", CONFIG).replace("@LOG@", LOG)
        isolate = ["unshare", "--pid", "--mount", "--ipc", "--cgroup", "--fork", "--kill-child", "--mount-proc"]
        join = _JOIN_CGROUPS.replace("@HIERARCHIES@", HIERARCHIES)
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
        assert first == "ready\n", f"containerd's namespaces could not be made: {first}{said.read()}"
        wait_until(self._answers, START_DEADLINE_S, f"containerd answers; {LOG} ends {self.log()[-2000:]}")

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"containerd ended: {self.log()[-4000:]}"
        return self.file(SOCKET).is_socket() and self.ctr("version", check=False).returncode == 0

    def file(self, path: str) -> Path:
        """Where the test finds the file that containerd calls *path*."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    def log(self) -> str:
        return self.file(LOG).read_text(errors="replace") if self.file(LOG).exists() else ""

    def run(self, argv: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program beside containerd, in its namespaces. A failure raises AssertionError with its output."""
        inside = f"/proc/{self._process.pid}/ns"
        enter = ["nsenter", *(f"--{option}={inside}/{file}" for option, file in _NAMESPACES.items()), "--", *argv]
        done = subprocess.run(
            enter, capture_output=True, text=True, timeout=CALL_DEADLINE_S, env=environment(), check=False, input=""
        )
        if check and done.returncode:
            raise AssertionError(f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}\n{self.log()[-3000:]}")
        return done

    def ctr(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(["ctr", "--address", SOCKET, *args], check=check)

    def pycni(self, *args: str) -> str:
        """The output of `pycni ARGS`, which must succeed."""
        return self.run([*ARGV, *args]).stdout

    def pycni_json(self, *args: str) -> Any:
        return json.loads(self.pycni(*args, "--json"))

    def write_list(self, conf: Mapping[str, Any]) -> None:
        """Make *conf* the network of this containerd; CRI notices by itself, a moment later."""
        self.run(["mkdir", "-p", CONF_DIR])
        path = self.file(f"{CONF_DIR}/10-{conf['name']}.conflist")
        path.with_suffix(".new").write_text(json.dumps(conf))
        path.with_suffix(".new").rename(path)

    def import_image(self, tar: Path, *, namespace: str = "default") -> None:
        self.ctr("-n", namespace, "images", "import", "--snapshotter", "native", str(tar))

    def close(self) -> None:
        """Kill all of it (the pid namespace dies with its first process) and remove the cgroups."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        remove = f"find {HIERARCHIES} -depth -type d -path '*/{self._cgroup}*' -exec rmdir {{}} + ; "
        left = f"find {HIERARCHIES} -type d -name '{self._cgroup}'"
        wait_until(lambda: not self.host.run(["sh", "-c", remove + left], check=False).stdout, 10.0, "cgroups are gone")
