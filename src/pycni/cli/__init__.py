"""The command line. No plugin call loads this package, so it may import what it likes."""

from __future__ import annotations

from pycni.cli.entry import run as main

__all__ = ["main"]
