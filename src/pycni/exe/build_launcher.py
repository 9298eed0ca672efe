"""The native launcher as a file: the one that came with the wheel, or compiled here from launcher.c."""

from __future__ import annotations

import os

from pycni.host import program

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.c")
BARE = os.path.join(os.path.dirname(SOURCE), "bare.c")  # what it needs of a C library, for some processors
PREBUILT = os.path.join(os.path.dirname(SOURCE), "launcher")  # in wheels that have one; setup.py puts it there
MARK = b"# pycni launcher"  # in launcher.c as in the Python launcher's second line
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O2", "-Wall", "-Wextra")
# Without a C library, then with all of one, then with one that it finds when it starts. Each is tried where the one
# before cannot be had. Compilers of distributions add what needs their library: a stack protector, checked functions.
BARE_FLAGS = ("-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-U_FORTIFY_SOURCE", BARE)
LINKING: tuple[tuple[str, ...], ...] = (BARE_FLAGS, ("-static",), ())
SIZE_LIMIT = 4 * 1024 * 1024  # bytes; with a C library in it it has 0.8 MB, without 0.02


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

    Without a C library it starts in 0.1 ms instead of 0.4 (in a virtual machine, docs/decisions/0016), static ones run
    on any Linux of the architecture.
    """
    compiler = next(filter(None, map(program.find, COMPILERS)), None)
    if compiler is None or not os.path.exists(SOURCE):
        return None
    unfinished = f"{target}.{os.getpid()}.pycni-tmp"
    try:
        for linking in LINKING if may_be_dynamic else LINKING[:-1]:
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
