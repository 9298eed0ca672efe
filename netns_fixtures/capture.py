"""Reading everything a network plugin could change in a namespace, with few processes.

What is *configured* is kept; what the kernel derives from it, with a delay or from a counter, is left out: carrier and
operational state, timers, ifindexes, learned neighbours and FDB entries, duplicate-address detection in progress.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

MARK = "\x1e"  # before the name of each section of the script's output

# `bridge vlan` comes last in its batch: without CONFIG_BRIDGE_VLAN_FILTERING it fails and leaves half a list behind.
# A legacy table exists in a namespace from its first use on; asking for one that is not in the list would create it.
# Tables of iptables-nft are in `nft list ruleset`: where that is empty the slower tools have nothing to tell.
KERNEL_SCRIPT = r"""
section() { printf '\036%s\n' "$1"; }
have() { command -v "$1" >/dev/null; }
section ip; printf 'addr show\nneigh show nud permanent\nneigh show proxy\n' | ip -j -d -batch -
section inet; printf 'route show table all\nrule show\n' | ip -4 -j -d -batch -
section inet6; printf 'route show table all\nrule show\n' | ip -6 -j -d -batch -
section bridge; ! have bridge || printf 'fdb show\nlink show\nvlan show\n' | bridge -j -d -batch - 2>/dev/null
section tc; ! have tc || tc -j qdisc show
section nft; ruleset=; ! have nft || ruleset=$(nft -s list ruleset); printf '%s\n' "$ruleset"
section sysctl
grep -s -d skip '' /proc/sys/net/core/* /proc/sys/net/ipv4/* /proc/sys/net/ipv6/* /proc/sys/net/bridge/*
grep -rs '' /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf
"""

IPTABLES_SCRIPT = r"""
for family in ip ip6; do
    section ${family}tables-legacy
    names=; [ ! -e /proc/net/${family}_tables_names ] || read -r names </proc/net/${family}_tables_names
    [ -z "$names" ] || ! have ${family}tables-legacy-save || ${family}tables-legacy-save
    section ${family}tables-nft
    if have ${family}tables-nft-save; then
        [ -z "$ruleset" ] && have nft || ${family}tables-nft-save 2>/dev/null
    fi
done
"""

_DERIVED_LINK_KEYS = {"ifindex", "link_index", "link_netnsid", "operstate", "addr_info", "stats", "stats64"}
_DERIVED_LINK_FLAGS = {"LOWER_UP", "NO-CARRIER", "M-DOWN", "DORMANT"}
_DERIVED_ADDRESS_KEYS = {"tentative", "optimistic", "dadfailed", "valid_life_time", "preferred_life_time"}
_DERIVED_ROUTE_KEYS = {"expires", "cache", "used", "age"}
_DERIVED_FLAGS = {"linkdown", "dead"}


def parse_kernel(output: str) -> Iterator[tuple[str, Any]]:
    """The (key, value) pairs in the output of the scripts; things without a name of their own are their own key."""
    sections = dict(part.partition("\n")[::2] for part in output.split(MARK)[1:])
    documents = {name: _json_documents(sections.get(name, "")) for name in ("ip", "inet", "inet6", "bridge", "tc")}
    addressed, permanent, proxied = _exactly(documents["ip"], 3)
    for link in addressed:
        yield f"link/{link['ifname']}", _link(link)
        for address in link.get("addr_info", ()):
            name = f"{address.pop('local', '?')}/{address.pop('prefixlen', '?')}"
            yield f"address/{link['ifname']}/{name}", _without(address, _DERIVED_ADDRESS_KEYS)
    yield from _counted("neighbour", [*permanent, *({**entry, "proxy": True} for entry in proxied)])
    for family in ("inet", "inet6"):
        routes, rules = _exactly(documents[family], 2)
        yield from _counted(f"route/{family}", (_without(route, _DERIVED_ROUTE_KEYS) for route in routes))
        yield from _counted(f"rule/{family}", rules)
    fdb, ports, vlans = _exactly(documents["bridge"], 3)
    yield from _counted(
        "fdb", (entry for entry in fdb if entry.get("state") in ("permanent", "static") and not _is_group_filter(entry))
    )
    for port in ports:
        yield f"bridge-port/{port.get('ifname')}", _without(port, {"ifindex", "flags", "state", "link", "operstate"})
    yield from _counted(
        "vlan", ({"ifname": port.get("ifname"), **vlan} for port in vlans for vlan in port.get("vlans", ()))
    )
    yield from _counted("qdisc", (_without(qdisc, {"refcnt"}) for qdisc in _exactly(documents["tc"], 1)[0]))
    yield from _nft(sections.get("nft", ""))
    for tool in ("iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft"):
        yield from _iptables(tool, sections.get(tool, ""))
    yield from _sysctls(sections.get("sysctl", ""))


def read_files(root: str, directories: Iterable[str], *, contents: bool) -> Iterator[tuple[str, Any]]:
    """Every file below *directories* of the mount namespace seen at *root*: mode, size, and a digest if *contents*."""
    for directory in directories:
        for folder, subfolders, names in os.walk(root + directory):
            for name in (*subfolders, *names):
                path = os.path.join(folder, name)
                try:
                    yield f"file{path[len(root) :]}", _file(path, contents=contents)
                except FileNotFoundError:
                    continue  # gone since the directory was read


def _file(path: str, *, contents: bool) -> dict[str, Any]:
    status = os.lstat(path)
    entry: dict[str, Any] = {"mode": stat.filemode(status.st_mode)}
    if stat.S_ISLNK(status.st_mode):
        entry["target"] = os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        entry["size"] = status.st_size
        if contents:
            try:
                with open(path, "rb") as stream:
                    entry["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
            except OSError as failure:  # a namespace that is bound to the file
                entry["unreadable"] = failure.strerror
    return entry


def _link(link: dict[str, Any]) -> dict[str, Any]:
    kept = _without(link, _DERIVED_LINK_KEYS)
    kept["flags"] = sorted(set(link.get("flags", ())) - _DERIVED_LINK_FLAGS)
    info = kept.get("linkinfo")
    if isinstance(info, dict):
        for name in ("info_data", "info_slave_data"):
            data = info.get(name)
            if isinstance(data, dict):
                info[name] = {
                    key: value
                    for key, value in data.items()
                    if not key.endswith("_timer") and key not in ("state", "topology_change")
                }
    return kept


def _without(entry: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    kept = {key: value for key, value in entry.items() if key not in keys}
    if isinstance(kept.get("flags"), list):
        kept["flags"] = sorted(set(kept["flags"]) - _DERIVED_FLAGS)
    return kept


def _counted(kind: str, entries: Iterable[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    """Nameless entries, each a key by its contents, with how often it is there."""
    texts = (
        " ".join(f"{key}={_scalar(value)}" for key, value in sorted(entry.items()) if value not in ([], None))
        for entry in entries
    )
    for text, count in Counter(texts).items():
        yield f"{kind}/{text}", count


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _is_group_filter(entry: dict[str, Any]) -> bool:
    """A device's own list of multicast addresses: it follows the addresses that are configured."""
    return "dst" not in entry and bool(int(str(entry.get("mac", "0"))[:2], 16) & 1)


def _json_documents(text: str) -> list[list[dict[str, Any]]]:
    decoder = json.JSONDecoder()
    documents = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        try:
            document, at = decoder.raw_decode(text, at)
        except ValueError:
            break
        documents.append([entry for entry in document if entry])
    return documents


def _exactly(documents: list[list[dict[str, Any]]], count: int) -> list[list[dict[str, Any]]]:
    return (documents + [[] for _ in range(count)])[:count]


def _nft(text: str) -> Iterator[tuple[str, str]]:
    text = re.sub(r" expires [0-9a-z]+", "", text)
    for table in re.split(r"^(?=table )", text, flags=re.MULTILINE):
        if table.strip():
            yield f"nft/{table.partition('{')[0].removeprefix('table').strip()}", table.strip()


def _iptables(tool: str, text: str) -> Iterator[tuple[str, str]]:
    lines = [re.sub(r"^(:.*) \[\d+:\d+\]$", r"\1", line) for line in text.splitlines() if not line.startswith("#")]
    for table in "\n".join(lines).split("COMMIT"):
        if table.strip():
            yield f"{tool}/{table.strip().splitlines()[0].removeprefix('*')}", table.strip()


def _sysctls(text: str) -> Iterator[tuple[str, Any]]:
    """One value per setting, one dict per interface: a link that goes is one change, not eighty."""
    interfaces: dict[str, dict[str, str]] = {}
    settings: dict[str, list[str]] = {}
    for line in text.splitlines():
        path, _, value = line.removeprefix("/proc/sys/").partition(":")
        group, name = (f"sysctl/{path.rpartition('/')[0]}", path.rpartition("/")[2])
        if "/conf/" in path:
            interfaces.setdefault(group, {})[name] = value
        else:
            settings.setdefault(f"{group}/{name}", []).append(value)
    yield from ((key, "\n".join(lines)) for key, lines in settings.items())
    yield from interfaces.items()
