"""The result cache of libcni: what containerd, CRI-O, cnitool and this command line remember of an attachment.

One file per attachment, `<cache>/results/<network>-<container>-<ifname>`, kind `cniCacheV1` (libcni/api.go). Written
here by a rename, because a truncated file blocks DEL in older libcni (containernetworking/cni issue 1055).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pycni.cni.value import Value

DEFAULT_CACHE_DIR = "/var/lib/cni"
KIND = "cniCacheV1"


class CachedAttachment(Value):
    """One cache file. *config* is the network list as it was at ADD; *result* the chain's result, as JSON."""

    network: str
    container_id: str
    ifname: str
    config: bytes
    netns: str = ""
    args: tuple[tuple[str, str], ...] = ()
    capability_args: Mapping[str, Any] = {}
    result: Mapping[str, Any] | None = None
    whole: bool = True  # False: pieced together of what our plugins recorded, and not all of them do

    @property
    def names(self) -> tuple[str, ...]:
        """What a person may call this container besides its id: aliases and the pod's name."""
        aliases = self.capability_args.get("aliases")
        found = [alias for each in aliases.values() for alias in each] if isinstance(aliases, dict) else []
        given = dict(self.args)
        pod, space = given.get("K8S_POD_NAME"), given.get("K8S_POD_NAMESPACE")
        if pod:
            found += [pod, f"{space}/{pod}"] if space else [pod]
        return tuple(found)


def cache_file(directory: str, network: str, container_id: str, ifname: str) -> str:
    """Where libcni keeps that attachment."""
    return os.path.join(directory, "results", f"{network}-{container_id}-{ifname}")


def _parse(data: bytes) -> CachedAttachment | None:
    try:
        raw = json.loads(data)
        if not isinstance(raw, dict) or raw.get("kind") != KIND:
            return None
        cached = CachedAttachment(
            network=raw["networkName"],
            container_id=raw["containerId"],
            ifname=raw["ifName"],
            config=base64.b64decode(raw.get("config") or "", validate=True),
            netns=raw.get("netns") or "",
            args=tuple((str(key), str(value)) for key, value in raw.get("cniArgs") or ()),
            capability_args=raw.get("capabilityArgs") or {},
            result=raw.get("result"),
        )
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        return None
    texts = (cached.network, cached.container_id, cached.ifname, cached.netns)
    sound = all(isinstance(text, str) for text in texts) and all(texts[:3])
    sound = sound and isinstance(cached.capability_args, dict)
    return cached if sound and (cached.result is None or isinstance(cached.result, dict)) else None


def read_cached(directory: str, network: str, container_id: str, ifname: str) -> CachedAttachment | None:
    """That attachment; None when there is no file or nobody can make sense of it (`is_corrupt` tells which)."""
    try:
        with open(cache_file(directory, network, container_id, ifname), "rb") as file:
            cached = _parse(file.read())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    # libcni joins the three names with hyphens that may be part of them: "a-b"+"c" and "a"+"b-c" share a file.
    if cached and (cached.network, cached.container_id, cached.ifname) != (network, container_id, ifname):
        return None
    return cached


def is_corrupt(directory: str, network: str, container_id: str, ifname: str) -> bool:
    """Whether a file is there that is no attachment."""
    path = cache_file(directory, network, container_id, ifname)
    return os.path.exists(path) and read_cached(directory, network, container_id, ifname) is None


def all_cached(directory: str) -> list[CachedAttachment]:
    """Every readable attachment, sorted by file name; files that are none are skipped."""
    folder = os.path.join(directory, "results")
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for name in names:
        try:
            with open(os.path.join(folder, name), "rb") as file:
                cached = _parse(file.read())
        except (FileNotFoundError, IsADirectoryError):  # gone since, or no file of ours
            continue
        # Our own temporary files are skipped by this too.
        if cached and name == f"{cached.network}-{cached.container_id}-{cached.ifname}":
            found.append(cached)
    return found


def write_cached(directory: str, cached: CachedAttachment) -> None:
    """Remember an attachment, readable by root alone (it may hold a runtime's arguments); OSError if that fails."""
    content: dict[str, Any] = {
        "kind": KIND,
        "containerId": cached.container_id,
        "config": base64.b64encode(cached.config).decode(),
        "ifName": cached.ifname,
        "networkName": cached.network,
    }
    optional: Sequence[tuple[str, Any]] = (
        ("netns", cached.netns),
        ("cniArgs", [list(pair) for pair in cached.args]),
        ("capabilityArgs", cached.capability_args),
        ("result", cached.result),
    )
    content.update({key: value for key, value in optional if value})
    path = cache_file(directory, cached.network, cached.container_id, cached.ifname)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.pycni-tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(json.dumps(content, separators=(",", ":")).encode())
            file.flush()
            os.fsync(file.fileno())  # after a power loss a renamed file may be empty otherwise
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def forget_cached(directory: str, network: str, container_id: str, ifname: str) -> None:
    """Drop that attachment's file; no error when there is none."""
    try:
        os.unlink(cache_file(directory, network, container_id, ifname))
    except FileNotFoundError:
        pass
