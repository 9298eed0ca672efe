"""Who is alive: this boot of the machine, and a process by pid and start time.

State about kernel objects is worth nothing after a reboot, and state of a process is worth nothing once it died; both
are told from the records by the two identities read here.
"""

from __future__ import annotations

import os

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
STATE, START = 0, 19  # proc_pid_stat(5): fields 3 and 22, counted from behind the command name
_boot_id = ""
_started: dict[int, int] = {}  # of this process; another pid after a fork
GONE = (b"Z", b"X")  # exited: a zombie only waits for its parent


def boot_id() -> str:
    """The random id the kernel drew when it booted, for example "562d49da-3035-4a1e-8f7f-3015a350c1a2"."""
    global _boot_id  # noqa: PLW0603 - no process outlives it
    if not _boot_id:
        _boot_id = _read(_BOOT_ID).decode().strip()
    return _boot_id


def own_process() -> tuple[int, int]:
    """Pid and start time (clock ticks since boot) of the calling process."""
    pid = os.getpid()
    start = _started.get(pid)
    if start is None:
        start = _started[pid] = int(stat_fields(pid)[START])
    return pid, start


def process_alive(pid: int, start: int) -> bool:
    """Whether the process that had *pid* and began at *start* (clock ticks since boot) still runs.

    A pid is given to another process some time after its owner died, hence the start time; a zombie is dead.
    """
    try:
        fields = stat_fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[STATE] not in GONE and int(fields[START]) == start


def stat_fields(pid: int) -> list[bytes]:
    """/proc/PID/stat behind the command name. FileNotFoundError or ProcessLookupError: there is no such process."""
    # The command name may hold blanks and parentheses (proc_pid_stat(5)): count from the last ")".
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)
