"""What `pycni doctor` says of the files in the network directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pycni.cli.doctor import network_files
from pycni.cli.doctor.finding import Finding

GOOD: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "br"}, {"type": "map"}]}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directories `net.d`, empty, and `bin` with the plugins `br` and `map`; nothing was ever installed."""
    for name in ("net.d", "bin"):
        (tmp_path / name).mkdir()
    for name in ("br", "map"):
        (tmp_path / "bin" / name).touch()
    monkeypatch.setattr(network_files, "read_manifest", dict)
    return tmp_path


def look(places: Path, files: dict[str, Any]) -> list[Finding]:
    """The findings once these files are there; their contents are text, or what JSON is made of."""
    for name, content in files.items():
        (places / "net.d" / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return list(network_files.check(str(places / "net.d"), [str(places / "bin")]))


def test_no_file(places: Path) -> None:
    """Nothing to say, with or without the directory."""
    for conf_dir in (str(places / "net.d"), str(places / "nowhere")):
        (finding,) = network_files.check(conf_dir, [])
        assert (finding.level, finding.found) == ("OK", f"none in {conf_dir}")


def test_the_first_in_name_order_is_told(places: Path) -> None:
    """Also before lists, and whatever else is in the directory."""
    single = {"cniVersion": "1.1.0", "name": "one", "type": "br"}
    (finding,) = look(places, {"10.conf": single, "20.conflist": GOOD, "00.bak": "{"})
    assert finding.level == "OK"
    assert finding.found == f"2 files, runtimes take the first: {places}/net.d/10.conf (network one)"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{ broken", "not JSON"),
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ({**GOOD, "name": ""}, "the list has no 'name'"),
        ({**GOOD, "plugins": []}, "no plugins in the list"),
        ({**GOOD, "plugins": [{"type": "br"}, {"type": "nosuch"}]}, "no plugin nosuch in "),
        ({**GOOD, "plugins": [{"type": "br", "ipam": {"type": "hostlocal"}}]}, "no plugin hostlocal in "),
        ({**GOOD, "cniVersion": "9.9.9"}, "9.9.9"),
        ({**GOOD, "cniVersion": "new"}, "cniVersion 'new'"),
    ],
)
def test_each_fault_of_a_file(places: Path, content: Any, said: str) -> None:
    """It is a failure of the file that runtimes take, and a warning of any other."""
    (finding,) = look(places, {"10.conflist": content})
    assert finding.level == "FAIL" and said in finding.found and "containerd" in finding.meaning
    assert finding.found.startswith(f"{places}/net.d/10.conflist: ")
    found = look(places, {"05.conflist": {**GOOD, "name": "first"}})
    assert [(one.level, said in one.found) for one in found] == [("WARN", True), ("OK", False)]


@pytest.mark.parametrize("ipam", [{}, {"type": "map"}, {"type": ""}, "odd", None])
def test_an_ipam_that_is_there_or_not_wanted(places: Path, ipam: Any) -> None:
    """What is wrong with its other keys the plugin says."""
    (finding,) = look(places, {"10.conflist": {**GOOD, "plugins": [{"type": "br", "ipam": ipam}]}})
    assert finding.level == "OK"


def test_two_files_of_one_network(places: Path) -> None:
    """Both are named."""
    other = {**GOOD, "name": "other"}
    twice, first = look(places, {"10.conflist": GOOD, "20.conflist": GOOD, "30.conflist": other})
    assert (twice.level, first.level) == ("WARN", "OK")
    assert twice.found == f"network net is in {places}/net.d/10.conflist and in {places}/net.d/20.conflist"
