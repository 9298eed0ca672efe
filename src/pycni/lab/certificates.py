"""An authority of the lab's own, made by the openssl program: certificates for etcd's members and for the hosts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence

from pycni.lab.errors import LabError
from pycni.lab.state import SYSTEM_PATH, tool

DAYS = "3650"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make_certificates(directory: str, addresses: Iterable[str]) -> None:
    """ca, server (for etcd's members at *addresses*) and client (for every host) below *directory*, .crt and .key."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if os.path.exists(os.path.join(directory, "client.crt")):
        return
    ca, key = os.path.join(directory, "ca.crt"), os.path.join(directory, "ca.key")
    _openssl("req", "-x509", *_NEW_KEY, "-keyout", key, "-out", ca, "-days", DAYS, "-subj", "/O=pycni lab")
    names = ",".join(f"IP:{address}" for address in addresses)
    # etcd is also a client of its own gateway, so its certificate must serve for both.
    _issue(directory, "server", f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth")
    _issue(directory, "client", "extendedKeyUsage=clientAuth")


def _issue(directory: str, name: str, extensions: str) -> None:
    path = os.path.join(directory, name)
    with open(f"{path}.ext", "w", encoding="ascii") as file:
        file.write(f"{extensions}\n")
    _openssl("req", *_NEW_KEY, "-keyout", f"{path}.key", "-out", f"{path}.csr", "-subj", f"/CN=lab-{name}")
    authority = ("-CA", os.path.join(directory, "ca.crt"), "-CAkey", os.path.join(directory, "ca.key"))
    files = ("-in", f"{path}.csr", "-extfile", f"{path}.ext", "-out", f"{path}.crt")
    _openssl("x509", "-req", *authority, "-CAcreateserial", "-days", DAYS, *files)


def _openssl(*arguments: str) -> None:
    argv: Sequence[str] = [tool("openssl"), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": SYSTEM_PATH}, check=False)
    if done.returncode:
        raise LabError("a certificate cannot be made", [" ".join(argv), *done.stderr.splitlines()])
