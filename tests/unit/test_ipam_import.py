"""An existing data directory of the reference host-local is taken over once, and left as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycni.ipam import plugin
from pycni.store import Store, open_store
from tests.unit.ipam_calls import add_addresses, call, delete, leased, netconf


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "state" / "pycni.db")) as opened:
        yield opened


def host_local_directory(tmp_path: Path, **files: str) -> dict[str, Any]:
    """Keys of `ipam` for a pool whose directory holds *files* (with "_" for "." and "-" for ":" in names)."""
    directory = tmp_path / "networks" / "net1"
    directory.mkdir(parents=True)
    (directory / "lock").touch(mode=0o750)
    for name, content in files.items():
        (directory / name.removeprefix("ip").replace("_", ".").replace("-", ":")).write_bytes(content.encode())
    return {"dataDir": str(tmp_path / "networks"), "ranges": [[{"subnet": "10.9.0.0/24"}]]}


def contents(tmp_path: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in (tmp_path / "networks").rglob("*")
        if file.is_file()
    }


def test_leases_and_the_place_in_the_order_are_taken_over(tmp_path: Path, store: Store) -> None:
    """The next address is the one behind the last reserved, as host-local would have given; nothing is changed."""
    ipam = host_local_directory(tmp_path, ip10_9_0_2="a\r\neth0", ip10_9_0_3="b\r\neth1")
    (tmp_path / "networks" / "net1" / "last_reserved_ip.0").write_text("10.9.0.7")
    before = contents(tmp_path)
    assert add_addresses(store, "new", ipam) == ["10.9.0.8"]
    assert leased(store) == {"10.9.0.2": "a", "10.9.0.3": "b", "10.9.0.8": "new"}
    assert {each.subnet for each in store.leases.all()} == {"10.9.0.0/24"}
    assert contents(tmp_path) == before


def test_it_happens_once(tmp_path: Path, store: Store) -> None:
    """What is released here is not taken over again."""
    ipam = host_local_directory(tmp_path, ip10_9_0_2="a\r\neth0")
    delete(store, "a", ipam)
    assert leased(store) == {}
    add_addresses(store, "b", ipam)
    assert leased(store) == {"10.9.0.3": "b"}


@pytest.mark.parametrize("ifname", ["eth0", "eth7"])
def test_old_files_without_interface_belong_to_the_container(tmp_path: Path, store: Store, ifname: str) -> None:
    """DEL of any of its interfaces releases them, CHECK finds them, as with host-local."""
    ipam = host_local_directory(tmp_path, ip10_9_0_2="a\n")
    plugin.check(call("a", command="CHECK", ifname=ifname), netconf(ipam, command="CHECK"), store)
    delete(store, "a", ipam, ifname=ifname)
    assert leased(store) == {}


def test_files_that_are_no_leases_are_named_and_skipped(
    tmp_path: Path, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    """Empty after a crash, no address as name, no container id inside, a directory."""
    ipam = host_local_directory(
        tmp_path,
        ip10_9_0_2="",
        ip10_9_0_3="../x\r\neth0",
        notes="a\r\neth0",
        ip10_9_0_4="a\r\neth0\r\nx",
        ip10_9_0_5="c\r\neth0",
    )
    (tmp_path / "networks" / "net1" / "10.9.0.6").mkdir()
    add_addresses(store, "new", ipam)
    assert leased(store) == {"10.9.0.5": "c", "10.9.0.6": "new"}
    said = capfd.readouterr().err.splitlines()
    assert sorted(line.split()[1].rpartition("/")[2] for line in said) == [
        "10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.6", "notes"
    ]  # fmt: skip
    assert all("is not imported: " in line for line in said)


def test_a_failed_add_imports_nothing(tmp_path: Path, store: Store) -> None:
    """It is one transaction; the next call imports."""
    ipam = host_local_directory(tmp_path, ip10_9_0_2="a\r\neth0")
    with pytest.raises(Exception, match="not available"):
        add_addresses(store, "new", ipam, args="IP=10.9.0.2")
    assert leased(store) == {}
    delete(store, "other", ipam)
    assert leased(store) == {"10.9.0.2": "a"}


def test_delete_with_a_broken_config_imports_and_releases(tmp_path: Path, store: Store) -> None:
    """The subnet of the others is then not known; they are given out and released all the same."""
    ipam = host_local_directory(tmp_path, ip10_9_0_2="a\r\neth0", ip10_9_0_3="b\r\neth0")
    delete(store, "a", {"dataDir": ipam["dataDir"], "ranges": "rubbish"})
    assert [(str(each.address), each.subnet) for each in store.leases.all()] == [("10.9.0.3", "10.9.0.3/32")]
    small = {**ipam, "ranges": [[{"subnet": "10.9.0.0/30", "gateway": "10.9.0.3"}]]}
    assert add_addresses(store, "c", small) == ["10.9.0.1"]
    assert add_addresses(store, "d", small) == ["10.9.0.2"]
