"""Network configurations are found and read as libcni does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pycni.cli.failure import Failure
from pycni.cli.networks import Broken, find_network, load_file, parse_list, parse_single, read_directory

BRIDGE = {"type": "bridge", "bridge": "cni0"}


def put(directory: Path, name: str, content: Any) -> str:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def conflist(name: str, **more: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": name, "plugins": [BRIDGE], **more}


def test_lists_come_before_single_plugins_whatever_their_names(tmp_path: Path) -> None:
    """A .conflist wins over a .conf of the same network, even if the .conf sorts first."""
    put(tmp_path, "00-net.conf", {"cniVersion": "0.4.0", "name": "net", **BRIDGE})
    put(tmp_path, "99-net.conflist", conflist("net"))
    assert find_network("net", str(tmp_path)).path == str(tmp_path / "99-net.conflist")


def test_the_first_file_in_order_wins(tmp_path: Path) -> None:
    """Two lists of one name: the one whose file name sorts first."""
    put(tmp_path, "20.conflist", conflist("net", cniVersion="0.3.1"))
    put(tmp_path, "10.conflist", conflist("net", cniVersion="0.4.0"))
    assert find_network("net", str(tmp_path)).version == "0.4.0"


def test_a_single_plugin_becomes_a_list_of_one(tmp_path: Path) -> None:
    """A .conf (or .json) gives a network with its name and version; Go's case-insensitive keys count."""
    put(tmp_path, "x.json", {"CNIVersion": "0.4.0", "Name": "net", "Type": "bridge"})
    network = find_network("net", str(tmp_path))
    assert (network.version, len(network.plugins)) == ("0.4.0", 1)
    assert json.loads(network.raw)["plugins"] == [{"CNIVersion": "0.4.0", "Name": "net", "Type": "bridge"}]


def test_a_broken_file_spoils_only_itself(tmp_path: Path) -> None:
    """Other networks load, and the broken file is named when the wanted one is not found."""
    put(tmp_path, "00-bad.conflist", "{")
    put(tmp_path, "10-good.conflist", conflist("good"))
    assert find_network("good", str(tmp_path)).name == "good"
    with pytest.raises(Failure) as caught:
        find_network("goood", str(tmp_path))
    facts = dict(caught.value.facts)
    assert "00-bad.conflist" in facts["unusable"]
    assert caught.value.next_step == "did you mean good?"


def test_a_list_named_conf_is_explained(tmp_path: Path) -> None:
    """The usual mistake, a list in a .conf file, is named as such."""
    put(tmp_path, "10-net.conf", conflist("net"))
    ((_, why),) = read_directory(str(tmp_path))[1]
    assert why == "it is a list of plugins: name the file .conflist"


@pytest.mark.parametrize(
    ("own", "offered", "chosen"),
    [
        ("0.4.0", None, "0.4.0"),
        ("", None, ""),
        ("0.4.0", ["1.0.0", "1.1.0", "0.3.1"], "1.1.0"),
        ("1.0.0", ["0.4.0"], "1.0.0"),
        ("", ["1.0.0", "1.2.0", "2.0.0"], "1.0.0"),
        ("1.2.0", ["1.3.0"], "1.2.0"),
        ("1.0.0", [], "1.0.0"),
        ("0.10.0", ["0.9.0"], "0.10.0"),
    ],
)
def test_the_highest_version_we_know_is_chosen(own: str, offered: list[str] | None, chosen: str) -> None:
    """cniVersions and cniVersion together, entries newer than 1.1.0 left out (libcni, NetworkConfFromBytes)."""
    raw: dict[str, Any] = {"name": "net", "plugins": [BRIDGE], "cniVersion": own}
    if offered is not None:
        raw["cniVersions"] = offered
    assert parse_list(json.dumps(raw).encode()).version == chosen


