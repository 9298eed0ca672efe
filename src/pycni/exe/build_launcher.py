"""The native launcher as a file: the one that came with the wheel, or compiled here from launcher.c."""

from __future__ import annotations

import os

from pycni.host import program

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.c")
PREBUILT = os.path.join(os.path.dirname(SOURCE), "launcher")  # in wheels that have one; setup.py puts it there
MARK = b"# pycni launcher"  # in launcher.c as in the Python launcher's second line
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O2", "-Wall", "-Wextra")
SIZE_LIMIT = 4 * 1024 * 1024  # bytes; a static one has 0.8 MB


def provide(target: str) -> str | None:
    """Put a native launcher at *target* (mode 0755) and return it; None where none came along and none can be compiled.

    Whether this machine can run it is for the caller to try. OSError if *target* cannot be written.
    """
    try:
        with open(PREBUILT, "rb") as file:
            image = file.read()
    except FileNotFoundError:
        return build(target)
    with open(target, "wb") as file:
        file.write(image)
    os.chmod(target, 0o755)
    return target


def build(target: str, *, may_be_dynamic: bool = True) -> str | None:
    """Compile launcher.c to *target*, which then has mode 0755; None if there is no compiler or it fails.

    Static where the C library allows it: 0.1 ms less at each start, and it runs on any Linux of the architecture.
    """
    compiler = next(filter(None, map(program.find, COMPILERS)), None)
    if compiler is None or not os.path.exists(SOURCE):
        return None
    unfinished = f"{target}.{os.getpid()}.pycni-tmp"
    try:
        for linking in (("-static",), ()) if may_be_dynamic else (("-static",),):
            status, _, _ = program.run([compiler, *FLAGS, *linking, "-o", unfinished, SOURCE])
            if status == 0:
                os.chmod(unfinished, 0o755)  # whatever the umask
                os.rename(unfinished, target)
                return target
    finally:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
    return None


def is_native_launcher(path: str) -> bool:
    """Whether *path* itself (not what it links to) is a native launcher of ours, of whatever version."""
    try:
        if os.path.islink(path) or os.path.getsize(path) > SIZE_LIMIT:
            return False
        with open(path, "rb") as file:
            image = file.read()
    except OSError:
        return False
    return image.startswith(b"\x7fELF") and MARK in image
