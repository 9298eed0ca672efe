"""What an executable loads when its network uses etcd: nothing heavy, and gRPC not at all."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.unit.test_import_budget import FORBIDDEN, SRC, modules_after

LOADED = ("pycni.exe.run", "pycni.cni.conf", "pycni.ipam.executable", "pycni.ipam.etcd_plugin", "pycni.etcd.gateway")
HINTS = ("pycni.etcd.hints",)


def test_call_on_etcd_loads_nothing_heavy() -> None:
    """The gateway's way has no http.client, json or ssl (which https brings), and no gRPC."""
    loaded = modules_after(*LOADED, *HINTS) - modules_after()
    assert loaded.isdisjoint({*FORBIDDEN, "http.client", "ssl", "grpc", "etcd3", "google.protobuf"})
    assert len({name for name in loaded if name.startswith("pycni")}) <= 52


def test_call_without_etcd_loads_none_of_it() -> None:
    """Those who do not use etcd pay nothing for it."""
    loaded = modules_after("pycni.exe.run", "pycni.cni.conf", "pycni.ipam.executable", "pycni.ipam.plugin")
    assert not [name for name in loaded if "etcd" in name]


@pytest.mark.parametrize("missing", ["etcd3", "grpc", "google.protobuf"])
def test_without_the_package(missing: str) -> None:
    """A resident process without the etcd3 package, or what it needs, uses the gateway; what needs more names it."""
    code = f"""
import sys
sys.path.append({str(SRC)!r})
if {missing!r} != "etcd3":
    sys.modules[{missing!r}] = None
from pycni.cni.errors import CniError
from pycni.etcd import connect
from pycni.etcd.conf import Endpoint, EtcdConf
conf = EtcdConf((Endpoint("127.0.0.1", 1, False),))
connect.keep_open()
print(type(connect.open_client(conf)).__name__)
try:
    connect._over_grpc(conf)
except CniError as failure:
    print(failure)
"""
    flags = "-IS" if missing == "etcd3" else "-I"  # S: nothing that is installed is found
    done = subprocess.run([sys.executable, flags, "-c", code], capture_output=True, text=True, check=True)
    kind, told = done.stdout.splitlines()
    assert kind == "Brief"
    assert told.startswith(f"etcd is configured, but {missing} is not installed: ")
    assert "pycni[etcd]" in told
