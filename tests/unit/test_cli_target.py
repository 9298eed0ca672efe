"""NETNS|CONTAINER means what a person expects, or says why not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pycni.cli import target
from pycni.cli.cache import CachedAttachment
from pycni.cli.failure import Failure
from pycni.cni.names import check_container_id


def cached(container_id: str, ifname: str = "eth0", **more: object) -> CachedAttachment:
    return CachedAttachment(network="net", container_id=container_id, ifname=ifname, config=b"{}").replace(**more)


KNOWN = [
    cached("aabbccdd11", args=(("K8S_POD_NAMESPACE", "prod"), ("K8S_POD_NAME", "web"))),
    cached("aabbccdd11", "eth1"),
    cached("aabbccee22", capability_args={"aliases": {"net": ["db"]}}),
    cached("web2"),
]


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in place of /run/netns."""
    monkeypatch.setattr(target, "NAMED_NETNS_DIR", str(tmp_path))
    return tmp_path


def test_a_name_a_path_and_a_pid(named: Path) -> None:
    """The three ways to say a namespace; a path is believed even if it is gone."""
    (named / "web").touch()
    by_name, _ = target.resolve_namespace("web")
    by_path, _ = target.resolve_namespace("/gone/ns")
    by_pid, _ = target.resolve_namespace(str(os.getpid()))
    assert by_name is not None
    assert (by_name.path, by_name.container_id) == (str(named / "web"), "web")
    assert by_path is not None
    assert by_path.path == "/gone/ns"
    assert by_pid is not None
    assert (by_pid.path, by_pid.container_id) == (f"/proc/{os.getpid()}/ns/net", f"pid-{os.getpid()}")


@pytest.mark.parametrize("text", ["", ".", "..", "nobody", "²"])
def test_what_is_no_namespace_says_what_was_tried(named: Path, text: str) -> None:
    """Nothing is found, and the places are listed."""
    where, tried = target.resolve_namespace(text)
    assert where is None
    assert tried[0] == f"namespace {named}/{text}"


def test_a_name_comes_before_a_pid(named: Path) -> None:
    """A namespace called like a number is that namespace."""
    (named / str(os.getpid())).touch()
    where, _ = target.resolve_namespace(str(os.getpid()))
    assert where is not None
    assert where.path == str(named / str(os.getpid()))


@pytest.mark.parametrize(
    "path", ["/run/netns/web", "/var/run/netns/web", "/proc/12/ns/net", "/proc/12/fd/9", "/x/..", "/run/netns/.a"]
)
def test_a_made_up_container_id_is_always_legal(path: str) -> None:
    """Every path gives an id the protocol allows, the same each time."""
    made = target.derived_container_id(path)
    check_container_id(made)
    assert made == target.derived_container_id(path)


def test_one_namespace_has_one_id_however_its_directory_is_spelt() -> None:
    """/var/run is /run."""
    assert target.derived_container_id("/var/run/netns/web") == target.derived_container_id("/run/netns/web") == "web"
    assert target.same_path("/var/run/netns/a", "/run/netns//a")
    assert not target.same_path("", "")


@pytest.mark.parametrize(
    ("text", "container"),
    [
        ("aabbccdd11", "aabbccdd11"),
        ("web", "aabbccdd11"),
        ("prod/web", "aabbccdd11"),
        ("db", "aabbccee22"),
        ("aabbccd", "aabbccdd11"),
    ],
)
def test_a_container_is_found_by_id_name_and_beginning(text: str, container: str) -> None:
    """An exact id first, then a name, then the beginning of an id; all its attachments come."""
    found = target.find_attachments(text, KNOWN)
    assert {one.container_id for one in found} == {container}


def test_a_beginning_that_fits_two_is_refused_with_both() -> None:
    """Never a guess."""
    with pytest.raises(Failure) as caught:
        target.find_attachments("aabbcc", KNOWN)
    assert dict(caught.value.facts)["candidates"] == "aabbccdd11\naabbccee22"


def test_few_characters_are_no_beginning() -> None:
    """Three characters of an id are too easily a typing error."""
    assert target.find_attachments("aab", KNOWN) == []


def test_several_interfaces_need_a_word() -> None:
    """--ifname decides; without it the choice is shown."""
    both = target.find_attachments("aabbccdd11", KNOWN)
    assert target.choose_attachment("x", both, "eth1").ifname == "eth1"
    with pytest.raises(Failure, match="several attachments"):
        target.choose_attachment("x", both, None)
    with pytest.raises(Failure, match="no interface eth7"):
        target.choose_attachment("x", both, "eth7")


def test_a_mistyped_name_gets_the_near_one() -> None:
    """The hint is a known name."""
    failure = target.Unknown("wbe2", ["namespace /run/netns/wbe2"], KNOWN, "/var/lib/cni")
    assert failure.next_step == "did you mean web2?"
    assert "/run/netns/wbe2" in dict(failure.facts)["tried"]
