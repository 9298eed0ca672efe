"""The agent's configuration file (TOML), as a value. docs/agent.md explains every key."""

from __future__ import annotations

import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value

DEFAULT_PATH = "/etc/pycni/agent.toml"
DEFAULT_SOCKET = "/run/pycni/agent.sock"
SOCKET_PATH_BYTES = 107  # sockaddr_un.sun_path holds 108 with the final NUL (linux/un.h)
LOG_LEVELS = ("debug", "info", "warning", "error")


class AgentConfig(Value):
    """Every key has a default; a file that does not exist is an empty one."""

    socket: str = DEFAULT_SOCKET
    readers: str = ""  # group whose members may read (list, inspect, events); "": root only
    workers: int = 8  # calls carried out at the same time; more wait
    connections: int = 512  # clients at the same time; more are told to try again
    request_deadline_s: float = 30.0  # for a client to send its request
    reconcile_s: float = 60.0  # between two comparisons of records and kernel; 0: only at start and on request
    grace_s: float = 300.0  # before an attachment whose namespace is gone is released
    keep_rules_s: float = 10.0  # without containers, before the packet filter's tables go; 0: with the last of them
    proxy_connections: int = 65536  # through the userland proxy at the same time, of all containers
    proxy_clients: int = 65536  # of UDP, at the same time; the one that was silent longest makes room
    proxy_idle_s: float = 0.0  # silence after which the proxy ends a connection; 0: never
    node_ttl_s: int = 30  # after which a host that says nothing to etcd is shown as suspect by the others
    dead_after_s: float = 600.0  # after which a suspect is declared dead, and its addresses are freed; 0: never
    metrics: str = ""  # "127.0.0.1:9123"; "": no metrics
    log_level: str = "info"


AT_START_ONLY = ("socket", "workers", "metrics", "node_ttl_s")  # a reload leaves these as they were

_LIMITS: dict[str, tuple[float, float]] = {
    "workers": (1, 64),
    "connections": (4, 8192),
    "request_deadline_s": (0.1, 3600),
    "reconcile_s": (0, 86400),
    "grace_s": (0, 604800),
    "keep_rules_s": (0, 3600),
    "proxy_connections": (1, 1 << 20),
    "proxy_clients": (1, 1 << 20),
    "proxy_idle_s": (0, 604800),
    "node_ttl_s": (2, 3600),
    "dead_after_s": (0, 604800),
}


def load_config(path: str, *, required: bool) -> AgentConfig:
    """The configuration file at *path*; the defaults where it is missing and not *required*. CniError 7, OSError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise CniError(Code.INVALID_CONFIG, f"{path} does not exist") from None
        return AgentConfig()
    except UnicodeDecodeError as failure:
        raise CniError(Code.INVALID_CONFIG, f"{path} is not UTF-8: {failure}") from None
    return parse_config(text, path)


def parse_config(text: str, where: str = DEFAULT_PATH) -> AgentConfig:
    """The configuration in *text*; CniError 7 names the file, the key, its value and the limit."""
    try:
        given = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as failure:
        raise CniError(Code.INVALID_CONFIG, f"{where} is not TOML: {failure}") from None
    known = AgentConfig().as_dict()
    for key, value in given.items():
        if key not in known:
            raise CniError(Code.INVALID_CONFIG, f"{where}: unknown key {key!r}", f"known are {', '.join(known)}")
        _check(where, key, value, known[key])
    config = AgentConfig(**given)
    check_socket(config.socket, where)
    if config.log_level not in LOG_LEVELS:
        raise CniError(
            Code.INVALID_CONFIG, f"{where}: log_level is {config.log_level!r}, not one of {', '.join(LOG_LEVELS)}"
        )
    if config.metrics:
        metrics_address(config.metrics, where)
    return config


def check_socket(path: str, where: str) -> None:
    """CniError 7 unless *path* can be the address of a socket."""
    if not path.startswith("/") or "\0" in path or len(path.encode(errors="surrogateescape")) > SOCKET_PATH_BYTES:
        raise CniError(
            Code.INVALID_CONFIG,
            f"{where}: socket is {path!r}: an absolute path of at most {SOCKET_PATH_BYTES} bytes is needed",
        )


def metrics_address(text: str, where: str = "metrics") -> tuple[str, int]:
    """Address and port of "127.0.0.1:9123" or "[::1]:9123"; CniError 7."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ip_address(bare)
        if (address.version == 6) != (bare != host) or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise ValueError
    except ValueError:
        hint = "as in 127.0.0.1:9123 or [::1]:9123"
        raise CniError(Code.INVALID_CONFIG, f"{where}: metrics is {text!r}, not ADDRESS:PORT", hint) from None
    return bare, int(port)


_KINDS: dict[type, str] = {int: "a whole number", float: "a number", str: "a text"}


def _check(where: str, key: str, value: Any, default: Any) -> None:
    wanted = (int, float) if isinstance(default, float) else (type(default),)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise CniError(Code.INVALID_CONFIG, f"{where}: {key} is {value!r}, not {_KINDS[type(default)]}")
    if key in _LIMITS:
        low, high = _LIMITS[key]
        if not low <= value <= high:
            raise CniError(Code.INVALID_CONFIG, f"{where}: {key} is {value!r}, not in {low:g}..{high:g}")
