"""Write the bundle of modules that executables load (pycni.exe.bundle)."""

from __future__ import annotations

import ast
import marshal
import os
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader

from pycni.exe.bundle import HEAD, NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.exe.bundle import Table

#: What a plugin call may load; the agent, the command and the proxy have time.
PACKAGES = ("cni", "change", "firewall", "host", "store", "etcd", "attach", "ipam", "plugins", "portmap", "exe")
APART = ("portmap/proxy",)


def write_bundle(parent: str) -> bool:
    """Put the code of all modules of PACKAGES below *parent*/pycni into one file; False where it cannot be written."""
    package = os.path.join(parent, "pycni")
    table: Table = {}
    codes: list[bytes] = []
    at = 0
    modules = dict(_modules(package))
    for name, path in modules.items():
        seen = os.stat(path)  # before it is read: what changes in between is seen to have changed
        loader = SourceFileLoader(name, path)
        code = marshal.dumps(loader.get_code(name))  # out of its .pyc where that is fresh
        needed = tuple(one for one in _imports(loader.get_data(path)) if one in modules and one != name)
        table[name] = (path.endswith("/__init__.py"), path, seen.st_mtime_ns, seen.st_size, at, len(code), needed)
        codes.append(code)
        at += len(code)
    return _write(os.path.join(package, "exe", "__pycache__", NAME), table, codes)


def remove_bundle(parent: str) -> None:
    try:
        os.unlink(os.path.join(parent, "pycni", "exe", "__pycache__", NAME))
    except OSError:
        pass  # was never written, or cannot be


def _modules(package: str) -> Iterator[tuple[str, str]]:
    yield "pycni", f"{package}/__init__.py"
    for top in PACKAGES:
        for folder, folders, files in os.walk(os.path.join(package, top), followlinks=True):
            below = os.path.relpath(folder, package)
            folders[:] = [each for each in folders if os.path.join(below, each) not in APART]
            for file in files:
                if file.endswith(".py"):
                    parts = ["pycni", *below.split("/"), *([] if file == "__init__.py" else [file[:-3]])]
                    yield ".".join(parts), os.path.join(folder, file)


def _imports(source: bytes) -> dict[str, None]:
    """What is imported, or may be, when a module of that source is loaded: in its order, packages first."""
    found: dict[str, None] = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Import):
            names = [one.name for one in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            names = [statement.module, *(f"{statement.module}.{one.name}" for one in statement.names)]
        else:
            continue  # also what stands below `if TYPE_CHECKING:`
        for name in names:
            parts = name.split(".")
            found.update(dict.fromkeys(".".join(parts[:end]) for end in range(1, len(parts) + 1)))
    return found


def _write(path: str, table: Table, codes: list[bytes]) -> bool:
    fresh = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(fresh, "wb") as file:
            told = marshal.dumps(table)
            file.write(f"{len(told):<{HEAD}}".encode() + told + b"".join(codes))
        os.rename(fresh, path)
    except OSError:
        return False
    return True
