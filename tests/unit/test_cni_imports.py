"""What the protocol layer costs at the start of every plugin call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
PROTOCOL = "import pycni.cni.conf, pycni.cni.env, pycni.cni.result, pycni.cni.names, pycni.cni.versions"


def modules_after(statement: str) -> set[str]:
    """Names of the modules that a bare interpreter has loaded after *statement*."""
    code = f"import sys; sys.path.insert(0, {str(SRC)!r}); {statement}; print('\\n'.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-ISE", "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_protocol_layer_loads_json_and_ipaddress_and_nothing_else() -> None:
    """A plugin is one process per call, so each further module is paid at every call of every plugin."""
    ours = modules_after(PROTOCOL) - modules_after("import json, ipaddress")
    assert {name for name in ours if name.split(".")[0] != "pycni"} <= {"__future__"}


def test_name_of_the_host_link_is_made_without_openssl() -> None:
    """`hashlib` would load OpenSSL (3 ms) for one hash."""
    use = "pycni.cni.names.host_link_name(pycni.cni.names.Attachment('a', 'b', 'c'))"
    assert "hashlib" not in modules_after(f"{PROTOCOL}; {use}")


def test_package_itself_loads_nothing() -> None:
    """pyproject.toml takes the version from it, and every import of a part passes through it."""
    assert modules_after("import pycni; pycni.__version__") - modules_after("pass") == {"pycni"}
