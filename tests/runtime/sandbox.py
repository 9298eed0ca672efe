"""The network namespace of a container that a runtime made, for the probes and servers of netns_fixtures."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from netns_fixtures import Namespace

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Sandbox(Namespace):
    """The namespace that the runtime bound to *file*, as seen from here. It is not ours: nothing is killed with it."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self.path = str(file)

    def argv(self, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        return ["nsenter", f"--net={self.path}", "--", *[os.fspath(word) for word in argv]]

    def in_namespace(self, work: Callable[[], T]) -> T:
        """What *work* returns or raises, on a thread inside that ends with it."""
        results: list[T] = []
        failures: list[BaseException] = []

        def enter_and_work() -> None:
            try:
                with open(self.path, "rb") as namespace:
                    if _libc.setns(namespace.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"setns to {self.path}")
                results.append(work())
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=enter_and_work, name=f"in {self.name}", daemon=True)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        return results[0]

    def delete(self) -> None:
        """The runtime does that."""
