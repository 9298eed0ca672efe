"""Leases nobody released: what GC, a full pool, their owner and a request do with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycni.cni.errors import CniError, Code
from pycni.ipam import plugin
from pycni.store import Store, open_store
from tests.unit.ipam_calls import add, add_addresses, call, leased, netconf

SMALL = {"ranges": [[{"subnet": "10.9.0.0/29"}]]}  # .2 to .6


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "state" / "pycni.db")) as opened:
        yield opened


def rewrite_lease(store: Store, **columns: str) -> None:
    with store.transaction():
        for column, value in columns.items():
            store.run(f"UPDATE leases SET {column} = ?", (value,))


def gc(store: Store, **top: Any) -> None:
    plugin.gc(call(command="GC"), netconf(SMALL, command="GC", **top), store)


def test_gc_keeps_what_is_listed(store: Store) -> None:
    """An entry is container and interface; an empty list keeps nothing; other networks are not touched."""
    for name in "abc":
        add(store, name, SMALL)
    add(store, "a", SMALL, name="net2")
    valid = [{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "e"}]
    gc(store, **{"cni.dev/valid-attachments": valid})
    assert [(each.network, each.container_id) for each in store.leases.all()] == [("net1", "a"), ("net2", "a")]
    gc(store, **{"cni.dev/valid-attachments": []})
    assert [each.network for each in store.leases.all()] == ["net2"]


def test_gc_without_a_list_releases_only_what_is_dead(store: Store, tmp_path: Path) -> None:
    """No list is no statement about anybody."""
    alive, gone = tmp_path / "alive", tmp_path / "gone"
    for path in (alive, gone):
        path.touch()
        add(store, path.name, SMALL, netns=str(path))
    add(store, "unknown", SMALL)
    gone.unlink()
    gc(store)
    assert set(leased(store).values()) == {"alive", "unknown"}


def test_leases_of_another_boot_are_reclaimed_before_the_pool_is_called_full(store: Store) -> None:
    """And STATUS does not count them; nothing else touches them."""
    ipam = {"ranges": [[{"subnet": "10.9.0.0/30"}]]}
    add(store, "before", ipam)
    rewrite_lease(store, boot_id="another")
    plugin.status(call(), netconf(ipam, command="STATUS"), store)
    assert set(leased(store).values()) == {"before"}
    assert add_addresses(store, "now", ipam) == ["10.9.0.2"]


def test_a_dead_lease_blocks_neither_its_owner_nor_a_request(store: Store) -> None:
    """The owner's next ADD gets the same address; somebody else may ask for it by name."""
    add(store, "a", SMALL)
    add(store, "b", SMALL)
    rewrite_lease(store, boot_id="another")
    assert add_addresses(store, "b", SMALL) == ["10.9.0.3"]
    assert add_addresses(store, "c", SMALL, args="IP=10.9.0.2") == ["10.9.0.2"]


def test_a_namespace_replaced_at_its_path_is_gone(store: Store, tmp_path: Path) -> None:
    """Same path, other inode: the container of the lease does not exist any more."""
    path, other = tmp_path / "ns", tmp_path / "new"
    path.touch()
    other.touch()
    add(store, "a", SMALL, netns=str(path))
    with pytest.raises(CniError) as caught:
        add(store, "a", SMALL, netns=str(path))
    assert caught.value.code == Code.ALREADY_ATTACHED
    os.replace(other, path)
    assert add_addresses(store, "a", SMALL, netns=str(path)) == ["10.9.0.2"]


def test_a_path_of_another_mount_namespace_is_not_judged(store: Store, tmp_path: Path) -> None:
    """There it may exist: the lease stays until DEL, GC with a list, or the next boot."""
    path = tmp_path / "ns"
    path.touch()
    add(store, "a", SMALL, netns=str(path))
    path.unlink()
    rewrite_lease(store, mount_ns="0:1")
    gc(store)
    assert set(leased(store).values()) == {"a"}


def test_a_path_that_leads_elsewhere_for_us_says_nothing(store: Store, tmp_path: Path) -> None:
    """The caller's namespace came as a descriptor, from other mounts: its path is not judged by ours."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.touch()
    theirs.touch()
    for name, opened in (("same", ours), ("other", theirs)):
        with opened.open() as file:
            one = call(name, netns=str(ours)).replace(netns_fd=file.fileno())
            plugin.add(one, netconf(SMALL), store)
    ours.unlink()
    gc(store)
    assert set(leased(store).values()) == {"other"}
