"""What is packaged: every module of the tree, under the names that are imported, and a command that runs."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"src/pycni": "pycni", "plugins": "pycni/plugins", "ipam": "pycni/ipam", "portmap": "pycni/portmap"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a clean copy, as a release is: the sdist first, the wheel from it."""
    source = tmp_path_factory.mktemp("source") / "pycni"
    out = tmp_path_factory.mktemp("dist")
    files = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, files):
        if (ROOT / name).exists() or (ROOT / name).is_symlink():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-P", "-p", ROOT / name, source / name], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (found,) = out.glob("*.whl")
    return found


def modules_of_the_tree() -> Iterator[str]:
    for folder, name in PACKAGES.items():
        for path in (ROOT / folder).rglob("*.py"):
            inside = path.relative_to(ROOT / folder)
            if folder == "src/pycni" and inside.parts[0] in ("plugins", "ipam", "portmap"):
                continue  # the same files again, through the links
            yield f"{name}/{inside}"


def test_the_wheel_holds_every_module_of_the_tree(wheel: Path) -> None:
    """The three top-level folders come in by symbolic links, which not every build backend follows."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".py")}
    assert packed == set(modules_of_the_tree())


def test_the_wheel_says_that_it_is_typed_and_how_it_may_be_used(wheel: Path) -> None:
    """py.typed and the licence are in it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "pycni/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    """In an empty environment, away from the tree, the command starts and a plugin answers VERSION."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True, capture_output=True)
    said = subprocess.run(
        [tmp_path / "venv/bin/pycni", "--version"], check=True, capture_output=True, text=True, cwd=tmp_path, env={}
    )
    assert said.stdout.startswith("pycni ")
    code = "import sys; sys.argv = ['bridge']; from pycni.exe.run import main; sys.exit(main())"
    answer = subprocess.run(
        [python, "-I", "-c", code],
        check=True, capture_output=True, text=True, cwd=tmp_path, env={"CNI_COMMAND": "VERSION"},
    )  # fmt: skip
    assert '"supportedVersions"' in answer.stdout
