"""Where an executable begins that does the work by itself."""

from __future__ import annotations

from pycni.exe import bundle

bundle.install()

from pycni.exe.run import main  # noqa: E402 - out of the bundle

__all__ = ["main"]
