"""An authority of its own for one test cluster: server and client certificates, made by the openssl program."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from .holder import tool, tool_path

DAYS = "2"


class Authority:
    """Certificates below *directory*: `ca`, `server()` for the members, `client(name)` for who connects."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self.ca = directory / f"{name}.crt"
        self._key = directory / f"{name}.key"
        directory.mkdir(parents=True, exist_ok=True)
        made = (*_NEW_KEY, "-keyout", str(self._key), "-out", str(self.ca))
        _openssl("req", "-x509", *made, "-days", DAYS, "-subj", "/O=test authority")

    def server(self, addresses: Sequence[str]) -> tuple[Path, Path]:
        """Certificate and key for members at *addresses*; etcd also uses it as a client of its own gateway."""
        names = ",".join(f"IP:{address}" for address in dict.fromkeys(addresses))
        return self._issue("server", "/O=test server", f"subjectAltName={names}")

    def client(self, name: str) -> tuple[Path, Path]:
        """Certificate and key for a client; its common name is the user that etcd takes it for."""
        return self._issue(f"client-{name}", f"/CN={name}", "extendedKeyUsage=clientAuth")

    def _issue(self, file: str, subject: str, extension: str) -> tuple[Path, Path]:
        certificate, key = self.directory / f"{file}.crt", self.directory / f"{file}.key"
        if certificate.exists():
            return certificate, key
        request, extensions = self.directory / f"{file}.csr", self.directory / f"{file}.ext"
        extensions.write_text(f"{extension}\n")
        _openssl("req", *_NEW_KEY, "-keyout", str(key), "-out", str(request), "-subj", subject)
        signed = ("-CA", str(self.ca), "-CAkey", str(self._key), "-CAcreateserial", "-days", DAYS)
        _openssl("x509", "-req", "-in", str(request), *signed, "-extfile", str(extensions), "-out", str(certificate))
        return certificate, key


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str) -> None:
    argv = [tool("openssl"), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": tool_path()}, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
