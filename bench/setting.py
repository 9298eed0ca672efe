"""Under which circumstances figures were taken: without them they say nothing."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def read() -> dict[str, str]:
    """Commit, date, machine, kernel, the plugins' interpreter, and the versions of what is compared with."""
    return {
        "commit": commit(),
        "date": datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} x {_cpu()}",
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "reference": package_version("containernetworking-plugins"),
        "iptables": _said("iptables", "-V"),
    }


def shown(where: Mapping[str, str]) -> str:
    """What `read` gave, as the head of a report."""
    return "".join(f"{key}: {value}\n" for key, value in where.items())


def write(given: argparse.Namespace, where: Mapping[str, str], found: Mapping[str, Any]) -> None:
    """Keep *found* in the file that --json names, if it does, with the circumstances and the options that count."""
    if not given.json:
        return
    options = {key: value for key, value in vars(given).items() if key not in ("json", "quick")}
    with open(given.json, "w", encoding="utf-8") as file:
        json.dump({"setting": where, "options": options, **found}, file, indent=1)
        file.write("\n")


def package_version(package: str) -> str:
    """Name and version of an installed Debian package."""
    return _said("dpkg-query", "-W", "-f", "${Package} ${Version}", package)


def commit() -> str:
    """The commit of the tree, marked where the tree has changes on top."""
    head = _said("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    changed = _said("git", "-C", str(ROOT), "status", "--porcelain", "--", "src", "plugins", "ipam", "portmap")
    return f"{head} with changes" if changed and head != "unknown" else head


def _said(*argv: str) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path})
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _cpu() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.stdout.writelines(f"{key}: {value}\n" for key, value in read().items())


def processor_times() -> tuple[int, int]:
    """(used, used and idle) of all processors since boot, in clock ticks; waiting for disks is idle."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)
