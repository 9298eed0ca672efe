"""The bundle of modules: it gives what the files would, and nothing that is older than they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pycni
from pycni.cli.bundling import remove_bundle, write_bundle
from pycni.exe.bundle import NAME

SHOW = """
import sys; sys.path.append(sys.argv[1])
if sys.argv[2:]:
    import _thread
    lock = _thread.allocate_lock()
    lock.acquire()
    _thread.start_new_thread(lock.acquire, ())
    while not _thread._count(): pass
from pycni.exe.start import main
from pycni.plugins.bridge import plan
from pycni.portmap import proxy
print(*(f"{module.__name__} {module.__spec__.loader.__class__.__name__} {module.__file__}"
        for name, module in sys.modules.items() if name.startswith("pycni")), sep="\\n")
print("found", getattr(plan, "MARK", ""))
"""
# What the import system tells a module of itself, and a package of its modules.
KNOW = """
import sys; sys.path.append(sys.argv[1])
from pycni.exe.start import main
from pycni.plugins.bridge import add
for name, module in list(sys.modules.items()):
    if name.startswith("pycni."):
        spec = module.__spec__
        above, _, last = name.rpartition(".")
        print(name, module.__name__, module.__package__, module.__file__, getattr(module, "__path__", None),
            spec.name, spec.origin, spec.parent, spec.has_location, spec.submodule_search_locations,
            module.__loader__ is spec.loader, getattr(sys.modules[above], last, None) is module)
"""


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package as it is installed: no links, and without what only the command loads."""
    made = tmp_path_factory.mktemp("site")
    skip = shutil.ignore_patterns("__pycache__", "cli", "lab", "agent")
    shutil.copytree(Path(pycni.__file__).parent, made / "pycni", ignore=skip)
    return made


def said(script: str, *words: str) -> list[str]:
    argv = [sys.executable, "-ISE", "-c", script, *words]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


def loaded(parent: Path, *words: str) -> dict[str, tuple[str, str]]:
    """Of each module the class of its loader and its file; of "found" what is marked. With a word, of a process that
    has another thread."""
    lines = said(SHOW, str(parent), *words)
    return {name: (loader, file) for name, loader, file in ((*line.split(" "), "")[:3] for line in lines)}


@contextmanager
def edited(source: Path, line: str) -> Iterator[None]:
    """A further line at the end of *source*, for as long as the block takes."""
    text = source.read_text()
    source.write_text(f"{text}\n{line}\n")
    try:
        yield
    finally:
        source.write_text(text)


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


def test_what_a_module_knows_of_itself_is_what_it_always_knows(parent: Path) -> None:
    """Also where the import system was not asked."""
    remove_bundle(str(parent))
    plain = said(KNOW, str(parent))
    assert write_bundle(str(parent))
    assert sorted(said(KNOW, str(parent))) == sorted(plain)
    assert len(plain) > 30


def test_next_to_another_thread_the_import_system_loads_all(parent: Path) -> None:
    """It has a thread wait for a module that another one is loading."""
    assert write_bundle(str(parent))
    assert loaded(parent, "thread") == loaded(parent)


def test_a_module_that_fails_is_not_there_and_fails_again(parent: Path) -> None:
    """What it raised comes through those that need it; none of them stays half loaded."""
    with edited(parent / "pycni/plugins/bridge/plan.py", "raise MemoryError('here')"):
        assert write_bundle(str(parent))
        script = (
            "import sys; sys.path.append(sys.argv[1])\nfrom pycni.exe.start import main\n"
            "for _ in range(2):\n"
            " try: import pycni.plugins.bridge.add\n"
            " except MemoryError as failure: print(failure)\n"
            "print([name for name in sys.modules if name.startswith('pycni.plugins.bridge.')])"
        )
        assert said(script, str(parent)) == ["here", "here", "[]"]


def test_a_module_that_changed_is_read_anew(parent: Path) -> None:
    """An upgrade or an editor: what the file says now counts, also where the bundle cannot be written again."""
    assert write_bundle(str(parent))
    with edited(parent / "pycni/plugins/bridge/plan.py", "MARK = 'new'"):
        changed = loaded(parent)
        assert changed["found"][0] == "new"
        assert changed["pycni.plugins.bridge.plan"][0] == "SourceFileLoader"
        assert changed["pycni.cni.errors"][0] == "Finder"


def test_one_that_another_version_wrote_is_as_none(parent: Path) -> None:
    """It may have another form."""
    assert write_bundle(str(parent))
    with edited(parent / "pycni/exe/bundle.py", "# newer"):
        assert loaded(parent)["pycni.plugins.bridge.plan"][0] == "SourceFileLoader"


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
