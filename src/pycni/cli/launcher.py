"""The file that every plugin executable is: launcher.c compiled, or some lines of Python that need no environment.

Runtimes start plugins with any environment, even an empty one, and from any directory. `-I -S -E` make Python ignore
PYTHON* variables, the working directory and site-packages, which also saves 2 ms; so the path of the package is written
into the file. It goes to the end of sys.path: in front, whatever lies beside pycni could shadow the standard library.

A process of some milliseconds leaves no garbage worth collecting, and taking its modules apart at the end costs more
than loading some of them did: without both a call takes a fifth less CPU time.
"""

from __future__ import annotations

import compileall
import os
import sys

import pycni
from pycni.cli.bundling import write_bundle
from pycni.cli.failure import Failure
from pycni.cni.errors import Code
from pycni.exe.build_launcher import is_native_launcher

FLAGS = "-ISE"
MARK = "# pycni launcher"
KINDS = ("c", "python", "standalone")  # asks the agent first, natively or in Python; never asks it
STANDALONE_MODULE = "pycni.exe.start"
CLIENT_MODULE = "pycni.exe.client"  # the agent's, and where none listens the other one
SHEBANG_LIMIT = 127  # BINPRM_BUF_SIZE - 1 before Linux 5.1 (linux/binfmts.h); 255 since then


def interpreter() -> str:
    """The Python to write into the shebang: the one that runs us, without its virtual environment.

    The plugins need only the standard library, and a virtual environment adds 7 ms to every start.
    """
    return getattr(sys, "_base_executable", "") or sys.executable


def package_parent() -> str:
    """The absolute directory that holds the pycni package."""
    return os.path.dirname(os.path.dirname(os.path.abspath(str(pycni.__file__))))


def launcher_text(python: str, parent: str, module: str = STANDALONE_MODULE) -> str:
    """A Python launcher of *module*; Failure when no kernel line could start that interpreter."""
    shebang = f"#!{python} {FLAGS}"
    # The kernel splits the line at the first blank and cuts it at its limit without a word (fs/binfmt_script.c).
    if not os.path.isabs(python) or any(char.isspace() for char in python):
        raise Failure(f"the interpreter {python!r} cannot stand in a #! line", next_step=_LINK_STEP)
    if len(os.fsencode(shebang)) > SHEBANG_LIMIT:
        reason = f"the line would be {len(os.fsencode(shebang))} bytes, kernels before 5.1 read {SHEBANG_LIMIT}"
        raise Failure(f"the interpreter's path is too long: {python}", details=reason, next_step=_LINK_STEP)
    return "\n".join(
        (
            shebang,
            f"{MARK}: the name it is called by says which plugin it is; `pycni uninstall` removes it",
            "import gc, posix, sys",
            "gc.disable()",
            f"sys.path.append({parent!r})",
            "try:",
            f"    from {module} import main",
            "except ImportError as failure:  # between two versions, or removed without `pycni uninstall`",
            "    import json",
            f"    told = {{'code': {Code.TRY_AGAIN}, 'msg': {_NOT_WHOLE + parent!r}, 'details': str(failure)}}",
            "    print(json.dumps(told, indent=4))",
            "    sys.exit(1)",
            "code = main()",
            "sys.stderr.flush()",
            "posix._exit(code)",
            "",
        )
    )


_NOT_WHOLE = "pycni is being replaced, or was removed: repeat the call, or run `pycni install`; it was looked for in "
_LINK_STEP = (
    "make a link such as /usr/local/bin/pycni-python to it and run `/usr/local/bin/pycni-python -m pycni install`"
)


def is_launcher(path: str) -> bool:
    """Whether *path* itself (not what it links to) is a launcher of ours, of whatever kind and version."""
    return _is_python_launcher(path) or is_native_launcher(path)


def _is_python_launcher(path: str) -> bool:
    try:
        if os.path.islink(path):
            return False
        with open(path, "rb") as file:
            head = file.read(2 * SHEBANG_LIMIT + len(MARK))
    except OSError:
        return False
    return head.startswith(b"#!") and b"\n" + MARK.encode() in head


def compile_package(parent: str) -> bool:
    """Write the bytecode of the whole package, so that no call compiles it, and the bundle of what calls load; False
    where it cannot be written."""
    complete = True
    package = os.path.join(parent, "pycni")
    for folder, names, _ in os.walk(package, followlinks=True):  # compileall does not follow links to directories
        names[:] = [name for name in names if name != "__pycache__"]
        complete = bool(compileall.compile_dir(folder, maxlevels=0, quiet=2)) and complete
    return write_bundle(parent) and complete