@pytest.mark.parametrize(
    "raw",
    [
        [],
        "{}x",
        {"plugins": [BRIDGE]},
        {"name": 3, "plugins": [BRIDGE]},
        {"name": "net", "plugins": []},
        {"name": "net", "plugins": {}},
        {"name": "net", "plugins": [3]},
        {"name": "net", "plugins": [{"type": ""}]},
        {"name": "net", "plugins": [{"type": 7}]},
        {"name": "net", "plugins": [BRIDGE], "cniVersion": "one"},
        {"name": "net", "plugins": [BRIDGE], "cniVersion": 1},
        {"name": "net", "plugins": [BRIDGE], "cniVersions": "1.0.0"},
        {"name": "net", "plugins": [BRIDGE], "cniVersions": ["a.b"]},
        {"name": "net", "plugins": [BRIDGE], "disableCheck": "maybe"},
        {"name": "net", "plugins": [BRIDGE], "disableGC": 1},
        {"name": "net", "loadOnlyInlinedPlugins": True},
        "[" * 100_000,
    ],
)
def test_an_unusable_list_is_refused(raw: Any) -> None:
    """Whatever is wrong, it is Broken with a reason and never another exception."""
    with pytest.raises(Broken):
        parse_list((raw if isinstance(raw, str) else json.dumps(raw)).encode())


@pytest.mark.parametrize(
    ("value", "means"), [(True, True), ("true", True), ("TRUE", True), ("false", False), (False, False)]
)
def test_switches_may_be_text(value: object, means: bool) -> None:
    """disableCheck and disableGC take booleans and their names."""
    network = parse_list(json.dumps(conflist("net", disableCheck=value, disableGC=value)).encode())
    assert (network.disable_check, network.disable_gc) == (means, means)


def test_plugins_in_a_directory_beside_the_list_are_appended(tmp_path: Path) -> None:
    """<dir>/<name>/*.conf, sorted, behind the inlined ones; the remembered list holds them all."""
    path = put(tmp_path, "net.conflist", conflist("net"))
    put(tmp_path / "net", "20.conf", {"type": "tuning"})
    put(tmp_path / "net", "10.conf", {"type": "portmap"})
    put(tmp_path / "net", "30.json", {"type": "ignored"})
    network = load_file(path)
    assert [plugin["type"] for plugin in network.plugins] == ["bridge", "portmap", "tuning"]
    assert parse_list(network.raw).plugins == network.plugins


def test_only_inlined_plugins_where_the_list_says_so(tmp_path: Path) -> None:
    """loadOnlyInlinedPlugins keeps the directory out."""
    path = put(tmp_path, "net.conflist", conflist("net", loadOnlyInlinedPlugins=True))
    put(tmp_path / "net", "10.conf", {"type": "portmap"})
    assert len(load_file(path).plugins) == 1


def test_a_list_without_plugins_may_live_from_its_directory(tmp_path: Path) -> None:
    """No "plugins" key is fine with a directory and Broken without."""
    path = put(tmp_path, "net.conflist", {"cniVersion": "1.1.0", "name": "net"})
    with pytest.raises(Broken, match="no plugins"):
        load_file(path)
    put(tmp_path / "net", "10.conf", BRIDGE)
    assert len(load_file(path).plugins) == 1


def test_a_network_may_be_a_path(tmp_path: Path) -> None:
    """With a slash it is a file, of either kind; a missing one says so."""
    path = put(tmp_path, "mine.conflist", conflist("net"))
    single = put(tmp_path, "mine.conf", {"cniVersion": "0.4.0", "name": "one", **BRIDGE})
    assert find_network(path, "/nowhere").name == "net"
    assert find_network(single, "/nowhere").name == "one"
    with pytest.raises(Failure, match="No such file"):
        find_network(str(tmp_path / "none.conflist"), "/nowhere")


def test_directories_and_other_files_are_passed_over(tmp_path: Path) -> None:
    """Only regular configuration files count, and a missing directory holds none."""
    (tmp_path / "dir.conflist").mkdir()
    put(tmp_path, "net.conflist.bak", conflist("net"))
    assert read_directory(str(tmp_path)) == ([], [])
    assert read_directory(str(tmp_path / "none")) == ([], [])


def test_a_single_plugin_without_type_is_refused() -> None:
    """A .conf needs its type."""
    with pytest.raises(Broken, match="no 'type'"):
        parse_single(b'{"name": "net"}')
