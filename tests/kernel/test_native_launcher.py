"""What concerns the launcher in C alone: it becomes another program, and it has to be compiled."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycni.cni.errors import Code
from pycni.exe import build_launcher
from pycni.exe.wire import Answer
from tests.kernel.launcher_lab import (
    NATIVE,
    Launcher,
    agent,
    answering,
    error_of,
    executable,
    installed,
    python_text,
    start,
)

pytestmark = pytest.mark.needs("tool:cc")


@pytest.fixture(scope="module", params=NATIVE)
def native(request: pytest.FixtureRequest) -> Iterator[Launcher]:
    with installed(request.param) as found:
        yield found


@pytest.fixture
def place(native: Launcher, tmp_path: Path) -> Launcher:
    """A launcher whose standalone plugin tells what it was given."""
    shutil.copy(native.path, tmp_path / "pycni-bridge")
    tell = "import posix; out = lambda text: posix.write(1, text + b'\\n'); out(posix.read(0, 99))"
    lines = ("[out(x.encode()) for x in sys.argv]", "out(open('/proc/self/environ', 'rb').read())")
    executable(tmp_path / "pycni-standalone", python_text(sys.executable, tell, *lines))
    return Launcher(native.kind, tmp_path)


class TestNativeLauncher:
    """What only the C launcher has to care about, because it becomes another program."""

    def test_standalone_gets_everything_untouched(self, place: Launcher) -> None:
        """Its own path, that of the executable, the environment string by string, and stdin from where it was."""
        environment = [b"PYCNI_SOCKET=", b"A=1", b"A=2", b"=", b"B=\xff"]
        ran = place.run(environment, stdin=b"config")
        paths = [bytes(place.place / "pycni-standalone"), bytes(place.path)]
        assert ran.out.split(b"\n") == [b"config", *paths, b"\0".join(environment) + b"\0", b""]

    def test_empty_environment_is_enough(self, place: Launcher) -> None:
        """Runtimes start plugins with CNI_* alone, and some people with nothing."""
        if os.path.exists("/run/pycni/agent.sock"):
            pytest.skip("an agent runs on this machine")
        ran = place.run([], stdin=b"config")
        assert ran.out.endswith(bytes(place.path) + b"\n\n")

    def test_sigpipe_is_what_it_was(self, place: Launcher) -> None:
        """A program that starts with SIGPIPE ignored keeps it so, and so would everything it starts."""
        executable(place.place / "pycni-standalone", "#!/bin/sh\ngrep SigIgn /proc/self/status\n")
        ignored = int(place.run([b"PYCNI_SOCKET="]).out.split()[1], 16)
        assert not ignored >> (signal.SIGPIPE - 1) & 1

    def test_missing_standalone_is_error_11(self, place: Launcher) -> None:
        """With what to do about it."""
        (place.place / "pycni-standalone").unlink()
        error = error_of(place.run([b"PYCNI_SOCKET="]))
        msg = "no pycni agent, and pycni-standalone beside the plugin cannot be run: try `pycni install`"
        assert error == {"code": Code.TRY_AGAIN, "msg": msg, "details": os.strerror(errno.ENOENT)}

    def test_launcher_that_was_just_replaced_knows_its_name(self, native: Launcher, tmp_path: Path) -> None:
        """/proc/self/exe says "(deleted)" of a file that an install has renamed another one over."""
        copy = shutil.copy(native.path, tmp_path / "pycni-bridge")
        fd = os.open(copy, os.O_RDONLY)
        os.unlink(copy)
        with agent(native.socket, answering(Answer(3))) as served:
            start(f"/proc/self/fd/{fd}", served.variables()).end()
        os.close(fd)
        assert served.heard[0].request.path() == str(copy)


class TestBuild:
    """The launcher as a file."""

    @pytest.mark.parametrize("linking", build_launcher.LINKING, ids=["bare", "static", "dynamic"])
    def test_source_compiles_without_a_warning(self, tmp_path: Path, linking: tuple[str, ...]) -> None:
        """Users see none, and a new compiler's opinion becomes known here."""
        strict = ["-Wpedantic", "-Wconversion", "-Wshadow", "-Werror", *linking]
        command = ["cc", *build_launcher.FLAGS, *strict, "-o", str(tmp_path / "launcher"), build_launcher.SOURCE]
        subprocess.run(command, check=True)

    def test_without_a_c_library_it_is_small(self, tmp_path: Path) -> None:
        """That is what is built first, and every page of it is read at each start."""
        path = build_launcher.build(str(tmp_path / "launcher"))
        assert path is not None
        assert os.path.getsize(path) < 40_000

    def test_errors_have_the_words_of_the_c_library(self) -> None:
        """Whoever searches for one finds it."""
        known = re.findall(r'\{(E[A-Z0-9]+), "([^"]+)"\}', Path(build_launcher.BARE).read_text())
        assert len(known) > 20
        assert known == [(name, os.strerror(getattr(errno, name))) for name, _ in known]

    def test_compiled_launcher_is_recognised(self, tmp_path: Path) -> None:
        """`pycni uninstall` must know its own files, and no others."""
        path = build_launcher.provide(str(tmp_path / "launcher"))
        assert path == str(tmp_path / "launcher")
        assert os.listdir(tmp_path) == ["launcher"]
        assert os.stat(path).st_mode & 0o777 == 0o755
        assert build_launcher.is_native_launcher(path)
        assert not build_launcher.is_native_launcher("/bin/true")
        assert not build_launcher.is_native_launcher(str(tmp_path / "missing"))

    def test_without_a_compiler_there_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`pycni install` then writes the Python launcher."""
        monkeypatch.setattr(build_launcher, "COMPILERS", ("pycni-no-such-compiler",))
        assert build_launcher.build(str(tmp_path / "launcher")) is None

    def test_compiler_that_fails_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Half a compiler, as without the C library's headers, counts as none."""
        monkeypatch.setattr(build_launcher, "SOURCE", "/dev/null")
        assert build_launcher.build(str(tmp_path / "launcher")) is None
        assert os.listdir(tmp_path) == []
