"""The network files: whether runtimes can use them, and which one they take."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pycni.cli.doctor.finding import FAIL, OK, WARN, Finding
from pycni.cli.manifest import read_manifest
from pycni.cli.networks import Broken, NetworkList, configuration_files, load_entry, member, plugin_type
from pycni.cli.runtime import DEFAULT_PLUGIN_DIRS
from pycni.cli.tables import counted
from pycni.cni.errors import CniError
from pycni.cni.value import Value
from pycni.cni.versions import check_version
from pycni.host import delegate

CHECK = "network files"


class NetworkFile(Value):
    """One file of the directory. *network*: None where it cannot be read, then *problem* says why, as it does where no
    plugin of that network could be called."""

    path: str
    network: NetworkList | None
    problem: str = ""


def check(conf_dir: str, plugin_dirs: Sequence[str]) -> Iterator[Finding]:
    """Every file of *conf_dir*; *plugin_dirs*: where plugins are besides the usual directories."""
    environ = os.environ.get("CNI_PATH", "")
    places = [*(environ.split(os.pathsep) if environ else DEFAULT_PLUGIN_DIRS), *read_manifest(), *plugin_dirs]
    yield from judge([_read(path, places) for path in configuration_files(conf_dir)], conf_dir)


def judge(files: Sequence[NetworkFile], conf_dir: str) -> Iterator[Finding]:
    """What is wrong with *files*, which are in the order of their names; and which one comes first."""
    if not files:
        yield Finding(level=OK, check=CHECK, found=f"none in {conf_dir}")
        return
    first = files[0]
    for file in files:
        if file.problem:
            yield _unusable(file, is_first=file is first)
    names = Counter(file.network.name for file in files if file.network is not None)
    for name in (name for name, count in names.items() if count > 1):
        paths = [file.path for file in files if file.network is not None and file.network.name == name]
        yield Finding(
            level=WARN,
            check=CHECK,
            found=f"network {name} is in {' and in '.join(paths)}",
            meaning="who asks for it by name gets one of them: lists come before single plugins, then names count",
            action="give one of them another name, or remove it",
        )
    if first.network is not None and not first.problem:
        found = f"{counted(len(files), 'file')}, runtimes take the first: {first.path} (network {first.network.name})"
        yield Finding(level=OK, check=CHECK, found=found)


def _unusable(file: NetworkFile, *, is_first: bool) -> Finding:
    meaning = "no container gets on this network"
    if is_first:
        meaning = "runtimes take the first file in name order, which this is: containerd attaches no container at all"
    return Finding(
        level=FAIL if is_first else WARN,
        check=CHECK,
        found=f"{file.path}: {file.problem}",
        meaning=meaning,
        action="correct the file, install the plugin that it names, or remove it",
    )


def _read(path: str, places: Sequence[str]) -> NetworkFile:
    try:
        network = load_entry(path)
    except Broken as failure:
        return NetworkFile(path, None, str(failure))
    except PermissionError:
        raise  # that is about who asks
    except OSError as failure:
        return NetworkFile(path, None, failure.strerror or str(failure))
    try:
        check_version(network.version)
    except CniError as failure:
        return NetworkFile(path, network, f"{failure.msg}: {failure.details}")
    wanted = dict.fromkeys(kind for plugin in network.plugins for kind in _types(plugin))
    missing = [kind for kind in wanted if not _is_there(kind, places)]
    problem = f"no plugin {', '.join(missing)} in {', '.join(dict.fromkeys(places))}" if missing else ""
    return NetworkFile(path, network, problem)


def _types(plugin: Mapping[str, Any]) -> list[str]:
    """The executables that *plugin* needs: its own, and the one that its `ipam` names."""
    kind, ipam = plugin_type(plugin), member(plugin, "ipam")
    asked = member(ipam, "type") if isinstance(ipam, dict) else None
    return [kind, asked] if isinstance(asked, str) and asked else [kind]


def _is_there(kind: str, places: Sequence[str]) -> bool:
    try:
        delegate.find(kind, places)
    except CniError:
        return False
    return True
