"""The result cache is libcni's, byte for byte where it matters."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from pycni.cli.cache import (
    CachedAttachment,
    all_cached,
    cache_file,
    forget_cached,
    is_corrupt,
    read_cached,
    write_cached,
)

KEY = ("net", "c-1", "eth0")
# As libcni's cacheAdd writes it (json.Marshal of cachedInfo: []byte becomes base64).
BY_LIBCNI = {
    "kind": "cniCacheV1",
    "containerId": "c-1",
    "config": base64.b64encode(b'{"name":"net"}').decode(),
    "ifName": "eth0",
    "networkName": "net",
    "netns": "/run/netns/x",
    "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "prod"], ["K8S_POD_NAME", "web-0"]],
    "capabilityArgs": {"aliases": {"net": ["frontend"]}},
    "result": {"cniVersion": "1.0.0", "ips": []},
}


def attachment(**changes: object) -> CachedAttachment:
    base = CachedAttachment(network="net", container_id="c-1", ifname="eth0", config=b"{}", netns="/run/netns/x")
    return base.replace(**changes)


def put(directory: Path, content: object, name: str = "net-c-1-eth0") -> None:
    (directory / "results").mkdir(exist_ok=True)
    (directory / "results" / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_runtimes_attachment_is_understood(tmp_path: Path) -> None:
    """What libcni wrote reads as network, ids, arguments, configuration and result."""
    put(tmp_path, BY_LIBCNI)
    found = read_cached(str(tmp_path), *KEY)
    assert found is not None
    assert found.config == b'{"name":"net"}'
    assert found.args[2] == ("K8S_POD_NAME", "web-0")
    assert found.result == BY_LIBCNI["result"]
    assert set(found.names) == {"frontend", "web-0", "prod/web-0"}


def test_ours_has_the_form_of_libcni(tmp_path: Path) -> None:
    """Same keys and types; empty optional ones are left out as Go's omitempty does; for root's eyes only."""
    write_cached(str(tmp_path), attachment(args=(("IP", "10.1.0.5"),), result={"cniVersion": "1.0.0"}))
    path = tmp_path / "results" / "net-c-1-eth0"
    assert json.loads(path.read_text()) == {
        "kind": "cniCacheV1",
        "containerId": "c-1",
        "config": "e30=",
        "ifName": "eth0",
        "networkName": "net",
        "netns": "/run/netns/x",
        "cniArgs": [["IP", "10.1.0.5"]],
        "result": {"cniVersion": "1.0.0"},
    }
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert os.listdir(path.parent) == ["net-c-1-eth0"]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """A round trip changes nothing, and forgetting it twice is fine."""
    one = attachment(capability_args={"ips": ["10.1.0.9"]}, result={"cniVersion": "1.0.0"})
    write_cached(str(tmp_path), one)
    assert read_cached(str(tmp_path), *KEY) == one
    assert all_cached(str(tmp_path)) == [one]
    forget_cached(str(tmp_path), *KEY)
    forget_cached(str(tmp_path), *KEY)
    assert all_cached(str(tmp_path)) == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        {"kind": "cniCacheV2"},
        {**BY_LIBCNI, "config": "***"},
        {**BY_LIBCNI, "config": 5},
        {**BY_LIBCNI, "ifName": None},
        {**BY_LIBCNI, "cniArgs": [["one"]]},
        {**BY_LIBCNI, "result": []},
        {**BY_LIBCNI, "capabilityArgs": [1]},
        {**BY_LIBCNI, "netns": 3},
    ],
)
def test_a_corrupt_file_is_none_and_known_as_such(tmp_path: Path, content: object) -> None:
    """Power loss, other formats, nonsense: no exception, no attachment."""
    put(tmp_path, content)
    assert read_cached(str(tmp_path), *KEY) is None
    assert is_corrupt(str(tmp_path), *KEY)
    assert all_cached(str(tmp_path)) == []


def test_a_file_that_is_missing_is_not_corrupt(tmp_path: Path) -> None:
    """No file is no trouble."""
    assert read_cached(str(tmp_path), *KEY) is None
    assert not is_corrupt(str(tmp_path), *KEY)


def test_an_attachment_of_another_with_the_same_file_name_is_not_taken(tmp_path: Path) -> None:
    """ "a-b"+"c" and "a"+"b-c" share a file; whose it is stands inside."""
    write_cached(str(tmp_path), attachment(network="a-b", container_id="c", ifname="eth0"))
    assert cache_file(str(tmp_path), "a", "b-c", "eth0") == cache_file(str(tmp_path), "a-b", "c", "eth0")
    assert read_cached(str(tmp_path), "a", "b-c", "eth0") is None
    assert read_cached(str(tmp_path), "a-b", "c", "eth0") is not None


def test_left_temporary_files_are_passed_over(tmp_path: Path) -> None:
    """A writer killed before its rename leaves a file that nobody takes for an attachment."""
    put(tmp_path, BY_LIBCNI, "net-c-1-eth0.77.pycni-tmp")
    assert all_cached(str(tmp_path)) == []


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """Where the file cannot be put in place the error comes through and no temporary file stays."""
    (tmp_path / "results" / "net-c-1-eth0").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_cached(str(tmp_path), attachment())
    assert os.listdir(tmp_path / "results") == ["net-c-1-eth0"]
