"""Network configurations as a runtime finds them: lists and single plugins in a directory, or one file.

Order and rules are libcni's (libcni/conf.go): `*.conflist` by name, then `*.conf` and `*.json` by name; the first whose
`name` matches wins. Different here: a broken file spoils only itself, and is named when a network is not found.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from typing import Any

from pycni.cli.failure import NOT_FOUND, Failure
from pycni.cni.value import Value

DEFAULT_CONF_DIR = "/etc/cni/net.d"
NEWEST_VERSION = (1, 1, 0)


class NetworkList(Value):
    """One network: its plugins in ADD order, as JSON objects, and the switches of the list.

    *raw* is the list as bytes, the form the result cache keeps; *path* is where it came from ("" for the cache).
    """

    name: str
    version: str
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool
    disable_gc: bool
    raw: bytes
    path: str


class Broken(Exception):
    """A configuration that cannot be used; the text says why."""


def member(mapping: Mapping[str, Any], key: str) -> Any:
    """The value under *key*, None if absent: exact match first, else whatever the capitals (as Go's decoder does)."""
    if key in mapping:
        return mapping[key]
    folded = key.lower()
    found = None
    for name, value in mapping.items():
        if name.lower() == folded:
            found = value
    return found


def plugin_type(plugin: Mapping[str, Any]) -> str:
    """The `type` of one plugin's configuration; Broken if it is missing or no text."""
    kind = member(plugin, "type")
    if not isinstance(kind, str) or not kind:
        raise Broken("a plugin has no 'type'")
    return kind


def version_numbers(version: str) -> tuple[int, ...]:
    """`"1.0.0"` → (1, 0, 0), `""` → (0, 1, 0) (the specification's default); Broken for anything that is no version."""
    if not version:
        return (0, 1, 0)
    parts = version.split(".")
    if len(parts) > 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise Broken(f"cniVersion {version!r} is not of the form 1.0.0")
    return (*map(int, parts), *(0,) * (3 - len(parts)))


def _decode(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise Broken(f"not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise Broken("not a JSON object")
    return value


def _switch(raw: Mapping[str, Any], key: str) -> bool:
    value = raw.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise Broken(f"{key} is {value!r}, not true or false")
    return value


def _chosen_version(raw: Mapping[str, Any]) -> str:
    """The version to speak: the highest of `cniVersions` and `cniVersion` that is not newer than ours."""
    own = raw.get("cniVersion", "")
    offered = raw.get("cniVersions")
    if not isinstance(own, str):
        raise Broken(f"cniVersion is {own!r}, not text")
    if offered is None:
        version_numbers(own)
        return own
    if not isinstance(offered, list) or not all(isinstance(one, str) for one in offered):
        raise Broken("cniVersions is not a list of texts")
    known = [one for one in [*offered, *([own] if own else [])] if version_numbers(one) <= NEWEST_VERSION]
    return max(known, key=version_numbers) if known else own


def _plugins(value: object) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not all(isinstance(plugin, dict) for plugin in value):
        raise Broken("'plugins' is not a list of objects")
    if not value:
        raise Broken("no plugins in the list")
    for plugin in value:
        plugin_type(plugin)
    return tuple(value)


def parse_list(data: bytes, path: str = "") -> NetworkList:
    """A network from the bytes of a `.conflist`; Broken if unusable. Plugins in a directory beside it are not read."""
    raw = _decode(data)
    name = raw.get("name")
    if not isinstance(name, str) or not name:
        raise Broken("the list has no 'name'")
    inlined_only = _switch(raw, "loadOnlyInlinedPlugins")
    if "plugins" not in raw and inlined_only:
        raise Broken("'loadOnlyInlinedPlugins' is true and there is no 'plugins' key")
    return NetworkList(
        name=name,
        version=_chosen_version(raw),
        plugins=_plugins(raw["plugins"]) if "plugins" in raw else (),
        disable_check=_switch(raw, "disableCheck"),
        disable_gc=_switch(raw, "disableGC"),
        raw=data,
        path=path,
    )


def parse_single(data: bytes, path: str = "") -> NetworkList:
    """A network of one plugin from the bytes of a `.conf`; Broken if unusable."""
    raw = _decode(data)
    if member(raw, "type") is None and "plugins" in raw:
        raise Broken("it is a list of plugins: name the file .conflist")
    plugin_type(raw)
    name, version = member(raw, "name"), member(raw, "cniVersion")
    wrapped = {"name": name, "cniVersion": version or "", "plugins": [raw]}
    return parse_list(json.dumps(wrapped).encode(), path)


def load_file(path: str) -> NetworkList:
    """The network in the file *path*, with the plugins of `<its directory>/<name>/*.conf` unless the list says not to.

    Broken if unusable, OSError if unreadable.
    """
    with open(path, "rb") as file:
        data = file.read()
    raw = _decode(data)
    if "plugins" not in raw and member(raw, "type") is not None:
        return parse_single(data, path)
    network = parse_list(data, path)
    if not _switch(raw, "loadOnlyInlinedPlugins"):
        beside = os.path.join(os.path.dirname(path), network.name)
        network = _with_plugins_beside(network, raw, [p for p in _files(beside) if p.endswith(".conf")])
    if not network.plugins:
        raise Broken("no plugins in the list nor in a directory beside it")
    return network


def _with_plugins_beside(network: NetworkList, raw: dict[str, Any], paths: list[str]) -> NetworkList:
    """*network* with the plugins in the files *paths* at its end.

    They go into `raw` too: what the cache keeps must be the whole chain, or a DEL from the cache would do half of it.
    """
    if not paths:
        return network
    more: list[Mapping[str, Any]] = []
    for path in paths:
        with open(path, "rb") as file:
            plugin = _decode(file.read())
        plugin_type(plugin)
        more.append(plugin)
    plugins = (*network.plugins, *more)
    whole = {**raw, "plugins": list(plugins), "loadOnlyInlinedPlugins": True}
    return network.replace(plugins=plugins, raw=json.dumps(whole).encode())


def _files(directory: str) -> list[str]:
    """The files of *directory*, sorted by path; none if it does not exist."""
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [path for path in (os.path.join(directory, name) for name in names) if not os.path.isdir(path)]


def configuration_files(directory: str) -> list[str]:
    """The files of *directory* that runtimes look at, in the order of their names."""
    return [path for path in _files(directory) if path.endswith((".conflist", ".conf", ".json"))]


def load_entry(path: str) -> NetworkList:
    """The network in a file of a directory, whose name says whether it is a list. As `load_file`."""
    if path.endswith(".conflist"):
        return load_file(path)
    with open(path, "rb") as file:
        return parse_single(file.read(), path)


def read_directory(directory: str) -> tuple[list[NetworkList], list[tuple[str, str]]]:
    """Every usable network of *directory* in libcni's order, and (path, why) of every unusable file."""
    networks: list[NetworkList] = []
    broken: list[tuple[str, str]] = []
    for path in sorted(configuration_files(directory), key=lambda path: not path.endswith(".conflist")):
        try:
            networks.append(load_entry(path))
        except Broken as exc:
            broken.append((path, str(exc)))
        except OSError as exc:
            broken.append((path, exc.strerror or str(exc)))
    return networks, broken


def find_network(wanted: str, directory: str) -> NetworkList:
    """The network *wanted*: a path if it holds a slash or names a configuration file, else a name in *directory*.

    Failure naming what there is when it is not found or cannot be used.
    """
    if os.sep in wanted or (wanted.endswith((".conflist", ".conf", ".json")) and os.path.isfile(wanted)):
        return _network_at(wanted)
    networks, broken = read_directory(directory)
    for network in networks:
        if network.name == wanted:
            return network
    raise _no_network(wanted, directory, networks, broken)


def _network_at(path: str) -> NetworkList:
    try:
        return load_file(os.path.abspath(path))
    except Broken as exc:
        raise Failure(f"{path} cannot be used: {exc}", code=6 if "JSON" in str(exc) else 7) from None
    except OSError as exc:
        kind = NOT_FOUND if isinstance(exc, FileNotFoundError) else 1
        raise Failure(f"network file {path}: {exc.strerror}", exit_code=kind, code=7) from None


def _no_network(wanted: str, directory: str, networks: list[NetworkList], broken: list[tuple[str, str]]) -> Failure:
    names = sorted({network.name for network in networks})
    facts = [("looked in", directory), ("found", ", ".join(names) or "no usable network configuration")]
    facts += [("unusable", f"{path}: {why}") for path, why in broken]
    near = difflib.get_close_matches(wanted, names, 1)
    step = f"did you mean {near[0]}?" if near else "give --conf-dir, a path to a .conflist, or run `pycni install`"
    return Failure(f"no network called {wanted!r}", exit_code=NOT_FOUND, code=7, facts=facts, next_step=step)
