"""The bundle of modules: it gives what the files would, and nothing that is older than they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pycni
from pycni.cli.bundling import remove_bundle, write_bundle
from pycni.exe.bundle import NAME

SHOW = """
import sys; sys.path.append(sys.argv[1])
from pycni.exe.start import main
from pycni.plugins.bridge import plan
from pycni.portmap import proxy
print(*(f"{module.__name__} {module.__spec__.loader.__class__.__name__} {module.__file__}"
        for name, module in sys.modules.items() if name.startswith("pycni")), sep="\\n")
print("found", getattr(plan, "MARK", ""))
"""


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package as it is installed: no links, and without what only the command loads."""
    made = tmp_path_factory.mktemp("site")
    skip = shutil.ignore_patterns("__pycache__", "cli", "lab", "agent")
    shutil.copytree(Path(pycni.__file__).parent, made / "pycni", ignore=skip)
    return made


def loaded(parent: Path) -> dict[str, tuple[str, str]]:
    """Of each module the class of its loader and its file; of "found" what is marked."""
    argv = [sys.executable, "-ISE", "-c", SHOW, str(parent)]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    words = [(*line.split(" "), "")[:3] for line in lines]
    return {name: (loader, file) for name, loader, file in words}


def test_modules_come_out_of_it_and_know_their_files(parent: Path) -> None:
    """All but the two that are needed to open it, and those that no call loads; the same modules as without."""
    remove_bundle(str(parent))
    plain = loaded(parent)
    assert {loader for name, (loader, _) in plain.items() if name != "found"} == {"SourceFileLoader"}
    assert write_bundle(str(parent))
    bundled = loaded(parent)
    assert {name: file for name, (_, file) in bundled.items()} == {name: file for name, (_, file) in plain.items()}
    by_hand = {name for name, (loader, _) in bundled.items() if loader == "SourceFileLoader"}
    assert by_hand == {"pycni", "pycni.exe", "pycni.exe.bundle", "pycni.exe.start", "pycni.portmap.proxy"}
    assert bundled["pycni.plugins.bridge.plan"][0] == "Finder"


def test_a_module_that_changed_is_read_anew(parent: Path) -> None:
    """An upgrade or an editor: what the file says now counts, also where the bundle cannot be written again."""
    assert write_bundle(str(parent))
    source = parent / "pycni/plugins/bridge/plan.py"
    text = source.read_text()
    source.write_text(text + "\nMARK = 'new'\n")
    try:
        changed = loaded(parent)
        assert changed["found"][0] == "new"
        assert changed["pycni.plugins.bridge.plan"][0] == "SourceFileLoader"
        assert changed["pycni.cni.errors"][0] == "Finder"
    finally:
        source.write_text(text)


@pytest.mark.parametrize("content", [b"", b"12", b"999999          ", b"5               N", b"not a number at all"])
def test_a_damaged_one_is_as_none(parent: Path, content: bytes) -> None:
    """Whatever lies there, calls work."""
    (parent / "pycni/exe/__pycache__" / NAME).write_bytes(content)
    assert loaded(parent)["pycni.plugins.bridge.plan"][0] == "SourceFileLoader"


def test_where_it_cannot_be_written_that_is_told(tmp_path: Path) -> None:
    """A file in place of the directory; nothing half written stays."""
    (tmp_path / "pycni" / "exe").mkdir(parents=True)
    (tmp_path / "pycni" / "__init__.py").write_text("")
    (tmp_path / "pycni" / "exe" / "__pycache__").write_text("")
    assert not write_bundle(str(tmp_path))
    assert sorted(os.listdir(tmp_path / "pycni" / "exe")) == ["__pycache__"]
