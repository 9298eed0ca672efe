"""What a plugin left behind, or took away: two snapshots and the difference between them, in words."""

from __future__ import annotations

import difflib
import json
import subprocess
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from .capture import IPTABLES_SCRIPT, KERNEL_SCRIPT, parse_kernel, read_files
from .hosts import OWN_DIRECTORIES, Host
from .namespace import Namespace

CAPTURE_DEADLINE_S = 30


class Snapshot(dict[str, Any]):
    """`NAMESPACE/KIND/NAME` -> value; compare with == or `diff`.

    Kinds: link, address, neighbour, route, rule, fdb, bridge-port, vlan, qdisc, nft, sysctl; with `snapshot` also file,
    process, iptables-legacy, iptables-nft, ip6tables-legacy, ip6tables-nft.
    """

    def having(self, pattern: str) -> dict[str, Any]:
        """The entries whose key matches a glob."""
        return {key: value for key, value in self.items() if fnmatchcase(key, pattern)}


def netns_snapshot(*namespaces: Namespace) -> Snapshot:
    """The kernel's side only: links, addresses, routes, rules, neighbours, bridges, qdiscs, nftables, sysctls."""
    return _kernel_snapshot(namespaces, KERNEL_SCRIPT)


def snapshot(host: Host, *containers: Namespace, contents: bool = True) -> Snapshot:
    """Also iptables, processes, and the files of the host, with a digest of each unless *contents* is false."""
    taken = _kernel_snapshot((host, *containers), KERNEL_SCRIPT + IPTABLES_SCRIPT)
    for key, value in read_files(f"/proc/{host.pid}/root", OWN_DIRECTORIES, contents=contents):
        taken[f"{host.name}/{key}"] = value
    for namespace in (host, *containers):
        for pid, command in namespace.holder.inhabitants().items():
            taken[f"{namespace.name}/process/{pid}"] = command
    return taken


def _kernel_snapshot(namespaces: Sequence[Namespace], script: str) -> Snapshot:
    """All at once: each namespace has a shell of its own, and there is more than one core."""
    pipe = subprocess.PIPE
    shells = [namespace.popen(["sh", "-c", script], stdout=pipe, stderr=pipe) for namespace in namespaces]
    taken = Snapshot()
    for namespace, shell in zip(namespaces, shells, strict=True):
        output, errors = shell.communicate(timeout=CAPTURE_DEADLINE_S)
        entries = dict(parse_kernel(output))
        if not any(key.startswith("link/") for key in entries):
            raise RuntimeError(f"no snapshot of {namespace}: {errors.strip()}")
        taken.update((f"{namespace.name}/{key}", value) for key, value in entries.items())
    return taken


def diff(before: Snapshot, after: Snapshot, ignore: Sequence[str] = ()) -> list[str]:
    """One text per change: "+ key: value", "- key: value", "~ key: field old -> new".

    *ignore* has globs over keys ("*/link/cni0"), or over key and field of a value that has fields ("*/link/cni0:mtu");
    `*` matches slashes too.
    """
    changes: list[str] = []
    for key in sorted(before.keys() | after.keys()):
        if any(fnmatchcase(key, pattern) for pattern in ignore) or before.get(key) == after.get(key):
            continue
        if key not in before:
            changes.append(f"+ {key}{_shown(after[key])}")
        elif key not in after:
            changes.append(f"- {key}{_shown(before[key])}")
        else:
            changes += _changed(key, before[key], after[key], ignore)
    return changes


def assert_unchanged(before: Snapshot, after: Snapshot, ignore: Sequence[str] = ()) -> None:
    """AssertionError that lists every change which no glob in *ignore* covers."""
    changes = diff(before, after, ignore)
    if changes:
        raise AssertionError(f"{len(changes)} changes:\n" + "\n".join(changes))


def _changed(key: str, old: Any, new: Any, ignore: Sequence[str]) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        fields = [field for field in sorted(old.keys() | new.keys()) if old.get(field) != new.get(field)]
        return [
            f"~ {key}: {field} {_text(old.get(field))} -> {_text(new.get(field))}"
            for field in fields
            if not any(fnmatchcase(f"{key}:{field}", pattern) for pattern in ignore)
        ]
    if isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1)
        return [f"~ {key}:\n" + "\n".join(f"    {line}" for line in lines if not line.startswith(("---", "+++")))]
    return [f"~ {key}: {_text(old)} -> {_text(new)}"]


def _shown(value: Any) -> str:
    if value == 1:
        return ""  # a nameless entry: the key says it all
    if isinstance(value, str) and "\n" in value:
        return ":\n" + "\n".join(f"    {line}" for line in value.splitlines())
    return f": {_text(value)}"


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 300 else text[:297] + "..."
