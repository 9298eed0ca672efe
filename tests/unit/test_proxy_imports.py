"""What the userland proxy loads: memory that every host with one such port pays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
FORBIDDEN = {
    *("argparse", "asyncio", "collections", "contextlib", "dataclasses", "enum", "json", "logging", "pathlib", "re"),
    *("signal", "socket", "subprocess", "tempfile", "threading", "traceback", "typing"),
}
OWN_MOST, OTHER_MOST = 22, 24  # modules beyond those of a bare interpreter


def modules_after(code: str) -> frozenset[str]:
    argv = [sys.executable, "-I", "-S", "-c", f"import sys; {code}; print(*sys.modules)", str(SRC)]
    return frozenset(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())


def test_proxy_loads_little() -> None:
    """Each megabyte counts against docker-proxy's 0.8 for a port; and it has no use for any of these."""
    loaded = modules_after("sys.path.append(sys.argv[1]); import pycni.portmap.proxy.process") - modules_after("pass")
    ours = {name for name in loaded if name.partition(".")[0] == "pycni"}
    assert loaded.isdisjoint(FORBIDDEN)
    assert len(ours) <= OWN_MOST, sorted(ours)
    assert len(loaded - ours) <= OTHER_MOST, sorted(loaded - ours)


def test_proxy_starts_from_its_file_alone() -> None:
    """As the agent starts it: no site directory, no environment, no working directory."""
    main = SRC / "pycni/portmap/proxy/__main__.py"
    ran = subprocess.run(
        [sys.executable, "-I", "-S", str(main)], env={}, cwd="/", capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (2, "usage: __main__.py --control PATH|FD [--uid N]\n")
