"""`pycni install` and `uninstall`: exact, atomic, and never over somebody else's file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pycni
from pycni.cli import install, main, manifest, uninstall
from pycni.cli.failure import Failure
from pycni.cli.launcher import interpreter, is_launcher, launcher_text, package_parent
from pycni.cni.names import Attachment
from pycni.exe import build_launcher
from pycni.store import Record

Run = Any


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs install or uninstall with directories of this test; attachments of the machine do not count."""
    monkeypatch.setattr(manifest, "MANIFEST", str(tmp_path / "state" / "install.json"))
    monkeypatch.setattr(uninstall, "read_records", list)

    def call(command: str, *more: str) -> int:
        where = ["--bin-dir", str(tmp_path / "bin")] if command == "install" else []
        where += ["--conf-dir", str(tmp_path / "conf")] if command == "install" else []
        return main([command, *where, *more])

    return call


def tree(root: Path) -> dict[str, bytes | str]:
    """Every file below *root* with its content, links with their target."""
    return {
        str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


PLUGINS = "bandwidth bridge firewall ipam loopback overlay portmap ptp static tuning".split()
NAMES = [f"pycni-{name}" for name in PLUGINS]
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
KINDS = [pytest.param("c", marks=needs_compiler), "python", "standalone"]


def about(path: Path) -> str:
    """What an executable says when nothing is around it: empty environment, working directory /."""
    return subprocess.run([path], env={}, cwd="/", capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize("kind", KINDS)
def test_an_executable_runs_with_nothing_around_it(run: Run, tmp_path: Path, kind: str) -> None:
    """It tells its name and version; all names are one file, and pycni-standalone stands beside them."""
    assert run("install", "--launcher", kind) == 0
    found = sorted(os.listdir(tmp_path / "bin"))
    assert found == sorted([*NAMES, "pycni-standalone"])
    assert len({(tmp_path / "bin" / name).stat().st_ino for name in NAMES}) == 1
    assert all(is_launcher(str(tmp_path / "bin" / name)) for name in found)
    assert "bridge" in about(tmp_path / "bin" / "pycni-bridge")
    assert f"pycni {pycni.__version__}" in about(tmp_path / "bin" / "pycni-bridge")


@pytest.mark.parametrize("gone", ["", "exe", "store", "cni/result.py"])
def test_a_call_while_the_package_is_replaced_is_told_to_try_again(tmp_path: Path, gone: str) -> None:
    """pip takes the old modules away before it writes the new ones: whichever is missing, no traceback and code 11."""
    shutil.copytree(Path(package_parent()) / "pycni", tmp_path / "pycni", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.move(tmp_path / "pycni" / gone, tmp_path / "away")
    launcher = tmp_path / "pycni-ipam"
    launcher.write_text(launcher_text(interpreter(), str(tmp_path)))
    launcher.chmod(0o755)
    call = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": str(tmp_path)}
    conf = json.dumps({"cniVersion": "1.0.0", "name": "net", "ipam": {"type": "pycni-ipam", "subnet": "10.1.0.0/24"}})
    done = subprocess.run([launcher], env=call, input=conf, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 11
    assert "repeat the call" in json.loads(done.stdout)["msg"]
    assert done.stderr == ""


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_replaces_another(run: Run, tmp_path: Path, kind: str) -> None:
    """All are known for ours, whichever was there before, and all of them go."""
    for other in ("standalone", kind, "python", kind):
        assert run("install", "--launcher", other) == 0
    assert (tmp_path / "bin" / "pycni-bridge").read_bytes().startswith(b"\x7fELF") == (kind == "c")
    assert run("uninstall") == 0
    assert tree(tmp_path) == {}


def test_the_best_launcher_that_runs_is_taken(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a compiler and a prebuilt one that is the Python launcher, with a warning; c alone is refused."""
    monkeypatch.setattr(build_launcher, "COMPILERS", ())
    monkeypatch.setattr(build_launcher, "PREBUILT", str(tmp_path / "none"))
    assert run("install", "--launcher", "c") == 1
    assert "no C compiler" in capsys.readouterr().err
    assert tree(tmp_path) == {}
    assert run("install") == 0
    assert "pycni.exe.client" in (tmp_path / "bin" / "pycni-bridge").read_text()
    assert "no native launcher" in capsys.readouterr().err


def test_a_prebuilt_launcher_that_does_not_run_here_is_not_taken(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of another architecture."""
    (tmp_path / "prebuilt").write_bytes(b"\x7fELF # pycni launcher")
    monkeypatch.setattr(build_launcher, "PREBUILT", str(tmp_path / "prebuilt"))
    assert run("install") == 0
    assert "pycni.exe.client" in (tmp_path / "bin" / "pycni-bridge").read_text()


def test_the_launcher_does_not_look_around() -> None:
    """Isolated, without site, and the package's directory behind the standard library."""
    first, *rest = launcher_text("/usr/bin/python3", "/opt/x").splitlines()
    assert first == "#!/usr/bin/python3 -ISE"
    assert "sys.path.append('/opt/x')" in rest


@pytest.mark.parametrize("python", ["/opt/my python/bin/python3", "python3", "/" + "x" * 130, "/a\tb/python"])
def test_an_interpreter_that_no_shebang_can_name_is_refused(python: str) -> None:
    """Blanks split the line, long ones are cut by the kernel: both before anything is written."""
    with pytest.raises(Failure) as caught:
        launcher_text(python, "/opt")
    assert "pycni-python" in caught.value.next_step


def test_the_default_network_is_one_that_everybody_reads(run: Run, tmp_path: Path) -> None:
    """cniVersion 1.0.0 for containerd 1.6, both families, our types; it parses as a network."""
    assert run("install") == 0
    conf = json.loads((tmp_path / "conf" / install.CONFLIST_NAME).read_text())
    assert conf["cniVersion"] == "1.0.0"
    plugin, ports = conf["plugins"]
    assert ports == {"type": "pycni-portmap", "capabilities": {"portMappings": True}}
    assert (plugin["type"], plugin["ipam"]["type"]) == ("pycni-bridge", "pycni-ipam")
    assert len(plugin["ipam"]["ranges"]) == 2


def test_uninstall_leaves_nothing(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was there before is all that is there after, directories included; a second time is fine."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "other").write_text("x")
    before = tree(tmp_path)
    assert run("install", "--replace") == 0
    assert "state/install.json" in tree(tmp_path)
    assert run("uninstall") == 0
    assert tree(tmp_path) == before
    assert not (tmp_path / "conf").exists()
    assert run("uninstall") == 0
    assert "nothing to undo" in capsys.readouterr().out


def test_without_replace_the_references_names_are_not_touched(run: Run, tmp_path: Path) -> None:
    """bridge stays what it was."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bridge").write_text("reference")
    assert run("install") == 0
    assert (tmp_path / "bin" / "bridge").read_text() == "reference"
    assert not (tmp_path / "bin" / "host-local").exists()


def test_replace_keeps_the_former_files_and_gives_them_back(run: Run, tmp_path: Path) -> None:
    """Files and links are kept aside and come back, also after installing twice."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bridge").write_text("reference")
    (tmp_path / "bin" / "loopback").symlink_to("/usr/lib/cni/loopback")
    before = tree(tmp_path)
    assert run("install", "--replace") == 0
    assert run("install", "--replace") == 0
    assert is_launcher(str(tmp_path / "bin" / "bridge"))
    assert is_launcher(str(tmp_path / "bin" / "host-local"))
    assert (tmp_path / "bin" / "bridge.pycni-saved").read_text() == "reference"
    assert run("uninstall") == 0
    assert tree(tmp_path) == before


@pytest.mark.parametrize("more", [(), ("--replace",)])
def test_a_foreign_file_under_our_own_name_stops_everything(run: Run, tmp_path: Path, more: tuple[str, ...]) -> None:
    """Nothing is written, whatever the options."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pycni-ipam").write_text("mine")
    before = tree(tmp_path)
    assert run("install", *more) == 1
    assert tree(tmp_path) == before


def test_a_launcher_that_does_not_run_stays_out(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried before any name is taken; nothing stays."""
    monkeypatch.setattr(install, "interpreter", lambda: "/bin/false")
    assert run("install", "--replace") == 1
    assert tree(tmp_path) == {}
    assert os.listdir(tmp_path) == []


def test_a_failure_half_way_is_taken_back(run: Run, tmp_path: Path) -> None:
    """A directory in the place of a file kept aside makes the last step fail; the first steps are undone."""
    (tmp_path / "bin" / "host-local.pycni-saved" / "x").mkdir(parents=True)
    (tmp_path / "bin" / "bridge").write_text("reference")
    (tmp_path / "bin" / "host-local").write_text("reference")
    before = tree(tmp_path)
    assert run("install", "--replace") == 1
    assert tree(tmp_path) == before


def test_what_others_changed_since_stays(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A package upgrade's bridge and an edited network are left and named."""
    assert run("install", "--replace") == 0
    (tmp_path / "bin" / "bridge").unlink()
    (tmp_path / "bin" / "bridge").write_text("upgraded")
    conflist = tmp_path / "conf" / install.CONFLIST_NAME
    conflist.write_text(conflist.read_text().replace("10.77", "10.78"))
    assert run("uninstall") == 1
    assert set(tree(tmp_path)) == {"bin/bridge", f"conf/{install.CONFLIST_NAME}"}
    assert "left: somebody replaced it since" in capsys.readouterr().out


def test_an_existing_network_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    """Neither by install nor removed by uninstall; --no-conf writes none."""
    assert run("install", "--no-conf") == 0
    assert not (tmp_path / "conf").exists()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / install.CONFLIST_NAME).write_text("mine")
    assert run("install") == 0
    assert run("uninstall") == 0
    assert tree(tmp_path) == {f"conf/{install.CONFLIST_NAME}": b"mine"}


def test_a_network_that_cannot_be_written_leaves_the_way_back(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with a read-only /etc: what is installed is said, and uninstall undoes it, former files included."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bridge").write_text("reference")
    (tmp_path / "conf").write_text("no directory")
    before = tree(tmp_path)
    assert run("install", "--replace") == 1
    said = capsys.readouterr().err
    assert "the executables are installed" in said
    assert "--no-conf" in said
    assert is_launcher(str(tmp_path / "bin" / "bridge"))
    assert run("uninstall") == 0
    assert tree(tmp_path) == before


def test_without_a_place_for_the_way_back_nothing_is_installed(run: Run, tmp_path: Path) -> None:
    """As with a read-only /var/lib: nobody could undo it later, so it is undone at once."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bridge").write_text("reference")
    (tmp_path / "state").symlink_to("/proc/nowhere")  # nothing is there, and nothing can be put there
    before = tree(tmp_path)
    assert run("install", "--replace") == 1
    assert tree(tmp_path) == before


def test_uninstall_refuses_while_containers_are_attached(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could detach them any more; --force says that this is wanted."""
    assert run("install") == 0
    monkeypatch.setattr(uninstall, "read_records", lambda: [Record(Attachment("net", "c1", "eth0"), "bridge")])
    assert run("uninstall") == 1
    assert is_launcher(str(tmp_path / "bin" / "pycni-bridge"))
    assert run("uninstall", "--force") == 0


def test_every_module_is_compiled(run: Run) -> None:
    """Those behind the links to plugins, ipam and portmap too: a call must never compile."""
    assert run("install") == 0
    package = Path(package_parent()) / "pycni"
    tag = sys.implementation.cache_tag
    for folder, _, names in os.walk(package, followlinks=True):
        for name in names:
            if name.endswith(".py"):
                assert (Path(folder) / "__pycache__" / f"{name[:-3]}.{tag}.pyc").exists()


def test_the_interpreter_is_not_the_virtual_environments() -> None:
    """Its start costs 7 ms more and gives the plugins nothing."""
    assert os.path.isabs(interpreter())
    words = [interpreter(), "-ISE", "-c", "import sys; print(sys.prefix == sys.base_prefix)"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
